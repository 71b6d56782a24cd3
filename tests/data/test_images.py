"""Every kind of image becomes the array that the diffusers scripts would have made."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from hublora.data.images import Crop, covering_size, cut, load_image, prepare, resize, to_rgb
from hublora.errors import DataError

# Stored pixels -> shown pixels, by EXIF orientation.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def saved(image: Image.Image, format: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(to_rgb(image))


@pytest.mark.parametrize("orientation", SHOWN)
def test_exif_orientation_is_honoured(make_image, orientation):
    image = make_image(0, 6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = load_image(saved(image, exif=exif))
    assert np.array_equal(pixels(opened), SHOWN[orientation](np.asarray(image)))
    assert np.array_equal(pixels(Image.open(saved(image, exif=exif))), pixels(opened))


def test_broken_exif_does_not_spoil_an_image(make_image):
    image = make_image(0)
    file = saved(image, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert np.array_equal(pixels(load_image(file)), np.asarray(image))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    half.putpixel((1, 0), (0, 0, 0, 0))
    image = half.quantize(4) if mode == "P" else half.convert(mode)
    assert pixels(load_image(saved(image))).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("mode", "way"), [("RGBa", ["RGBa"]), ("La", ["LA", "La"]), ("PA", ["PA"])]
)
def test_unusual_kinds_of_transparency_are_laid_on_white(mode, way):
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 0))
    for step in way:
        image = image.convert(step)
    assert image.mode == mode
    assert pixels(image).tolist() == [[[255, 255, 255]]]


def test_half_transparent_is_mixed_with_white():
    assert pixels(Image.new("RGBA", (1, 1), (0, 100, 200, 128))).tolist() == [[[127, 177, 227]]]


def test_palette_transparency_index_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    opened = load_image(saved(image, transparency=1))
    assert pixels(opened).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_rgb_with_a_transparent_colour_shows_white_there():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    opened = load_image(saved(image, transparency=(9, 9, 9)))
    assert pixels(opened).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_grey_and_bilevel_become_rgb():
    assert pixels(Image.new("L", (1, 1), 77)).tolist() == [[[77] * 3]]
    assert pixels(Image.new("1", (1, 1), 1)).tolist() == [[[255] * 3]]


def test_cmyk_becomes_rgb():
    red = load_image(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert red.mode == "CMYK"
    assert np.abs(pixels(red)[0, 0].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_greys_keep_their_range(format):
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    opened = load_image(saved(Image.fromarray(ramp), format))
    assert pixels(opened)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_big_endian_16_bit_greys_keep_their_range():
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 0, 65535))
    assert pixels(image)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 128, 255]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 2**31 - 1]], dtype=np.int32), [0, 255]),
        (np.array([[0, 0.5, 1]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0, 100, 255]], dtype=np.float32), [0, 100, 255]),
        (np.array([[-5, np.nan, 1e6]], dtype=np.float32), [0, 0, 255]),
    ],
)
def test_wide_greys_are_scaled_not_clipped(values, expected):
    assert pixels(load_image(saved(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == expected


def test_animation_gives_its_first_image(make_image):
    first, second = make_image(1), make_image(2)
    file = saved(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(pixels(load_image(file)), np.asarray(first))


# torchvision 0.29: Resize(r) of a PIL image gives int(r * long / short) for the longer side.
@pytest.mark.parametrize(
    ("width", "height", "side", "expected"),
    [
        (64, 64, 64, (64, 64)),
        (640, 427, 512, (767, 512)),
        (427, 640, 512, (512, 767)),
        (3, 10, 8, (8, 26)),
        (1000, 333, 64, (192, 64)),
        (33, 32, 17, (17, 17)),
    ],
)
def test_resize_rounds_like_torchvision(width, height, side, expected):
    assert covering_size(width, height, (side, side)) == expected


def test_resize_covers_any_shape():
    for width in range(1, 60, 7):
        for height in range(1, 60, 5):
            for size in [(8, 8), (8, 24), (24, 8), (17, 9)]:
                covering = covering_size(width, height, size)
                assert covering[0] >= size[1]
                assert covering[1] >= size[0]
                assert covering[0] == size[1] or covering[1] == size[0]


# torchvision's CenterCrop: int(round((long - side) / 2.0)), where Python rounds half to even.
@pytest.mark.parametrize(("slack", "offset"), [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_middle_crop_rounds_like_torchvision(slack, offset):
    assert Crop().offset(slack) == offset


def test_crops_reach_both_ends():
    assert Crop(0.0).offset(10) == 0
    assert Crop(0.9999999).offset(10) == 10
    assert {Crop(at / 1000).offset(3) for at in range(1000)} == {0, 1, 2, 3}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_prepare_equals_the_reference_transform(make_image, name, flip):
    image = make_image(3, 61, 40)
    reference = image.resize((24, 16), Image.Resampling[name.upper()]).crop((4, 0, 20, 16))
    if flip:
        reference = reference.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    unit = np.asarray(reference).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    prepared = prepare(image, (16, 16), Crop(), flip, name)
    assert prepared.dtype == np.float32
    assert np.array_equal(prepared, (unit - np.float32(0.5)) / np.float32(0.5))
    assert prepared.min() >= -1
    assert prepared.max() <= 1


def test_image_of_the_right_shape_is_not_resampled(make_image):
    image = make_image(0, 32, 32)
    assert resize(image, (32, 32)) is image
    assert np.array_equal(
        np.rint((cut(image, (32, 32), Crop(), False) + 1) * 127.5).transpose(1, 2, 0),
        np.asarray(image),
    )


def png_header(width: int, height: int) -> bytes:
    """Return the start of a PNG that says it is this large."""
    facts = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + facts + struct.pack(">I", zlib.crc32(facts))
    return b"\x89PNG\r\n\x1a\n" + checked + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"not an image at all", "is not an image of a known format"),
        (png_header(60000, 60000), "has more than 178 million pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    ],
)
def test_unusable_bytes_are_explained(content, reason):
    with pytest.raises(DataError, match="^" + re.escape(reason)):
        load_image(io.BytesIO(content))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_an_image_that_is_cut_short_is_refused(make_image, format):
    whole = saved(make_image(0), format).getvalue()
    with pytest.raises(DataError, match=r"is damaged|is not an image"):
        load_image(io.BytesIO(whole[: len(whole) // 2]))


def test_flipped_bytes_never_raise_anything_else(make_image):
    rng = np.random.default_rng(0)
    for format in ("PNG", "JPEG", "TIFF", "GIF"):
        whole = np.frombuffer(saved(make_image(0, 16, 16), format).getvalue(), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
            try:
                to_rgb(load_image(io.BytesIO(broken.tobytes())))
            except (DataError, ValueError):
                pass


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_png_with_much_text_is_a_good_image(make_image, compressed, turned):
    from PIL.PngImagePlugin import PngInfo

    image, file, texts = make_image(0), io.BytesIO(), PngInfo()
    for number in range(70):
        texts.add_text(f"workflow {number}", "x" * (2 << 20), zip=compressed)
    exif = image.getexif()
    exif[0x0112] = 6 if turned else 1
    image.save(file, "PNG", pnginfo=texts, exif=exif)
    file.seek(0)
    expected = image.transpose(Image.Transpose.ROTATE_270) if turned else image
    assert load_image(file).tobytes() == expected.tobytes()


def test_heic_without_its_plugin_names_the_plugin():
    with pytest.raises(DataError, match="is HEIC, which needs pip install pillow-heif"):
        load_image(io.BytesIO(b"\0\0\0\x18ftypheic" + bytes(100)))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_working_copies_of_a_large_grey_image_stay_small(mode):
    image = Image.fromarray(np.full((1500, 3000), 1, np.uint16)).convert(mode)
    tracemalloc.start()
    to_rgb(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 8 * (1 << 20) < 2 * 8 * 1500 * 3000  # less than two whole copies in float64


@pytest.mark.parametrize("mode", ["I;16", "F", "RGBA", "LA"])
def test_strips_join_without_a_seam(mode, monkeypatch, make_image):
    image = make_image(3, 40, 30)
    if mode in ("I;16", "F"):
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).convert(mode)
    else:
        image.putalpha(make_image(4, 40, 30).convert("L"))
        image = image.convert(mode)
    whole = pixels(image)
    monkeypatch.setattr("hublora.data.images._STRIP_PIXELS", 7 * 40)
    assert np.array_equal(pixels(image), whole)
