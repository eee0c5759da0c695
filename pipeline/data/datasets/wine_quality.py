"""UCI wine quality: 6,497 Portuguese wines, eleven measured properties each, and a quality from 0 to 10 to regress.

A table, not pictures: the numbers are the store's `features` column and the quality its `target`. The image of a row is
a bar chart of its properties, so that every stage that shows or decodes images has something true to show; a model is
meant to read the numbers. About a fifth of the rows repeat another one; equal rows stay in one split.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.data import splits, store
from pipeline.data.charts import chart
from pipeline.data.download import Asset, fetch_all
from pipeline.data.originals import checksums
from pipeline.errors import ParamsError, PipelineError
from pipeline.structures import DatasetInfo, Sample

Share = Annotated[float, Field(gt=0, lt=1)]
Colour = Literal["both", "red", "white"]

# UCI publishes no checksums; these are the SHA-256 that several public projects pin for the same addresses
FILES = {
    "red": "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
    "white": "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
}
ASSETS = {
    colour: Asset(
        name=f"wine_quality/winequality-{colour}.csv",
        urls=(f"https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/winequality-{colour}.csv",),
        checksum=f"sha256:{digest}",
    )
    for colour, digest in FILES.items()
}
LICENCE = "CC BY 4.0"
ATTRIBUTION = "P. Cortez, A. Cerdeira, F. Almeida, T. Matos, J. Reis: Wine Quality. UCI, 2009, doi:10.24432/C56S3T"
SOURCE = "https://archive.ics.uci.edu/dataset/186/wine+quality"
PROPERTIES = [
    "fixed acidity",
    "volatile acidity",
    "citric acid",
    "residual sugar",
    "chlorides",
    "free sulfur dioxide",
    "total sulfur dioxide",
    "density",
    "pH",
    "sulphates",
    "alcohol",
]
QUALITY = "quality"


@dataclass
class Wine:
    """A row of one of the files.

    Attributes:
        name: the row's id: colour and number, from 1.
        features: the properties, and with both colours 1.0 for a red wine.
        quality: the median of at least three tasters' scores.
    """

    name: str
    features: list[float]
    quality: float


def prepare(folder: Path, *, seed: int, train: Share = 0.7, val: Share = 0.15, colour: Colour = "both") -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split, which is stratified by quality and keeps equal rows together.
        train: share of the train split.
        val: share of the val split; the rest is test.
        colour: which wines; with both, whether a wine is red is a twelfth property.
    """
    if train + val >= 1:
        raise ParamsError(
            f"params.yaml datasets.{folder.name}.options: train and val leave no row for test ({train} + {val}); "
            "fix: shares that add up to less than 1"
        )
    colours = list(ASSETS) if colour == "both" else [colour]
    files = zip(colours, fetch_all(ASSETS[each] for each in colours), strict=True)
    wines = [wine for each, path in files for wine in _read(path, each, with_colour=colour == "both")]
    firsts: dict[tuple[float, ...], str] = {}
    groups = [firsts.setdefault(tuple(wine.features), wine.name) for wine in wines]
    dealt = splits.assign(
        [wine.name for wine in wines],
        shares={"train": train, "val": val, "test": 1 - train - val},
        seed=seed,
        labels=[wine.quality for wine in wines],
        groups=groups,
    )
    info = DatasetInfo(
        name=folder.name,
        tasks=["regression"],
        classes=[],
        channels=1,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums(ASSETS[each] for each in colours),
        feature_names=[*PROPERTIES, "red"] if colour == "both" else PROPERTIES,
    )
    rows = np.array([wine.features for wine, split in zip(wines, dealt, strict=True) if split == "train"])
    low, high = rows.min(0), rows.max(0)
    with store.writing(folder, info) as writer:
        for wine, split, group in zip(wines, dealt, groups, strict=True):
            sample = Sample(
                image_id=wine.name,
                file_name=f"{wine.name}.png",
                image=chart(np.array(wine.features), low, high),
                target=wine.quality,
                group=group,
            )
            writer.add(split, {**store.to_row(sample), "features": wine.features})


def _read(path: Path, colour: str, *, with_colour: bool) -> list[Wine]:
    """The rows of a file, its columns found by their names.

    Raises:
        PipelineError: a column is missing or a value is not a number; names file and line.
    """
    again = f"fix: delete {path} and run again"
    wines = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter=";")
        missing = [name for name in (*PROPERTIES, QUALITY) if name not in (reader.fieldnames or [])]
        if missing:
            raise PipelineError(f"{path.name}:1: no column {missing[0]!r}; {again}")
        for row in reader:
            try:
                *features, quality = (float(row[name]) for name in (*PROPERTIES, QUALITY))
            except (TypeError, ValueError):
                quality = math.nan
            if not math.isfinite(quality) or not np.isfinite(features).all():
                raise PipelineError(f"{path.name}:{reader.line_num}: not a row of numbers; {again}")
            if with_colour:
                features.append(float(colour == "red"))
            wines.append(Wine(f"{colour}_{reader.line_num - 1:04d}", features, quality))
    if not wines:
        raise PipelineError(f"{path.name}: no rows; {again}")
    return wines
