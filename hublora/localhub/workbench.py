"""Work on strangers' text in processes of its own, which end when it takes too long or too much.

A thread cannot be stopped, and while it works in Python every other request waits for its turn. So
what may be slow is sent to a worker: a function by its name with its arguments, as pickles between
this process and its own child. A worker ends with its parent, whose end of the pipe closes.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pickle
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

WORKERS = 2
CPU_SECONDS = 3
WALL_SECONDS = 20.0  # where others keep the machine busy
MEMORY_BYTES = 1 << 30
MAX_JOB_BYTES = 64 << 20
_START_SECONDS = 60.0
_KEPT_BYTES = 16 << 20
_KEPT_SECONDS = 600.0
_LENGTH = 8


class TooMuchWork(Exception):
    """It was not done in time, within the memory, or at all."""


class Bench:
    """Some workers, begun when they are needed, and what they made last."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(None)
        self._made = _Made()

    def do(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Return what `function`, of the top level of a module, makes of its arguments.

        The same again within a while costs nothing, also when it was too much.

        Raises:
            TooMuchWork: It did not come to an end, or all workers are busy for as long.
        """
        job = pickle.dumps((function, args, named))
        if len(job) > MAX_JOB_BYTES:
            raise TooMuchWork(f"{len(job)} bytes are more than a worker takes")
        key = hashlib.sha256(job).digest()
        answer = self._made.get(key)
        if answer is None:
            answer = self._work(job)
            self._made.put(key, answer)
        done, value = pickle.loads(answer)
        if not done:
            raise TooMuchWork(value)
        return value

    def _work(self, job: bytes) -> bytes:
        try:
            worker = self._free.get(timeout=WALL_SECONDS)
        except queue.Empty:
            raise TooMuchWork("all workers are busy") from None
        try:
            worker = worker or _Worker()
            return worker.work(job, WALL_SECONDS)
        except (OSError, EOFError, TimeoutError) as problem:
            if worker:
                worker.end()
            worker = None
            return pickle.dumps((False, str(problem) or type(problem).__name__))
        finally:
            self._free.put(worker)


class _Made:
    """What was made last, up to some bytes and for some minutes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._size = 0

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            made, answer = self._answers.get(key, (0.0, None))
            if answer is None or time.monotonic() - made > _KEPT_SECONDS:
                return None
            self._answers.move_to_end(key)
            return answer

    def put(self, key: bytes, answer: bytes) -> None:
        with self._lock:
            _, before = self._answers.pop(key, (0.0, b""))
            self._size += len(answer) - len(before)
            self._answers[key] = (time.monotonic(), answer)
            while self._size > _KEPT_BYTES:
                _, (_, oldest) = self._answers.popitem(last=False)
                self._size -= len(oldest)


class _Worker:
    """A child process that does one job after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hublora.localhub.workbench"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        # It says when it has begun: that is not the first job's time.
        self._receive(time.monotonic() + _START_SECONDS)

    def work(self, job: bytes, seconds: float) -> bytes:
        """Return the answer to a job.

        Raises:
            TimeoutError, EOFError, OSError: There is none; the worker is of no more use.
        """
        assert self._process.stdin is not None
        ends = time.monotonic() + seconds
        self._process.stdin.write(len(job).to_bytes(_LENGTH) + job)
        self._process.stdin.flush()
        return self._receive(ends)

    def _receive(self, ends: float) -> bytes:
        length = int.from_bytes(self._read(_LENGTH, ends))
        return self._read(length, ends)

    def _read(self, count: int, ends: float) -> bytes:
        assert self._process.stdout is not None
        pipe, content = self._process.stdout.fileno(), bytearray()
        while len(content) < count:
            if not select.select([pipe], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise TimeoutError("it took too long")
            piece = os.read(pipe, min(1 << 20, count - len(content)))
            if not piece:
                raise EOFError("the worker ended")
            content += piece
        return bytes(content)

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        with contextlib.suppress(OSError):  # what could not be written any more
            self._process.communicate()


def main() -> None:
    """Do the jobs that come on stdin, until it closes."""
    import hublora.localhub.addresses  # noqa: F401 - what the jobs' functions and arguments are from

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints may get between the answers
    _answer(target, b"")
    while length := int.from_bytes(source.read(_LENGTH)):
        job = source.read(length)
        # Beyond it the kernel ends this process (SIGXCPU).
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        ends = math.ceil(time.process_time()) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (ends, hard))
        try:
            function, args, named = pickle.loads(job)
            answer = pickle.dumps((True, function(*args, **named)))
        except Exception as problem:
            answer = pickle.dumps((False, f"{type(problem).__name__}: {problem}"[:500]))
        _answer(target, answer)


def _answer(target: Any, content: bytes) -> None:
    target.write(len(content).to_bytes(_LENGTH) + content)
    target.flush()


BENCH = Bench()

if __name__ == "__main__":
    main()
