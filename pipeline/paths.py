"""Where each stage reads and writes, relative to the project; nobody else spells a path."""

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
DATA = Path("data")
REPORTS = Path("reports")
PAGE = REPORTS / "index.html"
SUMMARY = REPORTS / "summary.md"
CONTRASTS = REPORTS / "contrasts"  # each idea beside its foil: numbers and training curves
LEDGER = DATA / "ledger.jsonl"  # seconds and memory of every command; outside git and DVC
LOGS = DATA / "logs"  # what each stage said in its last `pipeline repro`; outside git and DVC
RESUME = DATA / "resume"  # snapshots of unfinished training; outside git and DVC


def raw(dataset: str) -> Path:
    """The store that `download` writes."""
    return DATA / "raw" / dataset


def augmented(augmentation: str) -> Path:
    """The store that `augment` writes: train with copies added, other splits as they were."""
    return DATA / "augmented" / augmentation


def features(name: str) -> Path:
    """The store that `extract` writes."""
    return DATA / "features" / name


def export(name: str, format: str) -> Path:
    """Where `export` writes a dataset's files for other tools, unless told otherwise; outside git and DVC."""
    return DATA / "exports" / f"{name}_{format}"


def inputs(place: str) -> Path:
    """The folder that an `inputs:` entry names, such as `raw/digits` or `features/icons_lite0`."""
    return DATA / place


def checkpoint(name: str) -> Path:
    """The folder of a trained run's or generator's weights."""
    return DATA / "checkpoints" / name


def of_seed(folder: Path, seed: int) -> Path:
    """What belongs to a further seed of a run, inside the folder of the first."""
    return folder / "seeds" / str(seed)


def predictions(run: str) -> Path:
    """The folder of a run's raw outputs."""
    return DATA / "predictions" / run


def samples(generator: str) -> Path:
    """The folder of a generator's samples and of their features."""
    return DATA / "samples" / generator


def data_report(name: str) -> Path:
    """Statistics and previews of a dataset or an augmentation."""
    return REPORTS / "data" / name


def run_report(run: str) -> Path:
    """Curves, metrics and pictures of a run."""
    return REPORTS / "runs" / run


def generator_report(generator: str) -> Path:
    """Curves, metrics and pictures of a generator."""
    return REPORTS / "generators" / generator


def visualisation_report(name: str) -> Path:
    """Pictures of a visualisation."""
    return REPORTS / "visualise" / name


def robustness_report(name: str) -> Path:
    """Metrics and pictures of a run on corrupted images."""
    return REPORTS / "robustness" / name


def search_report(name: str) -> Path:
    """The trials of a search, its best options and pictures."""
    return REPORTS / "searches" / name


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` (a file or a folder) and renames it to `path` at the end.

    On an error nothing appears under the final name and the temporary one is removed; a process that was killed
    leaves it, and the next one that writes `path` removes it. A folder that stood at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary, handle = _temporary(path)
    inner = temporary / path.name
    try:
        yield inner
        _replace(inner, path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


REPLACED = ".replaced"  # begins the names of what stood at the final name, in the temporary folder


def _replace(inner: Path, path: Path, temporary: Path) -> None:
    """Renames; at any moment the old, nothing or the new stands at `path`, whole."""
    for attempt in count():
        if path.is_dir() and not path.is_symlink():
            with suppress(FileNotFoundError):  # another process was first
                os.replace(path, temporary / f"{REPLACED}{attempt}")
        try:
            os.replace(inner, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process has put its own there
                raise


def _temporary(path: Path) -> tuple[Path, int]:
    """A new folder beside `path`, and a lock on it that ends with this process, however that ends."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        with suppress(FileNotFoundError):  # another process took it for a leftover in between
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            if _is_locked(handle) is not False and folder.is_dir():
                return folder, handle
            os.close(handle)


def _is_locked(handle: int) -> bool | None:
    """Tries to lock it; False where another process has the lock, None where the file system has none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_leftovers(path: Path) -> None:
    """Removes what processes that were killed left of their attempts to write `path`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")
    for folder in [path.parent / name for name in os.listdir(path.parent) if pattern.fullmatch(name)]:
        try:
            inside = os.listdir(folder)
            if folder.is_symlink() or not all(each == path.name or each.startswith(REPLACED) for each in inside):
                continue  # none of ours
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # gone meanwhile, or no folder
            continue
        if _is_locked(handle):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all, keys sorted, without NaN."""
    with written_whole(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
        )
