"""Searching a space of options: trials drawn by Optuna, kept in a storage from which a killed search goes on.

Grid search tries a whole product. Random search draws independently, rates evenly in the logarithm: in as many trials
it sees more values of the one option that matters (Bergstra and Bengio 2012, figure 1). The Bayesian search draws
where earlier trials did well (tree-structured Parzen estimator, Bergstra et al. 2011, section 4).
Trial n draws with numbers derived from (seed, n), so that neither a kill nor a second start changes what it tries.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import DivergedError, ParamsError, PipelineError
from pipeline.params import Choices, Range, Search
from pipeline.paths import PARAMS, written_whole
from pipeline.training.seeding import derive

STARTUP = 5
"""Trials that are complete before one is pruned; a quarter of all where there are fewer than twenty."""
WARMUP = 1
"""Epochs of a trial before it may be pruned."""
RANDOM_FIRST = 10
"""Trials that the Bayesian search draws at random; a third of all where there are fewer than thirty."""
DIGITS = 4
"""Significant digits of a drawn number, so that a person can copy it."""
HEARTBEAT, POLL = 60, 2.0
"""Seconds in which a machine says that its trial runs, and between looks at what others do."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)

Report = Callable[[int, float, bool], None]
"""Called with an epoch (from 1), the metric after it, and whether it is the last one; ends the trial where it is to be
pruned, which after its last epoch it never is."""
Attempt = Callable[[int, dict[str, Any], Report], float]
"""Called with a trial's number, its values by key and where to report; gives the metric."""


@dataclass(frozen=True)
class Trial:
    """What became of one trial.

    Attributes:
        number: from 0, in order of their beginning.
        state: complete, pruned (worse than the median at its last epoch) or diverged (not finite).
        value: the metric; of a pruned trial after its last epoch; None of a diverged one.
        epochs: that it was trained; 0 where an earlier trial has the same values, and so the same metric.
        values: by key of the space.
    """

    number: int
    state: str
    value: float | None
    epochs: int
    values: dict[str, Any]


def grid(tried: Range | Choices) -> list[Any]:
    """The values of a grid along one key, in order.

    >>> grid(Range(low=1e-4, high=1e-2, log=True, steps=3))
    [0.0001, 0.001, 0.01]
    >>> grid(Range(low=1, high=4, integer=True, steps=3))
    [1, 2, 4]
    """
    if isinstance(tried, Choices):
        return list(tried.choices)
    assert tried.steps is not None
    shares = [step / (tried.steps - 1) for step in range(tried.steps)]
    if tried.log:
        values = [math.exp((1 - share) * math.log(tried.low) + share * math.log(tried.high)) for share in shares]
    else:
        values = [(1 - share) * tried.low + share * tried.high for share in shares]
    return list(dict.fromkeys(_plain(value, tried) for value in values))


def _plain(value: float, tried: Range) -> int | float:
    """A number of a range as it is tried: whole, or to DIGITS digits and not beyond the ends."""
    if tried.integer:
        return round(value)
    return min(max(float(f"{value:.{DIGITS}g}"), tried.low), tried.high)


def examples(tried: Range | Choices) -> list[Any]:
    """Values that stand for all that may be drawn: every choice, or both ends of a range."""
    if isinstance(tried, Choices):
        return list(tried.choices)
    return [_plain(end, tried) for end in (tried.low, tried.high)]


def num_trials(search: Search) -> int:
    """How many trials a search has: those asked for, or the product of its grid."""
    if search.trials is not None:
        return search.trials
    return math.prod(len(grid(tried)) for tried in search.space.values())


