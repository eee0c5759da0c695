"""Encoded bytes to pixels, the one place for it: orientation, modes, depths and pages, and what is refused.

An image is shown as a person would see it: turned as its EXIF tag says, transparent parts over white, 16 bits scaled to
8, floats in 0..1 or 0..255 taken as such, and of several pages or frames the first.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_478_485  # from here on Pillow warns of a decompression bomb: 256 MB of RGB with a byte of padding
PLAIN = {1: "L", 3: "RGB"}
LARGE = 2**16  # pixels
LEVELS = np.arange(256)
SIDEWAYS = (5, 6, 7, 8)  # the EXIF orientations that swap height and width


class ImageError(PipelineError):
    """Why bytes are no image; the caller knows the file's name."""


def opened(data: bytes) -> Image:
    """The image with its header read and nothing decoded.

    Raises:
        ImageError: the header is not of an image, or promises more than MAX_PIXELS.
    """
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        image = pillow.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ImageError(f"not an image ({_seen(data)})") from None
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        raise ImageError(f"more pixels than the {MAX_PIXELS} that are decoded") from None
    except Exception as error:  # Pillow's readers raise whatever a broken header leads them to
        raise ImageError(f"its header cannot be read ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise ImageError(f"{size} is more pixels than the {MAX_PIXELS} that are decoded")
    return image


def orientation(image: Image) -> int:
    """The EXIF orientation, 1..8, of an image that is not decoded yet; an unknown value or a broken tag counts as 1."""
    if image.format not in ("TIFF", "MPO") and not {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"} & set(
        image.info
    ):
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken tag says nothing of the pixels, which other programs show as they are
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def shown_size(image: Image) -> tuple[int, int]:
    """Height and width as the image is shown, from its header alone."""
    swapped = orientation(image) in SIDEWAYS and image.format != "TIFF"  # Pillow's TIFF reader has swapped them
    return (image.width, image.height) if swapped else (image.height, image.width)


def shown(image: Image, channels: int = 3) -> Image:
    """The decoded image as it is shown, of mode L (1 channel) or RGB (3).

    Raises:
        ImageError: its pixels cannot all be decoded, or are not numbers.
    """
    turn = 1 if image.format == "TIFF" else orientation(image)  # Pillow's TIFF reader turns by itself
    return turned(plain(loaded(image), channels), turn)


def loaded(image: Image) -> Image:
    """The same image, its first page decoded.

    Raises:
        ImageError: its pixels cannot all be decoded.
    """
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise whatever broken data lead them to
        raise ImageError(f"cannot be decoded ({error})") from None
    return image


def decode(data: bytes, channels: int = 3) -> np.ndarray:
    """The [H, W, C] uint8 pixels of encoded bytes as they are shown.

    Raises:
        ImageError: the bytes are no image, or not a whole one.
    """
    pixels = np.asarray(shown(opened(data), channels))
    return pixels[..., None] if channels == 1 else pixels


def decode_values(data: bytes) -> np.ndarray:
    """The [H, W] integers that a map of classes or ids holds: a palette's indices, not its colours.

    Raises:
        ImageError: the bytes are no image, or a picture in colours.
    """
    image = opened(data)
    turn = 1 if image.format == "TIFF" else orientation(image)
    values = np.asarray(loaded(image))
    if image.mode in ("LA", "PA"):
        values = values[..., 0]
    if image.mode in ("RGB", "RGBA"):
        if (values[..., 0] != values[..., 1]).any() or (values[..., 0] != values[..., 2]).any():
            raise ImageError(f"a picture in colours (mode {image.mode}), not a map of one number for each pixel")
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise ImageError(f"of mode {image.mode}, not a map of one whole number for each pixel")
    return turned_array(values, turn)


def plain(image: Image, channels: int) -> Image:
    """A decoded image in mode L or RGB.

    Raises:
        ImageError: pixels are not numbers.
    """
    from PIL import Image as pillow

    mode = PLAIN[channels]
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return pillow.fromarray(_eight_bits(np.asarray(image))).convert(mode)
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
        return (image if image.mode in ("1", "L") else image.convert("RGB")).convert(mode)
    except ValueError as error:
        raise ImageError(f"of mode {image.mode}, which cannot be made {mode} ({error})") from None


def turned(image: Image, orientation: int) -> Image:
    """The image as its EXIF orientation asks it to be shown."""
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(methods[orientation]) if orientation in methods else image


def turned_array(values: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] values turned as `turned` turns an image."""
    if orientation in SIDEWAYS:
        values = np.swapaxes(values, 0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def turned_points(points: np.ndarray, orientation: int, height: int, width: int) -> np.ndarray:
    """Where points of an unturned image lie in the shown one.

    Args:
        points: [..., 2] x, y in pixels.
        orientation: EXIF orientation, 1..8.
        height: of the shown image, in pixels; width alike.
        width: of the shown image.
    """
    x, y = points[..., 0], points[..., 1]
    if orientation in SIDEWAYS:
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = width - x
    if orientation in (3, 4, 7, 8):
        y = height - y
    return np.stack([x, y], -1)


def checked(image: Image, channels: int, whole: bool) -> Image:
    """The image as `shown`, decoded to its last byte, but a large JPEG at an eighth of its size.

    A JPEG's bytes are all read and unpacked at any scale, which finds what is broken; only the sums that make pixels of
    them are left out, a third of the work.

    Args:
        image: as `opened`.
        channels: 1 or 3.
        whole: whether to decode in full size all the same.

    Raises:
        ImageError: its pixels cannot all be decoded, or are not numbers.
    """
    if not whole and image.format == "JPEG" and image.mode in PLAIN.values() and is_large(image):
        image.draft(image.mode, (image.width // 8, image.height // 8))
    return shown(image, channels)


def is_large(image: Image) -> bool:
    """Whether an image has more than LARGE pixels."""
    return image.width * image.height > LARGE


def moments(image: Image) -> np.ndarray:
    """[3, C] int64: the number of pixels, their sum and the sum of their squares, of a uint8 image."""
    histogram = image.histogram()
    counts = np.fromiter(histogram, np.int64, len(histogram)).reshape(-1, 256)
    return np.stack([counts.sum(1), counts @ LEVELS, counts @ LEVELS**2])


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of another depth as uint8.

    Whole numbers are taken as 16 bits (65535 is white); floats as 0..1, or as 0..255 where one is above 1. A range that
    fits neither is stretched so that its least value is black and its greatest white.
    """
    is_whole = values.dtype.kind in "iu"
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("has pixels that are not numbers (NaN or infinite)")
    least, greatest = float(values.min()), float(values.max())
    whites = (65535.0,) if is_whole else (1.0, 255.0)
    white = next((white for white in whites if least >= 0 and greatest <= white), None)
    if white is None:
        return np.round((values - least) * (255 / max(greatest - least, 1e-300))).astype(np.uint8)
    return np.round(values * (255 / white)).astype(np.uint8)


def _seen(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith(b"<svg") or b"<svg" in start:
        return "it starts as SVG"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it starts as HTML"
    return f"it starts with {data[:12]!r}"
