"""Named policies of augmentation: `{preset: weather}` among the transforms of params.yaml.

A preset is a function whose keyword-only signature is the schema of its options; it returns the steps of a policy:
transforms of albumentations, or mixing steps over several samples. Every preset keeps the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pipeline.data.mixing import CopyPaste, Mixup, Mosaic

Steps = list[Any]


def flip_crop(*, flip: float = 0.5, crop: float = 0.2) -> Steps:
    """A mirror, then each side cropped by up to `crop` of the image and the rest enlarged to its size."""
    import albumentations as a

    return [a.HorizontalFlip(p=flip), a.CropAndPad(percent=(-crop, 0.0), keep_size=True, p=1.0)]


def colour(*, strength: float = 0.4, p: float = 0.9) -> Steps:
    """Brightness, contrast and saturation by factors of 1 - strength to 1 + strength, and a quarter of that in hue."""
    import albumentations as a

    factors, hue = (max(0.0, 1 - strength), 1 + strength), min(0.5, strength / 4)
    jitter = a.ColorJitter(brightness=factors, contrast=factors, saturation=factors, hue=(-hue, hue), p=p)
    return [jitter, a.RandomGamma(gamma_limit=(80, 125), p=0.3 * p)]


def geometric(
    *, rotate: float = 15.0, scale: float = 0.2, shear: float = 8.0, fill: float = 0.0, p: float = 0.9
) -> Steps:
    """A mirror, an affine map (degrees, factors of 1 - scale to 1 + scale) and sometimes a change of perspective."""
    import albumentations as a

    affine = a.Affine(
        rotate=(-rotate, rotate),
        scale=(1 - scale, 1 + scale),
        shear=(-shear, shear),
        translate_percent=(-0.08, 0.08),
        fill=fill,
        keep_ratio=True,
        p=p,
    )
    return [a.HorizontalFlip(p=0.5), affine, a.Perspective(scale=(0.02, 0.06), fill=fill, p=0.3 * p)]


def weather(*, p: float = 0.9) -> Steps:
    """One of rain, snow, fog, shadow and sun flare; for RGB images."""
    import albumentations as a

    return [
        a.OneOf(
            [a.RandomRain(), a.RandomSnow(), a.RandomFog(), a.RandomShadow(), a.RandomSunFlare()], p=_probability(p)
        )
    ]


def autoaugment(*, policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet", fill: float = 0.0) -> Steps:
    """A policy found by search (Cubuk et al. 2019), torchvision's `AutoAugment`."""
    from torchvision.transforms.v2 import AutoAugmentPolicy

    return _automatic("autoaugment", fill, {"policy": AutoAugmentPolicy(policy)})


def randaugment(*, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31, fill: float = 0.0) -> Steps:
    """Operations drawn at random, all of one strength (Cubuk et al. 2020), torchvision's `RandAugment`."""
    options = {"num_ops": num_ops, "magnitude": magnitude, "num_magnitude_bins": num_magnitude_bins}
    if not 0 <= magnitude < num_magnitude_bins:
        raise ValueError(f"magnitude should be 0 to num_magnitude_bins - 1 ({magnitude} of {num_magnitude_bins})")
    return _automatic("randaugment", fill, options)


def trivialaugment(*, num_magnitude_bins: int = 31, fill: float = 0.0) -> Steps:
    """One operation of any strength (Mueller and Hutter 2021), torchvision's `TrivialAugmentWide`."""
    return _automatic("trivialaugment", fill, {"num_magnitude_bins": num_magnitude_bins})


def _automatic(member: str, fill: float, options: dict[str, Any]) -> Steps:
    from pipeline.data.autoaugment import Automatic

    return [Automatic(member, fill, options)]


def mosaic(*, p: float = 1.0, scale: tuple[float, float] = (0.4, 1.0)) -> Steps:
    """Four images of the split around a point."""
    _check(0 < scale[0] <= scale[1] <= 1, f"scale should be two rising shares, above 0 and up to 1 ({list(scale)})")
    return [Mosaic(_probability(p), (scale[0], scale[1]))]


def copy_paste(*, p: float = 1.0, max_objects: int = 4, scale: tuple[float, float] = (0.5, 1.5)) -> Steps:
    """Objects of another image of the split, cut out along their masks."""
    _check(max_objects >= 1, f"max_objects should be at least 1 ({max_objects})")
    _check(0 < scale[0] <= scale[1], f"scale should be two rising factors above 0 ({list(scale)})")
    return [CopyPaste(_probability(p), max_objects, (scale[0], scale[1]))]


def mixup(*, p: float = 1.0, alpha: float = 1.5) -> Steps:
    """Two images of the split blended, with the objects of both; classes cannot be blended in a store."""
    _check(alpha > 0, f"alpha should be above 0 ({alpha})")
    return [Mixup(_probability(p), alpha)]


def cutout(*, p: float = 1.0, num_holes: int = 1, size: float = 0.3, fill: float = 0.0) -> Steps:
    """Up to `num_holes` rectangles blotted out, from the truth too (DeVries and Taylor 2017).

    Their sides are half of `size` to `size` of the image's.
    """
    import albumentations as a

    side, holes = (size / 2, size), (1, num_holes)
    hole = a.CoarseDropout(
        num_holes_range=holes, hole_height_range=side, hole_width_range=side, fill=fill, fill_mask=0, p=p
    )
    return [hole]


def _check(claim: bool, message: str) -> None:
    if not claim:
        raise ValueError(message)


def _probability(p: float) -> float:
    _check(0 <= p <= 1, f"p should be 0 to 1 ({p})")
    return p


PRESETS: dict[str, Callable[..., Steps]] = {
    "flip_crop": flip_crop,
    "colour": colour,
    "geometric": geometric,
    "weather": weather,
    "autoaugment": autoaugment,
    "randaugment": randaugment,
    "trivialaugment": trivialaugment,
    "mosaic": mosaic,
    "copy_paste": copy_paste,
    "mixup": mixup,
    "cutout": cutout,
}
"""The presets by name; params.py reads the keys without importing this file."""
