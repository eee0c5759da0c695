"""`pipeline score` on objects: figures against pycocotools, formats against each other, and what goes wrong."""

import contextlib
import io
import json
from unittest.mock import MagicMock

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.cli import main

SIZE = (200, 300)
CATEGORIES = (2, 5, 7)
STATS = {"detection": "bbox", "instance": "segm", "keypoints": "keypoints"}
PART = {"detection": "bbox", "instance": "segmentation", "keypoints": "keypoints"}


def rectangle(x, y, width, height):
    from pycocotools import mask

    pixels = np.zeros(SIZE, np.uint8, order="F")
    pixels[int(max(y, 0)) : int(y + height) + 1, int(max(x, 0)) : int(x + width) + 1] = 1
    encoded = mask.encode(pixels)
    return {"size": list(SIZE), "counts": encoded["counts"].decode()}


def scenes(seed, num_images=12):
    """A COCO truth and a result on it, boxes with two decimals and scores with one, so that ties occur."""
    rng = np.random.default_rng(seed)
    images, annotations, results = [], [], []
    for number in rng.permutation(num_images).tolist():
        image = {"id": 3 * number, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]}
        images.append(image)
        for _ in range(rng.integers(0, 6)):
            x, y, width, height = rng.uniform(0, 180), rng.uniform(0, 110), *rng.uniform(9, 80, 2)
            box = [round(float(value), 2) for value in (x, y, width, height)]
            category = int(rng.choice(CATEGORIES))
            points = np.column_stack([x + rng.random(4) * width, y + rng.random(4) * height, rng.integers(0, 3, 4)])
            annotations.append(
                {
                    "id": len(annotations),  # from 0, which pycocotools gets wrong
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": round(box[2] * box[3] * 0.7, 2),
                    "iscrowd": int(rng.random() < 0.1),
                    "segmentation": rectangle(*box),
                    "keypoints": points.round(1).ravel().tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                }
            )
            for _ in range(rng.integers(0, 4)):
                shift = rng.normal(0, 0.15, 4) * [width, height, width, height]
                moved = [round(float(value), 2) for value in np.array(box) + shift * [1, 1, 0.5, 0.5]]
                results.append(
                    {
                        "image_id": image["id"],
                        "category_id": category if rng.random() < 0.8 else int(rng.choice(CATEGORIES)),
                        "score": round(float(rng.random()), 1),
                        "bbox": moved,
                        "segmentation": rectangle(*moved),
                        "keypoints": np.add(points, [*rng.normal(0, 3, 2), 1]).round(1).ravel().tolist(),
                    }
                )
    categories = [
        {"id": number, "name": f"c{number}", "keypoints": list("abcd"), "skeleton": [[1, 2]]} for number in CATEGORIES
    ]
    return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    """Pictures take most of the time and are looked at by two tests alone."""
    if request.node.name not in ("test_what_is_written", "test_the_same_bytes_again_whatever_stood_there"):
        monkeypatch.setattr("pipeline.reporting.verdicts.detection_details.Details.draw", lambda *_: None)
        monkeypatch.setattr("pipeline.reporting.scoring.detection.plots", MagicMock())
        monkeypatch.setattr("pipeline.reporting.scoring.detection._draw_worst", lambda *_: None)


@pytest.fixture
def files(tmp_path):
    truth, results = scenes(0)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def score(folder, *more, task="detection", truth="truth.json", predictions="results.json", out="out"):
    arguments = ["score", "--truth", folder / truth, "--predictions", folder / predictions, "--task", task]
    return main([str(argument) for argument in [*arguments, "--out", folder / out, *more]])


def written(folder, out="out"):
    return json.loads((folder / out / "metrics.json").read_text())


def figures(content):
    return {name: value for name, value in content.items() if not isinstance(value, list)}


