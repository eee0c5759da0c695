"""A repository with two commits: params, dvc.lock and the reports of two classifiers, no data and no weights."""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from pipeline.metrics import classification

NUM_IMAGES, NUM_CLASSES = 300, 4
LABELS = np.arange(NUM_IMAGES) % NUM_CLASSES


def scores(seed: int, share_right: float, mended: int = 0) -> np.ndarray:
    """[N, K] probabilities of a classifier that is right on a share of the images, and on `mended` more."""
    rng = np.random.default_rng(seed)
    right = rng.random(NUM_IMAGES) < share_right
    right[np.flatnonzero(~right)[:mended]] = True
    top = np.where(right, LABELS, (LABELS + rng.integers(1, NUM_CLASSES, NUM_IMAGES)) % NUM_CLASSES)
    found = rng.dirichlet(np.ones(NUM_CLASSES), NUM_IMAGES) * 0.4
    found[np.arange(NUM_IMAGES), top] += 0.6
    return (found / found.sum(1, keepdims=True)).astype(np.float32)


class Repository:
    """Writes the files of a state and commits them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params: dict[str, Any] = {
            "defaults": {"device": "auto", "precision": "auto", "threads": 2, "seed": 0, "training": {"lr": 0.001}},
            "datasets": {"toy": {"source": "digits", "inputs": "requirements.lock", "options": {}}},
            "features": {"lite0": {"inputs": "raw/toy", "backbone": "x"}},
            "augmentations": {},
            "runs": {},
            "generators": {},
            "visualisations": {},
        }
        self.stages: dict[str, Any] = {}
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        named = ("-c", "user.name=x", "-c", "user.email=x@example.org", *arguments)
        done = subprocess.run(["git", *named], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(
        self,
        name: str,
        found: np.ndarray,
        *,
        rule: str = "one",
        code: str = "1",
        data: str = "1",
        seeds: Any = None,
        **training: Any,
    ) -> None:
        """One classifier's entry, lock entries and report."""
        self.params["runs"][name] = {
            "model": "classification/resnet",
            "dataset": "toy",
            "inputs": "raw/toy",
            "model_params": {},
            "training": training,
            "evaluation": {"top_k": 2},
        }
        deps = [{"path": "pipeline/training/loop.py", "md5": code}, {"path": "data/raw/toy", "md5": data}]
        self.stages[f"train@{name}"] = {"cmd": "x", "deps": deps}
        self.stages["download@toy"] = {"cmd": "x", "outs": [{"path": "data/raw/toy", "md5": data}]}
        table = classification.per_image(scores=found, labels=LABELS, top_k=2)
        ids = pa.array([f"{index:04d}" for index in range(NUM_IMAGES)])
        buffer = io.BytesIO()
        pq.write_table(table.add_column(0, "image_id", ids), buffer)
        content = classification.metrics(scores=found, labels=LABELS, top_k=2)
        intervals = [["top1", content["top1"] - 0.05, content["top1"] + 0.05]]
        folder = self.folder / "reports/runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "per_image.parquet").write_bytes(buffer.getvalue())
        metrics = {**content, "intervals": intervals, "protocol": [["rule", rule]], "seeds": seeds}
        (folder / "metrics.json").write_text(json.dumps(metrics))

    def commit(self, message: str) -> str:
        """Writes params and lock, commits everything and tells the commit."""
        for name, content in (("params.yaml", self.params), ("dvc.lock", {"schema": "2.0", "stages": self.stages})):
            YAML().dump(content, self.folder / name)
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")
