"""What adapters cost in memory: bringing one, changing to another, and each step with them.

Everything is measured with hublora's buffers and with diffusers' own calls, in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hublora.adapter_weights import Weight
from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.files import save_tensors
from hublora.adapters.layouts import to_diffusers
from hublora.generation.lora.manager import FittedAdapter, LoraManager, layer_shapes
from hublora.generation.lora.schedule import AdapterSchedule

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: Was measured.
        ours: With hublora.
        theirs: With what it is compared with.
        target: For the ratio of the two, in words.
        unit: Of both numbers.
    """

    what: str
    ours: float
    theirs: float
    target: str
    unit: str = "ms"

    def __str__(self) -> str:
        ratio = f"{self.ours / self.theirs:.3f}" if self.theirs else "–"
        return (
            f"| {self.what} | {self.ours:.4g} {self.unit} | {self.theirs:.4g} {self.unit} "
            f"| {ratio} | {self.target} |"
        )


def sdxl_unet(width: int, device: str, empty: bool) -> Any:
    """Return a U-Net with all layers of SDXL's.

    Args:
        width: Of its first block; 320 is SDXL's.
        device: Where to.
        empty: Leave its weights unset: whoever only moves adapters never touches them.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(width, 2 * width, 4 * width),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            norm_num_groups=16,
            cross_attention_dim=2048 * width // 320,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    unet = unet.to_empty(device=device).requires_grad_(False).eval()
    if not empty:
        generator = torch.Generator(device).manual_seed(0)
        for parameter in unet.parameters():
            parameter.data.normal_(0, 0.02, generator=generator)
    return unet


def pipeline_of(unet: Any) -> Any:
    """Return an SDXL pipeline that has a U-Net and nothing else."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    nothing = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    return StableDiffusionXLPipeline(unet=unet, scheduler=EulerDiscreteScheduler(), **nothing)


