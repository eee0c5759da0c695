"""Each kind of stage killed with -9 at random moments, then run again, ends in the bytes of an undisturbed run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pipeline.cli

PROJECT = Path(__file__).parent.parent
KINDS = ("download", "augment", "extract", "train", "predict", "evaluate", "corrupt", "sample", "visualise", "report")


def kill_loop(folder: Path, kills: int, *kinds: str) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tests/kill_loop.py"), str(folder), str(kills), "0", *kinds],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_every_kind_of_stage_that_writes_files_is_killed() -> None:
    elsewhere = {"track": "test_tracking kills it", "search": "test_search"}
    assert set(KINDS) | set(elsewhere) >= set(pipeline.cli.COMMANDS)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return kill_loop(tmp_path_factory.mktemp("kills"), 2)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_twice_it_ends_in_the_same_bytes(few: dict[str, Any], kind: str) -> None:
    assert few[kind]["kills"] == 2
    assert few[kind]["faults"] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_fifty_times_it_ends_in_the_same_bytes(tmp_path: Path, kind: str) -> None:
    found = kill_loop(tmp_path, 50, kind)[kind]
    assert found["faults"] == []
    assert found["hit"] >= 15  # the others had ended before
