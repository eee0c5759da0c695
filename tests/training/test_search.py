"""Searches over functions whose best values are known: what is tried, in what order, and after a kill."""

import itertools
import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DivergedError, ParamsError, PipelineError
from pipeline.params import Search
from pipeline.training import search
from pipeline.training.search import Report, Trial

LR = {"low": 1e-5, "high": 1e-1, "log": True}


def entry(space: dict[str, Any], method: str = "random", **more: Any) -> Search:
    base = {"run": "r", "model": "m", "dataset": "d", "inputs": "raw/d", "metric": "val_loss"}
    return Search.model_validate({**base, "space": space, "method": method, **more})


def bowl(number: int, values: dict[str, Any], report: Report) -> float:
    """Least, 0, where lr is 0.003 and decay 0.01, in decades."""
    return (math.log10(values["lr"]) - math.log10(0.003)) ** 2 + (math.log10(values.get("decay", 0.01)) + 2) ** 2


def found(asked: Search, attempt: search.Attempt, folder: Path, *, seed: int = 0, higher: bool = False) -> list[Trial]:
    file = folder / "searches" / "digest.db"
    return search.run(asked, attempt, name="s", file=file, digest="0" * 16, seed=seed, higher_is_better=higher)


@pytest.mark.parametrize(
    ("tried", "want"),
    [
        ({"low": 0, "high": 1, "steps": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"low": 1e-4, "high": 1e-1, "log": True, "steps": 4}, [1e-4, 1e-3, 1e-2, 1e-1]),
        ({"low": 1, "high": 8, "integer": True, "log": True, "steps": 4}, [1, 2, 4, 8]),
        ({"low": 1, "high": 3, "integer": True, "steps": 7}, [1, 2, 3]),  # 1, 1.33, 1.67, 2, ... rounded, each once
        ({"choices": [None, "a", [1, 2]]}, [None, "a", [1, 2]]),
    ],
)
def test_a_grid_has_even_steps_and_both_ends(tried: dict[str, Any], want: list[Any]) -> None:
    values = search.grid(entry({"k": tried}, trials=1).space["k"])
    assert values == want
    assert [type(value) for value in values[-1:]] == [type(want[-1])] or tried.get("integer") is None


def test_a_grid_tries_the_whole_product_once(tmp_path: Path) -> None:
    space = {"lr": LR | {"steps": 3}, "layers": {"choices": [[1, 1], [2, 2]]}, "on": {"choices": [True, False]}}
    trials = found(entry(space, "grid"), bowl, tmp_path)
    tried = [(trial.values["lr"], tuple(trial.values["layers"]), trial.values["on"]) for trial in trials]
    want = itertools.product([1e-5, 1e-3, 1e-1], [(1, 1), (2, 2)], [True, False])
    assert sorted(tried) == sorted(want)
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {"complete"}


def test_random_rates_are_even_in_the_logarithm() -> None:
    import optuna
    from scipy import stats

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asked = entry({"lr": LR, "width": {"low": 1, "high": 4, "integer": True}}, trials=200)
    study, drawn = optuna.create_study(sampler=search._Seeded(asked, 0)), []
    for _ in range(200):
        trial = study.ask()
        drawn.append({key: search._suggest(trial, key, tried, "random") for key, tried in asked.space.items()})
        study.tell(trial, 0.0)
    decades = [math.log10(values["lr"]) for values in drawn]
    assert min(decades) >= -5
    assert max(decades) <= -1
    assert stats.kstest(decades, stats.uniform(-5, 4).cdf).pvalue > 0.05  # of draws even in lr itself: below 1e-100
    widths = [values["width"] for values in drawn]
    counts = [widths.count(width) for width in (1, 2, 3, 4)]
    assert sum(counts) == 200
    assert stats.chisquare(counts).pvalue > 0.05
    assert abs(stats.spearmanr(decades, widths).statistic) < 0.2  # drawn independently


@pytest.mark.parametrize("method", ["grid", "random", "bayesian"])
def test_one_seed_gives_one_list_of_trials_and_another_seed_another(tmp_path: Path, method: str) -> None:
    step = {"steps": 3} if method == "grid" else {}
    asked = entry({"lr": LR | step, "decay": LR | step}, method, **({} if step else {"trials": 14}))
    first = found(asked, bowl, tmp_path / "a")
    assert found(asked, bowl, tmp_path / "b") == first
    assert found(asked, bowl, tmp_path / "c", seed=1) != first


