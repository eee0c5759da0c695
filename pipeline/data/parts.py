"""Some images of a store as a split of their own: what is held out of a cross-validation, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data import splits
from pipeline.data.store import Split
from pipeline.errors import ParamsError


class Part(Split):
    """The images at some positions of a split, for a `Loader`; nothing is copied.

    Args:
        whole: the split.
        positions: [N] of the images, in their new order.
    """

    def __init__(self, whole: Split, positions: np.ndarray) -> None:
        super().__init__(whole.table, whole.info)
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def column(self, name: str) -> list[Any]:
        """All values of a column, undecoded."""
        return self.table.column(name).take(self.positions).to_pylist()

    def row(self, index: int) -> dict[str, Any]:
        """One row as it is stored, images still encoded."""
        return super().row(int(self.positions[index]))


def joined(parts: Sequence[Split]) -> Split:
    """The images of several splits of a store, one after the other."""
    return Split(pa.concat_tables(part.table for part in parts), parts[0].info)


def folds(whole: Split, num: int, seed: int) -> list[tuple[Part, Part]]:
    """Parts to train on and to hold out, so that every image is held out once.

    Classes have the same shares in all folds where images have one label. Images of a group stay together, and so do
    an image and its augmented copies (`<image_id>~<number>`), which are never held out themselves.

    Args:
        whole: the images.
        num: of folds.
        seed: of who belongs to which.

    Raises:
        ParamsError: fewer images or groups than folds.
    """
    columns = whole.table.column_names
    ids = whole.column("image_id")
    units, are_copies = splits.units(ids, whole.column("group") if "group" in columns else None)
    is_copy = np.array(are_copies)
    own = np.flatnonzero(~is_copy)
    if len(set(units)) < num:
        raise ParamsError(f"training.folds: {num} of {len(set(units))} images or groups; fix: fewer folds")
    dealt = splits.assign(
        [ids[position] for position in own],
        shares={str(fold): 1 / num for fold in range(num)},
        seed=seed,
        labels=Part(whole, own).column("label") if "label" in columns else None,
        groups=[units[position] for position in own],
    )
    fold_of = {units[position]: int(fold) for position, fold in zip(own, dealt, strict=True)}
    folds_of = np.array([fold_of[unit] for unit in units])
    return [
        (Part(whole, np.flatnonzero(folds_of != fold)), Part(whole, np.flatnonzero((folds_of == fold) & ~is_copy)))
        for fold in range(num)
    ]
