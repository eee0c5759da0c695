"""The peak that the ledger notes is of the process and its workers, and of nothing else."""

import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from pipeline import peak

PROJECT = Path(__file__).parent.parent
MEBIBYTE = 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="without /proc a program inherits")


def printed(code: str) -> list[float]:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def hold(megabytes: int) -> None:
    """Touches so much memory, and keeps it for four looks."""
    block = b"x" * (megabytes * MEBIBYTE)
    time.sleep(4 * peak.POLL)
    del block


@needs_proc
def test_a_small_child_of_a_fat_parent_is_small() -> None:
    fat = b"x" * (300 * MEBIBYTE)
    assert peak.peak_mb() > len(fat) / MEBIBYTE
    (child,) = printed("from pipeline.peak import peak_mb; print(peak_mb())")
    assert 5 < child < 60  # a bare interpreter


@needs_proc
def test_what_was_held_and_freed_counts() -> None:
    base, after = printed(
        "from pipeline.peak import peak_mb\nprint(peak_mb())\nblock = b'x' * (300 * 2**20)\ndel block\nprint(peak_mb())"
    )
    assert 299 <= after - base <= 400  # the kernel counts in batches of pages


@needs_proc
def test_workers_that_run_together_are_added_up() -> None:
    with peak.Watch() as watch:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(hold, [150, 150]))
        alone = peak.peak_mb()
    assert 299 <= watch.family_mb() - alone < 300 + 2 * 150  # each imports this file, with pytest


@needs_proc
def test_the_peak_of_a_process_that_is_gone_is_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert peak.peak_mb(process.pid) == 0.0


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1024**2)])
def test_without_proc_the_system_counter_stands_in(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    monkeypatch.setattr(peak, "Path", lambda _: Path("/nowhere"))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(peak.resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 70 * unit}))
    assert peak.peak_mb() == 70.0
    assert peak.peak_mb(1) == 0.0
