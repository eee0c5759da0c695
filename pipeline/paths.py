"""Where each stage reads and writes, relative to the project; nobody else spells a path."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
DATA = Path("data")
REPORTS = Path("reports")
PAGE = REPORTS / "index.html"
SUMMARY = REPORTS / "summary.md"
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

    On an error nothing appears under the final name and the temporary one is removed.
    A folder that stood at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    inner = temporary / path.name
    try:
        yield inner
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(inner, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all, keys sorted, without NaN."""
    with written_whole(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
        )