def pycocotools_stats(truth, results, task, folder):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    kept = ("image_id", "category_id", "score", PART[task])
    renumbered = [{**annotation, "id": annotation["id"] + 1} for annotation in truth["annotations"]]
    (folder / "renumbered.json").write_text(json.dumps({**truth, "annotations": renumbered}))
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(folder / "renumbered.json")
        found = known.loadRes([{key: entry[key] for key in kept} for entry in results])
        evaluation = COCOeval(known, found, STATS[task])
        if task == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.full(4, 0.25)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else float(f"{value:.6g}") for value in evaluation.stats]


@pytest.mark.parametrize("task", STATS)
@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_pycocotools(tmp_path, task, seed):
    truth, results = scenes(seed)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert score(tmp_path, task=task) == 0
    assert list(written_in_order(tmp_path, task)) == pycocotools_stats(truth, results, task, tmp_path)


def written_in_order(folder, task):
    from pipeline.metrics.detection import KEYPOINT_METRICS, METRICS

    found = figures(written(folder))
    order = (
        ("map", "map50", "map75", "map_medium", "map_large", "mar20", "mar20_oks50", "mar20_oks75")
        if task == "keypoints"
        else tuple(METRICS)
    )
    order += ("mar_medium", "mar_large") if task == "keypoints" else ()
    assert set(found) == set(KEYPOINT_METRICS if task == "keypoints" else METRICS)
    return [found[name] for name in order]


def test_what_is_written(files, capsys):
    assert score(files) == 0
    content = written(files)
    protocol = dict(map(tuple, content["protocol"]))
    assert protocol["num_images"] == 12
    assert "IoU of boxes" in protocol["overlap"]
    assert {row[0] for row in content["intervals"]} <= set(figures(content))
    assert [row[0] for row in content["error_types"]][:2] == ["classification", "localisation"]
    table = pq.read_table(files / "out" / "per_image.parquet")
    assert table.num_rows == 12
    assert sorted(path.name for path in (files / "out" / "pictures").iterdir()) == [
        "calibration.png",
        "confusion.png",
        "errors.png",
        "per_class.png",
        "pr_curves.png",
        "predictions.png",
    ]
    shown = capsys.readouterr().out
    assert f"{content['map']:.4f}" in shown
    assert "most mistakes: " in shown


def test_the_same_bytes_again_whatever_stood_there(files):
    def bytes_of(out):
        return {path.name: path.read_bytes() for path in (files / out).rglob("*") if path.is_file()}

    for out in ("a", "b", "b"):
        assert score(files, out=out) == 0
    assert bytes_of("a") == bytes_of("b")


def test_the_order_of_a_file_does_not_matter_where_scores_differ(files):
    results = json.loads((files / "results.json").read_text())
    scores = np.random.default_rng(0).permutation(np.arange(1, len(results) + 1) / 1000)
    for entry, value in zip(results, scores.tolist(), strict=True):
        entry["score"] = value
    for name, entries in (("a.json", results), ("b.json", results[::-1])):
        (files / name).write_text(json.dumps(entries))
        assert score(files, predictions=name, out=name[0]) == 0
    assert figures(written(files, "a")) == figures(written(files, "b"))


def as_yolo(folder):
    """The same truth and predictions as YOLO's rows beside blank images; returns the places."""
    truth, results = (json.loads((folder / name).read_text()) for name in ("truth.json", "results.json"))
    names = {image["id"]: image["file_name"].removesuffix(".jpg") for image in truth["images"]}
    for place in ("images", "labels", "found"):
        (folder / "yolo" / place).mkdir(parents=True)
    for name in names.values():
        Image.new("L", SIZE[::-1]).save(folder / "yolo" / "images" / f"{name}.png")
    for entries, place in ((truth["annotations"], "labels"), (results, "found")):
        for entry in entries:
            x, y, width, height = entry["bbox"]
            row = [
                CATEGORIES.index(entry["category_id"]),
                *((x + width / 2) / SIZE[1], (y + height / 2) / SIZE[0], width / SIZE[1], height / SIZE[0]),
            ]
            row += [entry["score"]] if "score" in entry else []
            with (folder / "yolo" / place / f"{names[entry['image_id']]}.txt").open("a") as file:
                print(*row, file=file)
    (folder / "yolo" / "data.yaml").write_text("names: [c2, c5, c7]\n")
    return folder / "yolo"


