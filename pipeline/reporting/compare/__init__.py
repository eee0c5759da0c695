"""Two states of the project side by side: what was changed, what that did to each run, and whether it is real."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import paths
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.metrics import bootstrap, comparison
from pipeline.metrics.comparison import Difference
from pipeline.params import is_fitted, merge
from pipeline.reporting import judging
from pipeline.reporting.compare.revisions import Revision
from pipeline.reporting.judging import Change, changes
from pipeline.reporting.scores import figures, kind, kind_of

MAPPINGS = {"runs": paths.run_report, "generators": paths.generator_report}
UPSTREAM = {"augmented": "augmentations", "checkpoints": "runs", "features": "features", "raw": "datasets"}
STAGES_OF = {
    "runs": ("train", "predict", "evaluate"),
    "generators": ("train_generator", "sample", "evaluate_generator"),
    "datasets": ("download",),
    "augmentations": ("augment",),
    "features": ("extract",),
}
SHARED = ("device", "precision", "threads", "seed")
"""What a run reads of `defaults` beside `training`."""
AFTER_TRAINING = ("prediction", "evaluation")
"""Sections of a run that do not reach those who begin with its checkpoint."""


@dataclass(frozen=True)
class Arm:
    """One side's run or generator: its entry of params.yaml and its report.

    Attributes:
        mapping: runs or generators.
        content: of metrics.json.
        table: of per_image.parquet, or None where there is none.
    """

    revision: Revision
    mapping: str
    name: str
    entry: dict[str, Any]
    content: dict[str, Any]
    table: pa.Table | None

    @property
    def figures(self) -> dict[str, float | None]:
        """The scalars of metrics.json."""
        return figures(self.content)

    @property
    def seeds(self) -> dict[str, SeedSpread]:
        """By metric, where the run was trained with several seeds."""
        rows = self.content.get("seeds") or []
        return {name: SeedSpread(mean, std, len(values)) for name, mean, std, *values in rows if len(values) > 1}

    def pairs(self, key: str) -> dict[str, Any]:
        """A list of pairs in metrics.json, such as its protocol, as a mapping."""
        return {str(what): value for what, value in self.content.get(key) or []}


@dataclass(frozen=True)
class SeedSpread:
    """How far one side's metric depends on the seed.

    Attributes:
        mean: over the seeds.
        std: of a sample.
        num: seeds.
    """

    mean: float
    std: float
    num: int


@dataclass
class RunComparison:
    """What became of one run or generator.

    Attributes:
        title: its name, or both names where two runs are compared.
        task: of its model.
        base, head: None where that side has no report of it.
        params: what differs in the params that it reads.
        code: files of the package that its stages depend on and that differ.
        data: stages before it whose outputs differ.
        unequal: lines of the protocol and classes that differ; with any, figures are not subtracted.
        differences: one per metric; empty where the sides cannot be compared.
    """

    title: str
    task: str
    base: Arm | None
    head: Arm | None
    params: list[Change] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    unequal: list[Change] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """In a word or two: the verdict on the headline metric, or why there is none."""
        if self.base is None or self.head is None:
            return "new" if self.base is None else "gone"
        if self.unequal:
            return comparison.NOT_COMPARABLE
        headline = self.headline
        if self.differences and all(one.verdict == comparison.IDENTICAL for one in self.differences):
            return comparison.IDENTICAL
        return headline.verdict if headline else comparison.NOT_TESTED

    @property
    def headline(self) -> Difference | None:
        """The difference in the metric that the report ranks this kind of work by."""
        arm = self.head or self.base
        assert arm is not None
        main = kind(kind_of(str(arm.entry.get("model")))).main
        return next((one for one in self.differences if one.metric == main), next(iter(self.differences), None))

    @property
    def is_unchanged(self) -> bool:
        """Whether its params and all its scores are the same, whatever code and data were touched before it."""
        return self.verdict == comparison.IDENTICAL and not self.params


@dataclass
class Comparison:
    """Two states of the project; what is the same on both sides everywhere is not listed."""

    base: str
    head: str
    runs: list[RunComparison]
    level: float = bootstrap.LEVEL
    num_resamples: int = bootstrap.NUM_RESAMPLES


def compare(base: Revision, head: Revision, *, num_resamples: int = bootstrap.NUM_RESAMPLES) -> Comparison:
    """Every run and generator of two revisions.

    Raises:
        PipelineError: a side has no params.yaml, dvc.lock or a readable report.
    """
    found = []
    for mapping in MAPPINGS:
        names = dict.fromkeys([*_mapping(base, mapping), *_mapping(head, mapping)])
        for name in names:
            arms = [_arm(revision, mapping, name) for revision in (base, head)]
            if any(arms):
                found.append(_judged(name, *arms, num_resamples=num_resamples))
    return Comparison(base.title, head.title, found, num_resamples=num_resamples)


def compare_runs(
    revision: Revision, base: str, head: str, *, num_resamples: int = bootstrap.NUM_RESAMPLES
) -> Comparison:
    """Two runs, or two generators, of one revision.

    Raises:
        ParamsError: no such run, or they are of different tasks.
    """
    arms = []
    for name in (base, head):
        mapping = next((mapping for mapping in MAPPINGS if name in _mapping(revision, mapping)), None)
        if mapping is None:
            choices = [name for mapping in MAPPINGS for name in _mapping(revision, mapping)]
            raise ParamsError(f"{revision.name} has no run or generator {name!r}; {did_you_mean(name, choices)}")
        arm = _arm(revision, mapping, name)
        if arm is None:
            raise PipelineError(f"{MAPPINGS[mapping](name)}: {revision.name} has no report there; fix: dvc repro")
        arms.append(arm)
    tasks = [_task(arm) for arm in arms]
    if tasks[0] != tasks[1]:
        raise ParamsError(f"{base} is {tasks[0]} and {head} is {tasks[1]}; fix: name two runs of one task")
    judged = _judged(f"{base} → {head}", arms[0], arms[1], num_resamples=num_resamples)
    return Comparison(
        f"{base} of {revision.title}", f"{head} of {revision.title}", [judged], num_resamples=num_resamples
    )


def _mapping(revision: Revision, mapping: str) -> dict[str, Any]:
    content = revision.params.get(mapping)
    return content if isinstance(content, dict) else {}


def _arm(revision: Revision, mapping: str, name: str) -> Arm | None:
    entry = _mapping(revision, mapping).get(name)
    folder = MAPPINGS[mapping](name)
    content = revision.metrics(folder)
    if content is None or not isinstance(entry, dict):
        return None
    data = revision.read(folder / "per_image.parquet")
    try:
        table = pq.read_table(io.BytesIO(data)) if data is not None else None
    except pa.ArrowInvalid as error:
        what = str(error).splitlines()[0]
        raise PipelineError(
            f"{folder}/per_image.parquet of {revision.name}: not readable ({what}); fix: dvc repro there"
        ) from None
    return Arm(revision, mapping, name, entry, content, table)


def _task(arm: Arm) -> str:
    return kind(kind_of(str(arm.entry.get("model")))).task


def _judged(title: str, base: Arm | None, head: Arm | None, *, num_resamples: int) -> RunComparison:
    known = head or base
    assert known is not None
    result = RunComparison(title, _task(known), base, head)
    if base is None or head is None:
        return result
    result.params = changes(_params_read(base), _params_read(head))
    code, other_code = dict(_code(base)), dict(_code(head))
    result.code = [change.what for change in changes(code, other_code)]
    result.data = [change.what for change in changes(dict(_data(base)), dict(_data(head)))]
    rules = base.pairs("protocol"), head.pairs("protocol")
    known_figures = {*base.figures} | {*head.figures}
    result.unequal = judging.unequal_rules(*rules, known_figures)
    result.unequal += judging.unequal_classes(*(arm.content.get("per_class") or [] for arm in (base, head)))
    if not result.unequal:
        own = {change.what for change in changes(*rules)} & known_figures  # rules of one metric alone
        shared = [name for name in base.figures if name in head.figures and name not in own]
        result.differences = judging.differences(base, head, result.task, shared, num_resamples=num_resamples)
        result.differences += [
            Difference(name, a, head.figures.get(name), None, None, None, None, comparison.NOT_COMPARABLE)
            for name, a in base.figures.items()
            if name in own
        ]
    return result


def _params_read(arm: Arm) -> dict[str, Any]:
    """What the run, or a stage before it, reads of params.yaml, by its place; the run's own without its name."""
    params = arm.revision.params
    defaults = params.get("defaults") or {}
    found = {f"defaults.{key}": defaults.get(key) for key in SHARED}
    found.update(_flat(_trained(arm.entry, defaults), ""))
    for mapping, name in _upstream(arm):
        entry = (params.get(mapping) or {}).get(name)
        if mapping == "runs" and isinstance(entry, dict):
            entry = _trained({key: value for key, value in entry.items() if key not in AFTER_TRAINING}, defaults)
        found.update(_flat(entry, f"{mapping}.{name}."))
    return found


