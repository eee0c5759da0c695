"""Boxes, masks, label maps, keypoints and heat over an image, grids of images with captions, figures, small PNG files.

Images are [H, W, 3] uint8 (grey [H, W] and [H, W, 1] are accepted); each function returns a new one.
Colours are "#rrggbb". `scale` enlarges the image first, so that lines and letters stay sharp on a small one.
"""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from pipeline.paths import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1f2933"
PAPER = "#ffffff"
FRAME = "#d9dee3"


def palette(num: int) -> list[str]:
    """`num` colours that differ clearly in hue, and neighbours in lightness too."""
    colours = []
    for index in range(num):
        hue = (index * 0.618034 + 0.02) % 1.0  # golden ratio: any first few are spread over the circle
        lightness, saturation = ((0.48, 0.75), (0.62, 0.70), (0.38, 0.70))[index % 3]
        colours.append(_hex([round(255 * v) for v in colorsys.hls_to_rgb(hue, lightness, saturation)]))
    return colours


def boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    captions: Sequence[str] | None = None,
    colours: Sequence[str],
    scale: int = 1,
    dashed: bool = False,
) -> np.ndarray:
    """Frames, each with its caption on a tag of the same colour.

    Args:
        image: [H, W, 3] uint8.
        boxes: [N, 4] xyxy in pixels of `image`.
        captions: N strings, or None.
        colours: N colours.
        scale: whole factor by which the result is larger than `image`.
        dashed: dashed lines, such as for truth beside predictions.

    Returns:
        [H * scale, W * scale, 3] uint8.
    """
    canvas = _canvas(image, scale)
    pen = ImageDraw.Draw(canvas)
    width, height = canvas.size
    line = max(1, round(min(width, height) / 130))
    rectangles = []
    for box, colour in zip(np.asarray(boxes, float).reshape(-1, 4) * scale, colours, strict=True):
        x1, y1, x2, y2 = np.round(box).astype(int)
        rectangles.append((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)))
        if dashed:
            _dashed_rectangle(pen, rectangles[-1], colour, line)
        else:
            pen.rectangle(rectangles[-1], outline=colour, width=line)
    if captions is not None:
        font = _font(max(9, min(16, round(min(width, height) / 24))))
        for rectangle, caption, colour in zip(rectangles, captions, colours, strict=True):
            _tag(pen, rectangle, caption, colour, font, canvas.size)
    return np.asarray(canvas)


def label_map(
    image: np.ndarray,
    label_map: np.ndarray,
    *,
    colours: Sequence[str],
    alpha: float = 0.55,
) -> np.ndarray:
    """The class of each pixel as a tint; values without a colour, such as 255 (not scored), stay untinted.

    Args:
        image: [H, W, 3] uint8.
        label_map: [H, W] integers.
        colours: one for each value from 0 on.
        alpha: share of the tint, 0..1; 1 shows the map alone.
    """
    rgb = _rgb(image)
    known = (label_map >= 0) & (label_map < len(colours))
    table = np.array([ImageColor.getrgb(colour) for colour in colours], np.float32).reshape(-1, 3)
    tint = table[np.where(known, label_map, 0)]
    mixed = rgb * (1 - alpha) + tint * alpha
    return np.where(known[..., None], np.round(mixed), rgb).astype(np.uint8)


def masks(image: np.ndarray, masks: np.ndarray, *, colours: Sequence[str], alpha: float = 0.5) -> np.ndarray:
    """Instance masks as tints, each with a full-colour outline one pixel wide, later ones on top.

    Args:
        image: [H, W, 3] uint8.
        masks: [M, H, W] bool.
        colours: M colours.
        alpha: share of the tint, 0..1.
    """
    result = _rgb(image).astype(np.float32)
    for mask, colour in zip(masks, colours, strict=True):
        tint = np.array(ImageColor.getrgb(colour), np.float32)
        result[mask] = result[mask] * (1 - alpha) + tint * alpha
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        result[mask & ~inner] = tint
    return np.round(result).astype(np.uint8)


