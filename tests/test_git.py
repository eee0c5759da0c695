"""git asked in a repository, outside one, and where there is none."""

import re
import subprocess
from pathlib import Path

import pytest

from pipeline import cost, git, ledger
from pipeline.errors import PipelineError
from pipeline.reporting.compare.revisions import resolve


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def test_a_commit_has_its_full_name(folder: Path) -> None:
    assert git.commit() is None
    subprocess.run(["git", "init", "-q"], check=True)
    assert git.commit() is None
    named = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*named, "commit", "-qm", "x", "--allow-empty"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert git.commit() == git.commit(head[:8]) == head
    assert git.commit("none") is None
    assert git.commit("--help") is None
    assert git.said("cat-file", "-t", head) == b"commit\n"


def test_what_git_refuses_is_one_line(folder: Path) -> None:
    outside = rf"^{re.escape(str(folder))}: not in a git repository; fix: run in the folder of the project$"
    with pytest.raises(PipelineError, match=outside):
        git.said("log")
    assert git.found("log") is None
    with pytest.raises(PipelineError, match=outside):
        resolve("HEAD")
    subprocess.run(["git", "init", "-q"], check=True)
    with pytest.raises(PipelineError, match=r"^git log: fatal: .*; fix: commit the project first$"):
        git.said("log")


def test_a_commit_whose_history_git_cannot_read_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    ledger.append(ledger.Line("train", "a", 1.0, 1.0))
    monkeypatch.setattr(git, "commit", lambda revision: revision)  # as in a clone that lacks objects
    with pytest.raises(PipelineError, match=r"^git rev-list: .*; fix: "):
        list(cost.table("HEAD", None))


def test_without_git_there_is_no_commit_and_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert git.commit() is None
    with pytest.raises(PipelineError, match=r"^git: cannot be run \(No such file or directory\); fix: install git$"):
        resolve("HEAD")
