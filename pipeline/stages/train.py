"""Trains a run or a generator. Reads its inputs and params; writes data/checkpoints/<name> and training.csv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.params import Generator, Params, Run, check_options, is_fitted
from pipeline.training import fitting
from pipeline.training.checkpoint import Checkpoint, Snapshots, run_digest, save


def run(params: Params, name: str) -> None:
    """Trains one entry of `runs` or `generators`."""
    entry = params.learner(name)
    if is_fitted(entry.model):
        checkpoint, rows = fitting.fitted(entry, name, params.defaults.seed)
        save(paths.checkpoint(name), checkpoint)
    else:
        seed, *more = (entry.training and entry.training.seeds) or [params.defaults.seed]
        with paths.written_whole(paths.checkpoint(name)) as folder:
            checkpoint, rows = _network(params, name, entry, seed)
            save(folder, checkpoint)
            for other in more:
                save(paths.of_seed(folder, other), _network(params, name, entry, other)[0])
    report = paths.generator_report(name) if isinstance(entry, Generator) else paths.run_report(name)
    _write_csv(report / "training.csv", rows)


def _network(params: Params, name: str, entry: Run | Generator, seed: int) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Trains a network from a seed, or goes on with a training that was interrupted."""
    from pipeline.data.loader import Loader, common_size
    from pipeline.data.store import Store
    from pipeline.models import tasks
    from pipeline.training import loop, seeding

    training: Any = entry.training
    defaults = params.defaults.model_copy(update={"seed": seed})
    compute = seeding.set_up(defaults)
    folder = paths.inputs(entry.inputs)
    store = Store(folder)
    size = common_size(store.split("train"), training.image_size)
    info = tasks.at_size(store.info, size)
    train, val = (Loader(store.split(split), training.batch_size, size) for split in ("train", "val"))
    mapping = "generators" if isinstance(entry, Generator) else "runs"
    check_options(tasks.builder(entry.model), entry.model_params, f"{mapping}.{name}.model_params")
    model = tasks.build(entry.model, info, entry.model_params, training)
    settings = {"entry": entry.model_dump(include={"model", "inputs", "model_params", "training"})}
    settings |= {"defaults": defaults.model_dump()}
    rows = loop.fit(
        model,
        train,
        val,
        training,
        seed=seed,
        compute=compute,
        snapshots=Snapshots(name, seed, run_digest(settings, folder)),
    )
    arrays = {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    return Checkpoint(entry.model, entry.model_params, info, arrays), rows


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per epoch, six significant digits."""
    lines = [",".join(rows[0])] + [",".join(f"{value:.6g}" for value in row.values()) for row in rows]
    with paths.written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
