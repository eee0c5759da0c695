"""The ledger and `pipeline cost`, on lines written by hand and in a repository of two commits."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from pipeline import cost, ledger
from pipeline.errors import ParamsError, PipelineError
from pipeline.git import commit
from pipeline.ledger import Line


def line(name: str, seconds: float, commit: str | None = None, at: float = 0.0, gpu: float = 0.0) -> Line:
    return Line("train", name, seconds, 100 * seconds, gpu, at, commit)


def test_the_ledger_reads_what_it_wrote_and_passes_over_broken_lines(tmp_path: Path) -> None:
    path = tmp_path / "data/ledger.jsonl"
    assert list(ledger.read(path)) == []
    ledger.append(line("a", 1.0, "c0", 5.0), path)
    with path.open("a") as file:
        file.write('{"command": "report", "name": null, "seconds": 0.5, "peak_memory_mb": 80}\n')  # of an older version
        file.write('{"command": "train", "na\n[1]\n{"name": "x"}\n')
    ledger.append(line("a", 2.0), path)
    assert list(ledger.read(path)) == [line("a", 1.0, "c0", 5.0), Line("report", None, 0.5, 80), line("a", 2.0)]
    assert {name: each.seconds for name, each in ledger.last(path).items()} == {"train@a": 2.0, "report": 0.5}


def test_a_commit_has_the_runs_made_on_it_or_before_it_on_its_ancestors() -> None:
    lines = [
        line("a", 1, "old", at=10),  # the commit's own results, made before it was committed at 20
        line("b", 2, "old", at=11),
        line("b", 3, "new", at=30),  # run again with it checked out
        line("a", 4, "old", at=40),  # made on the parent after the commit: of another branch
        line("a", 5, "branch", at=12),
        line("c", 6, "older", at=5),
        line("c", 7, None, at=6),
    ]
    found = cost.of_commit(lines, ["new", "old", "older"], committed=20)
    assert {stage: each.seconds for stage, each in found.items()} == {"train@a": 1, "train@b": 3, "train@c": 6}


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    with chdir(tmp_path):
        yield tmp_path


def git(*arguments: str) -> str:
    named = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(named, capture_output=True, text=True, check=True).stdout.strip()


def test_the_difference_between_two_commits(repository: Path) -> None:
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    now = time.time()
    ledger.append(line("a", 10.0, commit(), now - 100))
    ledger.append(line("b", 1.0, commit(), now - 100))
    git("commit", "-q", "--allow-empty", "-m", "two")
    ledger.append(line("a", 12.5, commit(), now + 100))
    ledger.append(line("c", 2.0, commit(), now + 100, gpu=1.5))
    assert list(cost.table("HEAD~1", "HEAD")) == [
        "stage    seconds              memory MB              GPU s",
        "train@c        -   2.0                -   200            -  1.5",
        "train@a     10.0  12.5  +2.5       1000  1250  +250    0.0  0.0  +0.0",
        "train@b      1.0   1.0  +0.0        100   100    +0    0.0  0.0  +0.0",
        "all         11.0  15.5  +4.5       1000  1250  +250    0.0  1.5  +1.5",
    ]
    with pytest.raises(ParamsError, match="nonsense: no such commit"):
        cost.table("nonsense", None)


def test_the_last_runs_alone(repository: Path) -> None:
    with pytest.raises(PipelineError, match="no runs in this clone yet"):
        cost.table(None, None)
    ledger.append(line("a", 1.0))
    ledger.append(line("b", 3.0))
    assert list(cost.table(None, None)) == [
        "stage    seconds  memory MB",
        "train@b      3.0        300",
        "train@a      1.0        100",
        "all          4.0        300",
    ]
    assert json.loads(Path("data/ledger.jsonl").read_text().splitlines()[0])["commit"] is None
    assert commit() is None
