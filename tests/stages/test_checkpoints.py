"""Runs that begin at another run's checkpoint, and averaged answers, on images of bars of three directions."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file

from pipeline import paths
from pipeline.data.store import Store, to_row, writing
from pipeline.errors import PipelineError
from pipeline.models import tasks
from pipeline.params import load
from pipeline.stages import corrupt, evaluate, predict, train
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import checkpoint as checkpoints
from pipeline.training.views import views

COUNTS = {"train": 12, "val": 3, "test": 6}
PARAMS = """
defaults:
  device: cpu
  precision: float32
  threads: 1
  seed: 0
  training: {epochs: 2, optimizer: adamw, lr: 0.01, weight_decay: 0.01, schedule: cosine, warmup_epochs: 0.5,
             batch_size: 6, clip_norm: 1.0, ema_decay: 0.0}
tracking: {uri: "sqlite:///mlflow.db", experiment: toy, required: false, timeout: 5}
datasets:
  bars: {source: digits, inputs: requirements.lock, options: {}}
augmentations: {}
features: {}
runs:
  encoder:
    {model: classification/contrastive, dataset: bars, inputs: raw/bars,
     model_params: {encoder_params: {layers: [1, 1, 1, 1], channels: [4, 4, 8, 8]}, small_stem: true, neighbours: 2},
     training: {}, prediction: {split: test, batch_size: 4}, evaluation: {top_k: 2}}
  tuned:
    {model: classification/resnet, dataset: bars, inputs: checkpoints/encoder,
     model_params: {layers: [1, 1, 1, 1], channels: [4, 4, 8, 8], small_stem: true},
     training: {lr: 0.001, freeze: [network.1.conv1, network.1.layer1], seeds: [0, 7, 8]},
     prediction: {split: test, batch_size: 4, augment: [flip, shift], ensemble: true}, evaluation: {top_k: 2}}
  student:
    {model: classification/vit, dataset: bars, inputs: checkpoints/tuned,
     model_params: {patch: 4, width: 8, depth: 1, heads: 2},
     training: {distillation: {temperature: 2.0, weight: 0.7}},
     prediction: {split: test, batch_size: 4}, evaluation: {top_k: 2}}
  lost:
    {model: classification/vit, dataset: bars, inputs: checkpoints/tuned,
     model_params: {patch: 4, width: 8, depth: 1, heads: 2}, training: {},
     prediction: {split: test, batch_size: 4}, evaluation: {top_k: 2}}
generators: {}
visualisations: {}
robustness:
  shaken: {run: tuned, dataset: bars, metric: top1, corruptions: [brightness], severities: [3]}
