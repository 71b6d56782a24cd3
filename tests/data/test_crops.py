"""Which crops and flips of an image are cached, and where."""

from __future__ import annotations

import io

from hublora.data.crops import lay_out
from hublora.data.examples import Example
from hublora.data.images import Crop


def examples(*sizes: tuple[int, int]) -> list[Example]:
    return [Example(f"{n}.png", ("a",), io.BytesIO, size) for n, size in enumerate(sizes)]


def test_an_image_of_the_right_shape_has_one_crop(configure):
    layout = lay_out(examples((64, 64), (128, 128)), configure(), (32, 32))
    assert layout.crops == [(Crop(),), (Crop(),)]
    assert (layout.rows, layout.variants) == (2, 1)


def test_each_part_of_the_longer_side_gets_one_crop(configure):
    layout = lay_out(examples((64, 32)), configure(crop_variants=8), (32, 32))
    parts = [int(crop.at * 8) for crop in layout.crops[0]]
    assert parts == list(range(8))


def test_crops_depend_on_seed_and_image_alone(configure):
    def places(config, *sizes):
        return lay_out(examples(*sizes), config, (32, 32)).crops

    pair = places(configure(seed=1), (64, 32), (64, 32))
    assert pair[0] != pair[1]
    assert places(configure(seed=1), (64, 32)) == pair[:1]
    assert places(configure(seed=2), (64, 32)) != pair[:1]


def test_every_row_is_found_again(configure):
    sizes = ((64, 32), (32, 32), (32, 90))
    layout = lay_out(examples(*sizes), configure(crop_variants=3, random_flip=True), (32, 32))
    assert (layout.rows, layout.variants) == (6 + 2 + 6, 6)
    seen = []
    for example in range(3):
        for variant in range(layout.variants):
            row = layout.row(example, variant)
            found, crop, flip = layout.of_row(row)
            assert found == example
            assert crop == layout.crops[example][variant // 2 % len(layout.crops[example])]
            assert flip == bool(variant % 2)
            seen.append(row)
    assert sorted(set(seen)) == list(range(layout.rows))


def test_a_frame_says_where_a_row_was_cut_out(configure):
    """The rows' own pixels tell: an image whose pixels are numbered by their place."""
    import numpy as np
    from PIL import Image

    from hublora.data.images import cut

    layout = lay_out(examples((40, 30)), configure(crop_variants=3, random_flip=True), (30, 30))
    columns = np.arange(40, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(columns[None, :, None], (30, 40, 3)).copy())
    for row in range(layout.rows):
        _, crop, flip = layout.of_row(row)
        height, width, top, left, *size = layout.frame(row)
        assert (height, width, top, size) == (30, 40, 0, [30, 30])
        first = np.rint((cut(image, (30, 30), crop, flip)[0, 0, 0] + 1) * 127.5)
        shown = columns[::-1] if flip else columns
        assert first == shown[left]


def test_a_frame_counts_crops_in_the_resized_image(configure):
    layout = lay_out(examples((160, 128), (64, 200)), configure(center_crop=True), (64, 64))
    assert layout.frame(0) == (128, 160, 0, 8, 64, 64)
    assert layout.frame(1) == (200, 64, 68, 0, 64, 64)
