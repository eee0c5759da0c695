"""The corrupt stage: a classifier that sees brightness alone falls where brightness is changed, and nowhere else."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import paths
from pipeline.data.store import to_row, writing
from pipeline.errors import ParamsError
from pipeline.params import ClassificationEvaluation, Defaults, Params, Prediction, Robustness, Run
from pipeline.stages import corrupt
from pipeline.structures import DatasetInfo, Sample
from pipeline.training import checkpoint as checkpoints


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty even images, dark (class 0) or light (class 1), and a run that calls light what is lighter than 0.75."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    info = DatasetInfo("shades", ["classification"], ["dark", "light"], 3, "none", "none", "here", image_size=[24, 24])
    with writing(paths.raw("shades"), info) as writer:
        for index in range(20):
            image = np.full((24, 24, 3), 140 if index % 2 == 0 else 230, np.uint8)
            writer.add("test", to_row(Sample(f"{index:02}", f"{index}.png", image, label=index % 2)))

    class Threshold:
        """In place of a trained network."""

        probabilities = True

        def __init__(self, *_: Any) -> None:
            self.sizes: list[int] = []

        def __call__(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
            light = [float(image.mean() > 0.75 * 255) for image in images]
            return [{"scores": np.array([1 - share, share], np.float32)} for share in light]

    monkeypatch.setattr(checkpoints, "load", lambda _: SimpleNamespace())
    monkeypatch.setattr(corrupt, "predictor", Threshold)
    return tmp_path


def params(**changes: Any) -> Params:
    entry = {"run": "shade", "dataset": "shades", "metric": "top1", "corruptions": [], "severities": [5]} | changes
    run = Run(
        model="classification/resnet",
        dataset="shades",
        inputs="raw/shades",
        model_params={},
        training=None,
        prediction=Prediction(split="test", batch_size=8),
        evaluation=ClassificationEvaluation(top_k=2),
    )
    return Params.model_construct(
        defaults=Defaults(device="cpu", precision="float32", threads=1, seed=0, training={}),
        runs={"shade": run},
        robustness={"shaken": Robustness(**entry)},
    )


def result(**changes: Any) -> dict[str, Any]:
    corrupt.run(params(**changes), "shaken")
    return dict(json.loads((paths.robustness_report("shaken") / "metrics.json").read_text()))


def test_only_what_changes_brightness_costs_the_threshold(project: Path) -> None:
    found = result(corruptions=["brightness", "defocus_blur", "pixelate"], severities=[1, 5])
    # dark is 140 / 255 = 0.55: 0.65 at severity 1 (right), 1.0 at 5 (wrong); blur does nothing to an even image
    assert found["clean_top1"] == 1.0
    rows = {row["corruption"]: row for row in found["per_corruption"]}
    assert [rows["brightness"][f"severity_{s}"] for s in (1, 5)] == [1.0, 0.5]
    assert rows["brightness"] | {"group": "weather", "mean": 0.75} == rows["brightness"]
    assert rows["defocus_blur"]["mean"] == rows["pixelate"]["mean"] == 1.0
    assert found["mpc"] == pytest.approx((0.75 + 1 + 1) / 3, abs=1e-6)
    assert found["rpc"] == found["mpc"]
    assert found["corruption_error"] == pytest.approx(0.25 / 3, abs=1e-6)
    assert found["corruption_error_over_clean"] is None  # no error on clean images to divide by


def test_relative_figures_are_against_the_clean_ones() -> None:
    scores = {("clean", 0): 0.8, ("fog", 1): 0.6, ("fog", 3): 0.4, ("snow", 1): 0.2, ("snow", 3): 0.4}
    entry, run = params().robustness["shaken"], params().runs["shade"]
    found = corrupt._summary(entry, run, scores, range(20))  # type: ignore[arg-type]
    assert found["mpc"] == 0.4
    assert found["rpc"] == 0.5
    assert found["corruption_error"] == 0.6
    assert found["corruption_error_over_clean"] == 3.0  # 0.6 / 0.2
    undefined = corrupt._summary(entry, run, scores | {("fog", 1): None}, range(20))  # type: ignore[arg-type]
    assert undefined["mpc"] is undefined["rpc"] is undefined["corruption_error"] is None


def test_all_fifteen_are_pictured_and_the_same_bytes_come_again(project: Path) -> None:
    found = result(num_images=5)
    assert len(found["per_corruption"]) == 15
    assert ["num_images", 5] in found["protocol"]
    folder = paths.robustness_report("shaken")
    first = {path.name: path.read_bytes() for path in folder.rglob("*.*")}
    assert sorted(first) == ["corruptions.png", "metrics.json", "severities.png"]
    assert all(len(content) < 200_000 for content in first.values())
    result(num_images=5)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.*")} == first


def test_a_metric_that_does_not_grow_with_quality_is_refused(project: Path) -> None:
    for metric in ("log_loss", "top1000000x", "map"):
        with pytest.raises(ParamsError, match=rf"robustness\.shaken\.metric: no metric of classification .*'{metric}'"):
            corrupt.run(params(metric=metric), "shaken")
    assert not paths.robustness_report("shaken").exists()