"""


def a_bar(split, index):
    """A lying, a standing or an oblique bar in an image of 8x8 pixels."""
    image, label = np.zeros((8, 8, 1), np.uint8), index % 3
    rows, columns = [((3, 4), slice(None)), (slice(None), (3, 4)), (range(8), range(8))][label]
    image[rows, columns] = 120 + 10 * index
    return Sample(f"{split}_{index}", f"{index}.png", image, label=label)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which all but `lost` was trained, predicted and evaluated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        info = DatasetInfo("bars", ["classification"], ["lying", "standing", "oblique"], 1, "CC0", "us", "here")
        info.mean, info.std, info.image_size = [0.2], [0.3], [8, 8]
        with writing(paths.raw("bars"), info) as writer:
            for split, num in COUNTS.items():
                for index in range(num):
                    writer.add(split, to_row(a_bar(split, index)))
        paths.PARAMS.write_text(PARAMS)
        params = load()
        for name in ("encoder", "tuned", "student"):
            for stage in (train, predict, evaluate):
                stage.run(params, name)
        yield params
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def weights_of(folder):
    return load_file(folder / "weights.safetensors")


def scores_of(folder):
    with pa.ipc.open_file(str(folder / "predictions.arrow")) as file:
        return np.array(file.read_all().column("scores").to_pylist())


def test_the_encoder_is_finished_with_the_embeddings_of_train_in_its_checkpoint(project):
    classes = weights_of(paths.checkpoint("encoder"))["classes"]
    assert classes.sum(1).tolist() == [4, 4, 4]  # of each class four of the twelve training images
    scores = scores_of(paths.predictions("encoder"))
    assert scores.sum(1) == pytest.approx(np.ones(6), abs=1e-5)
    assert ((scores > 1e-3).sum(1) <= 2).all()  # two neighbours


def test_frozen_layers_keep_the_weights_that_they_begin_with_and_the_others_learn(project):
    encoder, tuned = weights_of(paths.checkpoint("encoder")), weights_of(paths.checkpoint("tuned"))
    for key in ("network.1.conv1.weight", "network.1.layer1.0.conv1.weight"):
        assert np.array_equal(tuned[key], encoder[key])
    key = "network.1.layer4.0.conv1.weight"
    assert tuned[key].shape == encoder[key].shape
    step = np.abs(tuned[key] - encoder[key]).max()
    assert 0 < step < 0.02  # four steps of at most 0.001, more or less


def test_the_answers_of_an_ensemble_are_the_means_over_seeds_and_views(project):
    folder = paths.predictions("tuned")
    members = [scores_of(paths.of_seed(folder, seed)) for seed in (0, 7, 8)]
    assert scores_of(folder) == pytest.approx(np.mean(members, 0), abs=1e-6)
    assert np.abs(members[0] - members[1]).max() > 1e-3
    info = json.loads((folder / "info.json").read_text())
    assert (info["members"], info["views"]) == ([0, 7, 8], ["flip", "shift"])
    checkpoint = checkpoints.load(paths.checkpoint("tuned"))
    model = tasks.restore(checkpoint.model, checkpoint.info, checkpoint.model_params, checkpoint.arrays)
    images = torch.stack([torch.from_numpy(a_bar("test", i).image).permute(2, 0, 1) / 255 for i in range(6)])
    with torch.inference_mode():
        each = [np.array([p.scores for p in model.predict(view)]) for view in views(images, ["flip", "shift"])]
    assert len(each) == 10
    assert members[0] == pytest.approx(np.mean(each, 0), abs=1e-5)


def test_figures_over_seeds_are_those_of_the_members_beside_the_ensembles(project):
    metrics = json.loads((paths.run_report("tuned") / "metrics.json").read_text())
    name, mean, _, *values = next(row for row in metrics["seeds"] if row[0] == "log_loss")
    assert len(values) == 3
    truth = np.arange(6) % 3
    own = [-np.log(scores_of(paths.of_seed(paths.predictions("tuned"), s))[range(6), truth]).mean() for s in (0, 7, 8)]
    assert values == pytest.approx(own, rel=1e-4)
    assert metrics[name] < mean  # the logarithm is concave: the mean answer loses less than the answers in the mean
    assert ["ensemble", "mean of the answers of 3 seeds"] in metrics["protocol"]
    assert ["test_time_augmentation", "mean over views of each image: itself, flip, shift"] in metrics["protocol"]


def test_corrupted_images_are_answered_as_the_others_are(project):
    corrupt.run(project, "shaken")
    clean = json.loads((paths.robustness_report("shaken") / "metrics.json").read_text())["clean_top1"]
    assert clean == json.loads((paths.run_report("tuned") / "metrics.json").read_text())["top1"]
    first = checkpoints.load(paths.checkpoint("tuned"))
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "load", lambda folder: calls.append(folder) or first)
        corrupt.run(project, "shaken")
    top = paths.checkpoint("tuned")
    assert calls == [top, paths.of_seed(top, 7), paths.of_seed(top, 8)]


def test_a_student_logs_both_parts_and_bears_only_its_own_weights(project):
    header, *rows = (paths.run_report("student") / "training.csv").read_text().splitlines()
    columns = header.split(",")
    assert {"loss", "loss_teacher", "loss_labels", "val_loss"} <= set(columns)
    for row in rows:
        logged = dict(zip(columns, map(float, row.split(",")), strict=True))
        assert logged["loss"] == pytest.approx(0.7 * logged["loss_teacher"] + 0.3 * logged["loss_labels"], rel=1e-4)
    keys = weights_of(paths.checkpoint("student"))
    assert all(key.startswith(("network.0.", "network.1.")) for key in keys)
    assert "network.1.class_token" in keys


def test_weights_that_do_not_fit_are_refused_before_training(project):
    with pytest.raises(PipelineError, match="run lost: the checkpoint of classification/resnet has no weight of"):
        train.run(project, "lost")


def test_the_same_bytes_come_again(project):
    for name in ("encoder", "tuned", "student"):
        before = (paths.checkpoint(name) / "weights.safetensors").read_bytes()
        answers = (paths.predictions(name) / "predictions.arrow").read_bytes()
        train.run(project, name)
        predict.run(project, name)
        assert (paths.checkpoint(name) / "weights.safetensors").read_bytes() == before
        assert (paths.predictions(name) / "predictions.arrow").read_bytes() == answers
    assert Store(paths.raw("bars")).split("train").info.name == "bars"
