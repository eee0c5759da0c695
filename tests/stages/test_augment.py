"""The augment stage: the same bytes whatever the number of processes, and pictures of every kind of truth."""

import errno
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import paths
from pipeline.data.store import Store, StoreWriter, to_row, writing
from pipeline.errors import ParamsError, PipelineError
from pipeline.ops.masks import boxes_of
from pipeline.params import Augmentation, Defaults, Params
from pipeline.stages import augment
from pipeline.structures import DatasetInfo, Objects, Sample

NUM_TRAIN = 40


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a dataset of discs in two classes."""
    monkeypatch.chdir(tmp_path)
    info = DatasetInfo(
        "discs",
        ["detection", "instance", "semantic"],
        ["red", "blue"],
        3,
        "none",
        "none",
        "drawn here",
        semantic_classes=["ground", "red", "blue"],
        thing_of_semantic=[-1, 0, 1],
        colours=["#000000", "#ff0000", "#0000ff"],
    )
    with writing(paths.raw("discs"), info) as writer:
        for index in range(NUM_TRAIN + 4):
            writer.add("train" if index < NUM_TRAIN else "val", to_row(disc(index)))
    return tmp_path


def disc(index: int) -> Sample:
    rng = np.random.default_rng(index)
    rows, columns = np.mgrid[:32, :40]
    mask = (rows - rng.uniform(10, 22)) ** 2 + (columns - rng.uniform(10, 30)) ** 2 < 49
    label = index % 2
    image = rng.integers(0, 80, (32, 40, 3), dtype=np.uint8)
    image[mask, 2 * label] = 255
    masks = mask[None]
    area = masks.sum((1, 2)).astype(np.float32)
    objects = Objects(boxes_of(masks), np.array([label]), area, np.array([False]), masks)
    return Sample(
        f"{index:02}", f"{index:02}.png", image, objects=objects, semantic=np.where(mask, 1 + label, 0).astype(np.uint8)
    )


def params(transforms: list[dict[str, object]], copies: int = 2) -> Params:
    defaults = Defaults(device="cpu", precision="float32", threads=1, seed=0, training={})
    entry = Augmentation(inputs="raw/discs", copies=copies, min_visibility=0.3, transforms=transforms)
    return Params.model_construct(defaults=defaults, augmentations={"varied": entry})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_same_bytes_whatever_the_number_of_processes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = params([{"preset": "mosaic", "p": 0.5}, {"preset": "geometric"}, {"preset": "copy_paste"}])
    found = []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        augment.run(wanted, "varied")
        found.append(content(paths.augmented("varied")) | content(paths.data_report("varied")))
    assert found[0] == found[1]
    assert any(name.startswith("train-") for name in found[0])


def test_copies_stand_after_the_originals_and_other_splits_stay(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    augment.run(params([{"preset": "cutout"}]), "varied")
    raw, augmented = Store(paths.raw("discs")), Store(paths.augmented("varied"))
    assert augmented.info.counts == {"train": 3 * NUM_TRAIN, "val": 4}
    ids = augmented.split("train").column("image_id")
    assert ids[:NUM_TRAIN] == raw.split("train").column("image_id")
    assert ids[NUM_TRAIN : NUM_TRAIN + 4] == ["00~1", "00~2", "01~1", "01~2"]
    assert augmented.split("val").table.equals(raw.split("val").table)
    assert not [path.name for path in paths.augmented("varied").iterdir() if path.suffix not in (".arrow", ".json")]
    pictures = sorted(path.name for path in (paths.data_report("varied") / "pictures").iterdir())
    assert pictures == ["preview.png", "preview_semantic.png"]


def test_a_copy_depends_on_its_own_image_and_partners_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    transforms = [{"preset": "mosaic"}, {"preset": "colour"}]
    augment.run(params(transforms, copies=1), "varied")
    one = {row["image_id"]: row for row in Store(paths.augmented("varied")).split("train").table.to_pylist()}
    augment.run(params(transforms, copies=3), "varied")
    three = {row["image_id"]: row for row in Store(paths.augmented("varied")).split("train").table.to_pylist()}
    assert {name: three[name] for name in one} == one


@pytest.mark.parametrize("channels", [1, 3])
def test_moments_are_those_of_the_pixels_to_the_last_digit(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (700, 900, channels), dtype=np.uint8)
    image[:300] = 255
    values = image.reshape(-1, channels).astype(object)
    expected = [[630_000] * channels, values.sum(0).tolist(), (values**2).sum(0).tolist()]
    assert augment._moments(image).tolist() == expected


def test_what_a_store_cannot_hold_is_refused_before_any_work(project: Path) -> None:
    with pytest.raises(ParamsError, match=r"augmentations\.varied\.transforms: the semantic truth of two blended"):
        augment.run(params([{"preset": "mixup"}]), "varied")
    assert not paths.augmented("varied").exists()


def test_a_set_without_train_images_is_refused(project: Path) -> None:
    info = Store(paths.raw("discs")).info
    with writing(paths.raw("discs"), info) as writer:
        writer.add("test", to_row(disc(0)))
    with pytest.raises(PipelineError, match=r"no split 'train'; choices: test"):
        augment.run(params([{"preset": "cutout"}]), "varied")


@pytest.mark.slow
def test_a_disk_that_fills_ends_the_processes_before_their_folder_goes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, add_batch = [], StoreWriter.add_batch

    def full(self: StoreWriter, split: str, batch: object) -> None:
        written.append(split)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add_batch(self, split, batch)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(StoreWriter, "add_batch", full)
    with pytest.raises(OSError, match="No space left") as caught:
        augment.run(params([{"preset": "cutout"}], copies=3), "varied")
    assert caught.tb is not None, "which holds all that the stage had under way"
    assert multiprocessing.active_children() == []
    assert list(paths.augmented("varied").parent.iterdir()) == []
