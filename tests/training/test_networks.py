"""Folds, training again, seeds and `auto`: one toy run in one process."""

import csv

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pipeline import paths
from pipeline.data.store import to_row, writing
from pipeline.params import load
from pipeline.stages import train
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import loop, networks

PARAMS = """
defaults:
  {device: cpu, precision: float32, threads: 1, seed: 0,
   training: {epochs: 3, optimizer: adamw, lr: 0.01, weight_decay: 0.01, schedule: cosine, warmup_epochs: 0.0,
              batch_size: 8, clip_norm: 1.0, ema_decay: 0.0}}
tracking: {uri: "sqlite:///mlflow.db", experiment: toy, required: false, timeout: 5}
datasets: {dots: {source: digits, inputs: requirements.lock, options: {}}}
augmentations: {}
features: {}
runs:
  toy:
    {model: classification/resnet, dataset: dots, inputs: raw/dots,
     model_params: {layers: [1, 1, 1, 1], channels: [4, 4, 4, 4], small_stem: true}, training: TRAINING,
     prediction: {split: val, batch_size: 2}, evaluation: {top_k: 2}}
generators: {}
visualisations: {}
"""


@pytest.fixture
def learnt(tmp_path, monkeypatch):
    """A function that trains the toy run with a `training` section; gives weights and the columns of its log."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    info = DatasetInfo("dots", ["classification"], ["dark", "light", "grey"], 1, "none", "none", "here")
    with writing(paths.raw("dots"), info) as writer:
        for split, num in (("train", 24), ("val", 12)):
            for i in range(num):
                image = (rng.integers(0, 100, (8, 8, 1)) + 75 * (i % 3)).astype(np.uint8)
                writer.add(split, to_row(Sample(f"{split}{i}", "", image, label=i % 3)))
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def run(training):
        paths.PARAMS.write_text(PARAMS.replace("TRAINING", training))
        train.run(load(), "toy")
        rows = list(csv.DictReader((paths.run_report("toy") / "training.csv").read_text().splitlines()))
        return load_file(paths.checkpoint("toy") / "weights.safetensors"), rows

    yield run
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def same(first, second):
    return all(np.array_equal(first[key], second[key]) for key in first)


def test_folds_add_their_spread_and_leave_the_run_as_it_is(learnt, monkeypatch, capsys):
    plain, rows = learnt("{}")
    fits = []
    original = loop.fit

    def fit(model, train, val, *args, **kwargs):
        found = original(model, train, val, *args, **kwargs)
        fits.append((kwargs["name"], len(train.split), len(val.split), found))
        return found

    monkeypatch.setattr(networks.loop, "fit", fit)
    folded, with_folds = learnt("{folds: 3}")
    assert same(plain, folded)
    assert [fit[:3] for fit in fits] == [(f"toy fold {i}", 24, 12) for i in (1, 2, 3)] + [("toy", 24, 12)]
    for epoch in range(3):
        values = [fit[3][epoch]["val_loss"] for fit in fits[:3]]
        assert float(with_folds[epoch]["val_loss_folds"]) == pytest.approx(np.mean(values), rel=1e-5)
        assert float(with_folds[epoch]["val_loss_folds_std"]) == pytest.approx(np.std(values, ddof=1), rel=1e-4)
        assert {key: with_folds[epoch][key] for key in rows[epoch]} == rows[epoch]
    assert "toy: over 3 folds val_loss " in capsys.readouterr().err


def test_training_again_is_on_train_and_val_for_as_many_epochs_as_were_best(learnt, monkeypatch):
    fits = []
    original = loop.fit

    def fit(model, train, val, *args, **kwargs):
        fits.append((kwargs["name"], len(train.split), val is None, kwargs["epochs"]))
        found = original(model, train, val, *args, **kwargs)
        for row, loss in zip(found, (0.5, 0.1, 0.3), strict=False):
            row["val_loss"] = loss
        return found

    monkeypatch.setattr(networks.loop, "fit", fit)
    weights, rows = learnt("{retrain: true}")
    assert fits == [("toy", 24, False, None), ("toy retrain", 36, True, 2)]
    assert [bool(row["loss_retrain"]) for row in rows] == [True, True, False]
    plain, _ = learnt("{}")
    assert not same(plain, weights)


def test_val_is_learnt_from_where_the_run_says_so(learnt, monkeypatch):
    fits = []
    original = loop.fit

    def fit(model, train, val, *args, **kwargs):
        fits.append((kwargs["name"], sorted(train.split.table.column("image_id").to_pylist()), val))
        return original(model, train, val, *args, **kwargs)

    monkeypatch.setattr(networks.loop, "fit", fit)
    _, rows = learnt("{splits: [train, val]}")
    ((name, images, val),) = fits
    assert (name, val, len(images), len(set(images))) == ("toy", None, 36, 36)
    assert not [key for key in rows[0] if key.startswith("val_")]


def test_a_seed_among_others_learns_what_it_learns_alone(learnt):
    learnt("{seeds: [0, 5]}")
    other = load_file(paths.of_seed(paths.checkpoint("toy"), 5) / "weights.safetensors")
    alone, _ = learnt("{seeds: [5]}")
    assert same(other, alone)
    assert not list(paths.RESUME.rglob("*.pt"))


def test_auto_takes_what_is_largest_and_the_run_is_as_if_it_was_written(learnt, capsys):
    auto, _ = learnt("{batch_size: auto}")
    assert "toy: batch_size auto is 16 (" in capsys.readouterr().err
    written, _ = learnt("{batch_size: 16}")
    assert same(auto, written)
    whole, _ = learnt("{batch_size: all}")
    assert not same(whole, written)


def test_a_snapshot_is_of_the_kind_of_device_that_auto_means(learnt, monkeypatch):
    learnt("{epochs: 1}")
    params = load()
    defaults = params.defaults.model_copy(update={"device": "auto"})

    def digest():
        return networks._Course(params.runs["toy"], "toy", defaults, False).digest

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = digest()
    assert digest() == on_cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert digest() != on_cpu  # its random numbers would not be those of the other
