"""Runs a frozen backbone over a dataset. Reads a store and params `features`; writes data/features/<name>."""

from __future__ import annotations

import functools

import numpy as np

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.data.ahead import ReadAhead
from pipeline.data.store import Split, Store
from pipeline.models import backbones, extractors
from pipeline.params import Params
from pipeline.progress import progress
from pipeline.training import seeding
from pipeline.training.launching import dealt, launch, num_processes


def run(params: Params, name: str) -> None:
    """Extracts the features of one entry, for every split."""
    entry = params.features[name]
    store = Store(paths.inputs(entry.inputs))
    compute = None
    if extractors.is_network(entry.backbone):
        launch(params.defaults.launch, "extract", name)
        compute = seeding.set_up(params.defaults)
    extractor = extractors.extractor(
        entry.backbone,
        entry.weights,
        entry.image_size,
        options=entry.options,
        where=f"features.{name}",
        channels=store.info.channels,
        device=compute.device if compute else None,
    )
    state = extractors.learnt(extractor, (sample.image for sample in store.split("train")), params.defaults.seed)
    splits = {
        split: _extract(store.split(split), extractor, entry.batch_size, compute, f"{name} {split}")
        for split in store.info.counts
    }
    if not seeding.is_main():
        return
    description = {
        "backbone": entry.backbone,
        "weights": entry.weights,
        "image_size": entry.image_size,
        "dimension": extractor.dimension,
        **({"options": entry.options} if entry.options else {}),
    }
    feature_files.write(paths.features(name), store.info, description, splits, state)


def _extract(
    split: Split, extractor: backbones.Extractor, batch_size: int, compute: seeding.Compute | None, title: str
) -> feature_files.FeatureSplit:
    starts = range(0, len(split), batch_size)
    if compute is None:
        with ReadAhead(split, batch_size, batch_size) as read:
            found = [extractor(read(start)) for start in progress(starts, title)]
    else:
        assert isinstance(extractor, backbones.NetworkExtractor)
        resized = functools.partial(backbones.resized, size=extractor.image_size)
        with ReadAhead(split, batch_size, batch_size * num_processes(), resized) as read:
            found = dealt(starts, lambda start: extractor(read(start)), compute, title)
    return feature_files.FeatureSplit(
        image_ids=split.column("image_id"),
        features=np.concatenate(found),
        labels=np.array(split.column("label"), np.int64) if "label" in split.table.column_names else None,
        targets=np.array(split.column("target"), np.float32) if "target" in split.table.column_names else None,
    )
