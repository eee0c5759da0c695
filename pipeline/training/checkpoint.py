"""Finished weights and snapshots of unfinished training.

A finished checkpoint is a folder of weights.safetensors and model.json, which keeps the digest of the weights.
A snapshot lives outside DVC's outputs, in a folder keyed by all that the run depends on; a killed run goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.paths import RESUME, write_json, written_whole
from pipeline.structures import DatasetInfo


@dataclass
class Checkpoint:
    """What is needed to use a trained model.

    Attributes:
        model: its path under pipeline/models.
        model_params: what it was built with.
        info: the data it was trained on; `image_size` is the size it was trained at.
        arrays: its tensors by name.
    """

    model: str
    model_params: dict[str, Any]
    info: DatasetInfo
    arrays: dict[str, np.ndarray]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all.

    Raises:
        PipelineError: a weight is not finite.
    """
    from safetensors.numpy import save as to_bytes

    for name, array in checkpoint.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise PipelineError(f"{folder} {name}: the trained weights are not finite; fix: lower the learning rate")
    # np.ascontiguousarray would make a scalar, such as a batch norm's counter, an array of one
    content = to_bytes({name: np.asarray(array, order="C") for name, array in sorted(checkpoint.arrays.items())})
    with written_whole(folder) as temporary:
        temporary.mkdir()
        (temporary / "weights.safetensors").write_bytes(content)
        write_json(
            temporary / "model.json",
            {
                "model": checkpoint.model,
                "model_params": checkpoint.model_params,
                "info": checkpoint.info.to_json(),
                "sha256": hashlib.sha256(content).hexdigest(),
            },
        )


def load(folder: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        PipelineError: it is missing, or its bytes are not those that were saved.
    """
    from safetensors.numpy import load as from_bytes

    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        content = (folder / "weights.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename}: no checkpoint there; fix: dvc repro the run's train stage") from None
    except ValueError as error:
        raise PipelineError(f"{folder}/model.json: not readable ({error}); fix: train again") from None
    if hashlib.sha256(content).hexdigest() != description["sha256"]:
        raise PipelineError(
            f"{folder}/weights.safetensors: damaged (its sha256 differs from model.json); fix: train again"
        )
    return Checkpoint(
        model=description["model"],
        model_params=description["model_params"],
        info=DatasetInfo(**description["info"]),
        arrays=from_bytes(content),
    )


def run_digest(settings: Mapping[str, Any], inputs: Path) -> str:
    """A key of all that a training run depends on: settings, its input files, and the code in memory.

    Input files count by name, size and modification time, so that large data need not be read.
    """
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for path in sorted(inputs.rglob("*")):
        status = path.stat()
        digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}".encode())
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] == "pipeline" and getattr(module, "__file__", None):
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


class Snapshots:
    """The latest state of an unfinished run; a run of the same seed with another digest removes it."""

    def __init__(self, name: str, seed: int, digest: str) -> None:
        self.path = RESUME / name / str(seed) / f"{digest}.pt"
        if self.path.parent.is_dir():
            for other in self.path.parent.iterdir():
                if other != self.path and other.is_file():
                    other.unlink()

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None if there is none that can be read."""
        import torch

        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:
            print(f"warning: {self.path}: not readable ({type(error).__name__}); training starts anew", file=sys.stderr)
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the saved state; the old one stays if this fails."""
        import torch

        with written_whole(self.path) as temporary:
            torch.save(state, temporary)
