import numpy as np
import pyarrow as pa
import pytest

from pipeline import params as schema
from pipeline.data import store
from pipeline.metrics import bootstrap, detection
from pipeline.reporting.verdicts import Predictions
from pipeline.reporting.verdicts.detection import judge
from pipeline.structures import DatasetInfo, Objects, Sample

NUM = 20


@pytest.fixture
def run(tmp_path):
    """Predictions near the truth of twenty images, and the split they are of."""
    rng = np.random.default_rng(0)
    info = DatasetInfo("toy", ["detection"], ["square", "disc"], 3, "CC0", "us", "here")
    rows = []
    with store.writing(tmp_path / "toy", info) as writer:
        for index in range(NUM):
            num = int(rng.integers(1, 5))
            corner, labels = rng.uniform(0, 60, (num, 2)), rng.integers(0, 2, num)
            side = rng.uniform(8, 60, (num, 2))
            boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
            objects = Objects(boxes, labels, side.prod(1).astype(np.float32), rng.random(num) < 0.1)
            sample = Sample(f"image_{index}", f"{index}.png", np.zeros((128, 128, 3), np.uint8), objects=objects)
            writer.add("test", store.to_row(sample))
            moved = np.tile(boxes, (2, 1)) + rng.normal(0, 3, (2 * num, 4))
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
            rows.append((moved.tolist(), rng.random(2 * num).tolist(), np.tile(labels, 2).tolist()))
    boxes, scores, labels = zip(*rows, strict=True)
    table = pa.table(
        {
            "image_id": [f"image_{index}" for index in range(NUM)],
            "boxes": pa.array(boxes, pa.list_(pa.list_(pa.float32(), 4))),
            "scores": pa.array(scores, pa.list_(pa.float32())),
            "labels": pa.array(labels, pa.list_(pa.int32())),
        }
    )
    return Predictions("predictions.arrow", "predict again", table, {}), store.Store(tmp_path / "toy").split("test")


def choices(**more):
    return schema.DetectionEvaluation(score_threshold=0.05, iou_threshold=0.7, max_detections=100, **more)


def test_both_engines_give_one_verdict(run):
    native, reference = judge(*run, choices()), judge(*run, choices(engine="pycocotools"))
    assert 0.1 < native.metrics["map"] < 0.9
    assert native.metrics == reference.metrics
    assert native.per_class == reference.per_class
    assert native.per_image.equals(reference.per_image)
    assert (dict(native.protocol)["engine"], dict(reference.protocol)["engine"]) == ("native", "pycocotools")


def test_the_protocol_names_rule_overlap_matching_area_and_limits(run):
    protocol = dict(judge(*run, choices()).protocol)
    assert protocol["rule"].startswith("COCO: interpolated precision, mean over the 101 levels")
    assert protocol["overlap"] == "IoU of boxes from 0.50 to 0.95, 10 steps"
    assert protocol["max_detections_judged"] == "100 of each class in an image"
    assert "the annotation's" in protocol["area"]


def test_the_per_image_table_gives_every_figure_again_and_its_interval(run):
    verdict = judge(*run, choices())
    assert list(verdict.metrics) == list(detection.METRICS)
    again = detection.resampled(verdict.per_image, np.ones((1, NUM), np.uint16))
    for name, value in verdict.metrics.items():
        assert again[name][0] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True), name
    verdict.add_intervals(detection.resampled, groups=None)
    assert [name for name, *_ in verdict.intervals] == [name for name, v in verdict.metrics.items() if v is not None]
    low, high = next((low, high) for name, low, high in verdict.intervals if name == "map")
    drawn = detection.resampled(verdict.per_image, bootstrap.weights(NUM))["map"]
    assert low < verdict.metrics["map"] < high
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
