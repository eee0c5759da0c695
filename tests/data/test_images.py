import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.data import images
from pipeline.data.images import ImageError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)  # height 6, width 9


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def with_orientation(value: int, form: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(Image.fromarray(COLOURS), form, exif=exif)


def grey(values: object, mode: str | None = None, form: str = "PNG", channels: int = 1) -> list[list[int]]:
    """The rows of a decoded grey image."""
    image = values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values), mode)
    return images.decode(encoded(image, form), channels)[..., 0].tolist()


def test_rgb_and_grey_are_taken_as_they_are():
    assert np.array_equal(images.decode(encoded(Image.fromarray(COLOURS))), COLOURS)
    assert grey(COLOURS[..., 0]) == COLOURS[..., 0].tolist()


def test_grey_becomes_three_equal_channels_and_rgb_becomes_luma():
    assert np.array_equal(images.decode(encoded(Image.fromarray(COLOURS[..., 0])), 3)[..., 2], COLOURS[..., 0])
    # Rec. 601: 0.299 * 255 = 76.2 of red, 149.7 of green, 29.1 of blue
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert grey(primaries) == [[76, 150, 29]]


def test_one_bit_is_black_and_white():
    assert grey(Image.fromarray(np.array([[True, False]]))) == [[255, 0]]


def test_transparent_parts_are_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    # the third is a fifth black over white: 255 * 0.8 = 204
    assert images.decode(encoded(Image.fromarray(rgba))).tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]
    assert grey(Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8), "LA")) == [[40, 255]]


def test_transparent_palette_entry_is_white_and_the_others_have_their_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert images.decode(encoded(image)).tolist() == [[[200, 100, 0], [0, 0, 255]]]
    assert images.decode(encoded(image, transparency=1)).tolist() == [[[200, 100, 0], [255] * 3]]
    assert images.decode(encoded(image, transparency=bytes([0, 255]))).tolist() == [[[255] * 3, [0, 0, 255]]]


def test_sixteen_bits_are_scaled_not_cut():
    # 65535 / 257 = 255; 32896 = 128 * 257
    assert grey(np.array([[0, 32896, 65535]], np.uint16)) == [[0, 128, 255]]
    assert grey(np.array([[0, 32896, 65535]], np.uint16), form="TIFF", channels=3) == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # of 0..1
        ([0.0, 12.4, 255.0], [0, 12, 255]),  # of 0..255
        ([-100.0, 0.0, 300.0], [0, 64, 255]),  # stretched: 100 / 400 * 255 = 63.75
        ([2.0, 2.0, 2.0], [2, 2, 2]),
        ([-1.0, -1.0, -1.0], [0, 0, 0]),
    ],
)
def test_floats_are_shown_by_their_range(values, shown):
    assert grey(np.array([values], np.float32), form="TIFF") == [shown]


def test_32_bit_integers_beyond_16_bits_are_stretched():
    # (500000 - 0) / 1000000 * 255 = 127.5, to even
    assert grey(np.array([[0, 500_000, 1_000_000]], np.int32), form="TIFF") == [[0, 128, 255]]


def test_pixels_that_are_not_numbers_are_refused():
    with pytest.raises(ImageError, match="not numbers"):
        grey(np.array([[0.0, np.nan]], np.float32), form="TIFF")


def test_cmyk_becomes_rgb():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow are red
    pixels = images.decode(encoded(cmyk, "JPEG", quality=95)).astype(int)
    assert np.abs(pixels - [255, 0, 0]).max() < 6
    assert images.decode(encoded(cmyk, "JPEG"), 1).shape == (16, 16, 1)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_as_pillow_turns_it(value, form):
    data = with_orientation(value, form)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(images.decode(data), wanted)
    image = images.opened(data)
    assert images.shown_size(image) == wanted.shape[:2]
    assert images.orientation(image) == value


def test_orientation_6_shows_the_left_column_on_top():
    data = with_orientation(6)
    assert images.shown_size(images.opened(data)) == (9, 6)
    assert np.array_equal(images.decode(data)[0], COLOURS[::-1, 0])


@pytest.mark.parametrize("value", [0, 9, 65537])
def test_an_unknown_orientation_counts_as_none(value):
    # big-endian TIFF with one directory of one entry: tag 0x0112, a number of 4 bytes, once
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x0112, 4, 1, value, 0)
    data = encoded(Image.fromarray(COLOURS), exif=exif)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == value
    assert np.array_equal(images.decode(data), COLOURS)


