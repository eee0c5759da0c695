"""Reads a source (an installed package, files, the network); writes its store, statistics, health and pictures."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

from pipeline import paths
from pipeline.data import findings
from pipeline.data.health import Health, health
from pipeline.data.statistics import statistics
from pipeline.data.store import Store
from pipeline.errors import ParamsError
from pipeline.params import Params, check_options

PAIRS_SHOWN = 12


def run(params: Params, name: str) -> None:
    """Makes dataset `name` of params.yaml."""
    entry = params.datasets[name]
    source = importlib.import_module(f"pipeline.data.datasets.{entry.source}")
    options = {"seed": params.defaults.seed, **entry.options}  # a dataset may have a seed of its own
    if "inputs" in inspect.signature(source.prepare).parameters:
        if "inputs" in options:
            raise ParamsError(f"params.yaml datasets.{name}.options.inputs: fix: write it beside `options`, not in it")
        options["inputs"] = entry.inputs
    check_options(source.prepare, options, f"datasets.{name}.options")
    source.prepare(paths.raw(name), **options)
    write_report(paths.raw(name), paths.data_report(name))
    left_out = findings.skipped(paths.raw(name))
    if left_out and any(left_out.values()):
        told = paths.data_report(name) / "health.json"
        counts = ", ".join(f"{kind} {count}" for kind, count in left_out.items())
        print(f"download {name}: left out for faults: {counts}; each is named in {told}", file=sys.stderr)


def write_report(folder: Path, report: Path) -> None:
    """Statistics, health and pictures of the store in `folder`."""
    from pipeline.visualise import draw
    from pipeline.visualise.previews import previews

    store = Store(folder)
    found = health(store)
    with paths.written_whole(report) as temporary:
        temporary.mkdir()
        paths.write_json(temporary / "statistics.json", statistics(store))
        paths.write_json(temporary / "health.json", found.report)
        (temporary / "pictures").mkdir()
        first = "train" if "train" in store.info.counts else next(iter(store.info.counts))
        for kind, picture in previews(store.split(first)).items():
            draw.save(temporary / "pictures" / f"{kind}.png", picture)
        if found.pairs:
            _draw_pairs(temporary / "pictures" / "duplicates.png", store, found)


def _draw_pairs(path: Path, store: Store, found: Health) -> None:
    """Equal and nearly equal images side by side, two pairs in a row."""
    from pipeline.visualise import draw

    places = [place for pair in found.pairs[:PAIRS_SHOWN] for place in pair]
    samples = [store.split(split).read(index) for split, index in places]
    captions = [f"{split} {index}: {sample.file_name}" for (split, index), sample in zip(places, samples, strict=True)]
    draw.save(path, draw.grid([sample.image for sample in samples], columns=4, captions=captions, cell=180))
