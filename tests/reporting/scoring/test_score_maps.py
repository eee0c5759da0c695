"""`pipeline score` on label maps, panoptic maps, tables of classes and captions."""

import json

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.data.store import encode_ids


def score(folder, task, *more, out="out"):
    names = {"semantic": "", "panoptic": ".json", "classification": ".csv", "captions": ".json"}
    paths = [folder / f"{name}{names[task]}" for name in ("truth", "found")]
    arguments = ["score", "--truth", paths[0], "--predictions", paths[1], "--task", task, "--out", folder / out, *more]
    return main([str(argument) for argument in arguments])


def figures(folder):
    content = json.loads((folder / "out" / "metrics.json").read_text())
    return {name: value for name, value in content.items() if not isinstance(value, list)}


def error_of(folder, capsys, task, *more):
    assert score(folder, task, *more) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "bug" not in lines[0]
    assert not (folder / "out").exists()
    return lines[0]


def write_maps(folder, **maps):
    folder.mkdir()
    for name, values in maps.items():
        Image.fromarray(np.array(values, np.uint8)).save(folder / f"{name}.png")


TRUTH = {"a": [[7, 7, 9, 9], [7, 7, 9, 255]], "b": [[7, 7, 7, 7]]}
FOUND = {"a": [[7, 9, 9, 9], [7, 7, 9, 7]], "b": [[7, 7, 7, 21]]}


def test_label_maps_worked_by_hand(tmp_path):
    write_maps(tmp_path / "truth", **TRUTH)
    write_maps(tmp_path / "found", **FOUND)
    (tmp_path / "names.yaml").write_text("names: {7: road, 9: car, 21: sky}\n")
    assert score(tmp_path, "semantic", "--classes", tmp_path / "names.yaml") == 0
    found = figures(tmp_path)
    # road 3 + 3 of 8; car 3 of 4; sky 0 of 1; 9 of the 11 scored pixels are right
    assert found["miou"] == pytest.approx((6 / 8 + 3 / 4 + 0) / 3, abs=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(9 / 11, abs=1e-6)
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [row["class"] for row in content["per_class"]] == ["road", "car", "sky"]
    assert {path.name for path in (tmp_path / "out" / "pictures").iterdir()} == {
        "confusion.png",
        "per_class.png",
        "predictions.png",
    }
    assert score(tmp_path, "semantic") == 0  # the values that occur are the classes
    assert figures(tmp_path) == found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "found" / "b.png").unlink(), "no prediction of image 'b'"),
        (lambda folder: (folder / "truth" / "b.png").unlink(), "found#b: no such image in the truth"),
        (lambda folder: (folder / "found" / "b.png").write_bytes(b"no image"), "b.png: "),
        (lambda folder: write_maps(folder / "found" / "c", b=[[0]]), "c/b"),
        (
            lambda folder: Image.fromarray(np.full((1, 4), 3, np.uint8)).save(folder / "found" / "b.png"),
            "b.png: no class has the value 3",
        ),
        (
            lambda folder: Image.fromarray(np.full((2, 4), 7, np.uint8)).save(folder / "found" / "b.png"),
            "b label_map: its size is (2, 4), the image's (1, 4)",
        ),
    ],
)
def test_a_wrong_map_is_named(tmp_path, capsys, change, says):
    write_maps(tmp_path / "truth", **TRUTH)
    write_maps(tmp_path / "found", **FOUND)
    (tmp_path / "names.yaml").write_text("names: {7: road, 9: car, 21: sky}\n")
    change(tmp_path)
    assert says in error_of(tmp_path, capsys, "semantic", "--classes", tmp_path / "names.yaml")


def write_panoptic(folder, name, ids, segments, **more):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "a.png").write_bytes(encode_ids(np.array(ids, np.int32)))
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": segments}
    (folder / f"{name}.json").write_text(json.dumps({"annotations": [annotation], **more}))


THING = {"id": 300, "category_id": 5}
CATEGORIES = [{"id": 5, "name": "cat", "isthing": 1}, {"id": 8, "name": "sky", "isthing": 0}]


def test_panoptic_maps_worked_by_hand(tmp_path):
    truth = [[300, 300, 300, 300, 1, 1, 1, 1, 0, 0]]
    write_panoptic(tmp_path, "truth", truth, [THING, {"id": 1, "category_id": 8}], categories=CATEGORIES)
    found = [[7, 7, 7, 1, 1, 1, 1, 1, 9, 9]]
    segments = [{"id": 7, "category_id": 5}, {"id": 1, "category_id": 8}, {"id": 9, "category_id": 5}]
    write_panoptic(tmp_path, "found", found, segments)
    assert score(tmp_path, "panoptic") == 0
    # cat 3 of 4, sky 4 of 5; the segment on void is no mistake
    assert figures(tmp_path)["pq"] == pytest.approx((3 / 4 + 4 / 5) / 2, abs=1e-6)
    assert figures(tmp_path)["pq_things"] == pytest.approx(3 / 4, abs=1e-6)
    write_panoptic(tmp_path, "truth", truth, [{**THING, "iscrowd": 1}], categories=CATEGORIES)
    write_panoptic(tmp_path, "found", [[7] * 10], [{"id": 7, "category_id": 5}])
    assert score(tmp_path, "panoptic") == 0
    assert figures(tmp_path)["pq"] is None  # a crowd is not to be found, and what lies on it is no mistake


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        ([{"id": 7, "category_id": 6}], "category_id: no category 6 in the truth (it has 5, 8)"),
        ([{"id": 7}], "category_id: missing"),
        ([{"id": 6, "category_id": 5}], "segment 7 of the prediction is not in its list"),
        ([{"id": 7, "category_id": 5}] * 2, "two segments share an id"),
        ([{"id": 7, "category_id": 5}, {"id": 8, "category_id": 5}], "segment 8 of the prediction has no pixel"),
    ],
)
def test_wrong_segments_are_named(tmp_path, capsys, segments, says):
    write_panoptic(tmp_path, "truth", [[300, 300]], [THING], categories=CATEGORIES)
    write_panoptic(tmp_path, "found", [[7, 7]], segments)
    assert says in error_of(tmp_path, capsys, "panoptic")


