import numpy as np
import pytest

from pipeline.data import parts
from pipeline.data.loader import Loader
from pipeline.data.store import Store, to_row, writing
from pipeline.errors import ParamsError
from pipeline.structures import DatasetInfo, Sample

CLASSES = ["a", "b", "c"]


def write(folder, samples):
    with writing(folder, DatasetInfo("toy", ["classification"], CLASSES, 1, "none", "none", "here")) as writer:
        for split, image_id, label, group in samples:
            value = sum(image_id.encode()) % 251
            image = np.full((4, 4, 1), value, np.uint8)
            writer.add(split, to_row(Sample(image_id, f"{image_id}.png", image, label=label, group=group)))
    store = Store(folder)
    return parts.joined([store.split("train"), store.split("val")])


@pytest.fixture
def whole(tmp_path):
    """Thirty images of train, ten of each class, each with two copies, and six of val."""
    originals = [("train", f"t{i}", i % 3, None) for i in range(30)]
    copies = [("train", f"t{i}~{n}", i % 3, None) for i in range(30) for n in (1, 2)]
    return write(tmp_path / "toy", [*originals, *copies, *(("val", f"v{i}", i % 3, None) for i in range(6))])


def test_splits_are_joined_one_after_the_other(whole):
    ids = whole.column("image_id")
    assert len(whole) == 96
    assert (ids[0], ids[89], ids[90]) == ("t0", "t29~2", "v0")


def test_a_part_reads_the_images_at_its_positions(whole):
    part = parts.Part(whole, np.array([95, 0, 31]))
    assert len(part) == 3
    assert part.column("image_id") == ["v5", "t0", "t0~2"]
    assert [sample.image_id for sample in part] == ["v5", "t0", "t0~2"]
    (batch,) = Loader(part, 4, (4, 4), workers=1).batches()
    assert batch.image_ids == ["v5", "t0", "t0~2"]
    assert batch.labels.tolist() == [2, 0, 0]
    assert batch.images[:, 0, 0, 0].tolist() == [118 + 53, 116 + 48, (116 + 48 + 126 + 50) % 251]


def test_each_original_is_held_out_once_with_its_copies_nowhere(whole):
    found = parts.folds(whole, 4, seed=3)
    held_out = [image_id for _, fold in found for image_id in fold.column("image_id")]
    assert sorted(held_out) == sorted(image_id for image_id in whole.column("image_id") if "~" not in image_id)
    for rest, fold in found:
        assert len(fold) == 9
        assert [fold.column("label").count(label) for label in range(3)] == [3, 3, 3]
        out = set(fold.column("image_id"))
        assert not out & {image_id.partition("~")[0] for image_id in rest.column("image_id")}
        assert len(rest) + sum(3 if name.startswith("t") else 1 for name in out) == 96
    again = parts.folds(whole, 4, seed=3)
    assert [fold.column("image_id") for _, fold in again] == [fold.column("image_id") for _, fold in found]
    assert [fold.column("image_id") for _, fold in parts.folds(whole, 4, seed=4)] != held_out


def test_groups_are_held_out_whole(tmp_path):
    samples = [("train", f"t{i}", i % 3, f"g{i // 4}") for i in range(24)] + [("val", "v", 0, "g0")]
    whole = write(tmp_path / "toy", samples)
    groups = [set(fold.column("group")) for _, fold in parts.folds(whole, 3, seed=0)]
    assert sorted(group for fold in groups for group in fold) == [f"g{i}" for i in range(6)]


def test_more_folds_than_images_are_refused(tmp_path):
    whole = write(tmp_path / "toy", [("train", "a", 0, "g"), ("train", "b", 0, "g"), ("val", "c", 1, "h")])
    with pytest.raises(ParamsError, match=r"training\.folds: 3 of 2 images or groups; fix: fewer folds"):
        parts.folds(whole, 3, seed=0)
