import json
import shutil

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.lint.imports import NO_INFLUENCE, closure
from pipeline.structures import DatasetInfo
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import Checkpoint, Snapshots, run_digest

INFO = DatasetInfo("toy", ["classification"], ["a", "b"], 1, "none", "none", "here", image_size=[8, 8])


def a_checkpoint(**arrays):
    arrays = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "count": np.array(4), **arrays}
    return Checkpoint("classification/resnet", {"layers": [1, 1]}, INFO, arrays)


@pytest.fixture
def folder(tmp_path):
    checkpoints.save(tmp_path / "run", a_checkpoint())
    return tmp_path / "run"


def test_what_is_saved_is_loaded(folder):
    loaded = checkpoints.load(folder)
    assert (loaded.model, loaded.model_params, loaded.info) == ("classification/resnet", {"layers": [1, 1]}, INFO)
    assert loaded.arrays["weight"].tolist() == [[0, 3], [1, 4], [2, 5]]  # a transposed view, written in its own order
    assert loaded.arrays["count"].shape == ()
    assert loaded.arrays["count"] == 4


def test_same_weights_same_bytes_in_any_order(folder, tmp_path):
    other = a_checkpoint()
    other.arrays = dict(reversed(other.arrays.items()))
    checkpoints.save(tmp_path / "other", other)
    for name in ("weights.safetensors", "model.json"):
        assert (folder / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_every_flipped_byte_is_caught(folder):
    path = folder / "weights.safetensors"
    good = path.read_bytes()
    for position in (0, 9, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[position] ^= 4
        path.write_bytes(bytes(bad))
        with pytest.raises(PipelineError, match=r"weights\.safetensors: damaged .*; fix: train again"):
            checkpoints.load(folder)
    path.write_bytes(good[:-1])
    with pytest.raises(PipelineError, match="damaged"):
        checkpoints.load(folder)


def test_cut_description_is_named(folder):
    path = folder / "model.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(PipelineError, match=r"model\.json: not readable .*; fix: train again"):
        checkpoints.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PipelineError, match=f"{name}: no checkpoint there; fix: dvc repro"):
        checkpoints.load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_and_the_good_ones_stay(folder, value):
    before = (folder / "weights.safetensors").read_bytes()
    with pytest.raises(PipelineError, match=r"run bias: the trained weights are not finite; fix: lower"):
        checkpoints.save(folder, a_checkpoint(bias=np.array([0, value], np.float32)))
    assert (folder / "weights.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_digest_follows_settings_and_inputs_and_nothing_else(tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "train.arrow").write_bytes(b"1234")
    first = run_digest({"a": 1, "b": 2}, inputs)
    assert run_digest({"b": 2, "a": 1}, inputs) == first
    assert run_digest({"a": 1, "b": 3}, inputs) != first
    (inputs / "train.arrow").write_bytes(b"12345")
    assert run_digest({"a": 1, "b": 2}, inputs) != first


def test_digest_follows_the_code_of_its_models_and_no_others(tmp_path):
    resnet = run_digest({}, tmp_path, "classification/resnet")
    assert run_digest({}, tmp_path, "classification/resnet") == resnet
    assert run_digest({}, tmp_path, "classification/vgg") != resnet
    assert run_digest({}, tmp_path, "classification/resnet", "classification/vgg") != resnet  # its teacher


@pytest.mark.parametrize(
    "model", ["classification/resnet", "detection/fcos", "generative/ddpm", "heads/softmax", "regression/linear"]
)
def test_the_code_of_a_model_is_all_that_trains_it(model):
    """Held against what the modules import, inside functions too."""
    root = checkpoints.PACKAGE.parent
    known = {str(file.relative_to(root)) for file in checkpoints.code_of(model)}
    verbs = ("networks", "fitting", "trial")
    runs = closure(*(f"pipeline/training/{verb}.py" for verb in verbs), item={"model": model}) - set(NO_INFLUENCE)
    assert len(runs) > 10
    assert runs <= known


@pytest.fixture
def snapshots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Snapshots("run", 0, "one")


def saved(snapshots):
    return sorted(snapshots.folder.glob("*.pt"))


def test_a_snapshot_comes_back_to_what_has_the_same_digest(snapshots):
    assert snapshots.load() is None
    snapshots.save({"rows": [{"loss": 0.5}], "model": {"weight": torch.tensor([1.0, 2.0])}})
    state = Snapshots("run", 0, "one").load()
    assert state["rows"] == [{"loss": 0.5}]
    assert state["model"]["weight"].tolist() == [1, 2]
    other = Snapshots("run", 0, "two")
    assert other.load() is None
    other.save({"rows": []})
    assert Snapshots("run", 0, "one").load() is None  # it made room for the other
    assert len(saved(snapshots)) == 1


def test_the_older_snapshot_goes_only_when_the_newer_is_whole(snapshots, monkeypatch):
    snapshots.save({"step": 1})
    (first,) = saved(snapshots)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda state, file: file.write(b"half") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            snapshots.save({"step": 2})
    assert saved(snapshots) == [first]
    assert [path.name for path in snapshots.folder.iterdir()] == [first.name]
    snapshots.save({"step": 2})
    (second,) = saved(snapshots)
    assert second != first
    assert snapshots.load() == {"step": 2}


@pytest.mark.parametrize("spoil", [lambda good: b"", lambda good: good[:60], lambda good: good[:-1] + b"?"])
def test_a_damaged_snapshot_is_told_and_the_one_before_it_taken(spoil, snapshots, monkeypatch, capsys):
    monkeypatch.setattr(type(snapshots.folder), "unlink", lambda *_, **__: None)  # as if killed before the old one went
    snapshots.save({"step": 1})
    snapshots.save({"step": 2})
    _, newest = saved(snapshots)
    newest.write_bytes(spoil(newest.read_bytes()))
    assert snapshots.load() == {"step": 1}
    message = capsys.readouterr().err
    assert message == f"warning: {newest}: not readable (damaged); training goes on from before it\n"


def test_what_is_forgotten_leaves_the_log(snapshots):
    snapshots.save({"step": 1})
    snapshots.write_log([{"epoch": 1}])
    snapshots.add_to_log({"epoch": 2, "loss": 0.25})
    (snapshots.folder / ".killed").mkdir()
    (snapshots.folder / ".killed" / "state.pt").write_bytes(b"half")
    checkpoints.forget("run")
    assert [path.name for path in snapshots.folder.iterdir()] == ["log.jsonl"]
    assert snapshots.log.read_text() == '{"epoch": 1}\n{"epoch": 2, "loss": 0.25}\n'
    checkpoints.forget("another")


def test_a_snapshot_with_code_in_it_is_not_run(snapshots, capsys):
    snapshots.save({"rows": [shutil.rmtree]})
    assert snapshots.load() is None
    assert "(UnpicklingError)" in capsys.readouterr().err


def test_description_holds_no_path(folder):
    content = json.loads((folder / "model.json").read_text())
    assert sorted(content) == ["info", "model", "model_params", "sha256"]
    assert str(folder.parent) not in (folder / "model.json").read_text()
