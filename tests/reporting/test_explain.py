import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import params as schema
from pipeline import paths
from pipeline.data import store
from pipeline.errors import ParamsError, PipelineError
from pipeline.metrics import average_precision, classification, segmentation
from pipeline.reporting.explain import command
from pipeline.structures import DatasetInfo, Objects, Sample


def a_run(model, evaluation):
    training = schema.Training(
        epochs=1, optimizer="adamw", lr=0.1, weight_decay=0.0, schedule="constant", warmup_epochs=0.0, batch_size=4,
        clip_norm=1.0, ema_decay=0.0,
    )  # fmt: skip
    return schema.Run(
        model=model, dataset="toy", inputs="raw/toy", model_params={}, training=training,
        prediction=schema.Prediction(split="test", batch_size=4), evaluation=evaluation,
    )  # fmt: skip


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Three runs whose reports are written by hand."""
    monkeypatch.chdir(tmp_path)
    boxes = schema.DetectionEvaluation(score_threshold=0.05, iou_threshold=0.5, max_detections=100)
    runs = {
        "boxes": a_run("detection/fcos", boxes),
        "maps": a_run("segmentation/unet", schema.SegmentationEvaluation()),
        "labels": a_run("classification/resnet", schema.ClassificationEvaluation(top_k=5)),
    }
    return schema.Params.model_construct(runs=runs, generators={})


def report(name, figures, per_image=None, num_classes=3):
    folder = paths.run_report(name)
    folder.mkdir(parents=True)
    per_class = [{"class": str(index)} for index in range(num_classes)]
    content = {**figures, "per_class": per_class, "protocol": [["rule", "by hand"]], "intervals": [["map50", 0.4, 0.6]]}
    (folder / "metrics.json").write_text(json.dumps(content))
    if per_image is not None:
        pq.write_table(per_image, folder / "per_image.parquet")


def detections():
    """Two images of one class of two; see the test for what becomes of the boxes."""
    info = DatasetInfo("toy", ["detection"], ["square", "disc"], 3, "CC0", "us", "here")
    truth = [[[0, 0, 10, 10], [20, 0, 30, 10]], [[0, 0, 10, 10]]]
    with store.writing(paths.raw("toy"), info) as writer:
        for index, boxes in enumerate(truth):
            num = len(boxes)
            objects = Objects(
                np.array(boxes, np.float32), np.zeros(num, np.int64), np.full(num, 100, np.float32), np.zeros(num, bool)
            )
            image = np.zeros((40, 40, 3), np.uint8)
            writer.add("test", store.to_row(Sample(f"image_{index}", f"{index}.png", image, objects=objects)))
    found = {
        "image_id": ["image_1", "image_0"],
        "boxes": [[[20, 20, 30, 30]], [[0, 0, 10, 10], [0, 1, 10, 10], [20, 0, 30, 10], [0, 20, 9, 30]]],
        "scores": [[0.8], [0.9, 0.85, 0.7, 0.01]],
        "labels": [[0], [0, 0, 0, 1]],
    }
    path = paths.predictions("boxes") / "predictions.arrow"
    path.parent.mkdir(parents=True)
    types = {"boxes": pa.list_(pa.list_(pa.float32(), 4)), "scores": pa.list_(pa.float32())}
    table = pa.table({key: pa.array(value, types.get(key)) for key, value in found.items()})
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)


def dialects(shown):
    """Rule to value, as text, of what was printed."""
    lines = shown.partition("What other dialects say")[2].splitlines()[1:]
    return {line.split("  ")[-1]: line.split()[0] for line in lines if line}


def test_a_detectors_number_is_explained(params, capsys):
    detections()
    # three truths; by score: right, wrong, right. Precision 1, 1/2, 2/3, recall 1/3, 1/3, 2/3
    coco = (34 * 1 + 33 * 2 / 3) / 101
    report("boxes", {"map50": round(coco, 6), "map": 0.5})
    command.run(params, "boxes", "map50")
    shown = capsys.readouterr().out
    assert f"map50 of boxes: {coco:.4f}, 95% interval 0.4000 to 0.6000" in shown
    assert "2 images, 3 truths to be found, 0 crowds" in shown
    assert "5 raw boxes, 4 of them score 0.05 or more" in shown
    assert "3 left after suppression (greedy within each class, IoU above 0.5)" in shown
    assert re.search(rf"square +3 +2 +1 +0 +{coco:.4f}", shown)
    assert re.search(r"disc +0 +0 +0 +0 +undefined", shown)
    told = dialects(shown)
    assert {rule: told[words] for rule, words in average_precision.RULES.items() if rule != "trapezoid"} == {
        "coco": f"{coco:.4f}",
        "voc11": f"{(4 * 1 + 3 * 2 / 3) / 11:.4f}",  # levels 0 to .3, then .4 to .6
        "voc11_arange": f"{(4 * 1 + 3 * 2 / 3) / 11:.4f}",  # .6000000000000001 is below 2/3 too
        "voc_all": f"{1 / 3 + 2 / 9:.4f}",  # a third at 1, a third at 2/3
        "voc_all_devkit": f"{1 / 3 + 2 / 9:.4f}",
    }
    assert told["the 1 classes without truth count 0"] == f"{coco / 2:.4f}"
    assert told["one ranking over all classes (micro), not a mean over classes"] == f"{coco:.4f}"


def test_without_predictions_the_protocol_is_told_and_what_is_missing(params, capsys):
    report("boxes", {"map50": 0.5})
    command.run(params, "boxes", "map50")
    shown = capsys.readouterr().out
    assert "rule: by hand" in shown
    assert "counts and dialects need the predictions: " in shown


def test_a_label_maps_number_is_explained(params, capsys):
    truths = [np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 0]])]
    maps = [np.array([[0, 1, 1, 1]]), np.array([[0, 0, 0, 2]])]
    counts = [segmentation.count(label_map=p, target=t, num_classes=3)[1] for p, t in zip(maps, truths, strict=True)]
    table = segmentation.per_image(segmentation.stacked(counts, 3))
    # class 0: 4 of 6, class 1: 2 of 3, class 2: 0 of 1
    miou = (4 / 6 + 2 / 3 + 0) / 3
    report("maps", {"miou": miou}, table)
    command.run(params, "maps", "miou")
    shown = capsys.readouterr().out
    told = dialects(shown)
    assert told["pooled, mean over the classes of the truth alone"] == f"{2 / 3:.4f}"
    assert told["pooled, without class 0"] == f"{(2 / 3) / 2:.4f}"
    # image 0: 1/2, 2/3; image 1: 3/4, 0
    assert (
        told["mean over the images of each one's mean over its classes"] == f"{((1 / 2 + 2 / 3) / 2 + 3 / 8) / 2:.4f}"
    )
    assert told["mean over the classes of their mean over the images they occur in"] == f"{(5 / 8 + 2 / 3) / 3:.4f}"
    assert told["pooled, weighted by the pixels of the truth"] == f"{(6 * 4 / 6 + 2 * 2 / 3) / 8:.4f}"


@pytest.mark.parametrize(
    ("metric", "rule", "expected"),
    [
        ("top1", "mean over the classes of the share of their images found (macro recall)", (1 + 0.5) / 2),
        ("macro_f1", "mean over the classes weighted by their images", (1 * 2 / 3 + 2 * 2 / 3) / 3),
        ("ece", "10 bins of equal width", (abs(0.7 - 1) + abs(0.6 + 0.6 - 1)) / 3),
        ("log_loss", "in bits", -np.log2([0.7, 0.6, 0.4]).mean()),
        ("brier", "half of it, 0..1, as for two classes", (0.3**2 + 0.4**2 + 0.6**2) / 3),
        # of three classes, of which the last one is neither true nor predicted
        ("brier", "mean over the classes", 2 * (0.3**2 + 0.4**2 + 0.6**2) / 3 / 3),
    ],
)
def test_a_classifiers_number_is_explained(params, capsys, metric, rule, expected):
    scores, labels = np.array([[0.7, 0.3, 0], [0.4, 0.6, 0], [0.6, 0.4, 0]]), np.array([0, 1, 1])
    report(
        "labels",
        {key: round(value, 6) for key, value in classification.metrics(scores=scores, labels=labels).items()},
        classification.per_image(scores=scores, labels=labels),
    )
    command.run(params, "labels", metric)
    shown = capsys.readouterr().out
    told = dialects(shown)
    assert float(told[rule]) == pytest.approx(expected, abs=1e-4)
    assert "-0.0000" not in shown  # metrics.json rounds


def test_unknown_names_are_told(params):
    report("maps", {"miou": 0.5})
    with pytest.raises(ParamsError, match="no metric 'miuo'; did you mean 'miou'"):
        command.run(params, "maps", "miuo")
    with pytest.raises(ParamsError, match=r"no metric 'protocol'; choices: miou$"):
        command.run(params, "maps", "protocol")
    with pytest.raises(PipelineError, match="fix: dvc repro"):
        command.run(params, "labels", "top1")
    (paths.run_report("maps") / "metrics.json").write_text("[]")
    with pytest.raises(PipelineError, match=r"metrics\.json: holds a list, not an object; fix: dvc repro"):
        command.run(params, "maps", "miou")
