"""The verdict on a generator's samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.store import Split, decode_image
from pipeline.metrics import generative as metrics
from pipeline.metrics import neighbours
from pipeline.reporting import plots
from pipeline.reporting.verdicts import Verdict
from pipeline.visualise import draw

ROWS = 8


@dataclass
class Samples:
    """What a generator drew.

    Attributes:
        images: encoded, one per sample.
        features: [N, D], of the samples.
        noise: [*, D], of noise images.
        space: backbone, weights and image size behind the features.
    """

    images: list[bytes]
    features: np.ndarray
    noise: np.ndarray
    space: dict[str, Any]


@dataclass
class Real:
    """Real images in the same space.

    Attributes:
        split: of the reference, for pictures.
        image_ids: of the rows of `features`.
        features: [M, D], the reference.
        others: [*, D], real images outside of the reference.
        other_ids: of the rows of `others`.
        others_split: which ones these are.
    """

    split: Split
    image_ids: list[str]
    features: np.ndarray
    others: np.ndarray
    other_ids: list[str]
    others_split: str


def judge(samples: Samples, real: Real, name: str) -> Verdict:
    """Judges samples against real images in a feature space."""
    table = metrics.per_image(features=samples.features, noise=samples.noise, real=real.others, reference=real.features)
    figures = metrics.figures(table)
    nearest, distance = neighbours.nearest(features=samples.features, reference=real.features)

    def draw_pictures(folder: Path) -> None:
        compared = {"samples": "", "other real images": "_real", "noise": "_noise"}
        panels = [
            (kind.upper(), [(who, figures[kind + ending]) for who, ending in compared.items()])
            for kind in ("fid", "kid")
        ]
        plots.distances(folder / "scores.png", panels)
        _draw_samples(folder / "samples.png", samples, real, nearest, name)

    space = samples.space
    size = metrics.kid_subset_size(len(samples.features), len(real.features))
    return Verdict(
        metrics=figures,
        per_class=[],
        protocol=[
            ("features", f"{space['backbone']}, weights {space['weights']}, images of {space['image_size']} pixels"),
            ("resize", "antialiased bicubic of 8-bit pixels, stretched to a square"),
            ("dimension", int(samples.features.shape[1])),
            ("num_samples", len(samples.features)),
            ("num_noise", len(samples.noise)),
            ("num_other_real", f"{len(real.others)} of {real.others_split}"),
            ("fid", "exact in float64, biased upwards by small numbers; only comparable in this feature space"),
            ("kid", f"{metrics.NUM_SUBSETS} random subsets of {size}, kernel (x.y / D + 1)^3, unbiased"),
            (
                "precision and recall",
                f"Kynkaanniemi et al. 2019, k = {neighbours.PRECISION_NEIGHBOURS}, within reach or just at it",
            ),
            ("density and coverage", f"Naeem et al. 2020, k = {neighbours.DENSITY_NEIGHBOURS}, strictly within reach"),
            ("memorised", "nearer to a reference image than its nearest reference image: 1 - authenticity, Alaa 2022"),
            ("resampled", "samples and real images; fid and kid to first order, the reach of every image as it is"),
            ("per_image", "what each adds to a figure; Euclidean distance of samples to their nearest reference image"),
        ],
        per_image=_per_image(table, samples, real, nearest, distance),
        draw=draw_pictures,
    )


def _per_image(table: pa.Table, samples: Samples, real: Real, nearest: np.ndarray, distance: np.ndarray) -> pa.Table:
    """The rows of the figures with names, and with the nearest real image of each sample."""
    made = {"sample": len(samples.features), "noise": len(samples.noise)}
    names = [f"{kind}_{index:05d}" for kind, num in made.items() for index in range(num)]
    rest = table.num_rows - len(distance)
    return pa.table(
        {
            "image_id": [*names, *real.other_ids, *real.image_ids],
            "nearest_distance": pa.array([*distance.tolist(), *[None] * rest], pa.float32()),
            "nearest_image_id": pa.array([*(real.image_ids[i] for i in nearest), *[None] * rest], pa.string()),
            **{name: table.column(name) for name in table.column_names},
        }
    )


def _draw_samples(path: Path, samples: Samples, real: Real, nearest: np.ndarray, name: str) -> None:
    """Samples, the real image nearest to each, and real images drawn at random."""
    num = min(ROWS**2, len(samples.images))
    rows = {image_id: index for index, image_id in enumerate(real.split.column("image_id"))}
    close = [rows[real.image_ids[index]] for index in nearest[:num]]
    drawn = np.random.default_rng(0).permutation(len(real.split))[:num]
    panels = [
        [decode_image(data, real.split.info.channels) for data in samples.images[:num]],
        [real.split.read(index).image for index in close],
        [real.split.read(int(index)).image for index in drawn],
    ]
    cell = max(40, min(96, *panels[0][0].shape[:2]))
    sheets = [draw.grid(images, columns=ROWS, cell=cell) for images in panels]
    captions = [f"samples of {name}", "the real image nearest to each sample", "real images, drawn at random"]
    side = max(max(sheet.shape[:2]) for sheet in sheets)
    draw.save(path, draw.grid(sheets, columns=3, captions=captions, cell=side))
