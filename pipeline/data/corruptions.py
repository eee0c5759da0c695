"""Fifteen common corruptions at severities 1 to 5 (Hendrycks and Dietterich 2019), to see what a model withstands.

The strengths are those of ImageNet-C. What departs from it, so that figures are not to be set beside published ones:

- Lengths in pixels hold for a shorter side of 224 and are scaled with the image's; ImageNet-C's images are all 224.
- `elastic_transform` takes shares of the side itself, where ImageNet-C's code counts 244 pixels to a side of 224.
- `glass_blur` draws each pixel from its neighbourhood, where ImageNet-C swaps pixels one after the other.
- `motion_blur` and `snow` use a half-Gaussian line as kernel, where ImageNet-C calls ImageMagick.
- `frost` is a drawn pattern of ice needles, where ImageNet-C overlays six photographs.
- `fog` is a sum of smoothed noise over octaves, where ImageNet-C's plasma comes from the diamond-square algorithm.
- Random numbers derive from (seed, image_id, corruption, severity), so every image gets the same corruption every time.

Corruptions do not move the truth; `elastic_transform` and `glass_blur` shift pixels by a few, and boxes and label maps
stay where they were, as in Michaelis et al. 2019.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

FULL_SIDE = 224
"""Shorter side in pixels for which lengths in STRENGTHS hold."""

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}

STRENGTHS: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    # standard deviation, of pixels in 0..1
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    # photons at full brightness
    "shot_noise": (60, 25, 12, 5, 3),
    # share of values that become 0 or 1
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    # radius of the disc, standard deviation of the blur of its edge
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    # standard deviation of the blur before and after, largest displacement, times
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    # length of the line, standard deviation of its weights
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    # largest factor, step of factors
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    # mean and standard deviation of the flakes' brightness, their size, threshold, length and deviation of the fall,
    # share of the image
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    # shares of the image and of the ice, which sum to more than 1
    "frost": ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    # brightness of the fog, by which factor an octave is weaker than the one before
    "fog": ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    # added to the value of HSV
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    # factor of the difference to the mean
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    # shares of the side: strength and smoothness of the displacement, largest shift of the corners
    "elastic_transform": ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    # share of the side that is left
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    # quality
    "jpeg_compression": (25, 18, 15, 10, 7),
}
SEVERITIES = (1, 2, 3, 4, 5)

Generator = np.random.Generator


def corrupted(image: np.ndarray, name: str, severity: int, *, seed: int, image_id: str) -> np.ndarray:
    """An image under one corruption.

    Args:
        image: [H, W, C] uint8, C 1 or 3.
        name: a key of CORRUPTIONS.
        severity: 1 to 5.
        seed, image_id: the random numbers derive from them.

    Returns:
        [H, W, C] uint8.
    """
    digest = hashlib.sha256(f"{seed}/{image_id}/{name}/{severity}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8]))
    unit = min(image.shape[:2]) / FULL_SIDE
    pixels = image.astype(np.float32) / 255
    result = CORRUPTIONS[name](pixels, STRENGTHS[name][severity - 1], rng, unit)
    return np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(pixels: np.ndarray, strength: float, rng: Generator, unit: float) -> np.ndarray:
    """Noise of a sensor in low light."""
    return pixels + rng.normal(scale=strength, size=pixels.shape)


def shot_noise(pixels: np.ndarray, strength: float, rng: Generator, unit: float) -> np.ndarray:
    """Noise of counted photons."""
    return rng.poisson(pixels * strength) / strength


def impulse_noise(pixels: np.ndarray, strength: float, rng: Generator, unit: float) -> np.ndarray:
    """Salt and pepper, in each channel by itself."""
    hit = rng.random(pixels.shape) < strength
    return np.where(hit, rng.random(pixels.shape) < 0.5, pixels)


def defocus_blur(pixels: np.ndarray, strength: tuple[float, float], rng: Generator, unit: float) -> np.ndarray:
    """A disc in place of each point."""
    from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

    radius, softness = strength[0] * unit, strength[1] * unit
    reach = int(np.ceil(radius + 3 * softness)) + 1
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # a pixel at the edge of a small disc belongs to it by the share that lies within
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    return _convolved(pixels, gaussian_filter(disc, softness))


def glass_blur(pixels: np.ndarray, strength: tuple[float, int, int], rng: Generator, unit: float) -> np.ndarray:
    """Frosted glass: pixels come from anywhere in a neighbourhood."""
    from scipy.ndimage import gaussian_filter

    # at full size each of -reach to reach is as likely; on a small image most pixels stay
    sigma, reach, times = strength[0] * unit, (strength[1] + 0.5) * unit, strength[2]
    blurred = gaussian_filter(pixels, (sigma, sigma, 0))
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    for _ in range(times):
        moves = np.rint(rng.uniform(-reach, reach, size=(2, height, width))).astype(int)
        blurred = blurred[(rows + moves[0]).clip(0, height - 1), (columns + moves[1]).clip(0, width - 1)]
    return gaussian_filter(blurred, (sigma, sigma, 0))


def motion_blur(pixels: np.ndarray, strength: tuple[float, float], rng: Generator, unit: float) -> np.ndarray:
    """A camera that moves, within 45 degrees of the horizontal."""
    return _convolved(pixels, _line(strength[0] * unit, strength[1] * unit, rng.uniform(-45, 45)))


def zoom_blur(pixels: np.ndarray, strength: tuple[float, float], rng: Generator, unit: float) -> np.ndarray:
    """A camera that moves towards the scene: the mean of the image and of its enlargements."""
    factors = np.arange(1, *strength)
    return (pixels + sum(_enlarged(pixels, factor) for factor in factors)) / (len(factors) + 1)


def snow(pixels: np.ndarray, strength: tuple[float, ...], rng: Generator, unit: float) -> np.ndarray:
    """Flakes that fall, before a whitened image."""
    mean, deviation, size, threshold, length, sigma, share = strength
    flakes = _enlarged(rng.normal(mean, deviation, (*pixels.shape[:2], 1)).astype(np.float32), max(1.0, size * unit))
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = _convolved(flakes, _line(length * unit, sigma * unit, rng.uniform(-135, -45)))
    white = np.maximum(pixels, _grey(pixels) * 1.5 + 0.5)
    return share * pixels + (1 - share) * white + flakes + flakes[::-1, ::-1]


def frost(pixels: np.ndarray, strength: tuple[float, float], rng: Generator, unit: float) -> np.ndarray:
    """Ice on a pane: needles along the ridges of noise, densest at the border."""
    height, width = pixels.shape[:2]
    ridges = 1 - np.abs(2 * _fractal(height, width, 1.6, rng) - 1)
    needles = 1 - np.abs(2 * _fractal(height, width, 1.2, rng) - 1)
    y, x = (np.abs(np.linspace(-1, 1, side)) for side in (height, width))
    border = np.maximum(y[:, None], x[None]) ** 2
    ice = np.clip(0.9 * ridges**3 + 0.5 * needles**6 + 0.5 * border - 0.35, 0, 1)[..., None]
    tint = np.array([0.85, 0.93, 1.0]) if pixels.shape[2] == 3 else np.ones(1)
    return strength[0] * pixels + strength[1] * ice * tint


def fog(pixels: np.ndarray, strength: tuple[float, float], rng: Generator, unit: float) -> np.ndarray:
    """Swathes of fog, the brightest part of the image as bright as before."""
    brightest = pixels.max()
    height, width = pixels.shape[:2]
    foggy = pixels + strength[0] * _fractal(height, width, strength[1], rng)[..., None]
    return foggy * brightest / (brightest + strength[0])


def brightness(pixels: np.ndarray, strength: float, rng: Generator, unit: float) -> np.ndarray:
    """A larger value of HSV, with hue and saturation as they were."""
    value = pixels.max(2, keepdims=True)
    brighter = np.minimum(value + strength, 1)
    return np.where(value > 0, pixels * brighter / np.maximum(value, 1e-6), brighter)


def contrast(pixels: np.ndarray, strength: float, rng: Generator, unit: float) -> np.ndarray:
    """Values nearer to the mean of their channel."""
    mean = pixels.mean((0, 1), keepdims=True)
    return (pixels - mean) * strength + mean


def elastic_transform(
    pixels: np.ndarray, strength: tuple[float, float, float], rng: Generator, unit: float
) -> np.ndarray:
    """A sheet of rubber: an affine map that shifts three corners, then smooth displacements (Simard et al. 2003)."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    height, width = pixels.shape[:2]
    side = min(height, width)
    alpha, sigma, shift = (share * side for share in strength)
    corners = np.array([[0.0, 0.0, 1.0], [0.0, width, 1.0], [height, 0.0, 1.0]])
    moved = corners[:, :2] + rng.uniform(-shift, shift, (3, 2))
    affine = np.linalg.solve(corners, moved)  # [3, 2]: row, column, 1 to row, column
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([rows, columns, np.ones_like(rows)], -1) @ affine
    displacements = [
        gaussian_filter(rng.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3) * alpha for _ in "yx"
    ]
    coordinates = np.moveaxis(places, -1, 0) + np.stack(displacements)
    channels = [map_coordinates(channel, coordinates, order=1, mode="reflect") for channel in np.moveaxis(pixels, 2, 0)]
    return np.stack(channels, -1)