def run(
    search: Search, attempt: Attempt, *, name: str, file: Path, digest: str, seed: int, higher_is_better: bool
) -> list[Trial]:
    """Makes all trials, or those that a killed search or other machines have not made yet.

    Args:
        search: an entry of `searches`.
        attempt: one trial. A DivergedError is noted, another error ends the search.
        name: of the entry.
        file: where trials are kept, unless `search.storage` names another place.
        digest: of all that the trials depend on, and that is the same on every machine.
        seed: of the draws.
        higher_is_better: of the metric.

    Raises:
        ParamsError: the environment lacks the variable that `storage` names.
        PipelineError: the storage cannot be used; the address is told without its password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # progress is told by the caller
    address = _address(search, name)
    settings: dict[str, Any] = {
        "study_name": f"{name}-{digest[:16]}",
        "direction": "maximize" if higher_is_better else "minimize",
        "sampler": _Seeded(search, seed),
        "pruner": _pruner(search),
        "load_if_exists": True,
    }
    with _told(address, f"{PARAMS} searches.{name}.storage"):
        storage = _shared(address) if address else _local(file, settings)
        study = optuna.create_study(storage=storage, **settings)
        total = num_trials(search)
        while _is_wanting(study, total, shared=bool(address)):
            study.optimize(lambda trial: _objective(trial, search, attempt), n_trials=1)
        done = [trial for trial in study.get_trials() if trial.state in DONE]
        # two machines that each saw the last one wanting have made one more, which is not to depend on their speed
        trials = [_outcome(trial, search) for trial in done[:total]]
        storage.remove_session()
        storage.engine.dispose()
    return [Trial(number, *fields) for number, fields in enumerate(trials)]


def best(trials: list[Trial], name: str, *, higher_is_better: bool) -> Trial:
    """The complete trial with the best value, the first of equal ones.

    Raises:
        PipelineError: none is complete.
    """
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if not complete:
        raise PipelineError(f"{PARAMS} searches.{name}: no trial came to its end; fix: search where losses stay finite")
    sign = 1 if higher_is_better else -1
    return max(complete, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))


def _objective(trial: optuna.Trial, search: Search, attempt: Attempt) -> float:
    values = {key: _suggest(trial, key, tried, search.method) for key, tried in search.space.items()}

    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if _outcome(other, search)[-1] == values:  # one seed and the same options give the same value
            return float(other.value or 0.0)

    def report(epoch: int, value: float, is_last: bool) -> None:
        if not math.isfinite(value):
            raise DivergedError(f"epoch {epoch}: {search.metric} is not finite")
        trial.report(value, epoch)
        if not is_last and trial.should_prune():
            raise optuna.TrialPruned

    try:
        value = attempt(trial.number, values, report)
        if not math.isfinite(value):
            raise DivergedError(f"{search.metric} is not finite")
    except DivergedError:
        trial.set_user_attr("diverged", True)
        raise optuna.TrialPruned from None
    return value


def _suggest(trial: optuna.Trial, key: str, tried: Range | Choices, method: str) -> Any:
    if method == "grid" or isinstance(tried, Choices):
        # as text, for a storage keeps no lists
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in _all(tried)]))
    if tried.integer:
        return trial.suggest_int(key, int(tried.low), int(tried.high), log=tried.log)
    return _plain(trial.suggest_float(key, tried.low, tried.high, log=tried.log), tried)


def _all(tried: Range | Choices) -> list[Any]:
    return tried.choices if isinstance(tried, Choices) else grid(tried)


def _outcome(trial: FrozenTrial, search: Search) -> tuple[str, float | None, int, dict[str, Any]]:
    """State, value, epochs and values of a finished trial."""
    values = {}
    for key, tried in search.space.items():
        value = trial.params[key]
        if isinstance(value, str):
            value = json.loads(value)
        elif isinstance(tried, Range):
            value = _plain(value, tried)
        values[key] = value
    steps = trial.intermediate_values
    if trial.user_attrs.get("diverged"):
        return "diverged", None, len(steps), values
    if trial.state == TrialState.PRUNED:
        return "pruned", steps[max(steps)], len(steps), values
    return "complete", trial.value, len(steps), values


class _Seeded(optuna.samplers.BaseSampler):
    """Draws trial n with a sampler of its own, seeded by (seed, n)."""

    def __init__(self, search: Search, seed: int) -> None:
        self._search, self._seed = search, seed
        self._sampler = self._make(0)

    def _make(self, number: int) -> optuna.samplers.BaseSampler:
        if self._search.method == "grid":  # its seed is of the order, which all trials share
            texts = {key: [json.dumps(value) for value in _all(tried)] for key, tried in self._search.space.items()}
            return optuna.samplers.GridSampler(texts, seed=derive(self._seed, "grid") % 2**32)
        seed = derive(self._seed, "trial", number) % 2**32
        if self._search.method == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        first = max(1, min(RANDOM_FIRST, num_trials(self._search) // 3))
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = self._make(trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.pruning == "none":
        return optuna.pruners.NopPruner()
    startup = max(1, min(STARTUP, num_trials(search) // 4))
    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=WARMUP + 1)


def _local(file: Path, settings: Mapping[str, Any]) -> optuna.storages.RDBStorage:
    """The storage in a file, without what a killed search left unfinished: that trial is made anew."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for other in file.parent.glob(f"*{file.suffix}"):  # of a search that depended on other things
        if other != file:
            other.unlink()
    if file.exists():
        try:
            old = optuna.create_study(storage=(storage := _sqlite(file)), **settings)
            trials = old.get_trials()
            storage.engine.dispose()
        except Exception as error:  # whatever a damaged file makes SQLite, SQLAlchemy or Optuna say
            print(f"warning: {file}: not readable ({type(error).__name__}); the search starts anew", file=sys.stderr)
            file.unlink()
            return _sqlite(file)
        done = [trial for trial in trials if trial.state in DONE]
        if len(done) < len(trials):
            with written_whole(file) as temporary:
                anew = optuna.create_study(storage=(storage := _sqlite(temporary)), **settings)
                anew.add_trials(done)
                storage.engine.dispose()
    return _sqlite(file)


