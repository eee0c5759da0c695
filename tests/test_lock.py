"""Merging dvc.lock: by hand on mappings, and by git itself in a repository with two branches."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import lock
from pipeline.errors import PipelineError
from pipeline.lint import leftovers
from pipeline.lock import merge, merge_files
from pipeline.params import Params, load
from pipeline.reporting.compare.revisions import Revision
from pipeline.stages import track
from pipeline.trust import record

PROJECT = Path(__file__).parent.parent


def test_each_side_keeps_what_it_alone_changed() -> None:
    base = {"a": 1, "b": 1, "gone": 1, "c": 1}
    ours = {"a": 2, "b": 1, "c": 5, "new": 7}
    theirs = {"a": 1, "b": 3, "gone": 1, "c": 6, "other": 8}
    # gone: removed by ours, unchanged in theirs; c: changed on both sides
    assert merge(base, ours, theirs) == ({"a": 2, "b": 3, "new": 7, "other": 8}, ["c"])


def test_the_same_change_on_both_sides_is_kept() -> None:
    assert merge({"a": 1}, {"a": 2}, {"a": 2}) == ({"a": 2}, [])
    assert merge({}, {"a": 2}, {"a": 3}) == ({}, ["a"])


def test_what_is_no_lock_file_is_refused_and_ours_stays(tmp_path: Path) -> None:
    ours, broken = tmp_path / "ours", tmp_path / "broken"
    ours.write_text("schema: '2.0'\nstages: {}\n")
    broken.write_text("<<<<<<< HEAD\na: [")
    with pytest.raises(PipelineError, match=r"broken: a merge marker; fix: "):
        merge_files(ours, ours, broken)
    assert ours.read_text() == "schema: '2.0'\nstages: {}\n"


def test_what_is_written_anew_has_the_bytes_of_dvc(tmp_path: Path) -> None:
    text = (PROJECT / "dvc.lock").read_text(encoding="utf-8")
    lock.write(tmp_path / "dvc.lock", lock.stages(text, "dvc.lock"))
    assert (tmp_path / "dvc.lock").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "read",
    [
        lambda params: lock.read(),
        lambda params: record.read(Path("dvc.lock").read_text(), "dvc.lock"),
        lambda params: leftovers.find(params, []),
        track.read_entries,
        lambda params: Revision("workspace", "").stages,
    ],
)
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("stages: 3\n", "not a lock file"),
        ("stages: {a: 3}\n", "not a stage"),
        ("stages:\n<<<<<<< ours\n  a: {}\n", "a merge marker"),
        ("stages: [\n", "not readable"),
    ],
)
def test_all_readers_refuse_what_is_no_lock_file(
    read: Callable[[Params], object], text: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load(PROJECT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(text)
    with pytest.raises(PipelineError, match=rf"^dvc\.lock.*: {what}.*; fix: git checkout "):
        read(params)


def test_git_merges_two_branches_that_changed_different_runs(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        named = ("-c", "user.name=x", "-c", "user.email=x@example.org", *arguments)
        done = subprocess.run(["git", *named], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    def write(**stages: str) -> None:
        entries = {name: {"cmd": name, "deps": [{"path": "x", "md5": md5}]} for name, md5 in stages.items()}
        YAML().dump({"schema": "2.0", "stages": entries}, tmp_path / "dvc.lock")
        (tmp_path / "reports").mkdir(exist_ok=True)
        (tmp_path / "reports/summary.md").write_text(" ".join(stages.values()))

    git("init", "-q", "-b", "main")
    (tmp_path / ".gitattributes").write_text((PROJECT / ".gitattributes").read_text())
    python = f'PYTHONPATH="{PROJECT}" "{sys.executable}"'
    git("config", "merge.dvc-lock.driver", f"{python} -m pipeline merge-lock %O %A %B")
    git("config", "merge.regenerated.driver", "true")
    write(one="1", other="1", report="1")
    git("add", ".")
    git("commit", "-qm", "base")
    git("checkout", "-qb", "branch")
    write(one="2", other="1", report="2")
    git("commit", "-qam", "one run")
    git("checkout", "-q", "main")
    write(one="1", other="3", report="3")
    git("commit", "-qam", "another run")
    said = git("merge", "-q", "--no-edit", "branch")
    assert "run anew by dvc repro: report" in said
    stages = YAML(typ="safe").load(tmp_path / "dvc.lock")["stages"]
    assert {name: stage["deps"][0]["md5"] for name, stage in stages.items()} == {"one": "2", "other": "3"}
    assert (tmp_path / "reports/summary.md").read_text() == "1 3 3"
