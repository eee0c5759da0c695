"""Properties that every metric of every table must have, and a check that none was forgotten."""

import importlib
import pkgutil

import numpy as np
import pytest

import pipeline.metrics
from pipeline.metrics import TASKS, classification, detection, generative, lookup, segmentation, table
from pipeline.metrics.detection import Detections
from pipeline.structures import Objects

NUM = 24
UNBOUNDED = {"log_loss", "brier", "fid", "kid", "fid_noise", "kid_noise", "fid_real", "kid_real", "density"}


def truth(task, rng):
    """The truth of NUM images, as `score` takes it."""
    if task == "classification":
        return np.arange(NUM) % 12
    if task == "segmentation":
        return rng.integers(0, 4, (NUM, 8, 8))
    if task == "generative":
        return rng.normal(size=(NUM, 5))
    boxes = []
    for index in range(NUM):  # one small, one medium and one large object in each
        corner, side = rng.uniform(0, 20, (3, 2)), np.array([[16.0], [64.0], [128.0]])
        box = np.concatenate([corner, corner + side], 1).astype(np.float32)
        boxes.append(Objects(box, np.full(3, index % 3), side[:, 0].astype(np.float32) ** 2, np.zeros(3, bool)))
    return boxes


def perfect(task, target, rng):
    """The best answers there can be."""
    if task == "classification":
        return np.eye(12)[target]
    if task == "segmentation":
        return target.copy()
    if task == "generative":
        return target.copy()
    return [Detections(boxes=t.boxes, scores=np.ones(len(t)), labels=t.labels) for t in target]


def spoilt(task, prediction, rng):
    """Answers that are partly wrong in every respect."""
    if task == "classification":
        mixed = prediction + rng.uniform(0, 4, prediction.shape)
        return mixed / mixed.sum(1, keepdims=True)
    if task == "segmentation":
        return np.where(rng.random(prediction.shape) < 0.4, rng.integers(0, 4, prediction.shape), prediction)
    if task == "generative":
        return prediction * 0.5 + 2
    moved = [(p.boxes + rng.normal(0, 3, p.boxes.shape)).astype(np.float32) for p in prediction]
    return [
        Detections(boxes=boxes, scores=rng.random(3), labels=np.where(rng.random(3) < 0.7, p.labels, 0))
        for p, boxes in zip(prediction, moved, strict=True)
    ]


def score(task, prediction, target):
    if task == "classification":
        return classification.metrics(scores=prediction, labels=target)
    if task == "segmentation":
        pairs = zip(prediction, target, strict=True)
        counts = [segmentation.count(label_map=p, target=t, num_classes=4)[1] for p, t in pairs]
        return segmentation.metrics(segmentation.stacked(counts, 4))
    if task == "detection":
        return detection.evaluate_detections(predictions=prediction, targets=target, num_classes=3).metrics
    noise = np.random.default_rng(9).normal(5, 3, (NUM, 5))
    return generative.metrics(
        features=prediction, noise=noise, real=np.random.default_rng(8).normal(size=(NUM, 5)), reference=target
    )


def all_metrics():
    return [(task, name) for task in TASKS for name in table(task)]


@pytest.fixture(scope="module", params=TASKS)
def case(request):
    rng = np.random.default_rng(0)
    target = truth(request.param, rng)
    best = perfect(request.param, target, rng)
    return request.param, best, spoilt(request.param, best, rng), target


def test_no_module_of_metrics_was_forgotten():
    modules = {module.name for module in pkgutil.iter_modules(pipeline.metrics.__path__)}
    tables = {name for name in modules if hasattr(importlib.import_module(f"pipeline.metrics.{name}"), "METRICS")}
    assert tables == set(TASKS)


def test_the_table_names_exactly_what_is_computed(case):
    task, best, _, target = case
    assert list(score(task, best, target)) == list(table(task))


def test_a_perfect_prediction_is_best(case):
    task, best, worse, target = case
    top, other = score(task, best, target), score(task, worse, target)
    for name, metric in table(task).items():
        if metric.higher_is_better is None:
            continue
        better = top[name] > other[name] if metric.higher_is_better else top[name] < other[name]
        assert better, name
        if name == "mar1":  # three truths of a class in an image, one detection counted
            assert top[name] == pytest.approx(1 / 3)
        elif name not in UNBOUNDED:
            assert top[name] == pytest.approx(1 if metric.higher_is_better else 0), name


def test_every_metric_stays_in_its_range(case):
    task, best, worse, target = case
    for prediction in (best, worse):
        for name, value in score(task, prediction, target).items():
            assert isinstance(value, float), name
            assert value >= 0 or name.startswith("kid"), name
            assert value <= 1 or name in UNBOUNDED, name


def test_the_order_of_images_does_not_matter(case):
    task, _, worse, target = case
    order = np.random.default_rng(3).permutation(NUM)

    def shuffled(items):
        return [items[i] for i in order] if isinstance(items, list) else items[order]

    before = score(task, worse, target)
    after = score(task, shuffled(worse), target if task == "generative" else shuffled(target))
    for name, value in before.items():
        if name == "kid":  # its random subsets go by position
            assert after[name] == pytest.approx(value, rel=0.2)
        else:
            assert after[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(("task", "name"), all_metrics())
def test_every_metric_is_described_in_one_line(task, name):
    metric = lookup(task, name)
    assert metric is not None
    assert 15 < len(metric.description) < 100
    assert "\n" not in metric.description
    assert metric == table(task)[name]


def test_a_top_k_of_another_k_is_found():
    assert lookup("classification", "top3").higher_is_better
    assert "among the 3 " in lookup("classification", "top3").description
    assert lookup("classification", "top") is None
    assert lookup("segmentation", "top3") is None