def _sqlite(file: Path) -> optuna.storages.RDBStorage:
    """A database in a file. It does not wait for the disk: a kill loses nothing so, and only a power cut may."""
    import sqlalchemy

    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    sqlalchemy.event.listen(storage.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF"))
    storage.engine.dispose()  # the connection that was made before
    return storage


def _shared(address: str) -> optuna.storages.RDBStorage:
    """A storage of many machines; the trial of one that has gone silent is made by another."""
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    with _experimental():
        return RDBStorage(
            address,
            heartbeat_interval=HEARTBEAT,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )


def _is_wanting(study: optuna.Study, total: int, *, shared: bool) -> bool:
    """Whether one more trial is to be made here; where machines share a study, waits until all of theirs are done."""
    while True:
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        running = shared and TrialState.RUNNING in states
        if TrialState.WAITING in states or sum(state in (*DONE, TrialState.RUNNING) for state in states) < total:
            return True
        if not running:
            return False
        with _experimental():
            optuna.storages.fail_stale_trials(study)
        time.sleep(POLL)


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna calls heartbeats experimental, as it has since 2021."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _address(search: Search, name: str) -> str:
    """The storage's address, from the environment where `$NAME` stands for it."""
    if not search.storage.startswith("$"):
        return search.storage
    variable = search.storage[1:].strip("{}")
    if variable not in os.environ:
        at = f"{PARAMS} searches.{name}.storage"
        raise ParamsError(f"{at}: no {variable} in the environment ({search.storage!r}); fix: export it")
    return os.environ[variable]


@contextmanager
def _told(address: str, place: str) -> Iterator[None]:
    """Faults of the storage as one line that holds no password."""
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        shown, text = "a file of this machine", str(error)
        if address:
            try:
                url = sqlalchemy.make_url(address)
            except sqlalchemy.exc.ArgumentError:
                raise PipelineError(f"{place}: not an address as SQLAlchemy has them; fix: correct it") from None
            shown = url.render_as_string(hide_password=True)
            for secret in {address, str(url.password or ""), *map(str, url.query.values())} - {""}:
                text = text.replace(secret, "***")
        reason = " ".join(text.split())[:200]
        raise PipelineError(
            f"{place}: {type(error).__name__} of {shown} ({reason}); fix: see that it answers"
        ) from None