def as_voc(folder):
    """The same truth as VOC's XML files and the predictions as the devkit's lists."""
    truth, results = (json.loads((folder / name).read_text()) for name in ("truth.json", "results.json"))
    for place in ("Annotations", "JPEGImages", "found"):
        (folder / "voc" / place).mkdir(parents=True)
    names = {image["id"]: f"{image['id']:06d}" for image in truth["images"]}
    for image_id, name in names.items():
        Image.new("L", SIZE[::-1]).save(folder / "voc" / "JPEGImages" / f"{name}.png")
        objects = ""
        for entry in truth["annotations"]:
            if entry["image_id"] == image_id:
                x, y, width, height = entry["bbox"]
                corners = {"xmin": x, "ymin": y, "xmax": x + width, "ymax": y + height}
                box = "".join(f"<{key}>{value!r}</{key}>" for key, value in corners.items())
                objects += f"<object><name>c{entry['category_id']}</name><bndbox>{box}</bndbox></object>"
        xml = f"<annotation><size><height>200</height><width>300</width></size>{objects}</annotation>"
        (folder / "voc" / "Annotations" / f"{name}.xml").write_text(xml)
    for entry in results:
        x, y, width, height = entry["bbox"]
        with (folder / "voc" / "found" / f"comp3_det_test_c{entry['category_id']}.txt").open("a") as file:
            print(names[entry["image_id"]], entry["score"], x, y, x + width, y + height, file=file)
    return folder / "voc"


def test_formats_agree(files):
    truth = json.loads((files / "truth.json").read_text())
    for annotation in truth["annotations"]:
        del annotation["area"]  # what YOLO and VOC cannot say
        annotation.update(iscrowd=0, segmentation=[])
    truth["images"].sort(key=lambda image: image["file_name"])
    (files / "truth.json").write_text(json.dumps(truth))
    results = json.loads((files / "results.json").read_text())
    for number, entry in enumerate(results):
        entry["score"] = round(entry["score"] / 2 + number / 1000, 4)
    (files / "results.json").write_text(json.dumps(results))
    yolo, voc = as_yolo(files), as_voc(files)
    assert score(files, out="coco") == 0
    assert score(yolo, "--classes", yolo / "data.yaml", truth="labels", predictions="found", out="../by_yolo") == 0
    assert score(voc, truth=".", predictions="found", out="../by_voc") == 0
    expected = figures(written(files, "coco"))
    assert expected["map50"] > 0.2
    assert figures(written(files, "by_yolo")) == pytest.approx(expected, abs=1e-6)
    assert figures(written(files, "by_voc")) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("prefix", ["", "comp4_det_test_"])
def test_a_voc_list_is_of_the_longest_class_that_its_name_ends_in(tmp_path, prefix):
    from pipeline.reporting.scoring.results import read_voc

    for name in ("bus", "school_bus"):
        (tmp_path / f"{prefix}{name}.txt").write_text("a 0.5 1 2 3 4\n")
    for classes in ({"bus": 0, "school_bus": 1}, {"school_bus": 1, "bus": 0}):
        found = read_voc(tmp_path, positions={"a": 0}, classes=classes, one_based=False)
        assert found.labels == [0, 1]


def test_nothing_found_is_ap_0_and_no_truth_is_undefined(files, capsys):
    (files / "results.json").write_text("[]")
    assert score(files) == 0
    assert "no detections: AP is 0" in capsys.readouterr().err
    assert written(files)["map"] == 0
    truth = json.loads((files / "truth.json").read_text())
    (files / "truth.json").write_text(json.dumps({**truth, "annotations": []}))
    assert score(files) == 0
    assert written(files)["map"] is None


