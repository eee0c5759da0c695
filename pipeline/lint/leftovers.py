"""What runs leave behind that params.yaml no longer has: folders in reports/, entries in dvc.lock."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from pipeline import lock, paths
from pipeline.params import Params


class Leftovers(NamedTuple):
    """Folders under reports/, and names of entries in dvc.lock."""

    folders: list[Path]
    entries: list[str]


def find(params: Params, stages: Collection[str]) -> Leftovers:
    """What no entry of params.yaml owns.

    Args:
        params: of the project.
        stages: all that dvc.yaml expands to.
    """
    owned = {
        paths.data_report: [*params.datasets, *params.augmentations],
        paths.run_report: list(params.runs),
        paths.generator_report: list(params.generators),
        paths.visualisation_report: list(params.visualisations),
        paths.robustness_report: list(params.robustness),
        paths.search_report: list(params.searches),
    }
    folders = []
    for place, names in owned.items():
        parent = place("x").parent
        kept = {place(name) for name in names}
        if parent.is_dir():
            folders += [path for path in sorted(parent.iterdir()) if path.is_dir() and path not in kept]
    entries = lock.read() if paths.LOCK.is_file() else {}
    return Leftovers(folders, [name for name in entries if name not in stages])


def prune(found: Leftovers) -> None:
    """Removes them; what stands in DVC's cache stays there until `dvc gc`."""
    for folder in found.folders:
        shutil.rmtree(folder)
    if found.entries:
        lock.write(paths.LOCK, {name: entry for name, entry in lock.read().items() if name not in found.entries})
