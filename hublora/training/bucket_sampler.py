"""The image of each sample where a batch is of one shape: a function of the sample's number.

Each bucket is an endless sequence of its images, shuffled anew in each epoch. Batches are taken
from the fronts of the sequences, as many from each in an epoch as its images fill; what is left
starts the next epoch's first batch. So over many epochs every image is sampled equally often, and
none is dropped or sampled twice to fill a batch up. As in `hublora.training.rng`, nothing needs to
be remembered: a resumed training, or another split of a step, samples the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from hublora.training.rng import shuffled


class BucketSampler:
    """The order of images in batches of one shape.

    Args:
        seed: Seed of the run.
        buckets: Shape -> indices of its images; a repeated image is listed several times.
        batch: Images of one shape in a row.
    """

    def __init__(self, seed: int, buckets: Sequence[Sequence[int]], batch: int) -> None:
        self._seed, self._batch = seed, batch
        self._buckets = [bucket for bucket in buckets if bucket]
        self._total = sum(map(len, self._buckets))
        # A batch may reach from one epoch into the next.
        self._line = lru_cache(2 * len(self._buckets))(self._shuffle)
        self._batch_order = lru_cache(2)(self._batches_of)

    def images(self, numbers: Sequence[int]) -> list[int]:
        """Return the index of the image of each sample."""
        return [self._image(number) for number in numbers]

    def _image(self, number: int) -> int:
        batch, place = divmod(number, self._batch)
        bucket, turn = self._bucket(batch)
        members = self._buckets[bucket]
        epoch, index = divmod(turn * self._batch + place, len(members))
        return members[self._line(bucket, epoch)[index]]

    def _bucket(self, batch: int) -> tuple[int, int]:
        """Return the bucket of a batch, and the number of batches of it before this one."""
        epoch = batch * self._batch // self._total
        while self._before(epoch + 1) <= batch:
            epoch += 1
        return self._batch_order(epoch)[batch - self._before(epoch)]

    def _before(self, epoch: int) -> int:
        """Return the number of batches before an epoch."""
        return sum(epoch * len(members) // self._batch for members in self._buckets)

    def _batches_of(self, epoch: int) -> list[tuple[int, int]]:
        """Return bucket and turn of each batch of an epoch, shuffled."""
        batches = [
            (bucket, turn)
            for bucket, members in enumerate(self._buckets)
            for turn in range(
                epoch * len(members) // self._batch, (epoch + 1) * len(members) // self._batch
            )
        ]
        return [batches[place] for place in shuffled(self._seed, "batches", epoch, len(batches))]

    def _shuffle(self, bucket: int, epoch: int) -> list[int]:
        return shuffled(self._seed, f"bucket {bucket}", epoch, len(self._buckets[bucket]))
