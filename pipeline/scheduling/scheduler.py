"""Walks DVC's graph: each stale stage starts when its inputs are ready and the machine has room for it.

Whether a stage is stale is asked of DVC, once all before it are done; a stage whose inputs came out with the same bytes
does not run. The order is that of `dvc repro` with one job, else longest path first.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline import paths
from pipeline.errors import PipelineError
from pipeline.scheduling import graph as graphs
from pipeline.scheduling import in_use, lockfile
from pipeline.scheduling.processes import Lifeline, Process, Turn
from pipeline.scheduling.resources import Needs, Pool, machine
from pipeline.scheduling.table import View, view

TICK = 0.1  # seconds between two looks at signals and the table, where nothing happens
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATES = ("ran", "restored", "up to date", "running", "waiting", "failed", "stopped", "skipped")
DONE = {"ran", "restored", "up to date"}


class Interrupted(Exception):
    """A signal ended the repro; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


@dataclass
class Plan:
    """What is known beyond DVC's graph; of stages, by address.

    Attributes:
        pool: the machine, by default this one.
        needs: what each stage takes; a thread where it says nothing.
        seconds: what each took the last time.
    """

    pool: Pool = field(default_factory=lambda: Pool(machine()))
    needs: Mapping[str, Needs] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def _plain(graph: graphs.Graph) -> Plan:
    return Plan()


def repro(
    targets: Sequence[str] = (),
    *,
    jobs: int | None = None,
    keep_going: bool = False,
    plan: Callable[[graphs.Graph], Plan] = _plain,
    show: View | None = None,
) -> dict[str, str]:
    """Brings the targets up to date, as `dvc repro` does in the working folder, which is the project's.

    Args:
        targets: stages, groups or outputs; none: all.
        jobs: most stages at once; None: as many as the machine has room for.
        keep_going: after a failure, all that does not depend on it is still run; else nothing new is started.
        plan: asked once, when the first stage is to be started; where nothing is, nothing is asked.
        show: is told what happens.

    Returns:
        The state of each stage, of STATES.

    Raises:
        PipelineError: another repro runs here, or DVC refuses.
        Interrupted: by a signal; every child has ended.
    """
    with _alone():
        graph = graphs.read(targets)
        in_use.free(Path(str(graph.repo.tmp_dir)))
        with _noting_signals() as signals:
            walk = _Walk(graph, plan, jobs or len(graph.stages) or 1, keep_going, show or view(), signals)
            walk.run()
    if signals:
        raise Interrupted(signals[0])
    return walk.states


