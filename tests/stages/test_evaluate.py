import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import params as schema
from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.data import store
from pipeline.errors import ParamsError, PipelineError
from pipeline.metrics import table as metric_table
from pipeline.stages import evaluate
from pipeline.structures import IGNORE, DatasetInfo, Objects, Sample

NUM = 12
CLASSES = ["square", "disc", "<b>"]
SPACE = {"backbone": "pixels", "weights": "none", "image_size": 4, "dimension": 6}
MODELS = {"heads": "heads/linear", "boxes": "detection/fcos", "maps": "segmentation/unet"}
EVALUATIONS = {
    "heads": schema.ClassificationEvaluation(top_k=2),
    "boxes": schema.DetectionEvaluation(score_threshold=0.05, iou_threshold=0.5, max_detections=100),
    "maps": schema.SegmentationEvaluation(),
}


def a_sample(index):
    """A square of its class's colour on grey; its truth in every kind."""
    label, left, size = index % 3, 4 + index, 12 + index
    image = np.full((48, 48, 3), 225, np.uint8)
    image[left : left + size, left : left + size] = [[200, 60, 60], [60, 160, 90], [60, 90, 200]][label]
    semantic = np.zeros((48, 48), np.uint8)
    semantic[left : left + size, left : left + size] = label + 1
    semantic[:2] = IGNORE
    box = np.array([[left, left, left + size, left + size]], np.float32)
    objects = Objects(box, np.array([label]), np.array([size**2], np.float32), np.zeros(1, bool))
    return Sample(f"image_{index}", f"{index}.png", image, label=label, objects=objects, semantic=semantic)


def write_arrow(path, columns, info):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    (path.parent / "info.json").write_text(json.dumps(info))


def predict(name, columns, order=None, **info):
    """Writes the predictions of a run, rows in an order of their own."""
    order = range(NUM - 1, -1, -1) if order is None else order
    columns = {key: pa.array([values[i] for i in order], values_type) for key, (values, values_type) in columns.items()}
    ids = {"image_id": [f"image_{i}" for i in order]}
    task = {"heads": "classification", "boxes": "detection", "maps": "segmentation"}[name]
    content = {"run": name, "task": task, "dataset": "toy", "split": "test", "probabilities": True}
    write_arrow(paths.predictions(name) / "predictions.arrow", {**ids, **columns}, content | info)


def class_scores(wrong=()):
    """Probabilities .8, .1, .1 for the true class, or for the next one where wrong."""
    rows = np.full((NUM, 3), 0.1)
    for index in range(NUM):
        rows[index, (index + (index in wrong)) % 3] = 0.8
    return {"scores": (rows.tolist(), pa.list_(pa.float32()))}


def found_boxes():
    """The true box twice at .9 and .8, and a false one at .4 in the corner of the even images."""
    boxes, scores, labels = [], [], []
    for index in range(NUM):
        box = a_sample(index).objects.boxes[0].tolist()
        corner = [[0.0, 0.0, 4.0, 4.0]] if index % 2 == 0 else []
        boxes.append([box, [v + 0.5 for v in box], *corner])
        scores.append([0.9, 0.8, *([0.4] * len(corner))])
        labels.append([index % 3] * len(boxes[-1]))
    kinds = pa.list_(pa.list_(pa.float32(), 4)), pa.list_(pa.float32()), pa.list_(pa.int32())
    return {"boxes": (boxes, kinds[0]), "scores": (scores, kinds[1]), "labels": (labels, kinds[2])}


def label_maps(value=None):
    """The true map, or the same value everywhere."""
    maps = [a_sample(i).semantic if value is None else np.full((48, 48), value, np.uint8) for i in range(NUM)]
    return {"label_map": ([store.encode_png(m) for m in maps], pa.binary())}


