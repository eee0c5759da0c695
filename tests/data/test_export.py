import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline import cli, params, paths
from pipeline.data import export, store
from pipeline.data.formats import coco
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from pipeline.ops.masks import boxes_of
from pipeline.structures import Objects, Sample


@pytest.fixture
def project(tmp_path, monkeypatch, info, sample):
    """A project with a dataset `toy`, exported as files and by name; the working folder of the test."""
    monkeypatch.chdir(tmp_path)
    mapping = {"toy": None, "unmade": None}
    monkeypatch.setattr(params, "load", lambda: SimpleNamespace(datasets=mapping, augmentations={"toy_more": None}))
    for folder in (paths.raw("toy"), paths.augmented("toy_more")):
        with store.writing(folder, info) as writer:
            writer.add("train", store.to_row(sample))
    return tmp_path


def run(capsys, *arguments):
    code = cli.main(["export", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_writes_the_folder_and_says_what_was_left_out(project, capsys):
    code, out, err = run(capsys, "toy", "--format", "voc")
    assert (code, err) == (0, "")
    first, *others = out.splitlines()
    assert first == "data/exports/toy_voc: 1 images as voc (licence: none; attribution: none)"
    assert others == [
        "left out: keypoints",
        "left out: panoptic maps",
        "left out: captions",
        "left out: stuff, which became background",
    ]
    assert (project / "data/exports/toy_voc/JPEGImages/a.png").is_file()


def test_an_augmentation_goes_where_it_is_told(project, capsys):
    code, _, _ = run(capsys, "toy_more", "--format", "coco", "--out", "here/x")
    assert code == 0
    content = json.loads((project / "here/x/annotations/instances_train.json").read_text(encoding="utf-8"))
    assert [category["name"] for category in content["categories"]] == ["cat", "dog"]
    # the cat is at columns 2..7 and rows 4..9
    assert content["annotations"][0]["bbox"] == [2, 4, 6, 6]
    assert content["annotations"][0]["image_id"] == content["images"][0]["id"] == 1
    assert content["images"][0] == {"file_name": "a.png", "height": 20, "id": 1, "width": 30}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["toy"], 2, "Missing option '--format'"),
        (["toy", "--format", "coca"], 2, "--format: no format 'coca'; did you mean 'coco'? choices: coco, csv"),
        (["toi", "--format", "coco"], 2, "params.yaml: no 'toi' in datasets or augmentations; did you mean 'toy'?"),
        (["unmade", "--format", "coco"], 1, "data/raw/unmade: no dataset there; fix: dvc repro"),
        (["toy", "--format", "coco", "--out", "data"], 2, "data: exists; fix: remove it, or name another folder"),
        (["toy", "--format", "imagefolder"], 1, "toy: its images have no class, so no folder; fix: export it as coco"),
    ],
)
def test_misuse_is_one_line(project, capsys, arguments, code, message):
    before = sorted(project.rglob("*"))
    result, out, err = run(capsys, *arguments)
    assert (result, out) == (code, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert {path for path in project.rglob("*") if path not in before} <= {project / "data/exports"}


def test_a_writer_that_fails_leaves_no_folder(project, monkeypatch):
    def fail(folder, store):
        (folder / "half").write_text("half", encoding="utf-8")
        raise OSError("disk full")

    monkeypatch.setitem(export.WRITERS, "coco", fail)
    with pytest.raises(OSError, match="disk full"):
        export.export(Store(paths.raw("toy")), "coco", project / "out")
    assert not (project / "out").exists()
    with pytest.raises(ParamsError, match="exists"):
        export.export(Store(paths.raw("toy")), "coco", project / "data")


def test_image_bytes_keep_their_exif_and_boxes_are_of_the_image_as_shown(tmp_path, info, parted_sample):
    data, sample = parted_sample
    info.tasks, info.keypoints = ["detection"], []
    with store.writing(tmp_path / "toy", info) as writer:
        writer.add("train", store.to_row(sample, data))
    export.export(Store(tmp_path / "toy"), "coco", tmp_path / "out")
    assert (tmp_path / "out/train/a.jpg").read_bytes() == data
    source = coco.read(tmp_path / "out", split="train", images="train", annotations="annotations/instances_train.json")
    (record,) = source.records
    assert record.size == (30, 20)
    assert record.objects[0].bbox == [0.0, 10.0, 20.0, 30.0]


@pytest.fixture
def parted_sample(tmp_path):
    """A JPEG of 20 rows and 30 columns that is shown turned by a quarter, and a box in the lower part as shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = Path(tmp_path / "a.jpg")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path, exif=exif)
    objects = Objects(
        boxes=np.array([[0, 10, 20, 30]], np.float32),
        labels=np.array([0]),
        area=np.array([400], np.float32),
        iscrowd=np.array([False]),
    )
    return path.read_bytes(), Sample("a", "a.jpg", np.zeros((30, 20, 3), np.uint8), objects=objects)


def test_numeric_ids_stay_and_others_are_counted_from_1(tmp_path, info, sample):
    info.tasks = ["captions"]
    for ids, expected in ((["17", "5"], [17, 5]), (["a", "5"], [1, 2]), (["05", "5"], [1, 2])):
        folder = tmp_path / "-".join(ids)
        with store.writing(folder, info) as writer:
            for name in ids:
                image = Sample(name, f"{name}.png", sample.image, captions=["A cat."])
                writer.add("train", store.to_row(image))
        export.export(Store(folder), "coco", folder / "out")
        text = (folder / "out/annotations/captions_train.json").read_text(encoding="utf-8")
        assert [image["id"] for image in json.loads(text)["images"]] == expected
        assert [entry["image_id"] for entry in json.loads(text)["annotations"]] == expected


def test_crowds_have_no_place_in_yolo_and_are_difficult_in_voc(tmp_path, info, sample):
    sample.objects.iscrowd[0] = True
    with store.writing(tmp_path / "toy", info) as writer:
        writer.add("train", store.to_row(sample))
    toy = Store(tmp_path / "toy")
    assert "crowds (1)" in export.export(toy, "yolo", tmp_path / "yolo")
    rows = (tmp_path / "yolo/labels/train/a.txt").read_text(encoding="utf-8").splitlines()
    # the dog is at columns 20..27 and rows 6..11 of 30 x 20 pixels
    assert rows == ["1 0.666666667 0.3 0.933333333 0.3 0.933333333 0.6 0.666666667 0.6"]
    export.export(toy, "voc", tmp_path / "voc")
    text = (tmp_path / "voc/Annotations/a.xml").read_text(encoding="utf-8")
    assert text.index("<difficult>1</difficult>") < text.index("<difficult>0</difficult>")


def test_a_smaller_mask_covers_a_larger_one_in_voc(tmp_path, info, sample):
    from pipeline.data.images import decode_values

    sample.objects.masks[1] = False
    sample.objects.masks[1, 5:7, 3:5] = True
    sample.objects.area[1] = 4
    with store.writing(tmp_path / "toy", info) as writer:
        writer.add("train", store.to_row(sample))
    export.export(Store(tmp_path / "toy"), "voc", tmp_path / "voc")
    values = decode_values((tmp_path / "voc/SegmentationObject/a.png").read_bytes())
    assert (values == 2).sum() == 4
    assert (values == 1).sum() == 36 - 4


@pytest.mark.parametrize("form", ["voc", "masks"])
def test_masks_that_others_cover_are_told(tmp_path, info, sample, form):
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 4:8, 4:8] = masks[1, 4:8, 4:6] = masks[2, 4:8, 6:8] = True
    parts = {"area": np.array([16, 8, 8], np.float32), "iscrowd": np.zeros(3, bool)}
    sample.objects = Objects(boxes_of(masks), np.array([0, 1, 1]), masks=masks, keypoints=np.zeros((3, 3, 3)), **parts)
    with store.writing(tmp_path / "toy", info) as writer:
        writer.add("train", store.to_row(sample))
    assert "masks that others cover (1)" in export.export(Store(tmp_path / "toy"), form, tmp_path / "out")


@pytest.mark.parametrize("form", ["voc", "masks"])
def test_more_classes_than_a_map_has_values_are_one_line(tmp_path, info, sample, form):
    info.tasks = ["detection", "instance"]
    info.classes = [f"class {number}" for number in range(255)]
    sample.semantic = sample.segments = sample.captions = None
    with store.writing(tmp_path / "toy", info) as writer:
        writer.add("train", store.to_row(sample))
    with pytest.raises(PipelineError, match=r"^toy: 255 classes, maps of 8 bits hold 254; fix: export as coco$"):
        export.export(Store(tmp_path / "toy"), form, tmp_path / "out")
    info.classes.pop()
    with store.writing(tmp_path / "toy", info) as writer:
        writer.add("train", store.to_row(sample))
    export.export(Store(tmp_path / "toy"), form, tmp_path / "out")
