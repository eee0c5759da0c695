"""Models that are fitted to stored numbers, applied to more of them; `fitting.py` fits them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from pipeline.params import HEADS

EXTRACTOR = "extractor."
"""Before the names of arrays of a checkpoint that the backbone of its features has learnt."""


def module_of(model: str) -> Any:
    """The module of a model's path, such as `heads/linear`."""
    return importlib.import_module(f"pipeline.models.{model.replace('/', '.')}")


def answers(model: str, arrays: dict[str, np.ndarray], features: np.ndarray) -> list[dict[str, Any]]:
    """The columns of predictions.arrow of each row of features [N, D]."""
    module = module_of(model)
    if model.startswith(f"{HEADS}/"):
        return [{"scores": scores} for scores in module.scores(arrays, features)]
    return [{"value": float(value)} for value in module.values(arrays, features)]


def gives_probabilities(model: str) -> bool:
    """Whether a model's answers are probabilities of classes."""
    return bool(getattr(module_of(model), "PROBABILITIES", False))


def of_extractor(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of a checkpoint's arrays what the backbone of its features has learnt."""
    return {key.removeprefix(EXTRACTOR): array for key, array in arrays.items() if key.startswith(EXTRACTOR)}