def refused(folder, capsys, **options):
    """The one line that says why a score is refused; nothing is written."""
    assert score(folder, **options) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert "bug" not in errors[0]
    assert "; fix: " in errors[0] or "did you mean" in errors[0]
    assert not (folder / "out").exists()
    return errors[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"score": float("nan")}, "results.json#3 score: "),
        ({"score": float("inf")}, "results.json#3 score: "),
        ({"score": None}, "results.json#3 score: should be float, not null (None)"),
        ({"score": "0.9"}, "results.json#3 score: should be float, not str ('0.9')"),
        ({"score": ...}, "results.json#3 score: missing"),
        ({"bbox": [1, 2, float("nan"), 4]}, "results.json#3 bbox"),
        ({"bbox": [1, 2, 3]}, "results.json#3 bbox: 3 numbers where 4 belong"),
        ({"bbox": [1, 2, -3, 4]}, "results.json#3 bbox: a negative side"),
        ({"bbox": ...}, "results.json#3 bbox: missing"),
        ({"image_id": 999}, "results.json#3 image_id: no image 999 in the truth"),
        ({"image_id": "3"}, "results.json#3 image_id: '3' is text, the truth has 3"),
        ({"category_id": 99}, "results.json#3 category_id: no category 99 in the truth (it has 2, 5, 7)"),
        ({"category_id": "2"}, "results.json#3 category_id: '2' is text, the truth has 2"),
    ],
)
def test_a_wrong_entry_is_named(files, capsys, change, says):
    results = json.loads((files / "results.json").read_text())
    results[3] = {key: value for key, value in {**results[3], **change}.items() if value is not ...}
    (files / "results.json").write_text(json.dumps(results))
    assert says in refused(files, capsys)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"annotations": []}', "an object, not a list"),
        ('{"image_id": 3}\n{"image_id": 3}\n', "JSON lines, not one list"),
        ('[{"image_id": 3,', "truncated"),
        ("", "an empty file"),
        ('[{"image_id": 0}, 7]', "results.json#0 category_id: missing"),
    ],
)
def test_a_wrong_file_is_told(files, capsys, text, says):
    (files / "results.json").write_text(text)
    assert says in refused(files, capsys)


def test_masks_and_keypoints_must_be_there(files, capsys):
    results = json.loads((files / "results.json").read_text())
    for entry in results:
        del entry["segmentation"], entry["keypoints"]
    (files / "results.json").write_text(json.dumps(results))
    assert "results.json#0 segmentation: missing" in refused(files, capsys, task="instance")
    assert "results.json#0 keypoints: missing" in refused(files, capsys, task="keypoints")


def test_a_mask_that_is_shorter_than_its_image_is_refused(files, capsys):
    results = json.loads((files / "results.json").read_text())
    results[0]["segmentation"]["size"] = [200, 301]
    (files / "results.json").write_text(json.dumps(results))
    assert "the mask is 200 x 301" in refused(files, capsys, task="instance")


def test_a_mask_of_width_and_height_in_the_wrong_order_is_refused(files, capsys):
    """It has as many pixels as its image, and would overlap nothing."""
    results = json.loads((files / "results.json").read_text())
    results[3]["segmentation"]["size"] = [300, 200]
    (files / "results.json").write_text(json.dumps(results))
    says = "results.json#3 segmentation: a mask of 300 x 200 pixels, the image has 200 x 300"
    assert says in refused(files, capsys, task="instance")


