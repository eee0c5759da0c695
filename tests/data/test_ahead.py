import threading

import numpy as np
import pytest

from pipeline.data.ahead import ReadAhead
from pipeline.data.store import Store, to_row, writing
from pipeline.structures import DatasetInfo, Sample


@pytest.fixture
def split(tmp_path):
    with writing(tmp_path / "toy", DatasetInfo("toy", [], [], 1, "none", "none", "here")) as writer:
        for i in range(7):
            writer.add("train", to_row(Sample(str(i), "", np.full((2, 2, 1), i, np.uint8))))
    return Store(tmp_path / "toy").split("train")


def values(images):
    return [int(image[0, 0, 0]) for image in images]


def test_batches_are_those_that_are_asked_for(split):
    with ReadAhead(split, 3, 3) as read:
        assert [values(read(start)) for start in (0, 3, 6)] == [[0, 1, 2], [3, 4, 5], [6]]
        assert values(read(1)) == [1, 2, 3]  # one that nobody foresaw
    with ReadAhead(split, 2, 4, lambda image: image + 10) as read:
        assert [values(read(start)) for start in (2, 6)] == [[12, 13], [16]]


def test_the_next_batch_is_read_while_the_first_is_worked_on(split, monkeypatch):
    asked, is_asked = [], threading.Event()
    original = split.read

    def read_one(index):
        asked.append(index)
        if index == 5:
            is_asked.set()
        return original(index)

    monkeypatch.setattr(split, "read", read_one)
    with ReadAhead(split, 3, 3) as read:
        read(0)
        assert is_asked.wait(10)
        assert asked == [0, 1, 2, 3, 4, 5]
        read(3)
    assert asked[:6] == [0, 1, 2, 3, 4, 5]


def test_a_fault_comes_where_its_batch_is_asked_for_and_leaves_no_thread(split, monkeypatch):
    original = split.read
    monkeypatch.setattr(split, "read", lambda index: 1 / 0 if index == 4 else original(index))
    with ReadAhead(split, 3, 3) as read:
        assert values(read(0)) == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            read(3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