def random_adapter(unet: Any, rank: int, seed: int) -> Adapter:
    """Return an adapter of a U-Net's attention."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRank(
            torch.randn(rank, shape[1], generator=generator) * 0.02,
            torch.randn(shape[0], rank, generator=generator) * 0.02,
            rank,
        )
        for name, shape in layer_shapes(unet).items()
        if name.endswith(ATTENTION)
    }
    return Adapter({"unet": layers})


class Clock:
    """Milliseconds of a call: of this process's CPU where it computes on one."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._now = time.perf_counter if self._cuda else time.process_time

    def __call__(self, act: Callable[[], Any]) -> float:
        self._wait()
        start = self._now()
        act()
        self._wait()
        return 1000 * (self._now() - start)

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def medians(self, acts: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
        """Return the median of each, measured in turns, after one round that does not count."""
        for act in acts.values():
            act()
        found: dict[str, list[float]] = {name: [] for name in acts}
        for _ in range(rounds):
            for name, act in acts.items():
                found[name].append(self(act))
        return {name: statistics.median(times) for name, times in found.items()}


class Ours:
    """A U-Net with adapters as hublora puts them on."""

    def __init__(self, unet: Any, max_rank: int = 0) -> None:
        self.pipe = pipeline_of(unet)
        self.manager = LoraManager(self.pipe, max_rank)
        self.adapter_schedule = AdapterSchedule(self.manager, unet)

    def bring(self, adapter: Adapter) -> FittedAdapter:
        fitted = self.manager.fit(adapter, "it", "the base")
        self.activate(fitted)
        return fitted

    def activate(self, *parts: FittedAdapter, weight: float = 1.0) -> None:
        self.adapter_schedule.activate(parts, [Weight.of(weight)] * len(parts))


def switching(folder: Path, device: str) -> Iterator[Row]:
    """Change adapters on the real SDXL's layers, rank 16."""
    clock = Clock(device)
    ours = Ours(sdxl_unet(320, device, empty=True))
    theirs = pipeline_of(sdxl_unet(320, device, empty=True))
    adapters = [random_adapter(theirs.unet, 16, seed) for seed in range(2)]
    files = [_save(adapter, folder / f"{n}.safetensors") for n, adapter in enumerate(adapters)]
    one, other = (ours.bring(adapter) for adapter in adapters)
    flat = one.packed["unet"].flat
    buffer = torch.empty_like(flat, device=device)
    theirs.load_lora_weights(files[0], adapter_name="first")

    def switch_back_and_forth() -> None:
        ours.activate(other)
        ours.activate(one)

    def reload() -> None:
        theirs.delete_adapters("first")
        theirs.load_lora_weights(files[1], adapter_name="first")

    found = clock.medians(
        {"two": switch_back_and_forth, "reload": reload, "flat": lambda: buffer.copy_(flat)}, 7
    )
    size = f"{flat.nbytes / 1e6:.0f} MB, {2 * len(one.packed['unet'].layers)} tensors"
    yield Row(
        f"SDXL r16 ({size}): switch in memory, beside delete_adapters + load_lora_weights",
        found["two"] / 2, found["reload"], "≤ 0.1",
    )  # fmt: skip
    yield Row("the same, beside one flat copy of its bytes", found["two"] / 2, found["flat"], "≤ 4")


def bringing(device: str) -> Iterator[Row]:
    """Bring ten adapters of the real SDXL's size, one after the other."""
    clock = Clock(device)
    ours = Ours(sdxl_unet(320, device, empty=True))
    theirs = pipeline_of(sdxl_unet(320, device, empty=True))
    mine, other = [], []
    for number in range(10):
        adapter = random_adapter(theirs.unet, 16, number)
        state = to_diffusers(adapter)[0]
        mine.append(clock(lambda adapter=adapter: ours.bring(adapter)))
        other.append(
            clock(
                lambda state=state, name=f"a{number}_": theirs.load_lora_weights(
                    state, adapter_name=name
                )
            )
        )
    yield Row("SDXL r16, the first adapter: bring it, both from memory", mine[0], other[0], "")
    yield Row("the tenth", mine[9], other[9], "")
    yield Row("hublora's tenth beside its first", mine[9], mine[0], "≤ 1")
    yield Row("diffusers' tenth beside its first", other[9], other[0], "")


def stepping(device: str, rounds: int = 7) -> Iterator[Row]:
    """Predict with an SDXL whose layers are a quarter as wide, and ranks a quarter as large."""
    clock = Clock(device)
    unet = sdxl_unet(80, device, empty=False)
    inputs = _inputs(unet, device)
    ours, theirs = Ours(unet), pipeline_of(sdxl_unet(80, device, empty=False))
    theirs.unet.load_state_dict(unet.state_dict())
    adapters = [random_adapter(unet, 4, seed) for seed in range(10)]
    fitted = [ours.bring(adapter) for adapter in adapters]
    for number, adapter in enumerate(adapters):
        theirs.load_lora_weights(to_diffusers(adapter)[0], adapter_name=f"a{number}_")
    alone = Ours(sdxl_unet(80, device, empty=False))
    alone.bring(adapters[0])

    def predict(what: Any) -> None:
        with torch.inference_mode():
            what(**inputs)

    ours.activate(fitted[0])
    yield Row(
        "operations on tensors in a step, one adapter acts of ten in memory, beside one alone",
        operations(lambda: predict(ours.pipe.unet)),
        operations(lambda: predict(alone.pipe.unet)),
        "1",
        "",
    )
    times: dict[str, float] = {}
    for count in (1, 4):
        ours.activate(*fitted[:count], weight=0.5)
        theirs.set_adapters([f"a{n}_" for n in range(count)], [0.5] * count)
        measured = clock.medians(
            {
                "ours": lambda: predict(ours.pipe.unet),
                "theirs": lambda: predict(theirs.unet),
                "alone": lambda: predict(alone.pipe.unet),
            },
            rounds,
        )
        times |= {f"{name}{count}": value for name, value in measured.items()}
    yield Row(
        "a step, one adapter acts of ten in memory, beside one that is alone",
        times["ours1"], times["alone1"], "≤ 1.01",
    )  # fmt: skip
    yield Row("diffusers: the same", times["theirs1"], times["alone1"], "")
    yield Row("a step with four as a sum, beside one", times["ours4"], times["ours1"], "≤ 1.15")
    yield Row("diffusers: the same", times["theirs4"], times["theirs1"], "")


class Operations(TorchDispatchMode):
    """Counts the operations on tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(act: Callable[[], Any]) -> int:
    """Return how many operations on tensors a call makes."""
    with Operations() as mode:
        act()
    return mode.count


def compiling(device: str) -> Iterator[Row]:
    """Count compilations of a small U-Net while its adapters change."""
    changes = (
        ([1], 1.0), ([1], 0.3), ([0, 1], 0.5), ([0, 1], 0.7), ([2, 0], 1.0), ([0], 1.0),
    )  # fmt: skip
    ours = Ours(_small(device), max_rank=12)
    adapters = [random_adapter(ours.pipe.unet, 4, seed) for seed in range(3)]
    fitted = [ours.bring(adapter) for adapter in adapters]
    theirs = pipeline_of(_small(device))
    for number, adapter in enumerate(adapters):
        theirs.load_lora_weights(to_diffusers(adapter)[0], adapter_name=f"a{number}_")
    counts = []
    for pipe, change in (
        (
            ours.pipe,
            lambda names, weight: ours.activate(*(fitted[n] for n in names), weight=weight),
        ),
        (
            theirs,
            lambda parts, weight: theirs.set_adapters(
                [f"a{n}_" for n in parts], [weight] * len(parts)
            ),
        ),
    ):
        inputs = _inputs(pipe.unet, device)
        change([0], 1.0)
        with compilations() as graphs:
            pipe.unet.compile(backend=graphs.backend)
            with torch.no_grad():
                pipe.unet(**inputs)
                first = graphs.count
                for parts, weight in changes:
                    change(parts, weight)
                    pipe.unet(**inputs)
        counts.append(graphs.count - first)
    yield Row(
        f"compilations after the first, {len(changes)} changes of adapter, weight or set",
        counts[0], counts[1], "0", "",
    )  # fmt: skip


class Graphs:
    """Counts what torch.compile hands to its backend."""

    count = 0

    def backend(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return graph.forward


@contextmanager
def compilations() -> Iterator[Graphs]:
    torch._dynamo.reset()
    yield Graphs()
    torch._dynamo.reset()


def _small(device: str) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    ).to(device)


def _inputs(unet: Any, device: str) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(0)
    side = min(unet.config.sample_size, 32)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    inputs: dict[str, Any] = {
        "sample": noise(1, 4, side, side),
        "timestep": torch.tensor(500, device=device),
        "encoder_hidden_states": noise(1, 77, unet.config.cross_attention_dim),
    }
    if unet.config.addition_embed_type:
        inputs["added_cond_kwargs"] = {
            "text_embeds": noise(1, 2816 - 6 * 256),
            "time_ids": torch.zeros(1, 6, device=device),
        }
    return inputs


def _save(adapter: Adapter, path: Path) -> Path:
    tensors, metadata = to_diffusers(adapter)
    save_tensors(tensors, path, metadata)
    return path
