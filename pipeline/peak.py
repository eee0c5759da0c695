"""The most memory that this process and the workers it started have held."""

from __future__ import annotations

import resource
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

POLL = 0.25
"""Seconds between two looks at the workers."""


def peak_mb(pid: int | str = "self") -> float:
    """The most resident memory of a process so far, in MB, pages shared with others included; 0 of one that is gone.

    From VmHWM, which starts anew with each program. `ru_maxrss` does not: on Linux a program inherits that of the
    process that started it. Without /proc it stands in, and is 0 of other processes.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if pid != "self" or Path("/proc/self/status").is_file():
            return 0.0
        unit = 2**20 if sys.platform == "darwin" else 2**10  # in bytes there, in kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    _, found, rest = status.partition("VmHWM:")
    return int(rest.split()[0]) / 2**10 if found else 0.0  # a process that has ended has no memory


class Watch:
    """Looks at the processes that this one started while they run: nobody tells their peaks after their end."""

    def __enter__(self) -> Self:
        self.workers_mb = 0.0
        self.over = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    def family_mb(self) -> float:
        """The peak of this process, and the largest sum of those of workers that ran at a time."""
        return peak_mb() + self.workers_mb

    def _look(self) -> None:
        while not self.over.wait(POLL):
            self.workers_mb = max(self.workers_mb, sum(map(peak_mb, _children())))


def _children() -> list[str]:
    """The processes that any thread of this one started; `multiprocessing.active_children` would also reap them."""
    found = []
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += file.read_text(encoding="utf-8").split()
    return found
