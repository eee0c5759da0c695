"""check-run and check-gradients on a small project: what they print, their exit codes, and that nothing is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import cli, paths
from pipeline.checks import command, inputs
from pipeline.params import Params
from pipeline.structures import IGNORE
from pipeline.training.sanity import Sweep
from tests.conftest import DOTS


@pytest.fixture
def project(dots: Callable[..., Params]) -> Path:
    dots(DOTS, train=24, val=8, test=8)
    return Path.cwd()


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_healthy_run_passes_and_nothing_is_written(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    picture = project / "sweep.png"
    assert cli.main(["check-run", "resnet", "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:8]] == ["pass"] * 8
    assert "ln K = 0.6931" in text
    assert "100% after" in text
    assert "12 to 12 of a class" in text
    assert lines[-1] == "resnet: 8 pass, 0 fail"
    assert files(project) - before == {picture}
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_learning_rate_that_explodes_ends_with_1(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths.PARAMS.write_text(DOTS.replace("optimizer: adamw, lr: 0.01", "optimizer: sgd, lr: 9999.0"))
    assert cli.main(["check-run", "resnet"]) == 1
    text = capsys.readouterr().out
    assert text.splitlines()[-1].endswith("fail: learning rate") or ", learning rate" in text.splitlines()[-1]


def test_a_head_is_checked_by_its_features(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-run", "linear"]) == 0
    text = capsys.readouterr().out
    assert "64 columns, 0 not finite, 0 constant" in text
    assert "linear: 4 pass, 0 fail" in text


def test_a_generator_is_checked_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["check-run", "vae"])
    text = capsys.readouterr().out
    assert "CHW ln 2 = 44.36" in text  # 64 ln 2
    assert cli.main(["check-gradients", "vae"]) == 0


def test_the_backward_pass_of_a_run_is_right(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    assert cli.main(["check-gradients", "resnet", "--entries", "3"]) == 0
    text = capsys.readouterr().out
    assert "network.1.fc.weight" in text
    assert text.splitlines()[-1] == "resnet: 41 tensors, 0 wrong"
    assert "all are 0" not in text  # scales that begin at zero have moved
    assert files(project) == before


def test_a_wrong_backward_pass_of_one_layer_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.checks.subject import Subject

    make = Subject.make

    def planted(self: Subject) -> torch.nn.Module:
        model = make(self)
        model.network[1].fc.weight.register_hook(lambda gradient: gradient * 1.01)
        return model

    monkeypatch.setattr(Subject, "make", planted)
    assert cli.main(["check-gradients", "resnet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("wrong")] == ["network.1.fc.weight"]
    assert lines[-1] == "resnet: 41 tensors, 1 wrong: network.1.fc.weight"


def test_a_head_has_no_backward_pass(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-gradients", "linear"]) == 2
    assert "fitted without a backward pass; fix: name a network (resnet, vae)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "state", "found"),
    [
        ([0, 1, 1], "pass", "1 to 2 of a class"),
        ([0, 0], "fail", "none of b"),
        ([0, 1, 2], "fail", "1 of 3 are of no class"),
        ([0, 1, np.nan], "fail", "1 of 3 are of no class"),
    ],
)
def test_labels_are_of_every_class_and_of_no_other(labels: list[float], state: str, found: str) -> None:
    check = inputs.of_labels(np.array(labels), ["a", "b"])
    assert (check.state, check.found) == (state, found)


@pytest.mark.parametrize(
    ("boxes", "state"),
    [
        ([[0, 0, 10, 8]], "pass"),  # the whole image
        ([[0, 0, 10.5, 8]], "fail"),
        ([[0, 0, 4, 4], [3, 3, 3, 6]], "fail"),  # no width
        ([[-1, 0, 4, 4]], "fail"),
    ],
)
def test_boxes_lie_inside_and_have_an_area(boxes: list[list[float]], state: str) -> None:
    assert inputs.of_boxes(np.array(boxes, float), height=8, width=10).state == state
    assert inputs.of_boxes(np.zeros((0, 4)), height=8, width=10).state == "fail"


def test_maps_hold_classes_and_what_is_ignored() -> None:
    assert inputs.of_maps([0, 2, IGNORE], 3).state == "pass"
    assert inputs.of_maps([0, 3], 3).state == "fail"
    assert inputs.of_maps([IGNORE], 3).state == "fail"


def test_an_image_in_both_splits_is_told() -> None:
    assert inputs.apart(["a", "b"], ["c"], "images").state == "pass"
    check = inputs.apart(["a", "b"], ["b", "c"], "images")
    assert (check.state, check.found) == ("fail", "1 in both, such as b")


def test_targets_are_finite_and_differ() -> None:
    assert inputs.of_targets(np.array([1.0, 2.0])).state == "pass"
    for wrong in (None, np.array([]), np.array([1.0, 1.0]), np.array([1.0, np.inf])):
        assert inputs.of_targets(wrong).state == "fail"


def test_a_sweep_as_text_has_a_bar_as_long_as_each_loss() -> None:
    lines = command.bars(Sweep([1e-6, 1e-5], [2.0, 1.0], None, None))
    assert [line.count("#") for line in lines[2:-1]] == [40, 20]
    assert command.bars(Sweep([], [], None, 1e-6))[2:] == [""]
