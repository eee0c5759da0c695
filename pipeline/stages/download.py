"""Reads a source (an installed package, files, the network); writes its store, statistics and pictures."""

from __future__ import annotations

import importlib
from pathlib import Path

from pipeline import paths
from pipeline.data.statistics import statistics
from pipeline.data.store import Store
from pipeline.params import Params, check_options


def run(params: Params, name: str) -> None:
    """Makes dataset `name` of params.yaml."""
    entry = params.datasets[name]
    source = importlib.import_module(f"pipeline.data.datasets.{entry.source}")
    options = {"seed": params.defaults.seed, **entry.options}  # a dataset may have a seed of its own
    check_options(source.prepare, options, f"datasets.{name}.options")
    source.prepare(paths.raw(name), **options)
    write_report(paths.raw(name), paths.data_report(name))


def write_report(folder: Path, report: Path) -> None:
    """Statistics and pictures of the store in `folder`."""
    from pipeline.visualise import draw
    from pipeline.visualise.previews import previews

    store = Store(folder)
    with paths.written_whole(report) as temporary:
        temporary.mkdir()
        paths.write_json(temporary / "statistics.json", statistics(store))
        (temporary / "pictures").mkdir()
        for kind, picture in previews(store.split("train")).items():
            draw.save(temporary / "pictures" / f"{kind}.png", picture)
