import numpy as np
import pytest

from pipeline.data.datasets import cityscapes
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from tests.data.datasets.originals import picture, png, zipped

TRAIN = [f"{city}/{city}_{i:06d}_000019" for city in ("aachen", "bochum", "jena", "ulm") for i in range(3)]
VAL = ["frankfurt/frankfurt_000000_000294", "munster/munster_000001_000019"]

# 16 x 20: sky above, road below; two cars, a group of cars, a bicycle rider's bicycle, an ego vehicle
ROAD, SKY, EGO, CAR, BICYCLE = 7, 23, 1, 26, 33


def instance_ids():
    values = np.full((16, 20), SKY, np.int32)
    values[8:] = ROAD
    values[14:] = EGO
    values[6:10, 2:6] = CAR * 1000
    values[6:10, 7:10] = CAR * 1000 + 1
    values[5:7, 12:18] = CAR  # several cars that are not told apart
    values[9:12, 15:17] = BICYCLE * 1000
    return values


def label_ids():
    values = instance_ids()
    return np.where(values >= 1000, values // 1000, values).astype(np.uint8)


def originals():
    images, truth = {"README": b"...", "license.txt": b"..."}, {"README": b"..."}
    for split, names in (("train", TRAIN), ("val", VAL)):
        for index, name in enumerate(names):
            images[f"leftImg8bit/{split}/{name}_leftImg8bit.png"] = png(picture(16, 20, index))
            stem = f"gtFine/{split}/{name}_gtFine"
            truth[f"{stem}_labelIds.png"] = png(label_ids())
            truth[f"{stem}_instanceIds.png"] = png(instance_ids().astype(np.uint16))
            truth[f"{stem}_color.png"] = png(picture(16, 20))
            truth[f"{stem}_polygons.json"] = b"{}"
    images["leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"] = png(picture(16, 20))
    return images, truth


def supply(folder, images, truth):
    folder.mkdir()
    (folder / "leftImg8bit_trainvaltest.zip").write_bytes(zipped(images))
    (folder / "gtFine_trainvaltest.zip").write_bytes(zipped(truth))


@pytest.fixture
def store(tmp_path, cache):
    supply(tmp_path / "mine", *originals())
    cityscapes.prepare(tmp_path / "city", seed=0, inputs=str(tmp_path / "mine"), val=0.25)
    return Store(tmp_path / "city")


def test_splits_are_whole_cities_and_the_official_val_is_test(store):
    assert store.info.counts == {"train": 9, "val": 3, "test": 2}  # one of four cities
    cities = {split: set(store.split(split).column("group")) for split in ("train", "val", "test")}
    assert len(cities["val"]) == 1
    assert cities["train"] | cities["val"] == {"aachen", "bochum", "jena", "ulm"}
    assert cities["test"] == {"frankfurt", "munster"}


def test_semantic_map_is_in_train_ids(store):
    sample = store.split("test").read(0)
    names = np.array([*store.info.semantic_classes, "void"])
    shown = names[np.minimum(sample.semantic, 19)]
    original = instance_ids()
    for value, name in ((ROAD, "road"), (SKY, "sky"), (CAR, "car"), (EGO, "void"), (BICYCLE * 1000, "bicycle")):
        assert (shown[original == value] == name).all()
    assert store.info.semantic_classes.index("road") == 0
    assert store.info.semantic_classes.index("bicycle") == 18


def test_objects_are_instances_and_groups_are_crowds(store):
    sample = store.split("test").read(0, masks=True)
    original = instance_ids()
    values = [CAR, CAR * 1000, CAR * 1000 + 1, BICYCLE * 1000]
    assert np.array_equal(sample.objects.masks, np.stack([original == value for value in values]))
    assert [store.info.classes[label] for label in sample.objects.labels] == ["car", "car", "car", "bicycle"]
    assert sample.objects.iscrowd.tolist() == [True, False, False, False]
    assert sample.objects.boxes[1].tolist() == [2, 6, 6, 10]
    assert sample.objects.area.tolist() == [12, 16, 12, 6]


def test_panoptic_segments_are_things_one_by_one_and_stuff_whole(store):
    sample = store.split("test").read(0, masks=True)
    original = instance_ids()
    names = store.info.semantic_classes
    shown = {
        (names[label], (sample.segments.ids == number).tobytes())
        for number, label in zip(sample.segments.segment_ids, sample.segments.labels, strict=True)
    }
    assert shown == {
        ("road", (original == ROAD).tobytes()),
        ("sky", (original == SKY).tobytes()),
        ("car", (original == CAR * 1000).tobytes()),
        ("car", (original == CAR * 1000 + 1).tobytes()),
        ("bicycle", (original == BICYCLE * 1000).tobytes()),
    }
    assert (sample.segments.ids[(original == EGO) | (original == CAR)] == 0).all()


def test_things_of_the_semantic_classes_are_the_classes(store):
    info = store.info
    assert [info.classes[thing] for thing in info.thing_of_semantic if thing >= 0] == info.classes
    assert [name for name, thing in zip(info.semantic_classes, info.thing_of_semantic, strict=True) if thing >= 0] == (
        info.classes
    )
    assert info.colours[13] == "#00008e"  # car: (0, 0, 142)


def test_unpacked_folders_give_the_same_store(tmp_path, cache, store):
    for name, content in {**originals()[0], **originals()[1]}.items():
        path = tmp_path / "open" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    cityscapes.prepare(tmp_path / "other" / "city", seed=0, inputs=str(tmp_path / "open"), val=0.25)
    written = {path.name: path.read_bytes() for path in (tmp_path / "other" / "city").iterdir()}
    assert written == {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_absent_archives_say_what_to_put_where(tmp_path, cache):
    (tmp_path / "mine").mkdir()
    with pytest.raises(
        PipelineError,
        match=r"datasets\.city\.inputs: neither leftImg8bit_trainvaltest\.zip nor a folder leftImg8bit in '.*mine'; "
        r"fix: log in at https://www\.cityscapes-dataset\.com, download leftImg8bit_trainvaltest\.zip and "
        r"gtFine_trainvaltest\.zip and put both there",
    ):
        cityscapes.prepare(tmp_path / "city", seed=0, inputs=str(tmp_path / "mine"))


def test_missing_map_of_instances_is_named(tmp_path, cache):
    images, truth = originals()
    del truth["gtFine/val/munster/munster_000001_000019_gtFine_instanceIds.png"]
    supply(tmp_path / "mine", images, truth)
    with pytest.raises(
        PipelineError, match=r"gtFine_trainvaltest\.zip: it holds no '.*munster_000001_000019_gtFine_in"
    ):
        cityscapes.prepare(tmp_path / "city", seed=0, inputs=str(tmp_path / "mine"), val=0.25)