def test_broken_exif_says_nothing_of_the_pixels():
    data = encoded(Image.fromarray(COLOURS), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert np.array_equal(images.decode(data), COLOURS)


@given(value=st.integers(1, 8), x=st.integers(0, 8), y=st.integers(0, 5))
def test_points_turn_with_their_pixels(value, x, y):
    marked = np.zeros((6, 9), bool)
    marked[y, x] = True
    turned = images.turned_array(marked, value)
    height, width = turned.shape
    # the centre of the marked pixel
    found = images.turned_points(np.array([x + 0.5, y + 0.5]), value, height, width)
    row, column = np.argwhere(turned)[0]
    assert found.tolist() == [column + 0.5, row + 0.5]


@pytest.mark.parametrize("value", range(1, 9))
def test_arrays_turn_as_images_do(value):
    assert np.array_equal(images.turned_array(COLOURS, value), images.turned(Image.fromarray(COLOURS), value))


def test_of_several_frames_or_pages_the_first_is_shown():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for form in ("GIF", "TIFF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert images.opened(data).n_frames == 2
        assert images.decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not an image .*it starts as HTML"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image .*it starts as SVG"),
        (b"\x00" * 40, r"not an image .*it starts with b'\\x00"),
    ],
)
def test_what_is_no_image_is_told_by_its_start(data, words):
    with pytest.raises(ImageError, match=words):
        images.decode(data)


PHOTO = Image.fromarray(np.add.outer(np.arange(300), np.arange(400)).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_half_a_file_is_refused(form, cut):
    data = encoded(PHOTO, form)
    with pytest.raises(ImageError):
        images.decode(data[: int(len(data) * cut)])


def test_a_jpeg_without_its_last_two_bytes_is_refused():
    with pytest.raises(ImageError, match=r"cannot be decoded \(image file is truncated"):
        images.decode(encoded(PHOTO, "JPEG")[:-2])


def test_a_flipped_bit_in_a_png_is_refused():
    data = bytearray(encoded(PHOTO))
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError, match="cannot be decoded"):
        images.decode(bytes(data))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more than it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 9_000)])
def test_a_bomb_is_refused_by_its_header(size):
    with pytest.raises(ImageError, match="more pixels than the 89478485 that are decoded"):
        images.opened(bomb(*size))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_the_smallest_and_the_longest_images_decode(shape):
    assert images.decode(encoded(Image.fromarray(np.zeros(shape, np.uint8))), 1).shape == (*shape, 1)


def test_a_map_of_classes_keeps_the_indices_of_its_palette():
    values = np.array([[0, 3, 255]], np.uint8)
    palette = Image.fromarray(values, "L").copy()
    indexed = Image.new("P", (3, 1))
    indexed.putpalette(list(range(255, -1, -1)) * 3)
    indexed.putdata([0, 3, 255])
    for image in (palette, indexed, Image.merge("RGB", [palette] * 3)):
        assert images.decode_values(encoded(image)).tolist() == [[0, 3, 255]]
    assert images.decode_values(encoded(Image.fromarray(np.array([[300, 7]], np.uint16)))).tolist() == [[300, 7]]


def test_a_coloured_picture_is_no_map_of_classes():
    with pytest.raises(ImageError, match="a picture in colours"):
        images.decode_values(encoded(Image.fromarray(COLOURS)))


def test_moments_are_the_sums_of_pixels_and_squares():
    pixels = np.array([[[1, 2, 3], [255, 0, 3]]], np.uint8)
    # 1 + 255 = 256, 1 + 65025 = 65026; 2, 4; 6, 18
    assert images.moments(Image.fromarray(pixels)).tolist() == [[2, 2, 2], [256, 2, 6], [65026, 4, 18]]


def test_checking_a_large_jpeg_finds_what_decoding_it_finds():
    data = encoded(PHOTO.resize((800, 600)), "JPEG", quality=90)
    assert images.checked(images.opened(data), 3, whole=False).size == (100, 75)
    assert images.checked(images.opened(data), 3, whole=True).size == (800, 600)
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.5 else data)
        broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
        assert fails(bytes(broken), whole=False) == fails(bytes(broken), whole=True)


def fails(data: bytes, whole: bool) -> bool:
    try:
        images.checked(images.opened(data), 3, whole=whole)
    except ImageError:
        return True
    return False