def pixelate(pixels: np.ndarray, strength: float, rng: Generator, unit: float) -> np.ndarray:
    """A low resolution, enlarged again."""
    from PIL import Image

    height, width = pixels.shape[:2]
    small = max(1, int(width * strength)), max(1, int(height * strength))
    image = _picture(pixels).resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
    return _pixels(image)


def jpeg_compression(pixels: np.ndarray, strength: int, rng: Generator, unit: float) -> np.ndarray:
    """JPEG of low quality."""
    from PIL import Image

    buffer = io.BytesIO()
    _picture(pixels).save(buffer, "JPEG", quality=strength)
    with Image.open(buffer) as image:
        return _pixels(image)


def _picture(pixels: np.ndarray) -> Any:
    """A Pillow image of pixels in 0..1."""
    from PIL import Image

    values = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def _pixels(image: Any) -> np.ndarray:
    values = np.asarray(image, np.float32) / 255
    return values[..., None] if values.ndim == 2 else values


def _grey(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 1], Rec. 601 luma."""
    return pixels if pixels.shape[2] == 1 else pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)


def _convolved(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each channel with a kernel whose weights are brought to a sum of 1; the image is mirrored at its border."""
    from scipy.signal import fftconvolve  # type: ignore[import-untyped]

    reach = kernel.shape[0] // 2
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), "symmetric")
    weights = (kernel / kernel.sum()).astype(np.float32)[..., None]
    return fftconvolve(padded, weights, mode="valid", axes=(0, 1))


