"""The verdict on a generator's samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.store import Split, decode_image
from pipeline.metrics import generative as metrics
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
        others_split: which ones these are.
    """

    split: Split
    image_ids: list[str]
    features: np.ndarray
    others: np.ndarray
    others_split: str


def judge(samples: Samples, real: Real, name: str) -> Verdict:
    """Judges samples against real images in a feature space."""
    figures = metrics.metrics(features=samples.features, noise=samples.noise, real=real.others, reference=real.features)
    nearest, distance = metrics.nearest(features=samples.features, reference=real.features)

    def draw_pictures(folder: Path) -> None:
        compared = {"samples": "", "other real images": "_real", "noise": "_noise"}
        panels = [
            (kind.upper(), [(who, figures[kind + ending]) for who, ending in compared.items()])
            for kind in ("fid", "kid")
        ]
        plots.distances(folder / "scores.png", panels)
        _draw_samples(folder / "samples.png", samples, real, nearest, name)

    space = samples.space
    sizes = [metrics.kid_subset_size(len(rows), len(real.features)) for rows in (samples.features, samples.noise)]
    return Verdict(
        metrics=figures,
        per_class=[],
        protocol=[
            ("features", f"{space['backbone']}, weights {space['weights']}, images of {space['image_size']} pixels"),
            ("dimension", int(samples.features.shape[1])),
            ("num_samples", len(samples.features)),
            ("num_noise", len(samples.noise)),
            ("num_other_real", f"{len(real.others)} of {real.others_split}"),
            ("fid", "exact in float64, biased upwards by small numbers; only comparable in this feature space"),
            ("kid", f"{metrics.NUM_SUBSETS} random subsets of {sizes[0]}, kernel (x.y / D + 1)^3, unbiased"),
            ("per_image", "Euclidean distance of each sample to its nearest reference image"),
        ],
        per_image=pa.table(
            {
                "image_id": [f"sample_{index:05d}" for index in range(len(samples.features))],
                "nearest_distance": distance.astype(np.float32),
                "nearest_image_id": [real.image_ids[index] for index in nearest],
            }
        ),
        draw=draw_pictures,
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