def test_classes_and_scores_of_classes(tmp_path, capsys):
    (tmp_path / "truth.csv").write_text("class,file\nNA,a.jpg\n01,b.jpg\nNA,c.jpg\n")
    (tmp_path / "found.csv").write_text("file,01,NA\nc.jpg,.7,.3\na.jpg,.2,.8\nb.jpg,.6,.4\n")
    assert score(tmp_path, "classification") == 0
    found = figures(tmp_path)
    assert found["top1"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["log_loss"] == pytest.approx(-np.log([0.3, 0.8, 0.6]).mean(), abs=1e-6)
    (tmp_path / "found.csv").write_text("class,file\nNA,a.jpg\nNA,b.jpg\nNA,c.jpg\n")
    assert score(tmp_path, "classification") == 0
    assert figures(tmp_path)["top1"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures(tmp_path)["log_loss"] is None  # a class alone says nothing of its chance


def test_a_class_alone_has_no_second_guess(tmp_path):
    truth = {f"{index}.jpg": f"c{index}" for index in range(10)}
    for name, shift in (("truth", 0), ("found", 1)):
        rows = [f"{file},c{(int(label[1:]) + shift) % 10}" for file, label in truth.items()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["file,class", *rows]) + "\n")
    assert score(tmp_path, "classification") == 0
    assert figures(tmp_path)["top1"] == 0
    assert "top5" not in figures(tmp_path)  # the other nine are equal: of these the first four are no answer


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_scores_of_classes_are_read_as_truth_is(tmp_path, delimiter):
    for name, rows in (
        ("truth", ["file,class", "a.jpg,cat", "b.jpg,dog"]),
        ("found", [" file , dog,cat", "", "b.jpg, .7,.3 ", " a.jpg,.4,.6"]),
    ):
        (tmp_path / f"{name}.csv").write_text("\n".join(rows).replace(",", delimiter) + "\n")
    assert score(tmp_path, "classification") == 0
    assert figures(tmp_path)["top1"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,class\na.jpg,cat\nb.jpg,dgo\n", "found.csv:3 class: no class 'dgo'; did you mean 'dog'"),
        ("file,class\na.jpg,cat\n", "no prediction of image 'b.jpg'"),
        ("file,class\na.jpg,cat\na.jpg,cat\n", "found.csv:3 file: 'a.jpg' stands there twice"),
        ("file,cat,dog\na.jpg,.1,x\n", "found.csv:2 dog: not a number ('x')"),
        ("file,cat,dog\na.jpg,.1,nan\n", "found.csv:2 dog: not finite"),
        ('file,class\na.jpg,"cat\n', "found.csv:2: not CSV"),
        ("file,cat,dog\na.jpg,.1\n", "found.csv:2: 2 fields where the header has 3"),
        ("file,cat\na.jpg,.1\n", "neither a column `class` nor one for the class 'dog'"),
        ("name,class\na.jpg,cat\n", "no column for the image"),
    ],
)
def test_a_wrong_row_of_a_table_is_named(tmp_path, capsys, text, says):
    (tmp_path / "truth.csv").write_text("file,class\na.jpg,cat\nb.jpg,dog\n")
    (tmp_path / "found.csv").write_text(text)
    assert says in error_of(tmp_path, capsys, "classification")


def test_captions(tmp_path, capsys):
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (4, 5)]
    sentences = {4: ["a cat on a mat", "the cat sits"], 5: ["two dogs in the snow"]}
    annotations = [{"id": n, "image_id": i, "caption": s} for i, of in sentences.items() for n, s in enumerate(of, i)]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    (tmp_path / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    found = [{"image_id": 5, "caption": "two dogs in the snow"}, {"image_id": 4, "caption": "a cat on a mat"}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    assert score(tmp_path, "captions") == 0
    assert figures(tmp_path)["bleu4"] == pytest.approx(1, abs=1e-5)
    assert figures(tmp_path)["rouge_l"] == pytest.approx(1, abs=1e-6)
    (tmp_path / "out" / "metrics.json").unlink()
    for name in ("per_image.parquet", "pictures/scores.png"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "pictures").rmdir()
    (tmp_path / "out").rmdir()
    (tmp_path / "found.json").write_text(json.dumps([*found, found[0]]))
    assert "found.json#2 image_id: 5 has a caption" in error_of(tmp_path, capsys, "captions")
    (tmp_path / "found.json").write_text(json.dumps(found[:1]))
    assert "no prediction of image '4'" in error_of(tmp_path, capsys, "captions")
    (tmp_path / "found.json").write_text(json.dumps([{"image_id": 5, "caption": None}]))
    assert "found.json#0 caption: should be str" in error_of(tmp_path, capsys, "captions")
