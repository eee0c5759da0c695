import numpy as np
import pytest

from pipeline.data.datasets import penn_fudan
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from pipeline.structures import SPLITS
from tests.data.datasets.originals import picture, png, serve, zipped

NAMES = [f"FudanPed{i:05d}" for i in range(1, 7)] + [f"PennPed{i:05d}" for i in range(1, 5)]


def pedestrians(index):
    """Two pedestrians; the second one's number depends on the image."""
    values = np.zeros((20, 30), np.uint8)
    values[2:8, 3:6] = 1
    values[5:15, 10 + index : 15 + index] = 2
    return values


def originals():
    members = {"PennFudanPed/readme.txt": b"..."}
    for index, name in enumerate(NAMES):
        members[f"PennFudanPed/PNGImages/{name}.png"] = png(picture(20, 30, index))
        members[f"PennFudanPed/PedMasks/{name}_mask.png"] = png(pedestrians(index))
    members["__MACOSX/PennFudanPed/PNGImages/._FudanPed00001.png"] = b"mac"
    members["PennFudanPed/PNGImages/._FudanPed00001.png"] = b"mac"
    return members


def test_masks_boxes_and_maps_are_the_originals(tmp_path, cache, server, monkeypatch):
    serve(server, monkeypatch, penn_fudan, {"images": zipped(originals())})
    penn_fudan.prepare(tmp_path / "ped", seed=0, train=0.5, val=0.25)
    store = Store(tmp_path / "ped")
    assert store.info.classes == ["pedestrian"]
    assert store.info.thing_of_semantic == [-1, 0]
    seen = {}
    for split in SPLITS:
        part = store.split(split)
        for position in range(len(part)):
            sample = part.read(position, masks=True)
            seen[sample.image_id] = split
            index = NAMES.index(sample.image_id)
            values = pedestrians(index)
            assert np.array_equal(sample.image, picture(20, 30, index))
            assert np.array_equal(sample.objects.masks, np.stack([values == 1, values == 2]))
            assert sample.objects.boxes.tolist() == [[3, 2, 6, 8], [10 + index, 5, 15 + index, 15]]
            assert sample.objects.area.tolist() == [18, 50]
            assert sample.objects.labels.tolist() == [0, 0]
            assert np.array_equal(sample.semantic, (values > 0).astype(np.uint8))
    assert set(seen) == set(NAMES)
    # of 6 and of 4 images a half, a quarter and a quarter
    of_fudan = [split for name, split in seen.items() if name.startswith("Fudan")]
    assert [of_fudan.count(split) for split in SPLITS] in ([3, 2, 1], [3, 1, 2])
    assert [list(seen.values()).count(split) - of_fudan.count(split) for split in SPLITS] == [2, 1, 1]


def test_image_without_its_mask_is_named(tmp_path, cache, server, monkeypatch):
    members = originals()
    del members["PennFudanPed/PedMasks/PennPed00002_mask.png"]
    serve(server, monkeypatch, penn_fudan, {"images": zipped(members)})
    with pytest.raises(PipelineError, match=r"PennFudanPed\.zip: it holds no 'PennFudanPed/PedMasks/PennPed00002_mask"):
        penn_fudan.prepare(tmp_path / "ped", seed=0)
    assert not (tmp_path / "ped").exists()


def test_broken_mask_is_named(tmp_path, cache, server, monkeypatch):
    members = originals()
    members["PennFudanPed/PedMasks/PennPed00002_mask.png"] = b"not a png"
    serve(server, monkeypatch, penn_fudan, {"images": zipped(members)})
    with pytest.raises(PipelineError, match=r"^PedMasks/PennPed00002_mask\.png: .*; fix: "):
        penn_fudan.prepare(tmp_path / "ped", seed=0)


def test_shares_that_leave_no_test_image_are_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"datasets\.ped\.options: train and val leave no image for test"):
        penn_fudan.prepare(tmp_path / "ped", seed=0, train=0.8, val=0.2)
