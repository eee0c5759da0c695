"""`pipeline verify` over a project of two stages, with one damage put in at a time."""

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import cli
from pipeline.errors import PipelineError
from pipeline.trust import objects, record, traces, verify
from pipeline.trust.record import Entry
from tests.trust.project import DVC, GRAPH, MAKE, call

Say = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def say(project: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """The exit code and the faults that `verify` tells."""

    def say(*arguments: str) -> tuple[int, list[str]]:
        code = cli.main(["verify", *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out.splitlines()[:-1]

    return say


def cache_object(folder: Path, content: bytes) -> Path:
    md5 = hashlib.md5(content).hexdigest()
    return folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def flip(path: Path) -> None:
    """One bit of a read-only file, its time and permissions as they were."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


WEIGHTS = b"weights"
TRAIN = bytes(range(256)) * 9


def test_what_is_as_it_was_made_has_no_fault(say: Say) -> None:
    assert say() == (0, [])
    assert say("--committed") == (0, [])


def test_a_flipped_bit_in_a_read_only_object_is_found_and_its_repair_repairs(project: Path, say: Say) -> None:
    path = cache_object(project, TRAIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    flip(path)
    call(project, *DVC, "status", "--quiet")  # sees nothing
    code, (line,) = say()
    assert code == 1
    where = path.relative_to(project)
    assert line.startswith(f"{where}: damaged (its md5 is ")
    fix = f"rm -f {where} && dvc commit --force make"
    assert line.endswith(f", part of data/raw/digits; fix: {fix}")
    call(project, "sh", "-c", fix)
    assert say() == (0, [])


def test_a_damaged_output_is_told_by_file_and_comes_back_from_the_cache(project: Path, say: Say) -> None:
    flip(project / "data/raw/digits/train.arrow")
    code, (line,) = say()
    assert code == 1
    assert line.startswith("data/raw/digits/train.arrow: damaged or changed (its md5 is ")
    assert line.endswith(", make wrote it; fix: dvc checkout --force data/raw/digits")
    call(project, *DVC, "checkout", "--force", "data/raw/digits")
    assert say() == (0, [])


def test_files_that_are_missing_or_too_many_in_an_output_are_named(project: Path, say: Say) -> None:
    (project / "data/raw/digits/deep/val.arrow").unlink()
    assert say()[1] == [
        "data/raw/digits/deep/val.arrow: missing, make wrote it; fix: dvc checkout --force data/raw/digits"
    ]
    call(project, *DVC, "checkout", "--force", "data/raw/digits")
    (project / "data/raw/digits/more").write_text("more")
    assert say()[1] == ["data/raw/digits/more: make did not write it; fix: dvc checkout --force data/raw/digits"]


def test_a_missing_object_comes_back_from_the_workspace(project: Path, say: Say) -> None:
    path = cache_object(project, WEIGHTS)
    path.unlink()
    code, (line,) = say()
    fix = "dvc commit --force make"
    assert (code, line) == (1, f"{path.relative_to(project)}: missing, part of data/weights.bin; fix: {fix}")
    call(project, *DVC, *fix.split()[1:])
    assert say() == (0, [])


def test_what_is_in_neither_place_is_fetched_where_there_is_a_remote_and_made_anew_where_not(
    project: Path, say: Say, tmp_path: Path
) -> None:
    cache_object(project, WEIGHTS).unlink()
    flip(project / "data/weights.bin")
    again = "fix: dvc repro --force --single-item make"
    assert [line.partition("; ")[2] for line in say()[1]] == [again, again] or say()[1][0].endswith(again)
    call(project, *DVC, "remote", "add", "-d", "away", str(tmp_path / "away"))
    assert say()[1][0].endswith("; fix: dvc fetch make && dvc checkout --force data/weights.bin")


def test_a_clone_without_data_is_one_line_and_what_is_committed_is_checked_without(project: Path, say: Say) -> None:
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc/cache")
    code, lines = say()
    assert code == 1
    assert lines == [
        "2 outputs: neither in the workspace nor in the cache (data/raw/digits, data/weights.bin); fix: dvc repro"
    ]
    assert say("--committed") == (0, [])


def test_an_edited_metric_does_not_belong_to_the_lock(project: Path, say: Say) -> None:
    (project / "reports/runs/one/metrics.json").write_text('{"top1": 0.99}')
    code, lines = say()
    assert code == 1
    (line,) = lines
    assert line.startswith("reports/runs/one/metrics.json: not what score wrote (its md5 is ")
    assert line.endswith("; fix: dvc repro --force --single-item score, or git checkout reports/runs/one/metrics.json")
    assert say("--committed") == (0, [])  # not committed yet
    call(project, "git", "commit", "-qam", "better by hand")
    (line,) = say("--committed")[1]
    assert line.startswith("HEAD:reports/runs/one/metrics.json: not what score wrote")
    assert len(say()[1]) == 1  # told once for the workspace and the commit


def test_a_folder_in_git_is_held_against_the_lock_too(project: Path, say: Say) -> None:
    (project / "reports/runs/one/pictures/b.txt").write_text("b")
    call(project, "git", "add", "-A")
    call(project, "git", "commit", "-qm", "one more")
    assert [line.partition(":")[0] for line in say()[1]] == ["reports/runs/one/pictures"]
    assert "HEAD:reports/runs/one/pictures: not what score wrote" in say("--committed")[1][0]


def test_params_that_a_stage_did_not_run_with_are_told(project: Path, say: Say) -> None:
    (project / "params.yaml").write_text("runs:\n  one:\n    lr: 0.001 # the same\n    sizes: [1, 2]\n")
    assert say() == (0, [])
    (project / "params.yaml").write_text("runs:\n  one:\n    lr: 0.01\n    sizes: [1, 2]\n    more: on\n")
    code, lines = say()
    assert (code, lines) == (
        1,
        [
            "params.yaml runs.one.lr: 0.01, and make ran with 0.001; fix: dvc repro make",
            "params.yaml runs.one.more: 'on', and make ran with nothing; fix: dvc repro make",
        ],
    )
    call(project, "git", "commit", "-qam", "another rate, not run")
    assert say("--committed")[1][0].startswith("HEAD:params.yaml runs.one.lr: 0.01")
    assert len(say()[1]) == 2


def test_code_that_changed_since_is_told_once(project: Path, say: Say) -> None:
    (project / "make.py").write_text(MAKE + "# changed\n")
    assert say()[1] == ["make.py: changed since make ran; fix: dvc repro"]


def test_a_stage_that_never_ran_is_told(project: Path, say: Say) -> None:
    graph = {"stages": {**GRAPH["stages"], "other": {"cmd": "true", "outs": ["data/other"]}}}
    (project / "dvc.yaml").write_text(json.dumps(graph))
    assert say()[1] == ["dvc.lock: no other, which dvc.yaml has; fix: dvc repro other"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"at": f"{time.strftime('%Y-%m-%dT%H:%M')}:05"}, "a time ("),
        ({"seconds": 3.2}, "a time (seconds: 3.2)"),
        ({"inner": [{"created": 1.7e9}]}, "a time (created: 1700000000.0)"),
        ({"path": "/home/me/data/x.json"}, "an absolute path (/home/me)"),
        ({"note": "made in HERE/data"}, "an absolute path ("),
        ({"note": "made on workhorse-7."}, "this machine's name (workhorse-7)"),
    ],
)
def test_an_output_that_holds_a_time_a_path_or_a_host_is_told(
    project: Path, say: Say, monkeypatch: pytest.MonkeyPatch, content: dict[str, object], what: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "workhorse-7")
    text = json.dumps(content).replace("HERE", str(project))
    (project / "reports/runs/one/metrics.json").write_text(text)
    code, lines = say()
    assert code == 1
    assert any(line.startswith(f"reports/runs/one/metrics.json: holds {what}") for line in lines), lines


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"file_name": "2021-03-04 10:22 at the sea.jpg", "note": "/x", "top1": 0.5, "run": 3}'),
        ("a.json", b'{"source": "https://example.org/home/x/tmp/y", "times": 3, "up_to_date": true}'),
        ("a.csv", b"epoch,lr,loss\n1,0.1,2\n"),
        ("a.html", b"<svg><path d='M0/0'></svg><a href='runs/one/x.png'>2021-03-04 10:22.jpg</a>"),
        ("a.md", b"1/2 and 3/4 of 2021-03-04"),
        ("a.json", b"not json"),
    ],
)
def test_what_is_no_trace_is_left_alone(name: str, content: bytes) -> None:
    assert list(traces.of(name, content)) == []


def test_a_png_says_nothing_but_its_pixels(tmp_path: Path) -> None:
    from PIL import Image, PngImagePlugin

    about = PngImagePlugin.PngInfo()
    about.add_text("Software", "a program")
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    Image.new("L", (2, 2)).save(tmp_path / "b.png", pnginfo=about)
    assert list(traces.of("a.png", (tmp_path / "a.png").read_bytes())) == []
    assert list(traces.of("b.png", (tmp_path / "b.png").read_bytes())) == ["metadata (a tEXt chunk)"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("- 1\n", "not a lock file"),
        ("schema: '2.0'\n", "not a lock file"),
        ("stages: {a: 3}\n", "a: not a stage"),
        ("stages: {a: {outs: [x]}}\n", "a: an entry without a path"),
        ("stages:\n<<<<<<< ours\n  a: {}\n", "a merge marker"),
        ("stages: [\n", "not readable"),
    ],
)
def test_a_lock_that_is_none_is_one_line(project: Path, say: Say, text: str, what: str) -> None:
    with pytest.raises(PipelineError, match=rf"^dvc\.lock ?:? ?.*{what}.*; fix: "):
        record.read(text, "dvc.lock")


def test_a_missing_lock_and_no_project_are_one_line(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "dvc.lock").unlink()
    assert cli.main(["verify"]) == 1
    assert capsys.readouterr().err == "error: dvc.lock: no such file; fix: dvc repro, then git add dvc.lock\n"
    with chdir(tmp_path):
        assert cli.main(["verify"]) == 1
    assert capsys.readouterr().err.startswith("error: dvc.yaml: ")


def test_folders_are_hashed_as_dvc_does(project: Path) -> None:
    lock = YAML(typ="safe").load(Path("dvc.lock"))
    (entry,) = [out for out in lock["stages"]["make"]["outs"] if out["path"] == "data/raw/digits"]
    root = Path("data/raw/digits")
    files = {p.relative_to(root).as_posix(): str(objects.md5_of(p)) for p in root.rglob("*") if p.is_file()}
    assert objects.folder_md5(files) == entry["md5"]
    manifest = objects.place(project / ".dvc/cache/files/md5", entry["md5"])
    assert objects.listed(manifest) == files


def test_a_file_that_stands_under_two_names_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    read: list[int] = []
    found = objects.hashes([tmp_path / "a", tmp_path / "b", tmp_path / "none"], read.append)
    assert set(found.values()) == {"900150983cd24fb0d6963f7d28e17f72", None}  # RFC 1321: MD5 ("abc")
    assert read == [3]


def test_entries_of_another_hash_are_told_and_differences_are_found_by_their_dotted_names() -> None:
    text = "stages: {a: {cmd: x, outs: [{path: y, md5: 1, size: 2}]}}"
    assert record.read(text, "x").outs == [Entry("a", "y", "", 2)]
    recorded = {"runs.one": {"lr": 1, "is": True, "same": [1]}, "seed": 0}
    params = {"runs": {"one": {"lr": 2, "is": 1, "same": [1], "new": 3}}, "seed": 0}
    assert list(record.differences(recorded, params)) == [
        ("runs.one.lr", 1, 2),
        ("runs.one.is", True, 1),
        ("runs.one.new", None, 3),
    ]


def test_the_workspace_is_left_as_it_is(project: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = [p for p in project.rglob("*") if p.is_file() and ".dvc/tmp" not in str(p) and ".git/" not in str(p)]
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in found}

    before = state()
    flip(project / "data/weights.bin")
    assert verify.run() == 1
    assert state() == before


def test_git_is_asked_once_and_each_list_of_a_folder_read_once(
    project: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], []
    run, listed = subprocess.run, objects.listed
    monkeypatch.setattr(subprocess, "run", lambda command, **how: asked.append(command[:2]) or run(command, **how))
    monkeypatch.setattr(objects, "listed", lambda manifest: read.append(manifest) or listed(manifest))
    assert say() == (0, [])
    assert [command for command in asked if command == ["git", "ls-tree"]] == [["git", "ls-tree"]]
    assert asked.count(["git", "rev-parse"]) == 1
    assert len(read) == len(set(read)) == 1  # of data/raw/digits