def keypoints(
    image: np.ndarray,
    keypoints: np.ndarray,
    *,
    skeleton: Sequence[Sequence[int]],
    colours: Sequence[str],
    scale: int = 1,
) -> np.ndarray:
    """Points joined by the skeleton: filled where seen (2), hollow where hidden (1), left out where absent (0).

    Args:
        image: [H, W, 3] uint8.
        keypoints: [M, P, 3] x, y, visibility, in pixels of `image`.
        skeleton: pairs of keypoint indices.
        colours: M colours.
        scale: whole factor by which the result is larger than `image`.
    """
    canvas = _canvas(image, scale)
    pen = ImageDraw.Draw(canvas)
    radius = max(2, round(min(canvas.size) / 90))
    for points, colour in zip(keypoints, colours, strict=True):
        places = [(float(x * scale), float(y * scale)) for x, y, _ in points]
        for first, second in skeleton:
            if points[first][2] and points[second][2]:
                pen.line(
                    [places[first], places[second]],
                    fill=colour,
                    width=max(1, radius // 2),
                )
        for (x, y), (_, _, visibility) in zip(places, points, strict=True):
            disc = (x - radius, y - radius, x + radius, y + radius)
            if visibility == 2:
                pen.ellipse(disc, fill=colour, outline=PAPER)
            elif visibility == 1:
                pen.ellipse(disc, fill=PAPER, outline=colour)
    return np.asarray(canvas)


def heat(image: np.ndarray, heat: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
    """A map of importance: cold places fade towards grey, hot ones glow yellow over red.

    Args:
        image: [H, W, 3] uint8.
        heat: [H, W] in 0..1.
        alpha: share of the tint where the heat is 1; it falls to half of that at 0.
    """
    rgb = _rgb(image).astype(np.float32)
    value = np.clip(np.nan_to_num(np.asarray(heat, np.float32)), 0, 1)
    # matplotlib's "inferno" at eleven even steps: dark to light, so it reads in print and for colour-blind eyes
    stops = [
        "000004",
        "160b39",
        "420a68",
        "6a176e",
        "932667",
        "bc3754",
        "dd513a",
        "f37819",
        "fca50a",
        "f6d746",
        "fcffa4",
    ]
    table = np.array([ImageColor.getrgb(f"#{stop}") for stop in stops], np.float32)
    tint = np.stack(
        [np.interp(value, np.linspace(0, 1, len(stops)), table[:, c]) for c in range(3)],
        axis=-1,
    )
    share = (alpha * (0.5 + 0.5 * value))[..., None]
    return np.round(rgb * (1 - share) + tint * share).astype(np.uint8)


def grid(
    images: Sequence[np.ndarray],
    *,
    columns: int,
    captions: Sequence[str] | None = None,
    cell: int = 192,
) -> np.ndarray:
    """Images in rows on white, each fitted into a square with its caption below.

    Args:
        images: of any sizes.
        columns: images in a row.
        captions: one string for each image, or None; long ones wrap to at most three lines.
        cell: side of a square in pixels. Images below half of it grow by a whole factor, their pixels kept square.

    Returns:
        [height, width, 3] uint8.
    """
    columns = max(1, min(columns, len(images)))
    gap, margin = max(6, cell // 20), max(8, cell // 14)
    font = _font(max(11, min(16, cell // 13)))
    line = round(font.size * 1.3)
    texts = [_wrapped(caption, font, cell, 3) for caption in captions] if captions is not None else []
    rows = math.ceil(len(images) / columns)
    text_heights = [
        max((len(t) for t in texts[row * columns : (row + 1) * columns]), default=0) * line for row in range(rows)
    ]
    tops = [
        margin + row * (cell + gap) + sum(text_heights[:row]) + (gap // 2 if texts else 0) * row for row in range(rows)
    ]
    height = (tops[-1] + cell + text_heights[-1] if rows else 0) + margin + (gap // 2 if texts else 0)
    sheet = Image.new("RGB", (2 * margin + columns * cell + (columns - 1) * gap, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left, top = margin + column * (cell + gap), tops[row]
        picture = _fitted(Image.fromarray(_rgb(image)), cell)
        x, y = left + (cell - picture.width) // 2, top + (cell - picture.height) // 2
        sheet.paste(picture, (x, y))
        pen.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=FRAME)
        for number, text in enumerate(texts[index] if texts else ()):
            place = (left + cell / 2, top + cell + gap // 2 + number * line)
            pen.text(place, text, fill=INK, font=font, anchor="ma")
    return np.asarray(sheet)


@contextmanager
def figure(path: Path, size: tuple[float, float], *, dpi: int) -> Iterator[Figure]:
    """A figure of matplotlib that is written to `path` at the end, by its own defaults, whatever a user's matplotlibrc.

    Args:
        path: of the PNG.
        size: width and height in inches.
        dpi: pixels of an inch.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        made = Figure(figsize=size, dpi=dpi, layout="constrained")
        yield made
        with written_whole(path) as temporary:
            made.savefig(temporary, format="png", metadata={"Software": None})


def save(path: Path, image: np.ndarray, max_bytes: int = 200_000) -> None:
    """Writes a PNG without metadata: in full colour, else with a palette, else smaller, until it fits.

    Args:
        path: the file; it appears whole or not at all.
        image: [H, W, 3] uint8.
        max_bytes: the largest size of the file.
    """
    picture = Image.fromarray(_rgb(image))
    data = _png(picture)
    while len(data) > max_bytes and min(picture.size) > 16:
        data = _png(picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
        if len(data) > max_bytes:
            # bytes grow with the area; a little less, so that the first try mostly fits
            factor = min(0.95, 0.97 * math.sqrt(max_bytes / len(data)))
            size = (round(picture.width * factor), round(picture.height * factor))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # optimising takes long in full colour and gains little there
    picture.save(buffer, "PNG", optimize=picture.mode == "P")
    return buffer.getvalue()


def _hex(rgb: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _rgb(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] of an image that may be grey."""
    image = np.asarray(image, np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _canvas(image: np.ndarray, scale: int) -> Image.Image:
    picture = Image.fromarray(_rgb(image))
    if scale == 1:
        return picture
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _fitted(picture: Image.Image, cell: int) -> Image.Image:
    """The picture with its longer side as near to `cell` as its kind allows."""
    side = max(picture.size)
    if side * 2 <= cell:
        factor = cell // side
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if side == cell:
        return picture
    size = (
        max(1, round(picture.width * cell / side)),
        max(1, round(picture.height * cell / side)),
    )
    return picture.resize(size, Image.Resampling.LANCZOS)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, max_lines: int) -> list[str]:
    """Lines no wider than `width`; explicit line breaks stay, and what does not fit ends in an ellipsis."""
    lines = []
    for paragraph in text.split("\n"):
        current = ""
        for word in paragraph.split():
            longer = f"{current} {word}".strip()
            if current and font.getlength(longer) > width:
                lines.append(current)
                longer = word
            current = longer
        lines.append(current)
    cut = len(lines) > max_lines
    lines = lines[:max_lines]
    for index, line in enumerate(lines):
        ending = "…" if cut and index == max_lines - 1 else ""
        if font.getlength(line + ending) > width:
            ending = "…"
            while line and font.getlength(line + ending) > width:
                line = line[:-1]
        lines[index] = line + ending
    return lines


def _tag(
    pen: ImageDraw.ImageDraw,
    rectangle: tuple[int, int, int, int],
    caption: str,
    colour: str,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """A caption on its own colour, above the rectangle, or inside it where there is no room above."""
    width, height = math.ceil(font.getlength(caption)) + 4, round(font.size * 1.25)
    left = max(0, min(rectangle[0], size[0] - width))
    top = rectangle[1] - height if rectangle[1] >= height else min(rectangle[1], size[1] - height)
    red, green, blue = ImageColor.getrgb(colour)[:3]
    ink = INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else PAPER  # Rec. 601 luma
    pen.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
    pen.text((left + 2, top + height / 2), caption, fill=ink, font=font, anchor="lm")


def _dashed_rectangle(
    pen: ImageDraw.ImageDraw,
    rectangle: tuple[int, int, int, int],
    colour: str,
    line: int,
) -> None:
    x1, y1, x2, y2 = rectangle
    dash = 4 * line
    for start in range(x1, x2 + 1, 2 * dash):
        end = min(start + dash, x2)
        pen.rectangle((start, y1, end, y1 + line - 1), fill=colour)
        pen.rectangle((start, y2 - line + 1, end, y2), fill=colour)
    for start in range(y1, y2 + 1, 2 * dash):
        end = min(start + dash, y2)
        pen.rectangle((x1, start, x1 + line - 1, end), fill=colour)
        pen.rectangle((x2 - line + 1, start, x2, end), fill=colour)
