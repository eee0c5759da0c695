"""`pipeline doctor` in the project itself, and with a fault put in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.trust import doctor

PROJECT = Path(__file__).parents[2]


def found(section: Iterator[doctor.Line]) -> dict[str, doctor.Line]:
    return {line.name: line for line in section}


def test_it_tells_what_counts_and_nothing_secret(tmp_path: Path) -> None:
    for name in ("params.yaml", "pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    text = (tmp_path / "params.yaml").read_text()
    uri = "https://me:secret@tracking.example.org/x?token=hidden"
    (tmp_path / "params.yaml").write_text(text.replace("uri: sqlite:///mlflow.db", f"uri: {uri}"))
    dvc = [sys.executable, "-m", "dvc"]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, env=environment, check=True)
    remote = ["remote", "add", "-q", "-d", "away", "https://you:password@store.example.org/data"]
    subprocess.run([*dvc, *remote], cwd=tmp_path, env=environment, check=True)
    done = subprocess.run([sys.executable, "-m", "pipeline", "doctor"], cwd=tmp_path, capture_output=True, text=True)
    said = done.stdout
    for title in ("machine", "packages", "devices", "determinism", "places", "services"):
        assert f"\n{title}\n" in f"\n{said}"
    for word in ("python", "torch", "threads", "kernels", "seed", "DVC cache", "shared memory", "requirements.lock"):
        assert f"\n  {word} " in said, word
    assert "away (default): https://store.example.org/data" in said
    assert "https://tracking.example.org/x, not required" in said
    for secret in ("secret", "hidden", "password"):
        assert secret not in said + done.stderr
    assert done.stderr == ""
    assert done.returncode == (0 if said.endswith("no faults\n") else 1)


def test_a_package_of_another_version_and_a_missing_one_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    hashed = " \\\n    --hash=sha256:00\n"
    lock = f"# a comment\nnumpy==0.1{hashed}nothing-such==2{hashed}win-only==1 ; sys_platform == 'win32'{hashed}"
    have = doctor._installed("pytest")
    (tmp_path / "requirements.lock").write_text(f"{lock}pytest=={have}{hashed}")
    with chdir(tmp_path):
        line = found(doctor.packages())["requirements.lock"]
    assert line.value == "1 of 3 as locked"
    assert "numpy is " in line.fault
    assert ", 0.1 is locked; nothing-such is not installed, 2 is locked; fix: make install" in line.fault


def test_the_lock_of_the_project_is_read_whole() -> None:
    with chdir(PROJECT):
        locked = dict(doctor._locked())
        text = Path("requirements.lock").read_text()
    for name in ("torch", "numpy", "dvc", "pandas"):
        assert f"\n{name}=={locked[name]} " in text


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    with chdir(tmp_path):
        lines = found(doctor.places())
    assert lines["project"].fault == "less than 2 GiB free; fix: free some space"
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    with chdir(tmp_path):
        assert found(doctor.places())["project"].fault == "cannot be written; fix: change its permissions"


def test_faults_are_counted_and_a_section_that_cannot_be_read_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Iterator[doctor.Line]:
        raise PipelineError("x: not readable; fix: y")
        yield

    for name in ("machine", "devices", "determinism", "places", "services"):
        monkeypatch.setattr(doctor, name, lambda: iter([doctor.Line("a", "b")]))
    monkeypatch.setattr(doctor, "packages", broken)
    assert doctor.run() == 1
    said = capsys.readouterr().out
    assert "  fault: x: not readable; fix: y" in said
    assert said.endswith("1 fault\n")
