"""Trains a run or a generator. Reads its inputs and params; writes data/checkpoints/<name> and training.csv."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.params import Generator, Params, Run, is_fitted
from pipeline.training import fitting, seeding
from pipeline.training.checkpoint import forget, save
from pipeline.training.launching import launch


def run(params: Params, name: str) -> None:
    """Trains one entry of `runs` or `generators`."""
    entry = params.learner(name)
    if isinstance(entry, Run) and is_fitted(entry.model):
        checkpoint, rows, _ = fitting.fitted(entry, name, params.defaults.seed)
        save(paths.checkpoint(name), checkpoint)
    else:
        launch(params.defaults.launch, "train", name)
        from pipeline.training import networks

        seeds = (entry.training and entry.training.seeds) or [params.defaults.seed]
        of_many = len(seeds) > 1
        learnt = {seed: networks.trained(entry, name, params.defaults, seed, of_many=of_many) for seed in seeds}
        if not seeding.is_main():
            return
        with paths.written_whole(paths.checkpoint(name)) as folder:
            for seed, (checkpoint, _) in learnt.items():
                save(folder if seed == seeds[0] else paths.of_seed(folder, seed), checkpoint)
        rows = learnt[seeds[0]][1]
    report = paths.generator_report(name) if isinstance(entry, Generator) else paths.run_report(name)
    _write_csv(report / "training.csv", rows)
    forget(name)


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per epoch, six significant digits; what an epoch does not have is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(f"{row[name]:.6g}" if name in row else "" for name in columns) for row in rows]
    with paths.written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
