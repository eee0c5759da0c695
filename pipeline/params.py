"""The schema and the loading of params.yaml; nobody else reads it.

The file is read as DVC reads it (ruamel, YAML 1.2), so that a stage computes with the values that dvc.lock records.
Everything is checked at load, before a stage does work; each fault is one line that names the line of the file.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipeline import paths
from pipeline.errors import ParamsError, did_you_mean

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

PACKAGE = Path(__file__).parent
TASKS = ("classification", "detection", "segmentation")
GENERATIVE = "generative"
HEADS = "heads"
MAX_VALUES = 100_000  # after aliases are expanded: far above any job, far below what an alias bomb makes

Location = tuple[str | int, ...]
Split = Literal["train", "val", "test"]
Name = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Options = dict[str, Any]


class Section(BaseModel):
    """A mapping of params.yaml: every key known, no value converted to another type, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class Online(Section):
    """Light augmentation of the batches of a training.

    Attributes:
        flip: probability of a left-right flip, 0..1.
        crop: largest share of the side that a random crop takes away, 0 up to 1.
        mixup: alpha of the beta distribution that mixes pairs; 0 mixes none.
    """

    flip: Share = 0.0
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0


class Training(Section):
    """How a network is trained: a run's own `training` over `defaults.training`.

    Attributes:
        warmup_epochs: epochs, whole or not, in which the learning rate rises to `lr`.
        clip_norm: largest norm of the gradient; 0 does not clip.
        ema_decay: decay per step of the averaged weights; 0 keeps no average.
        backbone_lr_factor: learning rate of a pretrained backbone as a share of `lr`.
        image_size: side that images are stretched to; None where all images share one size.
    """

    epochs: Count
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"]
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "constant", "linear"]
    warmup_epochs: Annotated[float, Field(ge=0)]
    batch_size: Count
    clip_norm: Annotated[float, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    backbone_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    image_size: Annotated[int, Field(ge=1, le=8192)] | None = None
    online: Online = Online()


class Defaults(Section):
    """What holds for every stage.

    Attributes:
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads that a stage computes with; the weights depend on it.
        training: the part of `Training` that a run's own section does not say.
    """

    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    precision: Literal["auto", "float32", "bfloat16"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    training: Options


class Tracking(Section):
    """Where MLflow keeps its runs; `timeout` is in seconds."""

    uri: Name
    experiment: Name
    required: bool
    timeout: Annotated[float, Field(gt=0, le=3600)]


class Dataset(Section):
    """A source, `pipeline/data/datasets/<source>.py`, and its options."""

    source: Name
    options: Options


class Augmentation(Section):
    """Materialised copies of a training split; `transforms` are albumentations' names and arguments."""

    inputs: Name
    copies: Annotated[int, Field(ge=1, le=1000)]
    min_visibility: Share
    transforms: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Features(Section):
    """A frozen backbone over a dataset; `image_size` is the side in pixels that images are resized to."""

    inputs: Name
    backbone: Name
    weights: Name
    image_size: Annotated[int, Field(ge=1, le=8192)]
    batch_size: Count


class Prediction(Section):
    """Which split a run predicts, and how many images at once."""

    split: Split
    batch_size: Count


class ClassificationEvaluation(Section):
    """`top_k`: the k of the second accuracy."""

    top_k: Count


class DetectionEvaluation(Section):
    """What is kept of the raw boxes; `iou_threshold` is of suppression within a class."""

    score_threshold: Share
    iou_threshold: Share
    max_detections: Count


class SegmentationEvaluation(Section):
    """Nothing to choose: label maps are compared as they are."""


EVALUATIONS: dict[str, type[Section]] = {
    "classification": ClassificationEvaluation,
    "detection": DetectionEvaluation,
    "segmentation": SegmentationEvaluation,
}


class Run(Section):
    """A model on a dataset; `training` is None for heads, which scikit-learn fits by their `model_params` alone."""

    model: Name
    dataset: Name
    inputs: Name
    model_params: Options
    training: Training | None
    prediction: Prediction
    evaluation: ClassificationEvaluation | DetectionEvaluation | SegmentationEvaluation

    @property
    def task(self) -> str:
        """classification, detection or segmentation."""
        return task_of(self.model)


class Sampling(Section):
    """How many images a generator draws; `options` are its own."""

    num_samples: Count
    batch_size: Count
    options: Options


class GeneratorEvaluation(Section):
    """The split of real images that samples are held against."""

    reference: Split


class Generator(Section):
    """A generative model on a dataset; `features` names the space in which its samples are judged."""

    model: Name
    dataset: Name
    inputs: Name
    model_params: Options
    training: Training
    sampling: Sampling
    features: Name
    evaluation: GeneratorEvaluation

    @property
    def task(self) -> str:
        """Always "generative"."""
        return task_of(self.model)


class Visualisation(Section):
    """A method of `pipeline/visualise/<module>.py` over a checkpoint, features or a dataset."""

    module: Name
    method: Name
    dataset: Name
    inputs: Name
    options: Options


class Params(Section):
    """All of params.yaml, checked."""

    defaults: Defaults
    tracking: Tracking
    datasets: dict[str, Dataset]
    augmentations: dict[str, Augmentation]
    features: dict[str, Features]
    runs: dict[str, Run]
    generators: dict[str, Generator]
    visualisations: dict[str, Visualisation]

    @cached_property
    def learners(self) -> dict[str, Run | Generator]:
        """Runs and generators under one roof, for their names are unique over both."""
        return {**self.runs, **self.generators}

    def learner(self, name: str) -> Run | Generator:
        """The run or generator of that name.

        Raises:
            ParamsError: there is none.
        """
        if name not in self.learners:
            raise ParamsError(f"{paths.PARAMS}: no run or generator {name!r}; {did_you_mean(name, self.learners)}")
        return self.learners[name]

    def dataset_of(self, inputs: str) -> str:
        """The dataset from which an `inputs:` place such as `augmented/scenes_varied` derives."""
        kind, _, name = inputs.partition("/")
        if kind == "augmented":
            return self.dataset_of(self.augmentations[name].inputs)
        if kind == "features":
            return self.dataset_of(self.features[name].inputs)
        return self.learners[name].dataset if kind == "checkpoints" else name


def task_of(model: str) -> str:
    """The task of a model's folder; heads on features classify."""
    folder = model.partition("/")[0]
    return "classification" if folder == HEADS else folder


def load(path: Path = paths.PARAMS) -> Params:
    """Reads and checks params.yaml.

    Raises:
        ParamsError: the file cannot be read or anything in it is wrong.
    """
    return _Loader(path).load()


class _Fault(Exception):
    """What is wrong at one place of the file."""

    def __init__(self, at: Location, message: str) -> None:
        super().__init__(message)
        self.at, self.message = at, message


class _Loader:
    """Reads one params file; faults are gathered so that the first in the file is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[_Fault] = []

    def load(self) -> Params:
        self.text = _read_text(self.path)
        self.content = _parse(self.path, self.text)
        try:
            _check_values(self.content)
            return self._build()
        except _Fault as fault:
            self.faults.append(fault)
        raise self._error()

    def _error(self) -> ParamsError:
        lines = [_line_of(self.text, fault.at) for fault in self.faults]
        first = min(range(len(lines)), key=lambda i: (lines[i], i))
        more = len(self.faults) - 1
        also = f" ({more} more {'error' if more == 1 else 'errors'})" if more else ""
        fault = self.faults[first]
        return ParamsError(f"{self.path}:{lines[first]} {_dotted(fault.at)}: {fault.message}{also}")

    def _stop_on_faults(self) -> None:
        if self.faults:
            raise self.faults.pop()

    def _build(self) -> Params:
        content = self.content
        if not isinstance(content, dict):
            is_empty = content is None
            raise _Fault(
                (), f"{'the file is empty' if is_empty else 'not a mapping'}; fix: start from a file in recipes/"
            )
        self._check_keys(content)
        self._stop_on_faults()
        defaults = self._section(Defaults, content["defaults"], ("defaults",))
        shared = content["defaults"].get("training") if isinstance(content["defaults"], dict) else None
        if isinstance(shared, dict):
            self._section(Training, {"epochs": 1, **shared}, ("defaults", "training"), partial=True)
        tracking = self._section(Tracking, content["tracking"], ("tracking",))
        self._stop_on_faults()
        mappings = {
            "datasets": self._entries("datasets", lambda at, entry: self._section(Dataset, entry, at)),
            "augmentations": self._entries("augmentations", lambda at, entry: self._section(Augmentation, entry, at)),
            "features": self._entries("features", lambda at, entry: self._section(Features, entry, at)),
            "runs": self._entries("runs", lambda at, entry: self._learner(Run, entry, at, shared)),
            "generators": self._entries("generators", lambda at, entry: self._learner(Generator, entry, at, shared)),
            "visualisations": self._entries(
                "visualisations", lambda at, entry: self._section(Visualisation, entry, at)
            ),
        }
        self._stop_on_faults()
        params = Params.model_construct(defaults=defaults, tracking=tracking, **mappings)
        self.faults.extend(_faults_across(params))
        self._stop_on_faults()
        return params

    def _check_keys(self, content: dict[Any, Any]) -> None:
        for key in content:
            if key not in Params.model_fields:
                self.faults.append(_Fault((key,), f"unknown key; {did_you_mean(str(key), Params.model_fields)}"))
        for key in Params.model_fields:
            if key not in content:
                self.faults.append(_Fault((), f"no section {key!r}; fix: add `{key}:` (`{key}: {{}}` for none)"))

    def _entries(self, mapping: str, build: Callable[[Location, Any], Any]) -> dict[str, Any]:
        content = self.content[mapping]
        if not isinstance(content, dict):
            raise _Fault((mapping,), f"not a mapping ({content!r}); fix: `{mapping}: {{}}` for none")
        entries = {}
        for name, entry in content.items():
            if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+", name):
                self.faults.append(_Fault((mapping, name), "a name holds only a-z, 0-9 and _; fix: rename this entry"))
            else:
                entries[name] = build((mapping, name), entry)
        return entries

    def _section(self, schema: type[Section], content: Any, at: Location, partial: bool = False) -> Any:
        """The section, or None with its faults noted; a `partial` one may lack keys."""
        try:
            return schema.model_validate(content)
        except ValidationError as error:
            for detail in error.errors():
                if not (partial and detail["type"] == "missing"):
                    self.faults.append(_Fault((*at, *detail["loc"]), _explain(schema, detail)))
        return None

    def _learner(self, schema: type[Run | Generator], entry: Any, at: Location, shared: Any) -> Any:
        """A run or generator, its training merged over the shared one and its evaluation read by its task."""
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            return self._section(schema, entry, at)
        self._check_model(schema, entry["model"], (*at, "model"))
        entry = dict(entry)
        training = entry.get("training")
        if isinstance(training, dict):
            if schema is Run and entry["model"].startswith(f"{HEADS}/"):
                if training:
                    self.faults.append(
                        _Fault(
                            (*at, "training", next(iter(training))),
                            "a head is fitted by its model_params; fix: write `training: {}`",
                        )
                    )
                entry["training"] = None
            else:
                merged = _merge(shared or {}, training)
                entry["training"] = self._section(Training, merged, (*at, "training"))
        evaluation = EVALUATIONS.get(task_of(entry["model"]))
        if schema is Run and evaluation and "evaluation" in entry:
            entry["evaluation"] = self._section(evaluation, entry["evaluation"], (*at, "evaluation"))
        if any(fault.at[:2] == at for fault in self.faults):
            # what is wrong inside is told already; here only what the section as a whole gets wrong
            for key in ("training", "evaluation"):
                if entry.get(key, 0) is None and key in schema.model_fields:
                    entry.pop(key)
            return self._section(schema, entry, at, partial=True)
        return self._section(schema, entry, at)

    def _check_model(self, schema: type[Run | Generator], model: str, at: Location) -> None:
        folders = (GENERATIVE,) if schema is Generator else (HEADS, *TASKS)
        choices = [f"{folder}/{name}" for folder in folders for name in plug_ins(f"models/{folder}")]
        if model not in choices:
            self.faults.append(_Fault(at, f"no model {model!r}; {did_you_mean(model, choices)}"))


def plug_ins(folder: str) -> list[str]:
    """Names of the modules in a folder of the package, such as `models/detection`."""
    return sorted(path.stem for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_"))


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; fix: run in the folder of the project") from None
    except IsADirectoryError:
        raise ParamsError(f"{path}: a folder, not a file; fix: put params.yaml there") from None
    except OSError as error:
        raise ParamsError(f"{path}: not readable ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ParamsError(
            f"{path}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); fix: save as UTF-8"
        ) from None


def _parse(path: Path, text: str) -> Any:
    """The content by DVC's rules.

    Raises:
        ParamsError: not YAML, a key twice, a tag, a merge key, or nested too deeply; names the line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"(<{7}|>{7}|\|{7})( |$)|={7}$", line):
            raise ParamsError(f"{path}:{number}: a merge marker ({line[:7]}); fix: resolve the conflict")
    try:
        if "<<" in text:
            _refuse_merge_keys(path, text)
        return YAML(typ="safe").load(text)
    except DuplicateKeyError:
        at, first, second = next(_duplicates(text))
        raise ParamsError(f"{path}:{second} {_dotted(at)}: key twice, first in line {first}; fix: keep one") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line_number = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        hint = "fix: indent with spaces, not tabs" if "\\t" in problem else "fix: correct the YAML there"
        if "constructor for the tag" in problem:
            hint = "fix: write a plain value; tags are never run"
        raise ParamsError(f"{path}{line_number}: not valid YAML ({problem}); {hint}") from None
    except (YAMLError, ValueError) as error:
        raise ParamsError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise ParamsError(f"{path}: nested too deeply; fix: write it flat") from None


def _refuse_merge_keys(path: Path, text: str) -> None:
    """Merge keys multiply before they can be counted, and `dvc exp run -S` edits what they share."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import ScalarEvent

    for event in YAML(typ="rt").parse(text):
        if isinstance(event, ScalarEvent) and event.value == "<<" and event.style is None:
            raise ParamsError(
                f"{path}:{event.start_mark.line + 1}: a merge key (<<); fix: put what runs share under defaults.training"
            )


def _check_values(content: Any) -> None:
    """Counts values as often as aliases repeat them and refuses what JSON cannot say.

    Raises:
        _Fault: too many values, a key that is not text, a date, NaN or infinity.
    """
    pending: list[tuple[Location, Any]] = [((), content)]
    count = 0
    while pending:
        at, value = pending.pop()
        count += 1
        if count > MAX_VALUES:
            raise _Fault(at[:2], f"more than {MAX_VALUES} values once aliases are expanded; fix: write no such aliases")
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise _Fault((*at, key), f"a key that is not text ({key!r}); fix: quote it")
                pending.append(((*at, key), inner))
        elif isinstance(value, list):
            pending.extend(((*at, index), inner) for index, inner in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise _Fault(at, f"not a finite number ({value})")
        elif not isinstance(value, (str, int, float, bool, type(None))):
            raise _Fault(at, f"neither text nor a number ({value}); fix: quote it")


def _merge(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `shared`; sections inside merge likewise."""
    merged = dict(shared)
    for key, value in own.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _explain(schema: type[BaseModel], detail: ErrorDetails) -> str:
    """One of pydantic's errors in the project's words."""
    kind, value = detail["type"], detail["input"]
    *parents, last = detail["loc"] or (None,)
    if kind == "extra_forbidden":
        fields = _schema_at(schema, tuple(parents)).model_fields
        return f"unknown key; {did_you_mean(str(last), fields)}"
    if kind == "missing":
        return f"missing; fix: write `{last}: ...` there"
    if kind == "string_pattern_mismatch" and last == "device":
        return f"choices: auto, cpu, cuda, cuda:0 ({_shown(value)})"
    message = detail["msg"].removeprefix("Input should be ")
    return f"should be {message} ({_shown(value)})"


def _schema_at(schema: type[BaseModel], location: Location) -> type[BaseModel]:
    for key in location:
        inner = schema.model_fields[str(key)].annotation if str(key) in schema.model_fields else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            schema = inner
    return schema


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _faults_across(params: Params) -> Iterator[_Fault]:
    """What no single entry shows: names that are shared, dangle or do not fit each other."""
    for first, second, share in (("datasets", "augmentations", "reports"), ("runs", "generators", "checkpoints")):
        for name in getattr(params, second):
            if name in getattr(params, first):
                yield _Fault((second, name), f"also a name in {first}, and both share {share}; fix: rename one")
    sources = plug_ins("data/datasets")
    for name, dataset in params.datasets.items():
        if dataset.source not in sources:
            at = ("datasets", name, "source")
            yield _Fault(at, f"no source {dataset.source!r}; {did_you_mean(dataset.source, sources)}")
    for name, augmentation in params.augmentations.items():
        yield from _inputs_faults(params, ("augmentations", name), augmentation.inputs, ("raw", "augmented"))
        for index, transform in enumerate(augmentation.transforms):
            if not isinstance(transform.get("name"), str):
                at = ("augmentations", name, "transforms", index)
                yield _Fault(at, "no name; fix: write `name:` and one of albumentations' transforms")
    yield from _cycles(params)
    for name, features in params.features.items():
        yield from _inputs_faults(params, ("features", name), features.inputs, ("raw", "augmented"))
        if _leaves_project(features.weights):
            at = ("features", name, "weights")
            yield _Fault(at, f"outside the project ({features.weights!r}); fix: copy it in and name it from there")
    for name, run in params.runs.items():
        kinds = ("features",) if run.model.startswith(f"{HEADS}/") else ("raw", "augmented")
        yield from _inputs_faults(params, ("runs", name), run.inputs, kinds, run.dataset)
    for name, generator in params.generators.items():
        at = ("generators", name)
        yield from _inputs_faults(params, at, generator.inputs, ("raw", "augmented"), generator.dataset)
        yield from _features_faults(params, at, generator)
    modules = plug_ins("visualise")
    for name, visualisation in params.visualisations.items():
        at = ("visualisations", name)
        kinds = ("raw", "augmented", "features", "checkpoints")
        yield from _inputs_faults(params, at, visualisation.inputs, kinds, visualisation.dataset)
        if visualisation.module not in modules:
            near = did_you_mean(visualisation.module, modules)
            yield _Fault((*at, "module"), f"no module {visualisation.module!r}; {near}")


def _inputs_faults(
    params: Params, entry: Location, inputs: str, kinds: tuple[str, ...], dataset: str | None = None
) -> Iterator[_Fault]:
    at = (*entry, "inputs")
    kind, _, name = inputs.partition("/")
    if kind not in kinds:
        allowed = " or ".join(f"{each}/NAME" for each in kinds)
        yield _Fault(at, f"should be {allowed} ({_shown(inputs)})")
        return
    names = {
        "raw": params.datasets,
        "augmented": params.augmentations,
        "features": params.features,
        "checkpoints": params.learners,
    }[kind]
    if name not in names:
        yield _Fault(at, f"no {inputs!r}; {did_you_mean(inputs, (f'{kind}/{each}' for each in names))}")
        return
    if dataset is None:
        return
    if dataset not in params.datasets:
        yield _Fault((*entry, "dataset"), f"no dataset {dataset!r}; {did_you_mean(dataset, params.datasets)}")
        return
    try:
        derived = params.dataset_of(inputs)
    except (KeyError, RecursionError):
        return  # the entry in between is told by itself
    if derived != dataset:
        yield _Fault((*entry, "dataset"), f"its inputs derive from {derived!r} ({dataset!r}); fix: write {derived}")


def _features_faults(params: Params, entry: Location, generator: Generator) -> Iterator[_Fault]:
    at = (*entry, "features")
    if generator.features not in params.features:
        near = did_you_mean(generator.features, params.features)
        yield _Fault(at, f"no features {generator.features!r}; {near}")
        return
    try:
        derived = params.dataset_of(f"features/{generator.features}")
    except (KeyError, RecursionError):
        return
    if derived != generator.dataset:
        yield _Fault(
            at, f"features of {derived!r}, not of {generator.dataset!r}; fix: name features of {generator.dataset}"
        )


def _cycles(params: Params) -> Iterator[_Fault]:
    for start in params.augmentations:
        seen, name = {start}, start
        while name in params.augmentations and params.augmentations[name].inputs.startswith("augmented/"):
            name = params.augmentations[name].inputs.partition("/")[2]
            if name in seen:
                yield _Fault(("augmentations", start, "inputs"), "derives from itself; fix: start from raw/NAME")
                break
            seen.add(name)


def _leaves_project(name: str) -> bool:
    return name.startswith(("/", "~", "file:")) or ".." in Path(name).parts


def _dotted(at: Location) -> str:
    return ".".join(str(key) for key in at) or "top level"


def _line_of(text: str, at: Location) -> int:
    """The line of a key, or of the nearest section around it that the file has."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    node: Node = YAML(typ="rt").compose(text)
    line = node.start_mark.line + 1 if node is not None else 1
    for key in at:
        found = None
        if isinstance(node, MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
        elif isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = (node.value[key], node.value[key])
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _duplicates(text: str) -> Iterator[tuple[Location, int, int]]:
    """Keys that stand twice in one mapping: where, and both lines."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    pending: list[tuple[Location, Node]] = [((), YAML(typ="rt").compose(text))]
    while pending:
        at, node = pending.pop(0)
        if isinstance(node, MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in lines:
                    yield (*at, key.value), lines[key.value], line
                lines[key.value] = line
                pending.append(((*at, key.value), value))
        elif isinstance(node, SequenceNode):
            pending.extend(((*at, index), value) for index, value in enumerate(node.value))


def check_options(function: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    """Holds plain options against the keyword-only signature of the function that they go to.

    Args:
        function: its keyword-only parameters are the schema: names, annotations, and which have a default.
        options: the options as params.yaml has them.
        where: their place there, such as `runs.unet_scenes.model_params`.

    Raises:
        ParamsError: an unknown or missing key, or a value of another type; nothing is converted.
    """
    signature = inspect.signature(function)
    owner = function.__init__ if inspect.isclass(function) else function
    scope = getattr(inspect.unwrap(owner), "__globals__", {})
    schema = {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    is_open = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key, value in options.items():
        if key in schema:
            _check_option(schema[key], value, scope, f"{where}.{key}")
        elif not is_open:
            raise _option_error(f"{where}.{key}", f"unknown key; {did_you_mean(key, schema)}")
    for key, parameter in schema.items():
        if parameter.default is parameter.empty and key not in options:
            raise _option_error(where, f"no {key!r}; fix: write `{key}: ...` there")


def _check_option(parameter: inspect.Parameter, value: Any, scope: dict[str, Any], where: str) -> None:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, scope)
        except NameError:
            return
    if annotation is parameter.empty:
        return
    try:
        # as JSON, where a list may stand for a tuple and nothing else is converted
        TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_json(json.dumps(value))
    except ValidationError as error:
        detail = error.errors()[0]
        inner = "".join(f".{key}" for key in detail["loc"] if isinstance(key, int))
        raise _option_error(where + inner, _explain(BaseModel, detail)) from None


def _option_error(where: str, message: str) -> ParamsError:
    try:
        at = tuple(int(key) if key.isdigit() else key for key in where.split("."))
        place = f"{paths.PARAMS}:{_line_of(_read_text(paths.PARAMS), at)}"
    except Exception:  # the line is a courtesy: options may also come from a file that is not there
        place = str(paths.PARAMS)
    return ParamsError(f"{place} {where}: {message}")
