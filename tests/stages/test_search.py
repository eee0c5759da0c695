"""The search stage on a small store: what it writes, that training agrees with it, and that a kill changes nothing."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import paths
from pipeline.errors import ParamsError, PipelineError
from pipeline.params import Params, Search, load
from pipeline.stages import search, train
from pipeline.training.search import Trial
from pipeline.training.trial import Trials
from tests.conftest import DOTS

PARAMS = (
    DOTS
    + """
searches:
  penalty: {run: linear, model: heads/linear, dataset: dots, inputs: features/pixels, method: grid, metric: val_loss,
    space: {model_params.c: {low: 0.01, high: 100, log: true, steps: 5}, model_params.power: {choices: [0.5, 1.0]}}}
  rate: {run: resnet, model: classification/resnet, dataset: dots, inputs: raw/dots, method: random, trials: 4,
    metric: val_loss, epochs: 2, pruning: median, space: {training.lr: {low: 0.0001, high: 1, log: true},
    model_params.layers: {choices: [[1, 1, 1, 1], [2, 1, 1, 1]]}, training.online.mixup: {low: 0, high: 0.5}}}
"""
)


@pytest.fixture
def params(dots: Callable[..., Params]) -> Params:
    return dots(PARAMS, train=16, val=12, test=12)


def table(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((paths.search_report(name) / "trials.csv").read_text().splitlines()))


def content(name: str, file: str) -> dict[str, Any]:
    return dict(json.loads((paths.search_report(name) / file).read_text()))


def written(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.search_report(name).rglob("*.*")}


def test_a_grid_over_a_head_finds_the_extreme_of_its_table(params: Params) -> None:
    search.run(params, "penalty")
    rows = table("penalty")
    tried = {(float(row["model_params.c"]), float(row["model_params.power"])) for row in rows}
    assert tried == {(c, power) for c in (0.01, 0.1, 1.0, 10.0, 100.0) for power in (0.5, 1.0)}
    lowest = min(rows, key=lambda row: float(row["val_loss"]))
    best, metrics = content("penalty", "best.json"), content("penalty", "metrics.json")
    assert best["value"] == metrics["best_val_loss"] == float(lowest["val_loss"])
    assert best["trial"] == int(lowest["trial"])
    assert best["params"]["model_params.c"] == float(lowest["model_params.c"])
    assert metrics["trials"] == metrics["complete"] == 10
    assert metrics["pruned"] == metrics["diverged"] == 0
    assert {key for key, _ in metrics["explained"]} == {"model_params.c", "model_params.power"}
    assert sorted(path.name for path in (paths.search_report("penalty") / "pictures").iterdir()) == [
        "history.png",
        "landscape.png",
        "slices.png",
    ]


def test_a_trial_of_a_run_that_lists_options_counts_by_what_it_chose(params: Params) -> None:
    rows: list[dict[str, float]] = []
    for listed in ([1.0, 1e-6], [1.0]):  # the last of two is the worse
        entry = params.runs["linear"].model_copy(update={"model_params": {"c": listed}})
        Trials(entry, "linear", params.defaults).fit(entry, rows.append, paths.RESUME / "toy")
    assert rows[0] == rows[1]


def test_training_with_the_best_options_gives_the_value_that_the_search_found(params: Params) -> None:
    from dvc.utils.hydra import apply_overrides

    search.run(params, "penalty")
    search.run(params, "rate")
    apply_overrides(
        "params.yaml", [*content("penalty", "best.json")["options"], *content("rate", "best.json")["options"]]
    )
    apply_overrides("params.yaml", ["++runs.resnet.training.epochs=2"])
    changed = load()
    assert changed.runs["linear"].model_params == {
        key.partition(".")[2]: value for key, value in content("penalty", "best.json")["params"].items()
    }
    for run, name in (("linear", "penalty"), ("resnet", "rate")):
        train.run(changed, run)
        header, *_, last = (paths.run_report(run) / "training.csv").read_text().splitlines()
        row = dict(zip(header.split(","), last.split(","), strict=True))
        assert float(row["val_loss"]) == content(name, "best.json")["value"]


def test_a_search_of_networks_draws_rates_and_layers_and_writes_the_same_bytes_again(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    (paths.RESUME / "searches/rate/9/run").mkdir(parents=True)  # as a trial that was pruned leaves it
    search.run(params, "rate")
    first = written("rate")
    rows = table("rate")
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert all(0.0001 <= float(row["training.lr"]) <= 1 for row in rows)
    assert {row["model_params.layers"] for row in rows} <= {"[1, 1, 1, 1]", "[2, 1, 1, 1]"}
    states = [row["state"] for row in rows]
    metrics = content("rate", "metrics.json")
    assert [metrics[state] for state in ("complete", "pruned", "diverged")] == [
        states.count(state) for state in ("complete", "pruned", "diverged")
    ]
    assert [path.suffix for path in (paths.RESUME / "searches/rate").iterdir()] == [".db"]
    shutil.rmtree(paths.RESUME / "searches/rate")
    from pipeline.training import loop

    fit, calls = loop.fit, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(loop, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search.run(params, "rate")
    search.run(params, "rate")
    assert len(calls) == 5  # two trials, one that was interrupted, and the two that were left
    assert written("rate") == first


def test_a_trial_goes_on_in_the_middle_and_is_seen_whole(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.training import loop

    text = PARAMS.replace("epochs: 2, pruning: median", "epochs: 4, pruning: none").replace("trials: 4", "trials: 1")
    paths.PARAMS.write_text(text)
    changed = load()
    search.run(changed, "rate")
    first = written("rate")
    assert table("rate")[0]["epochs"] == "4"
    shutil.rmtree(paths.RESUME / "searches/rate")
    monkeypatch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SNAPSHOT_SHARE", 1e9)
    made, epochs = loop._Fitting._row, []

    def row(self: Any) -> Any:
        epochs.append(self.state.epoch)
        if epochs == [0, 1, 2]:
            raise KeyboardInterrupt
        return made(self)

    monkeypatch.setattr(loop._Fitting, "_row", row)
    with pytest.raises(KeyboardInterrupt):
        search.run(changed, "rate")
    search.run(changed, "rate")
    assert epochs == [0, 1, 2, 2, 3]  # it began anew in the epoch that was interrupted
    assert written("rate") == first


def test_trials_are_trained_with_the_first_seed_of_their_run(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.training import loop

    paths.PARAMS.write_text(
        PARAMS.replace("small_stem: true}, training: {}", "small_stem: true}, training: {seeds: [7, 8]}")
    )
    seeds = []

    def seen(*_: Any, seed: int, **__: Any) -> Any:
        seeds.append(seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", seen)
    with pytest.raises(KeyboardInterrupt):
        search.run(load(), "rate")
    assert seeds == [7]


def test_what_no_trial_could_use_is_told_before_anything_is_trained(params: Params) -> None:
    text = PARAMS.replace("[[1, 1, 1, 1], [2, 1, 1, 1]]", "[[1, 1, 1, 1], two]")
    paths.PARAMS.write_text(text)
    with pytest.raises(ParamsError, match=r"searches\.rate\.space\.model_params\.layers: .* \('two'\)"):
        search.run(load(), "rate")
    paths.PARAMS.write_text(PARAMS.replace("grid, metric: val_loss", "grid, metric: val_tp1"))
    with pytest.raises(ParamsError, match=r"searches\.penalty\.metric: linear has no column .*did you mean 'val_top1'"):
        search.run(load(), "penalty")
    assert not paths.search_report("rate").exists()
    assert not paths.search_report("penalty").exists()


def test_a_search_in_which_all_diverges_says_so(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.PARAMS.write_text(PARAMS.replace("{low: 0.0001, high: 1, log: true}", "{low: 1e+30, high: 1e+35, log: true}"))
    with pytest.raises(PipelineError, match=r"searches\.rate: no trial came to its end"):
        search.run(load(), "rate")


@pytest.mark.parametrize(
    ("tried", "value", "is_at_edge"),
    [
        ({"low": 0, "high": 10}, 5, False),
        ({"low": 0, "high": 10}, 9.6, True),
        ({"low": 1e-4, "high": 1, "log": True}, 0.5, False),  # 0.3 of 4 decades below the end: 0.08 of the range
        ({"low": 1e-4, "high": 1, "log": True}, 1.4e-4, True),  # 0.15 of 4 decades
        ({"low": 0, "high": 4, "steps": 5}, 4, True),
        ({"low": 0, "high": 4, "steps": 5}, 3, False),
        ({"choices": [1, 2]}, 2, False),
    ],
)
def test_a_best_trial_at_the_edge_of_a_range_is_told(tried: dict[str, Any], value: float, is_at_edge: bool) -> None:
    base = {"run": "r", "model": "m", "dataset": "d", "inputs": "raw/d", "metric": "val_loss", "method": "grid"}
    entry = Search.model_validate({**base, "space": {"k": tried}})
    assert search.at_edge(entry, Trial(0, "complete", 1.0, 1, {"k": value})) == (["k"] if is_at_edge else [])


def test_a_whole_grid_says_what_each_option_explains() -> None:
    values = {(0, "x"): 1.0, (0, "y"): 2.0, (1, "x"): 3.0, (1, "y"): 6.0}
    trials = [Trial(i, "complete", value, 1, {"a": a, "b": b}) for i, ((a, b), value) in enumerate(values.items())]
    # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5; of the means over b, 1.5 and 4.5: 2.25; over a, 2 and 4: 1
    assert search.explained(trials) == pytest.approx({"a": 2.25 / 3.5, "b": 1 / 3.5})
    assert search.explained([*trials, Trial(4, "diverged", None, 1, {"a": 2, "b": "x"})]) == {}
    assert search.explained([Trial(i, "complete", 1.0, 1, {"a": i}) for i in range(3)]) == {}


def test_no_choice_is_a_formula_in_the_table(tmp_path: Path) -> None:
    base = {"run": "r", "model": "m", "dataset": "d", "inputs": "raw/d", "metric": "val_loss", "method": "grid"}
    choices = ["=1+1", "@x", "plain", -1, [1, 2]]
    entry = Search.model_validate({**base, "space": {"k": {"choices": choices}}})
    trials = [Trial(number, "complete", -0.5, 1, {"k": value}) for number, value in enumerate(choices)]
    search._write_table(tmp_path / "trials.csv", entry, trials)
    rows = list(csv.reader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row[-1] for row in rows] == ["k", "'=1+1", "'@x", "plain", "-1", "[1, 2]"]
    assert {row[2] for row in rows[1:]} == {"-0.5"}
