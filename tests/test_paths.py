"""Files and folders that appear whole or not at all, whenever a process is killed."""

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from pipeline import paths


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_folder_appear_at_the_end_and_replace_what_stood_there(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with paths.written_whole(tmp_path / "file") as temporary:
            temporary.write_text(content)
            assert not (tmp_path / "file").exists() or (tmp_path / "file").read_text() == "old"
        with paths.written_whole(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "new"
    assert names(tmp_path / "folder") == ["new"]


def test_an_error_leaves_what_stood_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    def fail() -> None:
        with paths.written_whole(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def in_a_child(folder: Path, work: int) -> int:
    """A forked process that replaces folder `out` again and again, with `work` files at a time."""
    pid = os.fork()
    if pid == 0:
        try:
            for number in range(10**6):
                with paths.written_whole(folder / "out") as temporary:
                    temporary.mkdir()
                    for index in range(work):
                        (temporary / str(index)).write_text(str(number))
        finally:
            os._exit(1)
    return pid


def test_killed_at_any_moment_a_folder_is_whole_or_absent_and_the_next_writer_tidies_up(tmp_path: Path) -> None:
    left = 0
    for attempt in range(25):
        pid = in_a_child(tmp_path, work=20)
        time.sleep(0.004 + 0.0007 * attempt)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        left += sum(name.startswith(".out.") for name in names(tmp_path))
        if (tmp_path / "out").exists():
            files = list((tmp_path / "out").iterdir())
            assert len(files) == 20
            assert len({file.read_text() for file in files}) == 1
    assert left  # at least one attempt was hit half-way
    with paths.written_whole(tmp_path / "out") as temporary:
        temporary.write_text("done")
    assert names(tmp_path) == ["out"]


def test_only_what_a_dead_process_left_of_the_same_name_is_removed(tmp_path: Path) -> None:
    for name, content in {
        ".out.abcd1234": "out",  # left
        ".out.alive___": "out",
        ".out.settings": "mine",  # of the user
        ".output.abcd1234": "output",  # of another name
        ".out.short": "out",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / content).touch()
    (tmp_path / ".out.isafile1").touch()
    handle = os.open(tmp_path / ".out.alive___", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    paths.write_json(tmp_path / "out", {"a": 1})
    assert names(tmp_path) == [
        ".out.alive___", ".out.isafile1", ".out.settings", ".out.short", ".output.abcd1234", "out",
    ]  # fmt: skip
    os.close(handle)
    paths.write_json(tmp_path / "out", {"a": 2})
    assert ".out.alive___" not in names(tmp_path)


def test_two_processes_that_write_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    children = [in_a_child(tmp_path, work=3) for _ in range(3)]
    time.sleep(0.3)
    for pid in children:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)  # writes on
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if (tmp_path / "out").exists():
        assert names(tmp_path / "out") == ["0", "1", "2"]
