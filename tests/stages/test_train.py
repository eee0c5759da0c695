"""The train stage as a process: killed, interrupted and launched on two processes, it leaves the same weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from pipeline import paths
from pipeline.data.store import to_row, writing
from pipeline.errors import ParamsError
from pipeline.params import load
from pipeline.stages import train
from pipeline.structures import DatasetInfo, Sample

PARAMS = """
defaults:
  device: cpu
  precision: float32
  threads: 1
  seed: 0
  launch: LAUNCH
  training: {epochs: 6, optimizer: adamw, lr: 0.01, weight_decay: 0.01, schedule: cosine, warmup_epochs: 0.5,
             batch_size: 6, clip_norm: 1.0, ema_decay: 0.5}
tracking: {uri: "sqlite:///mlflow.db", experiment: toy, required: false, timeout: 5}
datasets:
  dots: {source: digits, inputs: requirements.lock, options: {}}
augmentations: {}
features: {}
runs:
  resnet:
    {model: classification/resnet, dataset: dots, inputs: raw/dots,
     model_params: {layers: [1, 1, 1, 1], channels: [4, 4, 4, 4], small_stem: true},
     training: {accumulate: 2, online: {flip: 0.5, crop: 0.2, mixup: 0.3}},
     prediction: {split: test, batch_size: 2}, evaluation: {top_k: 2}}
generators: {}
visualisations: {}
"""
START = (
    "import os, sys, time; from pipeline.training import loop; loop.SNAPSHOT_SECONDS = 0.0; "
    "loop.SNAPSHOT_SHARE = 1e9; from pipeline.cli import main; {more}; sys.exit(main(['train', 'resnet']))"
)


def write_project(folder, launch='""'):
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(PARAMS.replace("LAUNCH", launch))
    info = DatasetInfo("dots", ["classification"], ["dark", "light", "grey"], 1, "none", "none", "here")
    rng = np.random.default_rng(0)
    with writing(folder / paths.raw("dots"), info) as writer:
        for split, num in (("train", 31), ("val", 8), ("test", 2)):  # the last batch has one image, for two processes
            for i in range(num):
                image = (rng.integers(0, 100, (16, 16, 1)) + 75 * (i % 3)).astype(np.uint8)
                writer.add(split, to_row(Sample(f"{split}{i}", "", image, label=i % 3)))
    return folder


def start(folder, more="pass"):
    environment = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[2])}
    command = [sys.executable, "-c", START.format(more=more)]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def finished(folder, more="pass"):
    process = start(folder, more)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return result(folder)


def result(folder):
    outputs = [
        *(folder / paths.checkpoint("resnet")).rglob("*.*"),
        folder / paths.run_report("resnet") / "training.csv",
    ]
    return {path.name: path.read_bytes() for path in outputs}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run leaves that nothing interrupts."""
    return finished(write_project(tmp_path_factory.mktemp("whole") / "project"))


SLOWLY = "old = loop.augment_batch; loop.augment_batch = lambda *a: (time.sleep({}), old(*a))[1]"


def wait_for(process, condition, seconds=60):
    ended = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > ended:
            process.kill()
            pytest.fail(process.communicate()[1])
        time.sleep(0.01)


@pytest.mark.slow
def test_kill_9_at_any_moment_and_again_gives_the_same_bytes(tmp_path, whole):
    folder = write_project(tmp_path / "project")
    resume = folder / paths.RESUME
    for number in (2, 9):  # of the 18 steps; snapshots count from 1, with one after each step and epoch
        process = start(folder, SLOWLY.format(0.05))
        wait_for(
            process, lambda number=number: any(int(p.stem.split("-")[1]) >= number for p in resume.rglob("*-*.pt"))
        )
        process.kill()
        process.communicate()
        assert not (folder / paths.checkpoint("resnet")).exists()
    assert finished(folder) == whole
    assert not list(resume.rglob("*.pt"))
    log = (resume / "resnet/0/run/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_and_saves_it(number, code, tmp_path, whole):
    folder = write_project(tmp_path / "project")
    process = start(folder, SLOWLY.format(0.05) + "; loop.SNAPSHOT_SECONDS = 1e9")
    wait_for(process, lambda: list((folder / paths.RESUME).rglob("log.jsonl")))
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "stopping after this step" in errors
    assert "Traceback" not in errors
    assert len(list((folder / paths.RESUME).rglob("*-*.pt"))) == 1
    assert finished(folder) == whole


def test_a_second_interrupt_leaves_at_once(tmp_path):
    folder = write_project(tmp_path / "project")
    process = start(folder, SLOWLY.format(600))
    wait_for(process, lambda: list((folder / paths.RESUME).rglob("log.jsonl")))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "stopping after this step; once more to leave at once\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in errors


def train_on(folder, environment=os.environ):
    command = [sys.executable, "-m", "pipeline", "train", "resnet"]
    environment = {**environment, "PYTHONPATH": str(Path(train.__file__).parents[2])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)


@pytest.mark.slow
def test_a_launched_run_writes_once_and_scores_like_one_process(tmp_path, whole):
    """That both learn the same is shown in double precision in tests/training/test_distributed.py."""
    folder = write_project(tmp_path / "project", "torchrun --standalone --nproc-per-node 2")
    command = [sys.executable, "-m", "pipeline", "train", "resnet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 6/6") == 1  # one of them speaks
    assert len((folder / "data/ledger.jsonl").read_text().splitlines()) == 1
    found, want = (safetensors.numpy.load(each["weights.safetensors"]) for each in (result(folder), whole))
    for key in want:
        assert found[key] == pytest.approx(want[key], rel=0.01, abs=0.01), key


def test_a_launcher_gets_the_command_and_is_not_started_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(write_project(tmp_path / "project", "torchrun --nproc-per-node 2"))
    called = []

    def become(program, arguments, environment):
        called.append((Path(program).name, arguments[1:], environment["PIPELINE_LAUNCHED"]))
        raise SystemExit  # it does not come back

    monkeypatch.setattr(os, "execve", become)
    with pytest.raises(SystemExit):
        train.run(load(), "resnet")
    assert called == [("torchrun", ["--nproc-per-node", "2", "-m", "pipeline", "train", "resnet"], "1")]
    monkeypatch.setattr("pipeline.training.networks.trained", lambda *_, **__: called.append("trained") or (None, None))
    monkeypatch.setenv("RANK", "1")
    train.run(load(), "resnet")
    assert called[1:] == ["trained"]
    assert not paths.checkpoint("resnet").exists()  # the first process writes


def test_an_unknown_launcher_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(write_project(tmp_path / "project", "torchrumble -n 2"))
    with pytest.raises(ParamsError, match=r"defaults\.launch: no program 'torchrumble'; fix: install it"):
        train.run(load(), "resnet")
