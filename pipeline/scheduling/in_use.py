"""DVC's list of paths in use, freed of what processes left in it that were killed.

DVC itself drops what a process holds that is gone. It takes a zombie for one that lives, as it does any process that
has got the number since, and a list that was half written when its writer was killed for damaged; then it refuses to
work until somebody removes the file by hand (observed on 3.67).
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import paths


def free(folder: Path) -> None:
    """Takes out what no living process holds.

    Args:
        folder: `.dvc/tmp`.
    """
    from dvc.lock import LockError, make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    path = folder / RWLOCK_FILE
    if not path.is_file():
        return
    with suppress(LockError), make_lock(str(folder / RWLOCK_LOCK)):  # who has it for so long, DVC says itself
        written = path.stat().st_mtime
        try:
            found = {"write": {}, "read": {}} | json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            path.unlink()
            return
        kept = {
            "write": {each: entry for each, entry in found["write"].items() if _holds(entry, written)},
            "read": {
                each: holders
                for each, entries in found["read"].items()
                if (holders := [entry for entry in entries if _holds(entry, written)])
            },
        }
        if kept != found:
            with paths.written_whole(path) as temporary:
                temporary.write_text(json.dumps(kept), encoding="utf-8")


def _holds(entry: dict[str, Any], written: float) -> bool:
    """Whether the process that made an entry lives; one that began after the list was written did not make it."""
    import psutil

    try:
        process = psutil.Process(entry["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written
    except psutil.NoSuchProcess:
        return False
