import numpy as np
import pytest

from pipeline.ops.masks import boxes_of
from pipeline.structures import DatasetInfo, Objects, Sample, Segments
from tests.data.servers import Server


@pytest.fixture
def server():
    """A web server on this machine."""
    with Server() as running:
        yield running


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of downloads, and the network allowed."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def info():
    """Two classes of things, one of stuff, three keypoints."""
    return DatasetInfo(
        name="toy",
        tasks=["detection", "instance", "semantic", "panoptic", "keypoints", "captions"],
        classes=["cat", "dog"],
        channels=3,
        licence="none",
        attribution="none",
        source="drawn here",
        semantic_classes=["background", "cat", "dog", "grass"],
        thing_of_semantic=[-1, 0, 1, -1],
        keypoints=["nose", "left_ear", "right_ear"],
        skeleton=[[0, 1], [0, 2]],
        colours=["#000000", "#ff0000", "#00ff00", "#0000ff"],
    )


@pytest.fixture
def sample():
    """20 x 30: a cat at columns 2..7, rows 4..9, a dog at columns 20..27, rows 6..11, grass from row 15."""
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 4:10, 2:8] = True
    masks[1, 6:12, 20:28] = True
    semantic = np.zeros((20, 30), np.uint8)
    semantic[15:] = 3
    ids = np.where(semantic == 3, 7, 9).astype(np.int32)
    for mask, label, number in zip(masks, (1, 2), (300, 5), strict=True):
        semantic[mask], ids[mask] = label, number
    return Sample(
        image_id="a",
        file_name="folder/a.jpg",
        image=image,
        objects=Objects(
            boxes=boxes_of(masks),
            labels=np.array([0, 1]),
            area=masks.sum((1, 2)).astype(np.float32),
            iscrowd=np.zeros(2, bool),
            masks=masks,
            keypoints=np.array(
                [[[2.5, 4.5, 2], [7.5, 4.5, 2], [3.5, 9.5, 1]], [[24.0, 7.0, 2], [0, 0, 0], [27.5, 11.5, 2]]],
                np.float32,
            ),
        ),
        semantic=semantic,
        segments=Segments(ids=ids, segment_ids=np.array([300, 5, 7, 9]), labels=np.array([1, 2, 3, 0])),
        captions=["A cat left of a dog."],
        group="g",
    )
