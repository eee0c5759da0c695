"""Ends a stage when the dvc that started it is gone: a stage that ran on alone would meet the next one's files.

DVC hands no signal on to the command that it runs, and a kill -9 of it cannot be handed on (observed on 3.67). So the
stage itself watches the processes above it, of which a shell may be one. Under a launcher that the stage becomes, its
processes watch what the stage watched: a launcher of theirs looks at no dvc.
"""

from __future__ import annotations

import os
import platform
import select
import signal
import sys
import threading
import time
from pathlib import Path

STARTED_BY_DVC = "DVC_STAGE"  # in the environment of each command that DVC runs
ABOVE = "PIPELINE_ABOVE"  # in the environment of what a stage starts: the machine, and who is watched there
GRACE = 30.0  # seconds in which a stage finishes its step and saves
POLL = 1.0  # seconds between two looks, where the system cannot tell by itself


def end_with_dvc() -> None:
    """Watches from now on, in a thread, where DVC has started this process; a stage started by hand is left alone."""
    if not os.environ.get(STARTED_BY_DVC):
        return
    above = [*_above(), *_inherited()]
    os.environ[ABOVE] = " ".join([platform.node(), *map(str, above)])
    handles = []
    try:
        handles = [os.pidfd_open(pid) for pid in above]
    except AttributeError:  # not Linux
        pass
    except OSError:  # gone already
        threading.Thread(target=_end, daemon=True).start()
        return
    threading.Thread(target=_watch, args=(handles, above, os.getppid()), daemon=True).start()


def _above() -> list[int]:
    """The parent, and the one above it where the parent is only the shell that was given the command."""
    parent = os.getppid()
    words = _file(parent, "cmdline").split("\0")
    if len(words) > 2 and "-c" in words[1:-1] and "pipeline" in words[words.index("-c") + 1]:
        grandparent = _file(parent, "stat").rpartition(")")[2].split()
        if len(grandparent) > 1 and int(grandparent[1]) > 1:
            return [parent, int(grandparent[1])]
    return [parent]


def _inherited() -> list[int]:
    """Who is watched by the stage that started this process; on another machine its numbers say nothing."""
    machine, *pids = os.environ.get(ABOVE, "").split(" ")
    return [int(pid) for pid in pids] if machine == platform.node() else []


def _file(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _watch(handles: list[int], above: list[int], parent: int) -> None:
    if handles:
        poll = select.poll()
        for handle in handles:
            poll.register(handle, select.POLLIN)
        while not poll.poll():
            continue
    while not handles and os.getppid() == parent and all(map(_is_there, above)):
        time.sleep(POLL)
    _end()


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _end() -> None:
    """As SIGTERM does, which saves; after GRACE whatever is done."""
    print("warning: the dvc that started this stage is gone; the stage ends", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
