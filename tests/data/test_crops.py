"""Which crops and flips of an image are cached, and where."""

from __future__ import annotations

import io

from hublora.data.crops import plan_crops
from hublora.data.examples import Example
from hublora.data.images import Crop


def examples(*sizes: tuple[int, int]) -> list[Example]:
    return [Example(f"{n}.png", ("a",), io.BytesIO, size) for n, size in enumerate(sizes)]


def test_an_image_of_the_right_shape_has_one_crop(configure):
    plan = plan_crops(examples((64, 64), (128, 128)), configure(), (32, 32))
    assert plan.crops == [(Crop(),), (Crop(),)]
    assert (plan.rows, plan.variants) == (2, 1)


def test_each_part_of_the_longer_side_gets_one_crop(configure):
    plan = plan_crops(examples((64, 32)), configure(crop_variants=8), (32, 32))
    parts = [int(crop.at * 8) for crop in plan.crops[0]]
    assert parts == list(range(8))


def test_crops_depend_on_seed_and_image_alone(configure):
    def places(config, *sizes):
        return plan_crops(examples(*sizes), config, (32, 32)).crops

    pair = places(configure(seed=1), (64, 32), (64, 32))
    assert pair[0] != pair[1]
    assert places(configure(seed=1), (64, 32)) == pair[:1]
    assert places(configure(seed=2), (64, 32)) != pair[:1]


def test_every_row_is_found_again(configure):
    sizes = ((64, 32), (32, 32), (32, 90))
    plan = plan_crops(examples(*sizes), configure(crop_variants=3, random_flip=True), (32, 32))
    assert (plan.rows, plan.variants) == (6 + 2 + 6, 6)
    seen = []
    for example in range(3):
        for variant in range(plan.variants):
            row = plan.row(example, variant)
            found, crop, flip = plan.of_row(row)
            assert found == example
            assert crop == plan.crops[example][variant // 2 % len(plan.crops[example])]
            assert flip == bool(variant % 2)
            seen.append(row)
    assert sorted(set(seen)) == list(range(plan.rows))


def test_a_frame_says_where_a_row_was_cut_out(configure):
    """The rows' own pixels tell: an image whose pixels are numbered by their place."""
    import numpy as np
    from PIL import Image

    from hublora.data.images import cut

    plan = plan_crops(examples((40, 30)), configure(crop_variants=3, random_flip=True), (30, 30))
    columns = np.arange(40, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(columns[None, :, None], (30, 40, 3)).copy())
    for row in range(plan.rows):
        _, crop, flip = plan.of_row(row)
        height, width, top, left, *size = plan.size_conditioning(row)
        assert (height, width, top, size) == (30, 40, 0, [30, 30])
        first = np.rint((cut(image, (30, 30), crop, flip)[0, 0, 0] + 1) * 127.5)
        shown = columns[::-1] if flip else columns
        assert first == shown[left]


def test_a_frame_counts_crops_in_the_resized_image(configure):
    plan = plan_crops(examples((160, 128), (64, 200)), configure(center_crop=True), (64, 64))
    assert plan.size_conditioning(0) == (128, 160, 0, 8, 64, 64)
    assert plan.size_conditioning(1) == (200, 64, 68, 0, 64, 64)
