import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import params as schema
from pipeline.data.ingest import OnError, ingest
from pipeline.data.records import RawObject, Record
from pipeline.data.store import Store, encode_png
from pipeline.errors import ParamsError, PipelineError
from pipeline.stages import augment, download
from pipeline.structures import DatasetInfo

KINDS = {"boxes", "masks", "semantic", "panoptic", "keypoints", "captions"}


def job(options, transforms=({"name": "HorizontalFlip", "p": 1.0},), copies=2, source="openmoji_scenes"):
    """What these two stages read of params.yaml."""
    return types.SimpleNamespace(
        defaults=types.SimpleNamespace(seed=0),
        datasets={"toy": schema.Dataset(source=source, inputs="requirements.lock", options=options)},
        augmentations={
            "toy_moved": schema.Augmentation(
                inputs="raw/toy", copies=copies, min_visibility=0.3, transforms=list(transforms)
            )
        },
    )


SCENES = {"image_size": 64, "num_train": 4, "num_val": 1, "num_test": 2}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project, on one core: tests/data/test_pool.py has the several."""
    monkeypatch.setattr("pipeline.data.pool.os.sched_getaffinity", lambda _: {0})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def all_bytes(*folders):
    return {
        str(path): path.read_bytes() for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


def test_download_writes_store_statistics_and_a_picture_of_each_kind(project):
    download.run(job(SCENES), "toy")
    assert Store(Path("data/raw/toy")).info.counts == {"train": 4, "val": 1, "test": 2}
    numbers = json.loads(Path("reports/data/toy/statistics.json").read_text())
    assert numbers["counts"] == {"train": 4, "val": 1, "test": 2}
    assert "CC BY-SA 4.0" in numbers["attribution"]
    pictures = {path.stem: path for path in Path("reports/data/toy/pictures").iterdir()}
    assert set(pictures) == KINDS
    for path in pictures.values():
        assert path.stat().st_size < 200_000
        with Image.open(path) as picture:
            assert picture.info == {}


@pytest.fixture
def fake(monkeypatch):
    """A source whose only image has one good box and one without area."""

    def prepare(folder: Path, *, seed: int, inputs: str, on_error: OnError = "fail") -> None:
        info = DatasetInfo(
            name="toy", tasks=["detection"], classes=["cat"], channels=1, licence="none", attribution="", source=inputs
        )
        boxes = [RawObject(0, [1, 1, 5, 5], index=3), RawObject(0, [2, 2, 2, 5], index=4)]
        records = [Record("test", "a", "a.png", encode_png(np.zeros((9, 9), np.uint8)), objects=boxes)]
        ingest(folder, info, records, on_error=on_error)

    module = types.ModuleType("pipeline.data.datasets.fake")
    module.prepare = prepare
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_fault_ends_the_work_or_is_left_out_and_counted(project, fake, capsys):
    params = job({}, source="fake")
    with pytest.raises(PipelineError, match=r"a\.png#4 bbox: a box without area .* or set on_error: skip"):
        download.run(params, "toy")
    assert not list(Path("data/raw").iterdir())
    download.run(job({"on_error": "skip"}, source="fake"), "toy")
    assert (
        "download toy: left out for faults: annotations 1, images 0; each is named in reports/"
        in capsys.readouterr().err
    )
    numbers = json.loads(Path("reports/data/toy/statistics.json").read_text())
    assert numbers["skipped"] == {"annotations": 1, "images": 0}
    health = json.loads(Path("reports/data/toy/health.json").read_text())
    assert health["checks"]["zero-area box"]["listed"][0]["index"] == 4
    # `inputs` of params.yaml reaches a source that asks for it
    assert numbers["source"] == "requirements.lock"


def test_inputs_within_options_are_refused(project, fake):
    with pytest.raises(ParamsError, match=r"datasets\.toy\.options\.inputs: fix: write it beside"):
        download.run(job({"inputs": "elsewhere"}, source="fake"), "toy")


def test_download_and_augment_write_the_same_bytes_each_time(project):
    written = []
    for _ in range(2):
        download.run(job(SCENES), "toy")
        augment.run(job(SCENES), "toy_moved")
        written.append(all_bytes("data", "reports"))
    assert written[0] == written[1]
    assert not [name for name in written[0] if Path(name).name.startswith(".")]


def test_unknown_option_is_named_with_its_nearest_and_nothing_is_written(project):
    with pytest.raises(ParamsError, match=r"datasets\.toy\.options\.image_siz.*did you mean 'image_size'"):
        download.run(job({"image_siz": 64}), "toy")
    assert not Path("data").exists()


@pytest.mark.parametrize("options", [{"num_train": 0}, {"image_size": "64"}, {"max_objects": 2.5}])
def test_impossible_option_is_refused(project, options):
    with pytest.raises(ParamsError, match=rf"datasets\.toy\.options\.{next(iter(options))}"):
        download.run(job(options), "toy")


def test_augmented_store_has_originals_then_copies_and_other_splits_untouched(project):
    download.run(job(SCENES), "toy")
    augment.run(job(SCENES), "toy_moved")
    raw, moved = Store(Path("data/raw/toy")), Store(Path("data/augmented/toy_moved"))
    assert moved.info.counts == {"train": 12, "val": 1, "test": 2}
    ids = moved.split("train").column("image_id")
    assert ids[:4] == raw.split("train").column("image_id")
    assert ids[4:8] == ["train_00000~1", "train_00000~2", "train_00001~1", "train_00001~2"]
    for name, num in (("train", 4), ("val", 1), ("test", 2)):
        rows = [raw.split(name).row(i) for i in range(num)]
        assert [moved.split(name).row(i) for i in range(num)] == rows
    original, copy = moved.split("train").read(0, masks=True), moved.split("train").read(4, masks=True)
    assert (copy.objects.masks == original.objects.masks[:, :, ::-1]).all()
    assert copy.captions is None
    pictures = {"preview.png", "preview_semantic.png", "preview_panoptic.png", "preview_keypoints.png"}
    assert {path.name for path in Path("reports/data/toy_moved").rglob("*.*")} == {"statistics.json"} | pictures


def test_policy_with_a_fault_is_refused_before_any_work(project):
    with pytest.raises(
        ParamsError, match=r"augmentations\.toy_moved\.transforms\.0\.name: no such transform \('Flipp'\)"
    ):
        augment.run(job(SCENES, transforms=[{"name": "Flipp"}]), "toy_moved")
    assert not Path("data").exists()


def test_classification_data_shows_its_classes(project):
    params = job({"image_size": 16}, source="openmoji_icons", copies=1)
    download.run(params, "toy")
    augment.run(params, "toy_moved")
    # two of OpenMoji's icons look nearly like another
    pictures = sorted(path.name for path in Path("reports/data/toy/pictures").iterdir())
    assert pictures == ["duplicates.png", "labels.png"]
    numbers = json.loads(Path("reports/data/toy_moved/statistics.json").read_text())
    before = json.loads(Path("reports/data/toy/statistics.json").read_text())
    for name, counts in numbers["images_per_class"].items():
        assert counts["train"] == 2 * before["images_per_class"][name]["train"]
        assert counts["test"] == before["images_per_class"][name]["test"]
    assert numbers["groups"] == before["groups"]
