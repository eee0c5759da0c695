"""Draws from a trained generator. Reads its checkpoint; writes samples, noise and features of both to data/samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.data.features import as_lists
from pipeline.data.store import encode_png
from pipeline.models import extractors, tasks
from pipeline.params import Params, check_options
from pipeline.training import checkpoint as checkpoints
from pipeline.training import seeding
from pipeline.training.launching import dealt, launch


def run(params: Params, name: str) -> None:
    """Samples one entry of `generators`; as many images of uniform noise are the baseline of its scores."""
    import torch

    launch(params.defaults.launch, "sample", name)
    entry = params.generators[name]
    space = params.features[entry.features]
    compute = seeding.set_up(params.defaults)
    checkpoint = checkpoints.load(paths.checkpoint(name))
    model: Any = tasks.restore(checkpoint.model, checkpoint.info, checkpoint.model_params, checkpoint.arrays)
    model.to(compute.device)
    options = entry.sampling.options
    check_options(model.sample, options, f"generators.{name}.sampling.options")

    def draw(start: int) -> np.ndarray:
        num = min(entry.sampling.batch_size, entry.sampling.num_samples - start)
        generator = torch.Generator().manual_seed(seeding.derive(params.defaults.seed, "sample", start))
        with torch.inference_mode(), compute.autocast():
            return _to_uint8(model.sample(num, generator, **options))

    starts = range(0, entry.sampling.num_samples, entry.sampling.batch_size)
    drawn = np.concatenate(dealt(starts, draw, compute, f"sample {name}"))
    noise = np.random.default_rng(seeding.derive(params.defaults.seed, "noise")).integers(
        0, 256, drawn.shape, dtype=np.uint8
    )

    extractor = extractors.extractor(
        space.backbone,
        space.weights,
        space.image_size,
        options=space.options,
        where=f"features.{entry.features}",
        channels=checkpoint.info.channels,
        device=compute.device,
    )
    images = np.concatenate([drawn, noise])

    def features_from(start: int) -> np.ndarray:
        return extractor(list(images[start : start + space.batch_size]))

    found = dealt(range(0, len(images), space.batch_size), features_from, compute, "features")
    if not seeding.is_main():
        return
    table = pa.table(
        {
            "kind": ["sample"] * len(drawn) + ["noise"] * len(noise),
            "image": pa.array([encode_png(image) for image in images], pa.binary()),
            "features": as_lists(np.concatenate(found)),
        }
    )
    description = {
        "generator": name,
        "model": entry.model,
        "dataset": entry.dataset,
        "num_samples": len(drawn),
        "features": {
            **space.model_dump(include={"backbone", "weights", "image_size"}),
            "dimension": extractor.dimension,
            **({"options": space.options} if space.options else {}),
        },
    }
    with paths.written_whole(paths.samples(name)) as temporary:
        temporary.mkdir()
        with pa.ipc.new_file(str(temporary / "samples.arrow"), table.schema) as file:
            file.write_table(table)
        paths.write_json(temporary / "info.json", description)


def _to_uint8(images: Any) -> np.ndarray:
    """[n, C, H, W] in 0..1 as [n, H, W, C] uint8."""
    return (images.float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