def test_an_annotation_without_id_keeps_its_box_where_its_place_is_the_id_of_another(tmp_path):
    image, categories = {"id": 1, "file_name": "a.jpg", "height": 50, "width": 50}, [{"id": 1, "name": "cat"}]
    found = [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [x, x, 10, 10]} for x in (0, 20)]
    truth = [{**entry, "area": 100, "iscrowd": 0} for entry in found]
    truth[1]["id"] = 0
    content = {"images": [image], "annotations": truth, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert score(tmp_path) == 0
    assert written(tmp_path)["map"] == pytest.approx(1)


def test_a_fault_in_the_truth_is_named(files, capsys):
    truth = json.loads((files / "truth.json").read_text())
    truth["annotations"][4]["image_id"] = 12345
    (files / "truth.json").write_text(json.dumps(truth))
    assert "truth.json#4 image_id: no such image (12345)" in refused(files, capsys)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: {"category_id": {2: 5, 5: 7, 7: 7}[e["category_id"]]}, "with classes moved by -1 it would be"),
        (
            lambda e: {"bbox": [*e["bbox"][:2], e["bbox"][0] + e["bbox"][2], e["bbox"][1] + e["bbox"][3]]},
            "with boxes read as x1, y1, x2, y2 it would be",
        ),
        (lambda e: {"bbox": (np.array(e["bbox"]) / [300, 200, 300, 200]).tolist()}, "shares of the image?"),
        (lambda e: {"score": 95 * e["score"]}, "are no shares"),
        (lambda e: {"bbox": [x + 1000 for x in e["bbox"][:2]] + e["bbox"][2:]}, "no detection matches a truth of its"),
    ],
)
def test_what_looks_misread_is_warned_of(files, capsys, change, says):
    results = [{**entry, **change(entry)} for entry in json.loads((files / "results.json").read_text())]
    (files / "results.json").write_text(json.dumps(results))
    assert score(files) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert [line for line in warnings if line.startswith("warning: ") and says in line]


def test_good_predictions_bring_no_warning(files, capsys):
    assert score(files) == 0
    assert capsys.readouterr().err == ""


def test_detections_that_do_not_count_are_stated(files, capsys):
    results = json.loads((files / "results.json").read_text())
    (files / "results.json").write_text(json.dumps(results + [results[0]] * 120))
    same = sum(all(e[key] == results[0][key] for key in ("image_id", "category_id")) for e in results)
    assert score(files) == 0
    assert f"{120 + same - 100} of {len(results) + 120} detections are beyond" in capsys.readouterr().err
    assert dict(map(tuple, written(files)["protocol"]))["num_detections_left_out"].startswith(f"{20 + same}, ")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0 0.5 0.5 0.1 0.1", "5 columns (no score)"),
        ("9 0.5 0.5 0.1 0.1 0.9", "class: no class '9'"),
        ("0 0.5 0.5 0.1 x 0.9", "h: not a number ('x')"),
        ("0 0.5 nan 0.1 0.1 0.9", "y: not finite"),
        ("0 50 50 10 10 0.9", "box: not shares of the image"),
    ],
)
def test_a_wrong_row_of_yolo_is_named(files, capsys, row, says):
    yolo = as_yolo(files)
    (yolo / "found" / "0.txt").write_text(f"\n{row}\n")
    arguments = ("--classes", yolo / "data.yaml")
    assert score(yolo, *arguments, truth="labels", predictions="found") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: 0.txt:2")
    assert says in error


def test_a_truth_without_images_is_refused_before_anything_is_written(files, capsys):
    (files / "truth.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (files / "results.json").write_text("[]")
    assert score(files) == 1
    assert "truth.json: no image to score; fix: name truth that has images" in capsys.readouterr().err
    assert not (files / "out").exists()


@pytest.mark.parametrize("place", ["/x.csv", "/tmp/x.csv", "/tmp/a/x.csv"])
def test_a_file_that_is_no_image_set_is_refused(monkeypatch, place):
    from pathlib import Path

    from pipeline.errors import ParamsError
    from pipeline.reporting.scoring.truth import read_voc

    monkeypatch.setattr(Path, "is_file", lambda path: True)
    with pytest.raises(ParamsError, match=f"^--truth {place}: neither JSON nor an image set of VOC's"):
        read_voc(Path(place), "boxes", None, one_based=False)


def test_options_that_do_not_fit_are_refused(files, capsys):
    assert "did you mean 'detection'" in refused(files, capsys, task="detections")
    assert "--predictions" in refused(files, capsys, predictions="nowhere.json")
    assert score(files, "--format", "cooc") == 2
    assert "did you mean 'coco'" in capsys.readouterr().err
    assert score(files, out="truth.json") == 2
    (files / "mine").mkdir()
    (files / "mine" / "precious.txt").write_text("")
    assert score(files, out="mine") == 2
    assert "exists and is no earlier score" in capsys.readouterr().err
