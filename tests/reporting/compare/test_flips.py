"""The images that a change turned, found by hand and drawn from a workspace's data."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.data.store import to_row, writing
from pipeline.params import load
from pipeline.reporting.compare import compare_runs, flips
from pipeline.reporting.compare.revisions import WORKSPACE, resolve
from pipeline.stages import evaluate
from pipeline.structures import DatasetInfo, Objects, Sample

PROJECT = Path(__file__).parents[3]
NUM, CLASSES = 6, ["red", "green"]


def write_predictions(run: str, task: str, columns: dict[str, Any]) -> None:
    folder = paths.predictions(run)
    folder.mkdir(parents=True)
    table = pa.table({"image_id": [f"{index}" for index in range(NUM)], **columns})
    with pa.ipc.new_file(str(folder / "predictions.arrow"), table.schema) as file:
        file.write_table(table)
    content = {"run": run, "model": "x", "task": task, "dataset": "toy", "split": "test", "probabilities": True}
    (folder / "info.json").write_text(json.dumps(content))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images, red and green by turns, each with one box; two classifiers and two detectors."""
    monkeypatch.chdir(tmp_path)
    info = DatasetInfo("toy", ["classification", "detection"], CLASSES, 3, "CC0", "us", "here")
    with writing(paths.raw("toy"), info) as writer:
        for index in range(NUM):
            image = np.full((40, 40, 3), 30, np.uint8)
            image[10:30, 10:30, index % 2] = 250
            objects = Objects(
                np.array([[10, 10, 30, 30]], np.float32), np.array([index % 2]), np.array([400.0]), np.zeros(1, bool)
            )
            for split in ("train", "test"):
                writer.add(split, to_row(Sample(f"{index}", f"{index}.png", image, label=index % 2, objects=objects)))
    params = YAML(typ="safe").load(PROJECT / "tests/toy_params.yaml")
    params["datasets"] = {"toy": {"source": "digits", "inputs": "requirements.lock", "options": {}}}
    params |= {"augmentations": {}, "features": {}, "generators": {}, "visualisations": {}}
    common = {"dataset": "toy", "inputs": "raw/toy", "model_params": {}, "training": {"epochs": 1}}
    common["prediction"] = {"split": "test", "batch_size": 1}
    params["runs"] = {
        **{n: {"model": "classification/resnet", **common, "evaluation": {"top_k": 2}} for n in ("one", "two")},
        **{
            n: {
                "model": "detection/fcos",
                **common,
                "evaluation": {"score_threshold": 0.1, "iou_threshold": 0.5, "max_detections": 10},
            }
            for n in ("near", "far")
        },
    }
    YAML().dump(params, Path("params.yaml"))
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    sure, unsure = [0.9, 0.1], [0.2, 0.8]  # of red
    # one is right everywhere; two is wrong at 1 and 4
    write_predictions("one", "classification", {"scores": [sure if i % 2 == 0 else unsure for i in range(NUM)]})
    answers = [sure if i in (0, 1, 2) else unsure for i in range(NUM)]
    write_predictions("two", "classification", {"scores": answers})
    for name, box in (("near", [10.0, 10, 30, 30]), ("far", [0.0, 0, 12, 12])):
        found = {"boxes": [[box]] * NUM, "scores": [[0.9]] * NUM, "labels": [[i % 2] for i in range(NUM)]}
        write_predictions(name, "detection", found)
    job = load()
    for name in ("one", "two", "near", "far"):
        evaluate.run(job, name)


def test_the_images_that_a_classifier_lost_are_shown_first(workspace: None, tmp_path: Path) -> None:
    (run,) = compare_runs(resolve(WORKSPACE), "one", "two", num_resamples=100).runs
    assert run.base is not None
    assert run.head is not None
    change = flips.badness(run.head.table, "classification") - flips.badness(run.base.table, "classification")
    assert change.tolist() == [0, 1, 0, 0, 1, 0]
    assert flips.turned(change) == [1, 4]
    picture = flips.sheet(run, tmp_path)
    assert isinstance(picture, bytes)
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB"))
    # two rows of three panels; the first row is the green image 1, the second the red image 4
    greens, reds = (((pixels[..., c] > 200) & (pixels[..., 1 - c] < 100) & (pixels[..., 2] < 100)) for c in (1, 0))
    assert np.flatnonzero(greens.any(1)).max() < np.flatnonzero(reds.any(1)).min()


def test_boxes_of_both_sides_are_drawn(workspace: None, tmp_path: Path) -> None:
    (run,) = compare_runs(resolve(WORKSPACE), "near", "far", num_resamples=100).runs
    assert run.head is not None
    # one wrong box and one missed truth on each image
    assert flips.badness(run.head.table, "detection").tolist() == [2] * NUM
    assert isinstance(flips.sheet(run, tmp_path), bytes)
    assert {
        item["kind"] for item in json.loads(Path("reports/runs/far/gallery.json").read_text())["items"][0]["answers"]
    } == {"background"}


def test_a_number_is_as_bad_as_its_error_is_large() -> None:
    table = pa.table({"target": [1.0, 5.0], "predicted": [3.0, 4.5], "error": [2.0, -0.5]})
    assert flips.badness(table, "regression").tolist() == [2.0, 0.5]


def test_predictions_of_other_images_are_told_in_place_of_the_sheet(workspace: None, tmp_path: Path) -> None:
    (run,) = compare_runs(resolve(WORKSPACE), "one", "two", num_resamples=100).runs
    place = paths.predictions("one") / "predictions.arrow"
    with pa.ipc.open_file(str(place)) as file:
        table = file.read_all()
    with pa.ipc.new_file(str(place), table.schema) as file:
        file.write_table(table.slice(1))
    assert flips.sheet(run, tmp_path) == "2 images turned; a side's predictions are broken or of other images."


def test_without_data_the_sheet_says_so(workspace: None, tmp_path: Path) -> None:
    (run,) = compare_runs(resolve(WORKSPACE), "one", "two", num_resamples=100).runs
    for path in paths.raw("toy").iterdir():
        path.unlink()
    paths.raw("toy").rmdir()
    assert flips.sheet(run, tmp_path) == "2 images turned; their data is in no cache or remote that was asked."
