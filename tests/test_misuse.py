"""Each wrong use of a tool on the command line is one line that says what to write instead, and nothing is written."""

import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from pipeline import cli

PROJECT = Path(__file__).parent.parent
TRUTH = (
    '{"images": [{"id": 1, "file_name": "a.png", "height": 5, "width": 5}], "annotations": [],'
    ' "categories": [{"id": 1, "name": "a"}]}'
)
SCORE = ["score", "--truth", "truth.json", "--predictions", "results.json", "--task", "detection"]


def score(**changed: str) -> list[str]:
    arguments = list(SCORE)
    for name, value in changed.items():
        at = arguments.index(f"--{name}") + 1 if f"--{name}" in arguments else None
        arguments = [*arguments, f"--{name}", value] if at is None else [*arguments[:at], value, *arguments[at + 1 :]]
    return arguments


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (score(predictions="none.json"), 2, "--predictions none.json: no such file or folder"),
        (score(truth="none.json"), 2, "--truth none.json: no such file or folder"),
        (score(truth="."), 2, "--truth .: neither a JSON nor a folder"),
        (score(predictions="truth.json"), 1, "truth.json: an object, not a list"),
        (score(task="detecton"), 2, "did you mean 'detection'?"),
        (score(out="truth.json"), 2, "--out truth.json: lies in what is read"),
        (["export", "digits", "--format", "cocoo"], 2, "did you mean 'coco'?"),
        (["export", "digts", "--format", "coco"], 2, "did you mean 'digits'?"),
        (["export", "digits", "--format", "coco"], 1, "data/raw/digits: no dataset there"),
        (["compare", "HEAD", "--resamples", "-1"], 2, "--resamples"),
        (["compare", "HEAD", "--resamples", "nan"], 2, "--resamples"),
        (["history", "top1", "x", "--limit", "2.5"], 2, "--limit"),
        (["repro", "--jobs", "0"], 2, "--jobs"),
        (["doctor", "now"], 2, "unexpected extra argument"),
        (["verify", "--comitted"], 2, "--committed"),
        (["merge-lock", "none", "none", "none"], 1, "none: not readable (No such file or directory)"),
        (["explain-metric", "x", "map"], 2, "no run or generator 'x'"),
        (["train", "digits"], 2, "no 'digits' in runs or generators"),
        (["Train", "digits"], 2, "did you mean 'train'?"),
    ],
)
def test_misuse_of_a_tool_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    (tmp_path / "truth.json").write_text(TRUTH)
    (tmp_path / "results.json").write_text("[]")
    with chdir(tmp_path):
        assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert "; fix: " in line or "choices: " in line
    assert "bug" not in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "results.json", "truth.json"]
    assert (tmp_path / "truth.json").read_text() == TRUTH