def draw_samples(space=SPACE):
    rng = np.random.default_rng(0)
    images = [store.encode_png(a_sample(i % NUM).image) for i in range(20)]
    features = np.concatenate([rng.normal(0, 1, (20, 6)), rng.normal(9, 3, (20, 6))]).astype(np.float32)
    write_arrow(
        paths.samples("dreams") / "samples.arrow",
        {"kind": ["sample"] * 20 + ["noise"] * 20, "image": images * 2, "features": feature_files.as_lists(features)},
        {"generator": "dreams", "features": space, "num_samples": 20},
    )


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A project with a dataset of every kind of truth, and good outputs of every task."""
    monkeypatch.chdir(tmp_path)
    info = DatasetInfo("toy", ["classification", "detection", "semantic"], CLASSES, 3, "CC0", "us", "here")
    info.semantic_classes = ["background", *CLASSES]
    info.thing_of_semantic, info.colours = [-1, 0, 1, 2], ["#c8c8c8", "#c83c3c", "#3ca05a", "#3c5ac8"]
    rng = np.random.default_rng(1)
    with store.writing(paths.raw("toy"), info) as writer:
        for split, num in (("train", 30), ("test", NUM)):
            for index in range(num):
                writer.add(split, store.to_row(a_sample(index % NUM)))
    splits = {
        split: feature_files.FeatureSplit(
            [f"image_{i % NUM}" for i in range(num)], rng.normal(0, 1, (num, 6)).astype(np.float32), None
        )
        for split, num in (("train", 30), ("test", NUM))
    }
    feature_files.write(paths.features("space"), info, SPACE, splits)
    predict("heads", class_scores(wrong=(3, 7)))
    predict("boxes", found_boxes())
    predict("maps", label_maps())
    draw_samples()
    training = schema.Training(
        epochs=1, optimizer="adamw", lr=0.1, weight_decay=0.0, schedule="constant", warmup_epochs=0.0, batch_size=4,
        clip_norm=1.0, ema_decay=0.0,
    )  # fmt: skip
    runs = {
        name: schema.Run(
            model=MODELS[name], dataset="toy", inputs="raw/toy", model_params={}, training=training,
            prediction=schema.Prediction(split="test", batch_size=4), evaluation=EVALUATIONS[name],
        )
        for name in MODELS
    }  # fmt: skip
    generator = schema.Generator(
        model="generative/vae", dataset="toy", inputs="raw/toy", model_params={}, training=training, features="space",
        sampling=schema.Sampling(num_samples=20, batch_size=4, options={}),
        evaluation=schema.GeneratorEvaluation(reference="train"),
    )  # fmt: skip
    return schema.Params.model_construct(runs=runs, generators={"dreams": generator})


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def rows_of(folder):
    return pq.read_table(folder / "per_image.parquet").to_pylist()


def test_a_classifier_is_judged(params):
    evaluate.run(params, "heads")
    metrics, rows = metrics_of(paths.run_report("heads")), rows_of(paths.run_report("heads"))
    assert metrics["top1"] == pytest.approx(10 / 12, abs=1e-5)
    # image 3, of class 0, scores .1 .8 .1: its class wins the tie; image 7, of class 1, scores .1 .1 .8: it loses
    assert metrics["top2"] == pytest.approx(11 / 12, abs=1e-5)
    assert metrics["log_loss"] == pytest.approx(-(10 * np.log(0.8) + 2 * np.log(0.1)) / 12, rel=1e-5)
    assert [row["image_id"] for row in rows] == [f"image_{i}" for i in range(NUM)]
    assert [row["image_id"] for row in rows if not row["correct"]] == ["image_3", "image_7"]
    assert rows[3]["predicted"] == 1
    assert rows[3]["label"] == 0
    assert np.mean([row["log_loss"] for row in rows]) == pytest.approx(metrics["log_loss"], rel=1e-5)
    assert [row["class"] for row in metrics["per_class"]] == CLASSES
    assert metrics["per_class"][0]["recall"] == pytest.approx(3 / 4)


def test_scores_that_are_no_probabilities_have_no_calibration(params):
    scores = class_scores()
    scores["scores"] = ([[v * 9 - 4 for v in row] for row in scores["scores"][0]], scores["scores"][1])
    predict("heads", scores, probabilities=False)
    evaluate.run(params, "heads")
    folder = paths.run_report("heads")
    assert metrics_of(folder)["log_loss"] is None
    assert metrics_of(folder)["top1"] == 1.0
    assert sorted(p.name for p in (folder / "pictures").iterdir()) == ["confusion.png", "predictions.png"]


def test_a_detector_is_judged_after_suppression(params):
    evaluate.run(params, "boxes")
    metrics, rows = metrics_of(paths.run_report("boxes")), rows_of(paths.run_report("boxes"))
    assert metrics["map"] == 1.0  # the doubles are gone, the false boxes come after all true ones
    assert metrics["map_medium"] is None
    assert [(row["tp"], row["fp"], row["fn"]) for row in rows] == [(1, 1, 0), (1, 0, 0)] * 6
    assert rows[0]["scores"] == pytest.approx([0.9, 0.4])
    assert [bits & 1023 for bits in rows[0]["matched"]] == [1023, 0]  # ten thresholds, over all areas
    assert rows[0]["best_missed_iou"] is None
    assert ["score_threshold", 0.05] in metrics["protocol"]


def test_a_detector_that_finds_nothing_scores_zero(params):
    columns = {key: ([[]] * NUM, kind) for key, (_, kind) in found_boxes().items()}
    predict("boxes", columns)
    evaluate.run(params, "boxes")
    assert metrics_of(paths.run_report("boxes"))["map"] == 0.0
    assert {row["fn"] for row in rows_of(paths.run_report("boxes"))} == {1}


def test_label_maps_are_judged(params):
    evaluate.run(params, "maps")
    metrics, rows = metrics_of(paths.run_report("maps")), rows_of(paths.run_report("maps"))
    assert metrics["miou"] == metrics["pixel_accuracy"] == 1.0
    assert rows[0]["num_pixels"] == 46 * 48  # two rows are not scored
    assert rows[0]["intersections"] == rows[0]["unions"] == [46 * 48 - 144, 144, 0, 0]


def test_predicting_background_everywhere_scores_the_baseline(params):
    predict("maps", label_maps(0))
    evaluate.run(params, "maps")
    metrics = metrics_of(paths.run_report("maps"))
    assert metrics["miou"] == metrics["miou_background_only"]
    rows = rows_of(paths.run_report("maps"))
    sums = [np.sum([row[key] for row in rows], axis=0) for key in ("intersections", "unions")]
    assert np.mean(sums[0] / sums[1]) == pytest.approx(metrics["miou"], rel=1e-5)


def test_a_generator_is_judged_against_noise_and_real_images(params):
    evaluate.run(params, "dreams")
    folder = paths.generator_report("dreams")
    metrics, rows = metrics_of(folder), rows_of(folder)
    assert 0 < metrics["fid"] < metrics["fid_noise"] / 10
    assert metrics["kid"] < metrics["kid_noise"] / 10
    protocol = dict(metrics["protocol"])
    assert protocol["features"] == "pixels, weights none, images of 4 pixels"
    assert (protocol["split"], protocol["num_images"], protocol["num_other_real"]) == ("train", 30, "12 of test")
    assert protocol["precision and recall"].endswith("k = 3, within reach or just at it")
    assert protocol["density and coverage"].endswith("k = 5, strictly within reach")
    reference = feature_files.read(paths.features("space"), "train").features
    samples = np.random.default_rng(0).normal(0, 1, (20, 6)).astype(np.float32)
    slow = np.linalg.norm(samples[:, None] - reference[None], axis=2)
    distances = [row["nearest_distance"] for row in rows if row["kind"] == "sample"]
    assert distances == pytest.approx(slow.min(1).tolist(), rel=1e-5)
    kinds = ["sample"] * 20 + ["noise"] * 20 + ["real"] * NUM + ["reference"] * 30
    assert [row["kind"] for row in rows] == kinds
    # what each sample adds: the mean of these is the figure, so that two runs can be resampled without features
    assert np.mean([row["fid"] for row in rows[:20]]) == pytest.approx(metrics["fid"], rel=1e-5)
    assert np.mean([row["recalled"] for row in rows[-30:]]) == pytest.approx(metrics["recall"], rel=1e-5)
    intervals = {name: (low, high) for name, low, high in metrics["intervals"]}
    assert set(intervals) == set(metric_table("generative"))
    assert intervals["fid"][0] < metrics["fid"] < intervals["fid"][1]


@pytest.mark.parametrize("name", [*MODELS, "dreams"])
def test_every_metric_of_the_table_is_written(params, name):
    evaluate.run(params, name)
    entry = params.learner(name)
    folder = paths.generator_report(name) if name == "dreams" else paths.run_report(name)
    expected = {"top2" if key == "top5" else key for key in metric_table(entry.task)}
    assert {key for key, value in metrics_of(folder).items() if not isinstance(value, list)} == expected


def test_the_protocol_names_the_images(params):
    evaluate.run(params, "heads")
    protocol = metrics_of(paths.run_report("heads"))["protocol"]
    expected = hashlib.sha256("\n".join(f"image_{i}" for i in range(NUM)).encode()).hexdigest()[:12]
    assert protocol[:5] == [
        ["task", "classification"],
        ["dataset", "toy"],
        ["split", "test"],
        ["num_images", NUM],
        ["image_ids", f"sha256 {expected}"],
    ]


@pytest.mark.parametrize("name", ["heads", "maps", "boxes", "dreams"])
def test_every_defined_metric_has_an_interval(params, name):
    evaluate.run(params, name)
    content = metrics_of(paths.generator_report(name) if name == "dreams" else paths.run_report(name))
    defined = [key for key, value in content.items() if isinstance(value, float)]
    found = {key: (low, high) for key, low, high in content["intervals"]}
    assert set(found) == set(defined)
    assert all(low <= high for low, high in found.values())
    rules = dict(content["protocol"])
    assert rules["intervals"] == "95%, percentiles of 1000 resamples of images, with replacement"


def test_the_table_of_a_large_set_of_scores_leaves_them_out_and_says_so(params, monkeypatch):
    from pipeline.metrics import classification

    monkeypatch.setattr(classification, "MAX_KEPT_SCORES", NUM * 3 - 1)
    evaluate.run(params, "heads")
    content, rows = metrics_of(paths.run_report("heads")), rows_of(paths.run_report("heads"))
    assert "scores" not in rows[0]
    assert content["auroc"] is not None
    assert {key for key, *_ in content["intervals"]}.isdisjoint({"auroc", "average_precision"})
    rules = dict(content["protocol"])
    assert rules["per_image"] == "without the 36 scores: auroc and average_precision have no interval"


PICTURES = {
    "heads": {"confusion.png", "calibration.png", "predictions.png"},
    "boxes": {
        "calibration.png",
        "confusion.png",
        "errors.png",
        "per_class.png",
        "pr_curves.png",
        "predictions.png",
    },
    "maps": {"per_class.png", "confusion.png", "predictions.png"},
    "dreams": {"scores.png", "samples.png"},
}


@pytest.mark.parametrize("name", PICTURES)
def test_two_evaluations_write_the_same_bytes_and_small_plain_pictures(params, name):
    folder = paths.generator_report(name) if name == "dreams" else paths.run_report(name)

    def written():
        evaluate.run(params, name)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = written()
    if name != "dreams":  # the rows of predictions in the other order, too
        writers = {"heads": lambda: class_scores((3, 7)), "boxes": found_boxes, "maps": label_maps}
        predict(name, writers[name](), order=range(NUM))
    assert written() == first
    files = {"metrics.json", "per_image.parquet"} | ({"gallery.json"} if name != "dreams" else set())
    assert set(first) == files | {f"pictures/{picture}" for picture in PICTURES[name]}
    for picture in PICTURES[name]:
        path = folder / "pictures" / picture
        assert path.stat().st_size < 200_000
        with Image.open(path) as image:
            assert "Software" not in image.info
            assert image.width > 300


def test_other_files_of_the_report_stay(params):
    paths.run_report("heads").mkdir(parents=True)
    (paths.run_report("heads") / "training.csv").write_text("epoch\n")
    evaluate.run(params, "heads")
    assert (paths.run_report("heads") / "training.csv").read_text() == "epoch\n"


def spoil(column, index, change):
    """Predictions of boxes or scores with one value changed in image `index`."""
    columns = found_boxes() if column != "class_scores" else class_scores()
    key = "scores" if column == "class_scores" else column
    change(columns[key][0][index])
    return columns


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("heads", lambda: spoil("class_scores", 4, lambda v: v.__setitem__(0, np.nan)), "#image_4 scores: not finite"),
        (
            "heads",
            lambda: spoil("class_scores", 4, lambda v: v.append(0.0)),
            "#image_4 scores: 4 numbers for 3 classes",
        ),
        (
            "heads",
            lambda: spoil("class_scores", 4, lambda v: v.__setitem__(0, 7.0)),
            "#image_4 scores: no probabilities",
        ),
        ("boxes", lambda: spoil("boxes", 5, lambda v: v[0].__setitem__(2, np.nan)), "#image_5 boxes[0]: cannot be"),
        ("boxes", lambda: spoil("boxes", 5, lambda v: v[1].__setitem__(2, -9.0)), "#image_5 boxes[1]: cannot be"),
        ("boxes", lambda: spoil("scores", 5, lambda v: v.__setitem__(1, np.inf)), "#image_5 scores[1]: cannot be"),
        (
            "boxes",
            lambda: spoil("scores", 5, lambda v: v.pop()),
            "#image_5 boxes: of different number (2 boxes, 1 scores",
        ),
        ("boxes", lambda: spoil("labels", 5, lambda v: v.__setitem__(0, 3)), "#image_5 labels[0]: cannot be (3)"),
        ("maps", lambda: label_maps(4), "#image_0 label_map: no class has the value 4, there are 4"),
        ("maps", lambda: {"label_map": ([b"no"] * NUM, pa.binary())}, "#image_0 label_map: not a readable PNG"),
        (
            "maps",
            lambda: {"label_map": ([store.encode_png(np.zeros((4, 5), np.uint8))] * NUM, pa.binary())},
            "#image_0 label_map: its size is (4, 5), the image's (48, 48)",
        ),
    ],
)
def test_an_impossible_prediction_is_refused_by_image(params, name, columns, message):
    predict(name, columns())
    with pytest.raises(PipelineError) as caught:
        evaluate.run(params, name)
    assert message in str(caught.value)
    assert f"; fix: dvc repro --force predict@{name}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (paths.run_report(name) / "metrics.json").exists()


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([i for i in range(NUM) if i != 6], "#image_6 image_id: an image of test without prediction"),
        ([*range(NUM), 6], "#image_6 image_id: predicted 2 times"),
    ],
)
def test_every_image_must_be_predicted_exactly_once(params, order, message):
    predict("heads", class_scores(), order=order)
    with pytest.raises(PipelineError, match=r"predictions.arrow" + message):
        evaluate.run(params, "heads")


def test_an_image_of_another_split_is_refused(params):
    columns = {"image_id": [f"image_{i}" for i in range(NUM)] + ["stray"], "scores": [[0.2, 0.3, 0.5]] * 13}
    info = {"task": "classification", "dataset": "toy", "split": "test", "probabilities": True}
    write_arrow(paths.predictions("heads") / "predictions.arrow", columns, info)
    with pytest.raises(PipelineError, match="#stray image_id: no image of toy, test"):
        evaluate.run(params, "heads")


def test_predictions_of_another_split_are_refused(params):
    predict("heads", class_scores(), split="val")
    with pytest.raises(PipelineError, match=r"info.json split: 'val', not 'test'; fix: dvc repro"):
        evaluate.run(params, "heads")


def test_missing_predictions_are_named(params):
    (paths.predictions("heads") / "info.json").unlink()
    with pytest.raises(PipelineError, match=r"data/predictions/heads/info.json: not readable"):
        evaluate.run(params, "heads")


def test_cut_predictions_are_named(params):
    path = paths.predictions("heads") / "predictions.arrow"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PipelineError, match=r"predictions.arrow: not readable"):
        evaluate.run(params, "heads")


def test_samples_of_another_space_are_refused(params):
    draw_samples(space=SPACE | {"image_size": 8})
    with pytest.raises(PipelineError, match=r"info.json features: of another space"):
        evaluate.run(params, "dreams")


def test_an_unknown_run_is_named(params):
    with pytest.raises(ParamsError, match="no run or generator 'head'"):
        evaluate.run(params, "head")


def test_evaluation_of_a_classifier_needs_no_torch():
    code = "import sys, pipeline.stages.evaluate, pipeline.reporting.verdicts.{0}; print('torch' in sys.modules)"
    for task in ("classification", "segmentation", "detection", "generative"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(task)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(evaluate.__file__).parents[2],
        )
        assert done.stdout.strip() == "False", task
