"""442 diabetes patients, ten baseline measurements each, and the progression of the disease after a year to regress.

From scikit-learn, the table of Efron et al. 2004 ("Least angle regression", table 1), in its own units. The numbers are
the store's `features` column and the progression its `target`; the image of a row is a bar chart of its measurements.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.data import splits, store
from pipeline.data.charts import chart
from pipeline.errors import ParamsError
from pipeline.structures import DatasetInfo, Sample

Share = Annotated[float, Field(gt=0, lt=1)]
LICENCE = "BSD-3-Clause, as part of scikit-learn; its authors publish the table without further terms"
ATTRIBUTION = (
    "B. Efron, T. Hastie, I. Johnstone, R. Tibshirani: Least Angle Regression. Annals of Statistics 32(2), 2004"
)
SOURCE = "https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html (as in scikit-learn's load_diabetes)"


def prepare(folder: Path, *, seed: int, train: Share = 0.6, val: Share = 0.2) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split.
        train: share of the train split.
        val: share of the val split; the rest is test.
    """
    from sklearn.datasets import load_diabetes

    if train + val >= 1:
        raise ParamsError(
            f"params.yaml datasets.{folder.name}.options: train and val leave no row for test ({train} + {val}); "
            "fix: shares that add up to less than 1"
        )
    table = load_diabetes(scaled=False)
    features, targets = table.data.astype(np.float64), table.target.astype(np.float64)
    names = [f"patient_{number:03d}" for number in range(1, len(targets) + 1)]
    dealt = splits.assign(names, shares={"train": train, "val": val, "test": 1 - train - val}, seed=seed)
    info = DatasetInfo(
        name=folder.name,
        tasks=["regression"],
        classes=[],
        channels=1,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=f"sha256:{hashlib.sha256(features.tobytes() + targets.tobytes()).hexdigest()}",
        feature_names=list(table.feature_names),
    )
    known = features[np.array(dealt) == "train"]
    low, high = known.min(0), known.max(0)
    with store.writing(folder, info) as writer:
        for name, split, row, target in zip(names, dealt, features, targets, strict=True):
            sample = Sample(image_id=name, file_name=f"{name}.png", image=chart(row, low, high), target=float(target))
            writer.add(split, {**store.to_row(sample), "features": row.tolist()})