@pytest.mark.slow
def test_the_bayesian_search_comes_nearer_than_the_random_one(tmp_path: Path) -> None:
    space = {"lr": LR, "decay": {"low": 1e-6, "high": 1, "log": True}}
    means = {}
    for method in ("random", "bayesian"):
        lowest = []
        for seed in range(3):
            trials = found(entry(space, method, trials=30), bowl, tmp_path / method / str(seed), seed=seed)
            lowest.append(sum(trial.value or 0.0 for trial in trials[15:]) / 15)
        means[method] = sum(lowest) / 3
    assert means["bayesian"] < 0.8 * means["random"]  # 3.6 and 4.9 squared decades


def test_a_finished_search_is_not_made_again(tmp_path: Path) -> None:
    asked = entry({"lr": LR}, trials=3)
    first = found(asked, bowl, tmp_path)

    def never(number: int, values: dict[str, Any], report: Report) -> float:
        pytest.fail("tried again")

    assert found(asked, never, tmp_path) == first


@pytest.mark.parametrize("method", ["grid", "random", "bayesian"])
def test_a_search_goes_on_where_an_error_ended_it(tmp_path: Path, method: str) -> None:
    step = {"steps": 3} if method == "grid" else {}
    asked = entry({"lr": LR | step, "decay": LR | step}, method, **({} if step else {"trials": 9}))
    want = found(asked, bowl, tmp_path / "whole")
    calls = []

    def failing(number: int, values: dict[str, Any], report: Report) -> float:
        calls.append(number)
        if len(calls) in (1, 4, 7):
            raise KeyboardInterrupt if len(calls) == 4 else PipelineError("no memory")
        return bowl(number, values, report)

    for error in (PipelineError, KeyboardInterrupt, PipelineError):
        with pytest.raises(error):
            found(asked, failing, tmp_path / "torn")
    assert found(asked, failing, tmp_path / "torn") == want
    assert calls == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8]


KILLED = """
import os, signal, sys
sys.path.insert(0, {project!r})
from pathlib import Path
from tests.training import test_search as t
def attempt(number, values, report):
    if number == 4 and {dies}:
        report(1, 0.5, False)
        os.kill(os.getpid(), signal.SIGKILL)
    return t.bowl(number, values, report)
print(t.found(t.entry({{"lr": t.LR}}, "bayesian", trials=7, pruning="median"), attempt, Path({folder!r})))
"""