def _line(length: float, sigma: float, degrees: float) -> np.ndarray:
    """A kernel that starts in the middle and fades like half a Gaussian."""
    reach = int(np.ceil(length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.linspace(0, length, max(2, 4 * reach))
    weights = np.exp(-((steps / max(sigma, 1e-3)) ** 2) / 2)
    rows, columns = (reach + steps * move for move in (np.sin(np.radians(degrees)), np.cos(np.radians(degrees))))
    for row in (0, 1):  # each point is shared out to the four pixels around it
        for column in (0, 1):
            shares = np.abs(1 - row - rows % 1) * np.abs(1 - column - columns % 1)
            places = rows.astype(int) + row, columns.astype(int) + column
            np.add.at(kernel, places, weights * shares)
    return kernel


def _enlarged(pixels: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the image, `factor` times as large."""
    from PIL import Image

    height, width = pixels.shape[:2]
    half_width, half_height = width / 2 / factor, height / 2 / factor
    box = width / 2 - half_width, height / 2 - half_height, width / 2 + half_width, height / 2 + half_height
    channels = [
        Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), Image.Resampling.BILINEAR, box=box)
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack([np.asarray(channel) for channel in channels], -1)


def _fractal(height: int, width: int, decay: float, rng: Generator) -> np.ndarray:
    """[H, W] in 0..1: noise at every scale, each octave weaker by the factor `decay` than the one twice as coarse."""
    from PIL import Image

    total = np.zeros((height, width))
    weight, cells = 1.0, 2
    while cells <= max(height, width):
        grid = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
        total += weight * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
        weight, cells = weight / decay, cells * 2
    total -= total.min()
    return total / max(total.max(), 1e-6)


CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
"""The corruptions by name; params.py reads the keys without importing this file."""