def _trained(entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with what it takes of `defaults.training`."""
    if is_fitted(str(entry.get("model"))):
        return dict(entry)
    return {**entry, "training": merge(defaults.get("training") or {}, entry.get("training") or {})}


def _upstream(arm: Arm) -> list[tuple[str, str]]:
    """The entries that a run's data derive from, as (mapping, name), nearest first."""
    params = arm.revision.params
    pending = [str(arm.entry.get("inputs")), f"raw/{arm.entry.get('dataset')}"]
    if "features" in arm.entry:
        pending.append(f"features/{arm.entry['features']}")
    found: list[tuple[str, str]] = []
    while pending:
        place, _, name = pending.pop(0).partition("/")
        mapping = UPSTREAM.get(place)
        if mapping is None or (mapping, name) in found:
            continue
        found.append((mapping, name))
        entry = (params.get(mapping) or {}).get(name) or {}
        if mapping != "datasets" and "inputs" in entry:
            pending.append(str(entry["inputs"]))
    return found


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted places."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), value


def _stages(arm: Arm, *, own: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """The locked stages of a run, or of what stands before it, by what they do; of a run before it the training."""
    entries = [(arm.mapping, arm.name)] if own else _upstream(arm)
    for mapping, name in entries:
        for verb in STAGES_OF[mapping] if own else STAGES_OF[mapping][:1]:
            stage = arm.revision.stages.get(f"{verb}@{name}")
            if isinstance(stage, dict):
                yield (verb if own else f"{verb}@{name}"), stage


def _code(arm: Arm) -> Iterator[tuple[str, str]]:
    """Each file of the package that the run or what stands before it depends on, with its hash."""
    for own in (True, False):
        for _, stage in _stages(arm, own=own):
            for dep in stage.get("deps") or []:
                if str(dep.get("path")).startswith("pipeline/"):
                    yield str(dep["path"]), str(dep.get("md5"))


def _data(arm: Arm) -> Iterator[tuple[str, str]]:
    """The outputs of the stages before the run, with their hashes."""
    for name, stage in _stages(arm, own=False):
        for out in stage.get("outs") or []:
            if str(out.get("path")).startswith(f"{paths.DATA}/"):
                yield name, str(out.get("md5"))
