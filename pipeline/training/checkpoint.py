"""Finished weights and snapshots of unfinished training.

A finished checkpoint is a folder of weights.safetensors and model.json, which keeps the digest of the weights.
A snapshot lives outside DVC's outputs, keyed by all that the run depends on; a killed run goes on from it. Beside it
lies the log of the training as it goes, `data/resume/<run>/<seed>/<phase>/log.jsonl`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.paths import RESUME, write_json, written_whole
from pipeline.structures import DatasetInfo

PACKAGE = Path(__file__).parent.parent
CODE = ("data", "models", "ops", "training")  # folders; those below them hold what goes by a name


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
        info = DatasetInfo.from_json(description["info"])
        model, model_params, sha256 = (
            str(description["model"]),
            dict(description["model_params"]),
            description["sha256"],
        )
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename}: no checkpoint there; fix: dvc repro the run's train stage") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{type(error).__name__} {error}"
        raise PipelineError(f"{folder}/model.json: not readable ({what}); fix: train again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PipelineError(
            f"{folder}/weights.safetensors: damaged (its sha256 differs from model.json); fix: train again"
        )
    return Checkpoint(model=model, model_params=model_params, info=info, arrays=from_bytes(content))


def run_digest(settings: Mapping[str, Any], inputs: Path, *models: str) -> str:
    """A key of all that a training run depends on: settings, its input files, and `code_of` its models.

    Input files count by name, size and modification time, so that large data need not be read.
    """
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for path in sorted(inputs.rglob("*")):
        status = path.stat()
        digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}".encode())
    for file in code_of(*models):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def code_of(*models: str) -> list[Path]:
    """The files whose code a training of these models can run, imported by now or not."""
    shared = [file for folder in CODE for file in sorted((PACKAGE / folder).glob("*.py"))]
    own = [PACKAGE / "models" / f"{model}.py" for model in models]
    return [PACKAGE / "structures.py", *shared, *(file.with_name("__init__.py") for file in own), *own]


class Snapshots:
    """The states of an unfinished training, the latest of which is enough to go on from.

    A file bears in its name what the training depends on, a number that rises, and the digest of its own bytes.

    Attributes:
        folder: of the snapshots and of the log.
        log: one JSON object per finished epoch, written as it ends.
        of_many: this training is one of several of its run, so that its end is kept until all have ended.
    """

    def __init__(self, name: str, seed: int, digest: str, *, phase: str = "run", of_many: bool = False) -> None:
        self.folder = RESUME / name / str(seed) / phase
        self.log = self.folder / "log.jsonl"
        self.of_many = of_many
        self._digest = digest

    def load(self) -> dict[str, Any] | None:
        """The latest state whose bytes are those that were saved, or None; a damaged one is told."""
        import torch

        for path in reversed(self._saved()):
            try:
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() == path.stem.rpartition("-")[2]:
                    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                fault = "damaged"
            except Exception as error:
                fault = type(error).__name__
            print(f"warning: {path}: not readable ({fault}); training goes on from before it", file=sys.stderr)
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Keeps a state; all older ones, and those of other digests, go once it is complete."""
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(path.stem.split("-")[1]) for path in self._saved()), default=0)
        with tempfile.TemporaryDirectory(prefix=".", dir=self.folder) as scratch:
            whole = Path(scratch) / "state.pt"
            with whole.open("w+b") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            path = self.folder / f"{self._digest}-{number:09d}-{digest}.pt"
            os.replace(whole, path)
        for other in self.folder.glob("*.pt"):
            if other != path:
                other.unlink(missing_ok=True)

    def write_log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replaces the log by these rows."""
        with written_whole(self.log) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def add_to_log(self, row: Mapping[str, float]) -> None:
        """Appends a row to the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self._digest}-*.pt"))


def forget(name: str) -> None:
    """Removes a run's snapshots, when its checkpoint is written; the logs of its training stay."""
    for path in [*(RESUME / name).glob("*/*/*.pt"), *(RESUME / name).glob("*/*/.*/*")]:
        path.unlink(missing_ok=True)
    for scratch in (RESUME / name).glob("*/*/.*"):  # of a process that was killed while it saved
        scratch.rmdir()
