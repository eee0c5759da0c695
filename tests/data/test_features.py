import numpy as np
import pytest

from pipeline.data import features as feature_files
from pipeline.data.features import FeatureSplit
from pipeline.errors import PipelineError

DESCRIPTION = {"backbone": "pixels", "weights": "none", "image_size": 2, "dimension": 3}


def test_what_is_written_is_read(info, tmp_path):
    values = np.array([[1, 2, 3], [4.5, -1, 0]], np.float32)
    splits = {
        "train": FeatureSplit(["a", "b"], values, np.array([1, 0])),
        "test": FeatureSplit(["c"], values[:1], None),
    }
    feature_files.write(tmp_path / "space", info, DESCRIPTION, splits)
    train, test = (feature_files.read(tmp_path / "space", split) for split in ("train", "test"))
    assert train.image_ids == ["a", "b"]
    assert train.features.tolist() == values.tolist()
    assert train.features.dtype == np.float32
    assert train.labels.tolist() == [1, 0]
    assert train.labels.dtype == np.int64
    assert test.labels is None
    assert feature_files.describe(tmp_path / "space") == (info, DESCRIPTION)


def test_same_features_same_bytes(info, tmp_path):
    split = FeatureSplit(["a"], np.ones((1, 3), np.float32), None)
    for name in ("one", "two"):
        feature_files.write(tmp_path / name, info, DESCRIPTION, {"train": split})
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_an_absent_split_is_named(info, tmp_path):
    feature_files.write(tmp_path / "space", info, DESCRIPTION, {})
    with pytest.raises(PipelineError, match=r"space: no features of split 'val'; fix: dvc repro"):
        feature_files.read(tmp_path / "space", "val")


def test_absent_features_are_told_with_the_way_to_make_them(tmp_path):
    with pytest.raises(PipelineError, match=r"features.none: no features there; fix: dvc repro the stage"):
        feature_files.info_of(tmp_path / "features" / "none")