@contextmanager
def _alone() -> Iterator[None]:
    """Holds the project's repro lock; children inherit it, so that it is free only when the last of them is gone."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        path = Path(Repo.find_root()) / ".dvc" / "tmp" / "pipeline-repro.lock"
    except NotDvcRepoError:
        raise PipelineError(f"{Path.cwd()}: not in a DVC project; fix: run in its folder, or dvc init") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(handle, 32).decode(errors="replace").strip()
            raise PipelineError(
                f"{path}: another `pipeline repro` runs in this project (process {who or 'unknown'}, or what it "
                "leaves); fix: wait for it, or end it with kill"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


@contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """The numbers of signals that have come, which otherwise do nothing."""
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        came.append(number)

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup: the repro outlives the terminal
    heard = [number for number in HANDLED if not (ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Walk:
    """One repro under way."""

    def __init__(
        self,
        graph: graphs.Graph,
        plan: Callable[[graphs.Graph], Plan],
        jobs: int,
        keep_going: bool,
        show: View,
        signals: Sequence[int],
    ) -> None:
        self.states = dict.fromkeys(graph.stages, "waiting")
        self._graph, self._plan, self._jobs, self._keep_going = graph, plan, jobs, keep_going
        self._show, self._signals = show, signals
        if graph.repo.config["core"].get("hardlink_lock", False):
            raise PipelineError(".dvc/config core.hardlink_lock: only dvc repro can work with it; fix: dvc repro")
        self._turn = Turn(Path(str(graph.repo.tmp_dir)) / "lock")
        graph.repo.lock = self._turn  # type: ignore[assignment]
        self._unfinished = Path(str(graph.repo.tmp_dir)) / "pipeline-repro.json"
        self._new = _new_in_lock(graph, _read(self._unfinished))
        self._waiting = dict.fromkeys(graph.stages)
        self._missing = {name: set(above) for name, above in graph.upstream.items()}
        self._below: dict[str, list[str]] = {name: [] for name in graph.stages}
        for name, above in graph.upstream.items():
            for each in above:
                self._below[each].append(name)
        self._unasked = [name for name in graph.stages if not self._missing[name]]
        self._stale: list[str] = []
        self._running: dict[str, Process] = {}

    def run(self) -> None:
        lifeline = Lifeline()
        signalled = 0
        if self._new:
            paths.write_json(self._unfinished, self._new)
        try:
            while True:
                is_stopping = bool(self._signals) or ("failed" in self.states.values() and not self._keep_going)
                if not is_stopping:
                    self._ask_dvc()
                    if self._stale:
                        self._start(lifeline)
                if len(self._signals) > signalled:
                    signalled = len(self._signals)
                    for process in self._running.values():
                        process.stop(signal.SIGTERM if signalled == 1 else signal.SIGKILL)
                self._show.refresh(self._running.values(), self.counts())
                if not self._running and (is_stopping or not (self._unasked or self._stale)):
                    break
                self._wait()
                self._collect()
        finally:
            self._end_all()
            lifeline.close()
            for name in self._waiting:
                self.states[name] = "skipped" if self.states[name] == "waiting" else self.states[name]
            if set(self.states.values()) <= DONE:
                self._unfinished.unlink(missing_ok=True)
            self._show.close(self.counts())
            self._graph.repo.close()

    @cached_property
    def _known(self) -> Plan:
        return self._plan(self._graph)

    @property
    def _pool(self) -> Pool:
        return self._known.pool

    @cached_property
    def _seconds(self) -> dict[str, float]:
        return _estimates(self._graph, self._known.seconds)

    @cached_property
    def _ranks(self) -> dict[str, tuple[float, int]]:
        """The longest path first; with one job the order of `dvc repro`."""
        lengths = graphs.priorities(self._graph.upstream, self._seconds)
        return {
            name: (0.0 if self._jobs == 1 else -lengths[name], position)
            for position, name in enumerate(self._graph.stages)
        }

    def _needs(self, name: str) -> Needs:
        return self._known.needs.get(name, Needs())

    def counts(self) -> dict[str, int]:
        """Of stages by state."""
        counted = Counter(self.states.values())
        return {state: counted[state] for state in STATES}

    def _ask_dvc(self) -> None:
        """Asks of each stage whose inputs are ready whether it is stale; what is not is done, and so on below it."""
        from dvc.exceptions import DvcException

        if not self._unasked or not self._turn.lock(wait=False):
            return
        try:
            while self._unasked and not self._signals:
                name = self._unasked.pop(0)
                if self._graph.stages[name].changed():
                    self._stale.append(name)
                else:
                    self._finish(name, "up to date")
        except DvcException as error:
            raise PipelineError(f"{name}: {graphs.one_line(error)}; fix: see dvc status {name}") from None
        finally:
            self._turn.free()

    def _start(self, lifeline: Lifeline) -> None:
        """Starts what fits: the first in rank, and behind one that has to wait only what is over by then."""
        self._stale.sort(key=self._ranks.__getitem__)
        blocked: tuple[float, Needs, set[str]] | None = None
        for name in list(self._stale):
            if len(self._running) >= self._jobs:
                return
            needs = self._needs(name)
            if not self._pool.fits(needs):
                blocked = blocked or self._room_for(needs)
                continue
            if blocked is not None and self._delays(name, blocked):
                continue
            self._stale.remove(name)
            self._fork(name, lifeline)

    def _room_for(self, needs: Needs) -> tuple[float, Needs, set[str]]:
        """In how many seconds there should be room, for what, and who will be gone by then."""
        left = {name: max(0.0, self._seconds[name] - self._elapsed(each)) for name, each in self._running.items()}
        gone: set[str] = set()
        for name in sorted(left, key=left.__getitem__):
            gone.add(name)
            if self._pool.fits_once_gone(needs, gone):
                return left[name], needs, gone
        return 0.0, needs, gone

    def _delays(self, name: str, blocked: tuple[float, Needs, set[str]]) -> bool:
        """Whether a stage that is started now would take the room that one before it in rank waits for."""
        seconds, needs, gone = blocked
        if self._seconds[name] <= seconds:
            return False
        self._pool.take(name, self._needs(name))
        try:
            return not self._pool.fits_once_gone(needs, gone)
        finally:
            self._pool.give_back(name)

    def _fork(self, name: str, lifeline: Lifeline) -> None:
        gpu = self._pool.take(name, self._needs(name))
        # without a GPU of its own a stage sees none, or it would share one
        environment = {"CUDA_VISIBLE_DEVICES": gpu or ""} if self._pool.machine.gpus else {}
        self._graph.repo.state.close()  # a database is not for two processes
        stage = self._graph.stages[name]
        process = Process(
            stage,
            turn=self._turn,
            order=self._new.get(str(stage.path), ()),
            lifeline=lifeline,
            log=Path(self._graph.repo.root_dir) / paths.LOGS / f"{name.replace('/', '_').replace(':', '_')}.log",
            environment=environment,
            gpu=gpu,
        )
        self._running[name] = process
        self.states[name] = "running"
        self._show.started(process)

    def _wait(self) -> None:
        """Until a stage tells of its end, or for a moment."""
        is_soon = self._unasked or any(process.has_ended for process in self._running.values())
        heard = [process for process in self._running.values() if not process.has_ended]
        select.select(heard, [], [], TICK / 10 if is_soon else TICK)  # soon: DVC's lock is free, or a group is gone

    def _collect(self) -> None:
        for name, process in list(self._running.items()):
            result = process.poll()
            if result is None:
                continue
            del self._running[name]
            self._pool.give_back(name)
            self._show.ended(process, result, self._elapsed(process))
            self._finish(name, result.outcome)

    def _finish(self, name: str, state: str) -> None:
        self.states[name] = state
        del self._waiting[name]
        if state in DONE:
            for below in self._below[name]:
                self._missing[below].discard(name)
                if not self._missing[below]:
                    self._unasked.append(below)

    def _end_all(self) -> None:
        """Ends what still runs when an error of our own ends the walk."""
        for process in self._running.values():
            process.stop()
        while self._running:
            self._wait()
            self._collect()

    def _elapsed(self, process: Process) -> float:
        return time.monotonic() - process.started


def _estimates(graph: graphs.Graph, measured: Mapping[str, float]) -> dict[str, float]:
    """What each stage should take: as the last time, else as its group took, else a second."""
    of_group: dict[str, list[float]] = {}
    for name, seconds in measured.items():
        of_group.setdefault(name.partition("@")[0], []).append(seconds)
    means = {group: sum(each) / len(each) for group, each in of_group.items()}
    return {name: measured.get(name, means.get(name.partition("@")[0], 1.0)) for name in graph.stages}


def _read(unfinished: Path) -> dict[str, list[str]]:
    """What a repro that did not come to its end was to add to each dvc.lock; empty where the last one did.

    A damaged file counts as none: only the order of dvc.lock hangs on it.
    """
    try:
        return dict(json.loads(unfinished.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _new_in_lock(graph: graphs.Graph, unfinished: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By path of dvc.yaml, the stages in it that are new in its dvc.lock, in DVC's order.

    What an unfinished repro has added counts as new still, or others could not take their place before it.
    """
    new: dict[str, list[str]] = {}
    held: dict[str, set[str]] = {}
    for stage in graph.stages.values():
        path = str(stage.path)
        if path not in held:
            parts = lockfile.entries(Path(path).with_suffix(".lock"))
            names = list(parts[1]) if parts else []
            added = [name for name in unfinished.get(path, ()) if name in names]
            is_as_left = names[len(names) - len(added) :] == added
            held[path] = set(names) - set(added if is_as_left else ())
        if getattr(stage, "name", None) and stage.name not in held[path]:
            new.setdefault(path, []).append(str(stage.name))
    return new
