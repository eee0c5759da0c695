"""The predict stage on several processes leaves the bytes of one."""

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from pipeline import paths
from pipeline.data.store import to_row, writing
from pipeline.models import tasks
from pipeline.params import load
from pipeline.stages import predict
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import checkpoint as checkpoints
from pipeline.training import distributed

PARAMS = """
defaults: {device: cpu, precision: float32, threads: 1, seed: 0, launch: LAUNCH, training: {}}
tracking: {uri: "sqlite:///mlflow.db", experiment: toy, required: false, timeout: 5}
datasets:
  dots: {source: digits, inputs: requirements.lock, options: {}}
augmentations: {}
features: {}
runs:
  resnet:
    {model: classification/resnet, dataset: dots, inputs: raw/dots,
     model_params: {layers: [1, 1, 1, 1], channels: [4, 4, 4, 4], small_stem: true},
     training: {epochs: 1, optimizer: sgd, lr: 0.1, weight_decay: 0.0, schedule: constant, warmup_epochs: 0.0,
                batch_size: 4, clip_norm: 0.0, ema_decay: 0.0},
     prediction: {split: test, batch_size: 4}, evaluation: {top_k: 2}}
generators: {}
visualisations: {}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A store of 15 test images, three batches of four and one of three, and a checkpoint of random weights."""
    monkeypatch.chdir(tmp_path)
    info = DatasetInfo("dots", ["classification"], ["a", "b", "c"], 1, "none", "none", "here")
    info.mean, info.std, info.image_size = [0.5], [0.2], [8, 8]
    rng = np.random.default_rng(0)
    with writing(paths.raw("dots"), info) as writer:
        for index in range(15):
            image = rng.integers(0, 256, (8, 8, 1), dtype=np.uint8)
            writer.add("test", to_row(Sample(f"{index:02}", f"{index}.png", image, label=index % 3)))
    paths.PARAMS.write_text(PARAMS.replace("LAUNCH", '""'))
    entry = load().runs["resnet"]
    model = tasks.build(entry.model, info, entry.model_params)
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    checkpoints.save(paths.checkpoint("resnet"), checkpoints.Checkpoint(entry.model, entry.model_params, info, arrays))
    return tmp_path


def answers():
    return {path.name: path.read_bytes() for path in paths.predictions("resnet").iterdir()}


def test_shares_of_processes_come_together_in_the_order_of_the_split(project, monkeypatch):
    predict.run(load(), "resnet")
    want, shares = answers(), []

    class Second:
        """The second of two processes, which meets the first one's share."""

        num, index = 2, 1
        whole_batches = distributed.Processes.whole_batches

        def __init__(self, compute):
            self.index = next(order)

        def gather(self, value):
            shares.append(value)
            return shares

    order = count()
    monkeypatch.setattr(distributed, "Processes", Second)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        predict._predict(load().runs["resnet"], predict.Network(load(), checkpoints.load(paths.checkpoint("resnet"))))
    assert [[position for position, _ in share] for share in shares] == [
        [0, 1, 2, 3, 8, 9, 10, 11],
        [4, 5, 6, 7, 12, 13, 14],
    ]
    order, both = count(1), list(shares)
    shares[:] = both[:1]
    rows = predict._predict(
        load().runs["resnet"], predict.Network(load(), checkpoints.load(paths.checkpoint("resnet")))
    )
    assert [row["image_id"] for row in rows] == [f"{index:02}" for index in range(15)]
    predict._write(load().runs["resnet"], "resnet", Path("again"), rows, True)
    assert {path.name: path.read_bytes() for path in Path("again").iterdir()} == want


def test_only_the_first_process_writes(project, monkeypatch):
    monkeypatch.setattr(predict, "_answers", lambda *_: ([], True))
    monkeypatch.setenv("RANK", "1")
    predict.run(load(), "resnet")
    assert not paths.predictions("resnet").exists()


@pytest.mark.slow
def test_two_processes_answer_as_one_does(project):
    predict.run(load(), "resnet")
    want = answers()
    paths.PARAMS.write_text(PARAMS.replace("LAUNCH", "torchrun --standalone --nproc-per-node 2"))
    environment = {**os.environ, "PYTHONPATH": str(Path(predict.__file__).parents[2])}
    command = [sys.executable, "-m", "pipeline", "predict", "resnet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert answers() == want
