"""One process for each running stage: DVC's own steps around the command, its output in a log, an end with its parent.

The process is forked from the scheduler, where DVC is imported and the graph is read, so that it starts in
milliseconds. It leads a process group of its own in which the stage's command and all that this starts live.
A pipe from the scheduler, which never writes to it, tells by its end that the scheduler is gone, even by kill -9.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pipeline.progress import REPORT
from pipeline.scheduling import lockfile
from pipeline.scheduling.graph import one_line

if TYPE_CHECKING:
    from dvc.stage import Stage

GRACE = 10.0  # seconds that a stage has to leave in order after SIGTERM


class Stopped(Exception):
    """A signal came before the command was started."""


class Turn:
    """DVC's lock of the project, handed on at once: DVC itself asks for it twice a second.

    It is the same flock on the same file that DVC's own lock takes, so that a foreign dvc is kept out as by DVC.
    DVC frees it for the time of a command, by which is known here where in a stage a signal comes.

    Attributes:
        is_stopping: a signal has come; the command is not started then, but what has been computed is saved.
        has_run: the lock was freed for a command.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self.is_stopping = False
        self.has_run = False

    @property
    def is_locked(self) -> bool:
        """DVC asks."""
        return self._file is not None

    def lock(self, wait: bool = True) -> bool:
        """Takes the lock; False where another process has it and we do not wait."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return False
        self._file = handle
        return True

    def unlock(self) -> None:
        """Frees it for a command."""
        self.free()
        if self.is_stopping:
            raise Stopped
        self.has_run = True

    def free(self) -> None:
        """Frees it at the end."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Lifeline:
    """A pipe whose other end no process but this one and its descendants holds, and of those no one keeps."""

    def __init__(self) -> None:
        self.end, self._held = os.pipe()

    def let_go(self) -> None:
        """Closes the end that says that the scheduler lives: in a child, or when all is done."""
        os.close(self._held)

    def close(self) -> None:
        """Closes both ends."""
        os.close(self.end)
        self.let_go()


class Result(NamedTuple):
    """How a stage ended: ran, restored (from DVC's run cache), failed or stopped; and what it failed of."""

    outcome: str
    message: str = ""


class Process:
    """A running stage.

    Attributes:
        name: its address.
        started: when, by the monotonic clock.
        gpu: the index of the GPU that it has, or None.
        log: what it says.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        turn: Turn,
        order: Sequence[str],
        lifeline: Lifeline,
        log: Path,
        environment: Mapping[str, str],
        gpu: str | None,
    ) -> None:
        """Starts it.

        Args:
            stage: as the scheduler read it.
            turn: the project's lock, free.
            order: of the stages that are new in dvc.lock.
            lifeline: of the scheduler.
            log: the file to write.
            environment: added to that of the command.
            gpu: told in the table.
        """
        self.name, self.gpu, self.log = stage.addressing, gpu, log
        self.started = time.monotonic()
        self._report = log.with_suffix(".progress")
        self._deadline: float | None = None
        self._told = b""
        self._ended: int | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        self._report.unlink(missing_ok=True)
        self._pipe, ours = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            environment = {**environment, REPORT: str(self._report.absolute())}
            _be(stage, turn, order, lifeline, log, environment, ours)
        os.close(ours)

    @property
    def has_ended(self) -> bool:
        """Whether the process itself is gone; of its group some may be left."""
        return self._ended is not None

    def fileno(self) -> int:
        """Readable when the process has something to tell or is ending."""
        return self._pipe

    def progress(self) -> tuple[str, int, int | None] | None:
        """The stage's own bar: what, how many are done, of how many."""
        try:
            what, done, total = json.loads(self._report.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return what, done, total

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Signals the whole group; what is left of it after GRACE is killed."""
        if self._deadline is None:
            self._deadline = time.monotonic() + GRACE
        _signal_group(self.pid, number)

    def poll(self) -> Result | None:
        """The result once the process and all of its group have ended."""
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = os.waitstatus_to_exitcode(status)
                self._told = _drain(self._pipe)
        if _lives(self.pid):
            now = time.monotonic()
            if self._ended is not None and self._deadline is None:
                _signal_group(self.pid, signal.SIGKILL)  # what a stage leaves behind in the background
                self._deadline = now + GRACE
            elif self._deadline is not None and now > self._deadline:
                _signal_group(self.pid, signal.SIGKILL)
                self._deadline = now + GRACE
            return None
        if self._ended is None:
            return None
        os.close(self._pipe)
        self._report.unlink(missing_ok=True)
        if self._told:
            return Result(*json.loads(self._told))
        return Result("failed", f"killed by signal {-self._ended}" if self._ended < 0 else f"exit code {self._ended}")


def _drain(pipe: int) -> bytes:
    told = b""
    while part := os.read(pipe, 65536):
        told += part
    return told


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # gone; on macOS a group of zombies
        return


def _lives(group: int) -> bool:
    """Whether any process of the group lives; zombies that init is to reap do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not Path("/proc/self/stat").exists():
        return True
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(its_group) == group and state not in "ZX":
            return True
    return False


def _be(
    stage: Stage,
    turn: Turn,
    order: Sequence[str],
    lifeline: Lifeline,
    log: Path,
    environment: Mapping[str, str],
    tell: int,
) -> NoReturn:
    """What the forked process does; it never returns."""
    code = 1
    try:
        os.setsid()
        lifeline.let_go()
        _redirect(log)

        def note(*_: object) -> None:
            turn.is_stopping = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, note)  # a handler, where an ignored signal would be ignored by the command too
        signal.set_wakeup_fd(-1)
        threading.Thread(target=_end_with_scheduler, args=(lifeline.end,), daemon=True).start()
        os.environ.update(environment)
        result = _reproduce(stage, turn, order)
        os.write(tell, json.dumps(result).encode())
        code = 0 if result.outcome in ("ran", "restored") else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # no handler of the scheduler's may run here


def _redirect(log: Path) -> None:
    silent = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    for handle, to in ((silent, 0), (file, 1), (file, 2)):
        os.dup2(handle, to)
    sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    dvc = logging.getLogger("dvc")
    dvc.handlers = [logging.StreamHandler(sys.stderr)]
    dvc.setLevel(logging.INFO)
    dvc.propagate = False


def _end_with_scheduler(end: int) -> None:
    """Ends the group when the scheduler is gone: the command at once, what it leaves behind after GRACE."""
    os.read(end, 1)
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def _reproduce(stage: Stage, turn: Turn, order: Sequence[str]) -> Result:
    """DVC's steps for one stage that changed: from its run cache or by its command, saved, put into dvc.lock."""
    from dvc.stage import PipelineStage

    stage.repo.lock = turn
    turn.lock()
    try:
        with stage.repo.scm_context(quiet=True) as context:
            stage.run()
            name, file = stage.addressing, stage.dvcfile
            if not isinstance(stage, PipelineStage) or context.autostage:
                stage.dump(update_pipeline=False)
            else:
                from dvc.stage.serialize import to_single_stage_lockfile

                name = str(stage.name)
                path = Path(file.path).with_suffix(".lock")
                if not lockfile.put(path, name, to_single_stage_lockfile(stage), order):
                    stage.dump(update_pipeline=False)
        return Result("ran" if turn.has_run else "restored")
    except Stopped:
        return Result("stopped")
    except Exception as error:
        message = one_line(error)
        print(f"error: {message}", file=sys.stderr)
        return Result("stopped" if turn.is_stopping else "failed", message)
    finally:
        turn.free()