def test_a_search_that_was_killed_goes_on_to_the_same_table(tmp_path: Path) -> None:
    project = str(Path(__file__).parent.parent.parent)

    def call(folder: str, dies: bool) -> subprocess.CompletedProcess[str]:
        code = textwrap.dedent(KILLED).format(project=project, folder=str(tmp_path / folder), dies=dies)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)

    assert call("torn", dies=True).returncode == -signal.SIGKILL
    done, want = call("torn", dies=False), call("whole", dies=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == want.stdout
    assert done.stdout.count("state='complete'") == 7


def test_a_damaged_file_is_told_and_the_search_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = entry({"lr": LR}, trials=2)
    first = found(asked, bowl, tmp_path)
    (tmp_path / "searches/digest.db").write_bytes(b"no database" * 100)
    assert found(asked, bowl, tmp_path) == first
    assert "digest.db: not readable" in capsys.readouterr().err


def test_a_search_that_depends_on_other_things_removes_what_was_kept(tmp_path: Path) -> None:
    asked = entry({"lr": LR}, trials=1)
    found(asked, bowl, tmp_path)
    other = tmp_path / "searches" / "other.db"
    search.run(asked, bowl, name="s", file=other, digest="1" * 16, seed=0, higher_is_better=False)
    assert list(other.parent.glob("*.db")) == [other]


def test_a_trial_worse_than_the_median_ends_early_and_is_counted(tmp_path: Path) -> None:
    epochs_of: dict[int, int] = {}

    def flat(number: int, values: dict[str, Any], report: Report) -> float:
        """The metric is the chosen value from the first of five epochs on."""
        for epoch in range(1, 6):
            epochs_of[number] = epoch
            report(epoch, values["x"], epoch == 5)
        return float(values["x"])

    trials = found(entry({"x": {"low": 0, "high": 1}}, trials=20, pruning="median"), flat, tmp_path)
    complete: list[float] = []
    for trial in trials:
        # pruned after epoch 2 where it is worse than the median of the complete trials before it, at least five
        median = (
            sorted(complete)[len(complete) // 2]
            if len(complete) % 2
            else sum(sorted(complete)[len(complete) // 2 - 1 : len(complete) // 2 + 1]) / 2
        )
        is_worse = len(complete) >= 5 and trial.values["x"] > median
        assert (trial.state, trial.epochs) == (("pruned", 2) if is_worse else ("complete", 5))
        assert epochs_of[trial.number] == trial.epochs
        assert trial.value == trial.values["x"]
        if not is_worse:
            complete.append(trial.values["x"])
    assert sum(trial.state == "pruned" for trial in trials) > 2
    assert search.best(trials, "s", higher_is_better=False).value == min(complete)


def test_after_its_last_epoch_a_trial_is_complete_however_bad(tmp_path: Path) -> None:
    def two(number: int, values: dict[str, Any], report: Report) -> float:
        report(1, values["x"], False)
        report(2, values["x"], True)
        return float(values["x"])

    trials = found(entry({"x": {"low": 0, "high": 1}}, trials=12, pruning="median"), two, tmp_path)
    assert [(trial.state, trial.epochs) for trial in trials] == [("complete", 2)] * 12


def test_options_that_were_tried_already_are_not_trained_again(tmp_path: Path) -> None:
    tried = []

    def counting(number: int, values: dict[str, Any], report: Report) -> float:
        tried.append(values["x"])
        report(1, len(values["x"]), True)
        return float(len(values["x"]))

    trials = found(entry({"x": {"choices": [[], [1], [1, 2]]}}, trials=10), counting, tmp_path)
    assert len(tried) == 3
    assert len(trials) == 10
    assert all(trial.value == len(trial.values["x"]) for trial in trials)
    assert sum(trial.epochs for trial in trials) == 3


def test_a_trial_that_diverges_is_noted_and_the_search_goes_on(tmp_path: Path) -> None:
    def exploding(number: int, values: dict[str, Any], report: Report) -> float:
        if values["lr"] > 1e-2:
            raise DivergedError("the loss is not finite")
        return math.nan if values["lr"] > 1e-3 else bowl(number, values, report)

    trials = found(entry({"lr": LR | {"steps": 5}}, "grid"), exploding, tmp_path)
    assert {trial.values["lr"]: trial.state for trial in trials} == {
        1e-5: "complete",
        1e-4: "complete",
        1e-3: "complete",
        1e-2: "diverged",
        1e-1: "diverged",
    }
    assert search.best(trials, "s", higher_is_better=False).values["lr"] == 1e-3
    with pytest.raises(PipelineError, match=r"params\.yaml searches\.s: no trial came to its end"):
        search.best(trials[:0], "s", higher_is_better=True)


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_trial_is_the_first_with_the_extreme_value(higher: bool) -> None:
    values = [0.5, 0.9, 0.1, 0.9, 0.1]
    trials = [Trial(number, "complete", value, 1, {}) for number, value in enumerate(values)]
    trials.append(Trial(5, "pruned", 2.0 if higher else -1.0, 1, {}))
    assert search.best(trials, "s", higher_is_better=higher).number == (1 if higher else 2)


def test_machines_share_a_storage_and_write_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED_STORAGE", f"sqlite:///{tmp_path}/shared.db")
    asked = entry({"lr": LR | {"steps": 6}}, "grid", storage="$SHARED_STORAGE")
    there: list[list[Trial]] = []

    def attempt(number: int, values: dict[str, Any], report: Report) -> float:
        if number == 2 and not there:  # another machine makes all that is left meanwhile, and waits for this one
            monkeypatch.setattr(search.time, "sleep", lambda _: (_ for _ in ()).throw(InterruptedError))
            with pytest.raises(InterruptedError):
                there.append(found(asked, bowl, tmp_path))
        return bowl(number, values, report)

    trials = found(asked, attempt, tmp_path)
    assert sorted(trial.values["lr"] for trial in trials) == search.grid(asked.space["lr"])
    assert found(asked, bowl, tmp_path) == trials
    assert not (tmp_path / "searches").exists()


def test_a_trial_more_than_was_asked_for_does_not_count(tmp_path: Path) -> None:
    three = found(entry({"lr": LR}, trials=3), bowl, tmp_path)  # as two machines leave it that asked at one moment
    assert found(entry({"lr": LR}, trials=2), bowl, tmp_path) == three[:2]


def test_a_storage_that_does_not_answer_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = entry({"lr": LR}, trials=1, storage="sqlite:////nowhere/there.db")
    with pytest.raises(PipelineError, match=r"params.yaml searches\.s\.storage: .* of sqlite:////nowhere/there\.db "):
        found(asked, bowl, tmp_path)
    asked = entry({"lr": LR}, trials=1, storage="postgresql://me:hunter2@127.0.0.1:1/db")
    with pytest.raises(PipelineError) as caught:
        found(asked, bowl, tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    with pytest.raises(ParamsError, match=r"no ABSENT in the environment"):
        found(entry({"lr": LR}, trials=1, storage="$ABSENT"), bowl, tmp_path)
