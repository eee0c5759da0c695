"""What a person sees of a repro: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pipeline.scheduling.processes import Process, Result

if TYPE_CHECKING:
    from rich.table import Table as RichTable

SHOWN_ENDED = 6  # rows of stages that ended last
REFRESHES = 5  # of the table, in a second
WORDS = {"ran": "done", "restored": "restored", "failed": "FAILED", "stopped": "stopped"}


class View(Protocol):
    """Is told what happens."""

    def started(self, process: Process) -> None:
        """A stage runs."""

    def ended(self, process: Process, result: Result, seconds: float) -> None:
        """A stage has ended."""

    def refresh(self, running: Collection[Process], counts: Mapping[str, int]) -> None:
        """Called several times a second; counts of stages by state."""

    def close(self, counts: Mapping[str, int]) -> None:
        """All is over."""


class Lines:
    """One line when a stage starts and one when it ends, on standard output."""

    def started(self, process: Process) -> None:
        """Says the stage, and the GPU that it has."""
        gpu = f" on GPU {process.gpu}" if process.gpu is not None else ""
        print(f"started {process.name}{gpu}", flush=True)

    def ended(self, process: Process, result: Result, seconds: float) -> None:
        """Says how, and for a failure what and where to read on."""
        print(_line(process, result, seconds), flush=True)

    def refresh(self, running: Collection[Process], counts: Mapping[str, int]) -> None:
        """Says nothing."""

    def close(self, counts: Mapping[str, int]) -> None:
        """Says how many stages there were of each state."""
        print(_summary(counts), flush=True)


class Live:
    """A table of what runs and what ended last, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(stderr=True)
        self._ended: list[tuple[Process, Result, float]] = []
        self._last = 0.0
        self._live = RichLive(console=self._console, auto_refresh=False)  # no thread: stages are forked from here
        self._live.start()

    def started(self, process: Process) -> None:
        """Shown at the next refresh."""
        self._last = 0.0

    def ended(self, process: Process, result: Result, seconds: float) -> None:
        """A failure stays above the table."""
        if result.outcome == "failed":
            self._console.print(_line(process, result, seconds), markup=False, highlight=False)
        self._ended = [*self._ended[1 - SHOWN_ENDED :], (process, result, seconds)]
        self._last = 0.0

    def refresh(self, running: Collection[Process], counts: Mapping[str, int]) -> None:
        """Draws it anew, if the last time is long ago."""
        now = time.monotonic()
        if now - self._last >= 1 / REFRESHES:
            self._last = now
            self._live.update(self._table(list(running), counts), refresh=True)

    def close(self, counts: Mapping[str, int]) -> None:
        """Leaves the last table on the screen."""
        self._live.update(self._table([], counts), refresh=True)
        self._live.stop()

    def _table(self, running: Sequence[Process], counts: Mapping[str, int]) -> RichTable:
        from rich.progress_bar import ProgressBar
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=None, pad_edge=False, caption=_summary(counts), caption_justify="left")
        for title in ("stage", "state", "time", "progress", "device"):
            table.add_column(title, justify="right" if title == "time" else "left", no_wrap=True)
        for process, result, seconds in self._ended:
            table.add_row(Text(process.name), WORDS[result.outcome], _clock(seconds), "", _device(process))
        for process in running:
            told = process.progress()
            bar: ProgressBar | str = ""
            if told is not None:
                what, done, total = told
                bar = ProgressBar(total, done, width=24) if total else f"{what} {done}"
            seconds = time.monotonic() - process.started
            table.add_row(Text(process.name, style="bold"), "runs", _clock(seconds), bar, _device(process))
        return table


def view() -> View:
    """The table where standard error is a terminal."""
    return Live() if sys.stderr.isatty() else Lines()


def _line(process: Process, result: Result, seconds: float) -> str:
    line = f"{WORDS[result.outcome]} {process.name} {seconds:.1f} s"
    return f"{line}: {result.message}; read {process.log}" if result.outcome == "failed" else line


def _device(process: Process) -> str:
    return f"GPU {process.gpu}" if process.gpu is not None else "CPU"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _summary(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no stages"
