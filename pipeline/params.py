"""The schema and the loading of params.yaml; nobody else reads it.

The file is read as DVC reads it (ruamel, YAML 1.2), so that a stage computes with the values that dvc.lock records.
Everything is checked at load, before a stage does work; each fault is one line that names the line of the file.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipeline import paths
from pipeline.document import Document, Location
from pipeline.errors import ParamsError, did_you_mean

PACKAGE = Path(__file__).parent
TASKS = ("classification", "detection", "segmentation", "regression")
GENERATIVE = "generative"
HEADS = "heads"
TRIVIAL_FOILS = {"majority": "classification", "chance": "classification", "mean": "regression"}
"""Answers that have not looked at the image, and their tasks."""
TRIVIALLY_JUDGED = ("top1", "balanced_accuracy")
"""The metrics that ask a classifier for a class only, not for a ranking or probabilities."""
FITTED = (HEADS, "regression")
"""Folders of models that are fitted at once to stored numbers, by their `model_params` alone."""
INPUTS_OF = {HEADS: ("features",), "regression": ("features", "raw")}
"""What these are fitted to: extracted features, or the numbers of a table."""
HANDMADE_BACKBONES = ("pixels", "colour_histogram", "hog", "visual_words")
"""Backbones that are no network."""
LEARNT_BACKBONES = ("visual_words",)
"""Backbones that are fitted to a dataset's own images."""

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
        cutmix: alpha of the beta distribution of the area that a pair exchanges; 0 exchanges none.
        cutout: side of the square that is blanked, as a share of the image's; 0 blanks none.
    """

    flip: Share = 0.0
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    cutout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Distillation(Section):
    """A student that learns from the answers of the run whose checkpoint is its input (Hinton et al. 2015).

    Attributes:
        temperature: by which both divide their logits.
        weight: of the teacher's answers in the loss, 0..1; the labels have the rest.
    """

    temperature: Annotated[float, Field(gt=0)] = 2.0
    weight: Share = 0.5


class Training(Section):
    """How a network is trained: a run's own `training` over `defaults.training`.

    Attributes:
        splits: what is learnt from; `val` as well, once all choices have been made on it: nothing is held out then.
        momentum: of sgd and rmsprop.
        nesterov: sgd looks ahead by its momentum.
        warmup_epochs: epochs, whole or not, in which the learning rate rises to `lr`.
        milestones: of the schedule `step`: shares of the training after each of which `lr` is multiplied by
            `step_factor`.
        batch_size: images; `auto`: the largest power of two that memory holds; `all`: the whole split at each step.
        accumulate: batches whose gradients make one step.
        clip_norm: largest norm of the gradient; 0 does not clip.
        ema_decay: decay per step of the averaged weights; 0 keeps no average.
        l1: weight of the sum of the absolute weights, by proximal steps beside the loss that is told; with
            `weight_decay` an elastic net.
        backbone_lr_factor: learning rate of pretrained weights, and of those of a checkpoint, as a share of `lr`.
        layer_decay: factor on the learning rate from each layer to the one before it; 1 treats all alike.
        freeze: beginnings of names of parameters that stay as they are.
        loss: of classification.
        init: how weights begin, `pipeline/models/initialisation.py`; default: as the network's file says.
        keep: the weights of the last epoch, or of the best by `monitor`.
        monitor: a column of training.csv.
        patience: epochs without a better `monitor` after which training ends; None: it never does early.
        folds: so many parts of train and val, each held out once before the run itself is trained; 0: none.
        retrain: once the best epoch is known, train anew on train and val, as long.
        compile: through torch.compile.
        image_size: side that images are stretched to; None where all images share one size.
        distillation: learn from the answers of the run that is the input.
        seeds: the run is trained once with each; the first one's answers are reported, the others say how far its
            scores depend on chance. Empty: `defaults.seed` alone.
    """

    epochs: Count
    splits: Annotated[list[Literal["train", "val"]], Field(min_length=1)] = ["train"]
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop", "adagrad", "lbfgs"]
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "constant", "linear", "step", "inverse_sqrt"]
    milestones: list[Share] = [0.5, 0.75]
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)]
    batch_size: Count | Literal["auto", "all"]
    accumulate: Count = 1
    clip_norm: Annotated[float, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    l1: Annotated[float, Field(ge=0)] = 0.0
    backbone_lr_factor: Annotated[float, Field(ge=0)] = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze: list[Name] = []
    loss: Literal["cross_entropy", "hinge", "binary_cross_entropy"] = "cross_entropy"
    init: Literal["default", "zeros", "small_gaussian", "xavier", "kaiming"] = "default"
    keep: Literal["last", "best"] = "last"
    monitor: Name = "val_loss"
    patience: Count | None = None
    folds: Annotated[int, Field(ge=0, le=100)] = 0
    retrain: bool = False
    compile: bool = False
    image_size: Annotated[int, Field(ge=1, le=8192)] | None = None
    distillation: Distillation | None = None
    online: Online = Online()
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = []


class Defaults(Section):
    """What holds for every stage.

    Attributes:
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads that a stage computes with; the weights depend on it.
        launch: what starts training, extraction, prediction and sampling on many devices, such as `accelerate launch`
            or `torchrun --nproc-per-node 4`.
        training: the part of `Training` that a run's own section does not say.
    """

    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    precision: Literal["auto", "float32", "bfloat16"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    launch: str = ""
    training: Options


class Tracking(Section):
    """Where MLflow keeps its runs; `timeout` is in seconds."""

    uri: Name
    experiment: Name
    required: bool
    timeout: Annotated[float, Field(gt=0, le=3600)]


class Dataset(Section):
    """A source, `pipeline/data/datasets/<source>.py`, and its options.

    Attributes:
        inputs: the file, folder or address that the source reads, on which DVC makes the stage depend; a source that
            reads nothing of the user's names requirements.lock, for its data come with or by the installed packages.
    """

    source: Name
    inputs: Name
    options: Options


class Augmentation(Section):
    """Materialised copies of a training split.

    Attributes:
        copies: of each image.
        min_visibility: share of an object that must stay in sight.
        transforms: each `name` and arguments as albumentations calls them, or `preset`, one of
            `pipeline/data/presets.py`, and its options.
    """

    inputs: Name
    copies: Annotated[int, Field(ge=1, le=1000)]
    min_visibility: Share
    transforms: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Features(Section):
    """A frozen backbone over a dataset.

    Attributes:
        image_size: side in pixels that images are resized to.
        options: of a hand-made backbone, `pipeline/models/handmade.py`; networks have none.
    """

    inputs: Name
    backbone: Name
    weights: Name
    image_size: Annotated[int, Field(ge=1, le=8192)]
    batch_size: Count
    options: Options = {}


class Prediction(Section):
    """Which split a run predicts, and how many images at once.

    Attributes:
        augment: views of each image over which a classifier's answers are averaged, besides the image itself.
        ensemble: the answers of all `training.seeds` are averaged (deep ensembles, Lakshminarayanan et al. 2017).
        fold: batch norms stand inside the layers before them, which gives the same answers up to rounding.
    """

    split: Split
    batch_size: Count
    augment: list[Literal["flip", "shift"]] = []
    ensemble: bool = False
    fold: bool = False


class ClassificationEvaluation(Section):
    """`top_k`: the k of the second accuracy."""

    top_k: Count


class DetectionEvaluation(Section):
    """What is kept of the raw boxes.

    Attributes:
        iou_threshold: of suppression: the overlap from which a better box suppresses, weakens or absorbs another.
        max_detections: of an image, the best of all classes.
        suppression: greedy or by DIoU within a class, greedy over all classes (agnostic), soft, or weighted box fusion.
    """

    score_threshold: Share
    iou_threshold: Share
    max_detections: Count
    engine: Literal["native", "pycocotools"] = "native"
    suppression: Literal["greedy", "agnostic", "soft_linear", "soft_gaussian", "diou", "fusion"] = "greedy"


class SegmentationEvaluation(Section):
    """Nothing to choose: label maps are compared as they are."""


class RegressionEvaluation(Section):
    """Nothing to choose: numbers are compared as they are."""


EVALUATIONS: dict[str, type[Section]] = {
    "classification": ClassificationEvaluation,
    "detection": DetectionEvaluation,
    "segmentation": SegmentationEvaluation,
    "regression": RegressionEvaluation,
}


class Run(Section):
    """A model on a dataset; `training` is None for those of FITTED, which their `model_params` alone decide.

    Attributes:
        inputs: images or features; or `checkpoints/RUN`, from whose weights a network begins or, with
            `training.distillation`, from whose answers it learns.
    """

    model: Name
    dataset: Name
    inputs: Name
    model_params: Options
    training: Training | None
    prediction: Prediction
    evaluation: ClassificationEvaluation | DetectionEvaluation | SegmentationEvaluation | RegressionEvaluation

    @property
    def task(self) -> str:
        """One of TASKS."""
        return task_of(self.model)

    @property
    def parent(self) -> str | None:
        """The run whose checkpoint is the input; None where there is none."""
        kind, _, name = self.inputs.partition("/")
        return name if kind == "checkpoints" else None

    @property
    def images(self) -> str:
        """The place of its images: the inputs, or the raw store of its dataset where the inputs are a checkpoint."""
        return self.inputs if self.parent is None else f"raw/{self.dataset}"

    @property
    def judged_on(self) -> Split:
        """The split that it predicts."""
        return self.prediction.split


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

    @property
    def images(self) -> str:
        """The place of its images."""
        return self.inputs

    @property
    def judged_on(self) -> Split:
        """The split that its samples are held against."""
        return self.evaluation.reference


class Visualisation(Section):
    """A method of `pipeline/visualise/<module>.py` over a checkpoint, features or a dataset."""

    module: Name
    method: Name
    dataset: Name
    inputs: Name
    options: Options


class Robustness(Section):
    """A run on corrupted images of the split that it predicts.

    Attributes:
        run: of `runs`; `dataset` is that of the run.
        metric: the figure that is held against the one on clean images.
        corruptions: keys of CORRUPTIONS in `pipeline/data/corruptions.py`; empty: all fifteen.
        severities: each 1 to 5.
        num_images: so many images at even steps; None: all.
    """

    run: Name
    dataset: Name
    metric: Name
    corruptions: list[Name]
    severities: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=1)]
    num_images: Count | None = None


class Contrast(Section):
    """An idea beside what it is held against, so that a reader sees what it does.

    Attributes:
        idea: a run or a generator.
        foil: another one of the same task, dataset and split; or for a classifier `majority`, the answer that every
            image is of the most frequent class of the training split, or `chance`, a class drawn evenly; or for a
            regression `mean`, that of the true numbers.
        metric: of the task, one of which it is said which way is better.
        claim: what is said of the idea, in one sentence.
    """

    idea: Name
    foil: Name
    metric: Name
    claim: Name


class Range(Section):
    """An interval of numbers.

    Attributes:
        low, high: both belong to it.
        log: spread evenly in the logarithm, as learning rates and decays should be.
        integer: whole numbers only.
        steps: of a grid: so many values at even steps, ends included.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    steps: Annotated[int, Field(ge=2, le=10**6)] | None = None


class Choices(Section):
    """Values of any kind, of which one is taken."""

    choices: Annotated[list[Any], Field(min_length=1)]


class Search(Section):
    """A search for the options of a run that do best on its validation split.

    Attributes:
        run: of `runs`; `model`, `dataset` and `inputs` are those of the run.
        space: from dotted keys of the run (`training.lr`, `model_params.layers`) to what is tried.
        method: grid: the whole product; random: independent draws (Bergstra and Bengio 2012); bayesian: draws where
            earlier trials did well (tree-structured Parzen estimator, Bergstra et al. 2011).
        trials: how many; a grid has as many as its product.
        metric: a column `val_...` of training.csv.
        epochs: of each trial; None: as many as the run has.
        pruning: median: a trial that is worse than the median of those before it at the same epoch ends early.
        storage: an address as SQLAlchemy has them, that many machines share, or `$NAME` of the environment variable
            that holds it; empty: a file of this machine.
    """

    run: Name
    model: Name
    dataset: Name
    inputs: Name
    space: Annotated[dict[str, Range | Choices], Field(min_length=1)]
    method: Literal["grid", "random", "bayesian"]
    metric: Name
    trials: Count | None = None
    epochs: Count | None = None
    pruning: Literal["none", "median"] = "none"
    storage: str = ""


class Gate(Section):
    """A limit on one metric of a comparison.

    Attributes:
        min_delta: the least gain of the head over the base; negative: what a change may cost. A gain is a fall where
            lower is better.
        level: share of the interval of the difference (above 0.5) that must lie below `min_delta` for the gate to
            fail; None: the difference itself is held against it, noise and all.
        floor: the least value of the head, the greatest where lower is better.
    """

    min_delta: float | None = None
    level: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    floor: float | None = None


class Compare(Section):
    """What `pipeline compare` asks of a branch: by pattern of run names, by metric."""

    gates: dict[str, dict[str, Gate]] = {}


class Resources(Section):
    """What stages take of a machine while they run, for `pipeline repro`; what is not said is derived from their work.

    Attributes:
        threads: cores that are kept free for the stage; it computes with `defaults.threads` all the same.
        memory_gb: its peak; without it, that of its last run.
        device: gpu: it has one to itself, where there are any; cpu: it sees none.
    """

    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_gb: Annotated[float, Field(ge=0, le=2**20)] | None = None
    device: Literal["cpu", "gpu"] | None = None


class Params(Section):
    """All of params.yaml, checked; a key of `resources` is a command, an entry of a section, or `command@entry`."""

    defaults: Defaults
    tracking: Tracking
    datasets: dict[str, Dataset]
    augmentations: dict[str, Augmentation]
    features: dict[str, Features]
    runs: dict[str, Run]
    generators: dict[str, Generator]
    visualisations: dict[str, Visualisation]
    robustness: dict[str, Robustness] = {}
    contrasts: dict[str, Contrast] = {}
    searches: dict[str, Search] = {}
    compare: Compare = Compare()
    resources: dict[str, Resources] = {}

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


def is_fitted(model: str) -> bool:
    """Whether a model is fitted to stored numbers instead of trained on images."""
    return model.partition("/")[0] in FITTED


def load(path: Path = paths.PARAMS) -> Params:
    """Reads and checks params.yaml.

    Raises:
        ParamsError: the file cannot be read or anything in it is wrong.
    """
    document = Document(path)
    checker = _Checker(document.content)
    params = checker.check()
    if params is not None:
        return params
    first = min(checker.faults, key=lambda fault: (fault.is_missing, document.line(fault.at)))
    more = len(checker.faults) - 1
    also = f" ({more} more {'error' if more == 1 else 'errors'})" if more else ""
    raise document.error(first.at, first.message + also)


class _Fault(NamedTuple):
    """What is wrong at one place of the file; a key is often missing because it stands there misspelt."""

    at: Location
    message: str
    is_missing: bool = False


class _Checker:
    """Builds `Params` from the content of a file; faults are gathered, so that the first in the file is told."""

    def __init__(self, content: Any) -> None:
        self.content = content
        self.faults: list[_Fault] = []

    def check(self) -> Params | None:
        """The params, or None where `faults` were found."""
        if not isinstance(self.content, dict):
            what = "the file is empty" if self.content is None else "not a mapping"
            self.faults.append(_Fault((), f"{what}; fix: write the sections {', '.join(Params.model_fields)}"))
            return None
        self._check_keys()
        if self.faults:
            return None
        defaults = self._defaults()
        tracking = self._section(Tracking, self.content["tracking"], ("tracking",))
        if self.faults:
            return None
        shared = defaults.training
        mappings: dict[str, Any] = {
            "datasets": self._entries("datasets", partial(self._section, Dataset)),
            "augmentations": self._entries("augmentations", partial(self._section, Augmentation)),
            "features": self._entries("features", partial(self._section, Features)),
            "runs": self._entries("runs", partial(self._learner, Run, shared)),
            "generators": self._entries("generators", partial(self._learner, Generator, shared)),
            "visualisations": self._entries("visualisations", partial(self._section, Visualisation)),
            "robustness": self._entries("robustness", partial(self._section, Robustness)),
            "contrasts": self._entries("contrasts", partial(self._section, Contrast)),
            "searches": self._entries("searches", self._search),
            "resources": self._entries("resources", partial(self._section, Resources), pattern=r"[a-z0-9_@]+"),
        }
        compare = self._section(Compare, self.content.get("compare", {}), ("compare",))
        if self.faults:
            return None
        params = Params.model_construct(None, defaults=defaults, tracking=tracking, compare=compare, **mappings)
        self.faults.extend(_faults_across(params))
        return None if self.faults else params

    def _check_keys(self) -> None:
        for key in self.content:
            if key not in Params.model_fields:
                self.faults.append(_Fault((key,), f"unknown key; {did_you_mean(key, Params.model_fields)}"))
        for key, field in Params.model_fields.items():
            if key not in self.content and field.is_required():
                self.faults.append(_Fault((), f"no section {key!r}; fix: add `{key}:` (`{key}: {{}}` for none)", True))

    def _defaults(self) -> Any:
        content = self.content["defaults"]
        if isinstance(content, dict) and isinstance(content.get("training"), dict):
            self._section(Training, {"epochs": 1, **content["training"]}, ("defaults", "training"), whole=False)
        return self._section(Defaults, content, ("defaults",))

    def _entries(
        self, mapping: str, build: Callable[[Any, Location], Any], pattern: str = r"[a-z0-9_]+"
    ) -> dict[str, Any]:
        content = self.content.get(mapping, {})  # a section that may be absent
        if not isinstance(content, dict):
            self.faults.append(
                _Fault((mapping,), f"not a mapping ({_shown(content)}); fix: `{mapping}: {{}}` for none")
            )
            return {}
        for name in content:
            if not re.fullmatch(pattern, name):
                self.faults.append(_Fault((mapping, name), "a name holds only a-z, 0-9 and _; fix: rename this entry"))
        return {name: build(entry, (mapping, name)) for name, entry in content.items()}

    def _section(
        self, schema: type[Section], content: Any, at: Location, *, told: Collection[str] = (), whole: bool = True
    ) -> Any:
        """The section, or None with its faults noted.

        Faults of the keys in `told` are noted already; a section that is not `whole` may lack keys.
        """
        try:
            return schema.model_validate(content)
        except ValidationError as error:
            for detail in error.errors():
                is_told = bool(detail["loc"]) and detail["loc"][0] in told
                if not is_told and (whole or detail["type"] != "missing"):
                    is_missing = detail["type"] == "missing"
                    self.faults.append(_Fault((*at, *detail["loc"]), _explain(schema, detail), is_missing))
        return None

    def _learner(self, schema: type[Run | Generator], shared: Options, entry: Any, at: Location) -> Any:
        """A run or generator: its training merged over the shared one, its evaluation read by its task."""
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            return self._section(schema, entry, at)
        model = entry["model"]
        self._check_model(schema, model, (*at, "model"))
        entry = dict(entry)
        for key in ("training", "evaluation"):
            if entry.get(key, "") is None and not (key == "training" and is_fitted(model)):
                self.faults.append(_Fault((*at, key), f"should be a mapping (None); fix: write `{key}: {{}}`"))
        if is_fitted(model) and isinstance(entry.get("training"), dict):
            for key in entry["training"]:
                message = f"{model} is fitted by its model_params; fix: write `training: {{}}`"
                self.faults.append(_Fault((*at, "training", key), message))
            entry["training"] = None
        elif isinstance(entry.get("training"), dict):
            entry["training"] = self._section(Training, merge(shared, entry["training"]), (*at, "training"))
        if schema is Run and isinstance(entry.get("evaluation"), dict):
            evaluation = EVALUATIONS.get(task_of(model))
            entry["evaluation"] = evaluation and self._section(evaluation, entry["evaluation"], (*at, "evaluation"))
        told = {key for key in ("training", "evaluation") if entry.get(key, "") is None}
        return self._section(schema, entry, at, told=told)

    def _search(self, entry: Any, at: Location) -> Any:
        """A search; what is tried is read as a range or as choices, so that the faults told are of the one meant."""
        if isinstance(entry, dict) and isinstance(entry.get("space"), dict):
            entry = dict(entry)
            for key, tried in entry["space"].items():
                schema = Choices if isinstance(tried, dict) and "choices" in tried else Range
                entry["space"] = {**entry["space"], key: self._section(schema, tried, (*at, "space", key))}
            if None in entry["space"].values():
                return None
        return self._section(Search, entry, at)

    def _check_model(self, schema: type[Run | Generator], model: str, at: Location) -> None:
        folders = (GENERATIVE,) if schema is Generator else (HEADS, *TASKS)
        choices = [f"{folder}/{name}" for folder in folders for name in plug_ins(f"models/{folder}")]
        if model not in choices:
            self.faults.append(_Fault(at, f"no model {model!r}; {did_you_mean(model, choices)}"))


def plug_ins(folder: str) -> list[str]:
    """Names of the modules in a folder of the package, such as `models/detection`."""
    return sorted(path.stem for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_"))


def methods() -> dict[str, list[str]]:
    """The modules of `pipeline/visualise` that hold a table METHODS, with its names; read without importing them."""
    found = {module: table_keys(f"visualise/{module}.py", "METHODS") for module in plug_ins("visualise")}
    return {module: names for module, names in found.items() if names is not None}


def table_keys(file: str, table: str) -> list[str] | None:
    """The keys of a module's dict, read without importing it; None where it has no such table."""
    entries = _table(file, table)
    return None if entries is None else [name for name, _ in entries]


def _table(file: str, table: str) -> list[tuple[str, ast.expr]] | None:
    """The keys of a module's dict and what its values are written as; None where it has no such table."""
    for statement in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if not isinstance(statement, ast.AnnAssign | ast.Assign):
            continue
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        if ast.unparse(target) == table:
            value = statement.value
            pairs = zip(value.keys, value.values, strict=True) if isinstance(value, ast.Dict) else ()
            return [(str(key.value), entry) for key, entry in pairs if isinstance(key, ast.Constant)]
    return None


def merge(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `shared`, such as a run's `training` over that of `defaults`; sections inside merge likewise."""
    merged = dict(shared)
    for key, value in own.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _explain(schema: type[BaseModel], detail: ErrorDetails) -> str:
    """One of pydantic's errors in the project's words."""
    kind, value = detail["type"], detail["input"]
    *parents, last = detail["loc"] or ("",)
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(last), _schema_at(schema, parents).model_fields)}"
    if kind == "missing":
        return f"missing; fix: write `{last}: ...` there"
    if last == "device" and schema is Defaults:
        return f"should be auto, cpu, cuda or cuda:N ({_shown(value)})"
    message = detail["msg"].removeprefix("Input should be ")
    return f"should be {message} ({_shown(value)})"


def _schema_at(schema: type[BaseModel], keys: Sequence[str | int]) -> type[BaseModel]:
    """The section that the keys lead to; one that may be None is meant too, and places in a list are passed over."""
    for key in keys:
        annotation = schema.model_fields[str(key)].annotation if str(key) in schema.model_fields else None
        for inner in (annotation, *get_args(annotation)):
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
    at: Location
    sources = plug_ins("data/datasets")
    for name, dataset in params.datasets.items():
        if dataset.source not in sources:
            at = ("datasets", name, "source")
            yield _Fault(at, f"no source {dataset.source!r}; {did_you_mean(dataset.source, sources)}")
            continue
        known = _keywords(f"data/datasets/{dataset.source}.py", "prepare")
        given = None if known is None else set(known) - {"seed", "inputs"}  # which the stage adds
        yield from _unknown_options(("datasets", name, "options"), dataset.options, given)
    presets = table_keys("data/presets.py", "PRESETS")
    for name, augmentation in params.augmentations.items():
        yield from _inputs_faults(params, ("augmentations", name), augmentation.inputs, ("raw", "augmented"))
        for index, transform in enumerate(augmentation.transforms):
            yield from _transform_faults(transform, ("augmentations", name, "transforms", index), presets)
    yield from _cycles(params)
    for name, features in params.features.items():
        yield from _inputs_faults(params, ("features", name), features.inputs, ("raw", "augmented"))
        if _leaves_project(features.weights):
            at = ("features", name, "weights")
            yield _Fault(at, f"outside the project ({features.weights!r}); fix: copy it in and name it from there")
    for name, run in params.runs.items():
        kinds = INPUTS_OF.get(run.model.partition("/")[0], ("raw", "augmented", "checkpoints"))
        # one that begins at a checkpoint says by itself which data it goes on with
        expected = run.dataset if run.parent is None else None
        yield from _inputs_faults(params, ("runs", name), run.inputs, kinds, expected)
        yield from _parent_faults(params, name, run)
        yield from _prediction_faults(name, run)
    for name, generator in params.generators.items():
        at = ("generators", name)
        yield from _inputs_faults(params, at, generator.inputs, ("raw", "augmented"), generator.dataset)
        yield from _features_faults(params, at, generator)
        if generator.training.distillation is not None:
            yield _Fault((*at, "training", "distillation"), "only classifiers are distilled; fix: leave it out")
    for mapping, learners in (("runs", params.runs), ("generators", params.generators)):
        for name, learner in learners.items():
            if learner.training is not None:
                yield from _craft_faults((mapping, name, "training"), learner.task, learner.training)
            options = _options_of(learner.model)
            if options is not None and is_fitted(learner.model):
                options += _keywords("training/fitting.py", "choice") or ()
            yield from _unknown_options((mapping, name, "model_params"), learner.model_params, options)
    yield from _robustness_faults(params)
    yield from _contrast_faults(params)
    yield from _search_faults(params)
    yield from _resources_faults(params)
    modules = methods()
    for name, visualisation in params.visualisations.items():
        at = ("visualisations", name)
        every_kind = ("raw", "augmented", "features", "checkpoints")
        yield from _inputs_faults(params, at, visualisation.inputs, every_kind, visualisation.dataset)
        module, method = visualisation.module, visualisation.method
        if module not in modules:
            yield _Fault((*at, "module"), f"no module {module!r}; {did_you_mean(module, modules)}")
        elif method not in modules[module]:
            yield _Fault((*at, "method"), f"no method {method!r}; {did_you_mean(method, modules[module])}")


def _parent_faults(params: Params, name: str, run: Run) -> Iterator[_Fault]:
    """What is wrong with a run that begins at another one's checkpoint, or should."""
    at: Location = ("runs", name, "inputs")
    distilled = run.training is not None and run.training.distillation is not None
    if run.parent is None:
        if distilled:
            place = ("runs", name, "training", "distillation")
            yield _Fault(place, f"no teacher, its inputs are {run.inputs!r}; fix: write inputs: checkpoints/RUN")
        return
    if run.parent in params.generators or (run.parent in params.runs and params.runs[run.parent].training is None):
        model = params.learners[run.parent].model
        yield _Fault(at, f"{model} has no network to begin from; fix: name a run of a network")
        return
    if run.dataset not in params.datasets:
        yield _Fault(
            ("runs", name, "dataset"), f"no dataset {run.dataset!r}; {did_you_mean(run.dataset, params.datasets)}"
        )
    if run.parent not in params.runs:
        return  # told as an input that is not there
    parent = params.runs[run.parent]
    if parent.task != run.task:
        yield _Fault(at, f"a run of {parent.task}, this one is of {run.task}; fix: name one of {run.task}")
    elif distilled and run.task != "classification":
        place = ("runs", name, "training", "distillation")
        yield _Fault(place, f"only classifiers are distilled, not {run.task}; fix: leave it out")
    elif distilled and parent.dataset != run.dataset:
        yield _Fault(
            ("runs", name, "dataset"),
            f"its teacher is of {parent.dataset!r} ({run.dataset!r}); fix: write {parent.dataset}",
        )
    seen, above = {name}, run.parent
    while above in params.runs:
        if above in seen:
            yield _Fault(at, "begins at itself; fix: begin one of them at raw/NAME")
            return
        seen.add(above)
        above = params.runs[above].parent or ""


def _prediction_faults(name: str, run: Run) -> Iterator[_Fault]:
    at = ("runs", name, "prediction")
    averages = run.task == "classification" and run.training is not None
    if run.prediction.augment and not averages:
        yield _Fault((*at, "augment"), f"answers of {run.model} are not averaged over views; fix: leave it out")
    if run.prediction.ensemble and not averages:
        yield _Fault((*at, "ensemble"), f"answers of {run.model} are not averaged over seeds; fix: leave it out")
    elif run.prediction.ensemble and run.training is not None and len(run.training.seeds) < 2:
        num = len(run.training.seeds)
        yield _Fault((*at, "ensemble"), f"of {num} seeds; fix: write two or more in training.seeds")
    if run.prediction.fold and (run.training is None or run.task not in ("classification", "segmentation")):
        yield _Fault((*at, "fold"), f"the layers of {run.model} cannot be folded; fix: leave it out")


def _craft_faults(at: Location, task: str, training: Training) -> Iterator[_Fault]:
    """Options of a training that its task, or another option, gives no meaning."""
    for key in ("mixup", "cutmix", "cutout"):
        value = getattr(training.online, key)
        if value and task != "classification":
            message = f"changes what {task} is to learn from an image ({value:g}); fix: leave it out"
            yield _Fault((*at, "online", key), message)
    if training.label_smoothing and task not in ("classification", "segmentation"):
        message = f"{task} has no labels to smooth ({training.label_smoothing:g}); fix: write 0.0"
        yield _Fault((*at, "label_smoothing"), message)
    if training.loss != "cross_entropy" and task != "classification":
        yield _Fault((*at, "loss"), f"a loss of classification, not of {task} ({training.loss}); fix: leave it out")
    if training.loss == "hinge":
        shares: dict[Location, float] = {
            ("label_smoothing",): training.label_smoothing,
            ("online", "mixup"): training.online.mixup,
            ("online", "cutmix"): training.online.cutmix,
        }
        for place, value in shares.items():
            if value:
                message = f"gives an image shares of classes, the hinge loss knows one ({value:g}); fix: write 0.0"
                yield _Fault((*at, *place), message)
    if sorted(training.splits) not in (["train"], ["train", "val"]):
        yield _Fault((*at, "splits"), f"not train, or train and val ({_shown(training.splits)}); fix: write train")
    elif len(training.splits) > 1:
        held_out: dict[str, Any] = {"keep": "last", "patience": None, "folds": 0, "retrain": False}
        for key, needed in held_out.items():
            if (value := getattr(training, key)) != needed:
                message = f"nothing is held out where val is learnt from ({_shown(value)}); fix: leave it out"
                yield _Fault((*at, key), message)
    if training.optimizer == "lbfgs":
        needs = {"batch_size": "all", "accumulate": 1, "clip_norm": 0.0, "l1": 0.0, "backbone_lr_factor": 1.0}
        for key, needed in {**needs, "layer_decay": 1.0}.items():
            value = getattr(training, key)
            if value != needed:
                yield _Fault((*at, key), f"lbfgs searches along one smooth loss of all images ({value}); fix: {needed}")


def _robustness_faults(params: Params) -> Iterator[_Fault]:
    choices = table_keys("data/corruptions.py", "CORRUPTIONS") or []
    for name, entry in params.robustness.items():
        at = ("robustness", name)
        if entry.run not in params.runs:
            yield _Fault((*at, "run"), f"no run {entry.run!r}; {did_you_mean(entry.run, params.runs)}")
        elif entry.dataset != (derived := params.runs[entry.run].dataset):
            yield _Fault((*at, "dataset"), f"its run is of {derived!r} ({entry.dataset!r}); fix: write {derived}")
        elif is_fitted(params.runs[entry.run].model) and params.runs[entry.run].inputs == f"raw/{derived}":
            yield _Fault((*at, "run"), f"{entry.run!r} reads the numbers of a table, not its images; fix: another run")
        for index, corruption in enumerate(entry.corruptions):
            if corruption not in choices:
                place = (*at, "corruptions", index)
                yield _Fault(place, f"no corruption {corruption!r}; {did_you_mean(corruption, choices)}")


def _contrast_faults(params: Params) -> Iterator[_Fault]:
    learners = params.learners
    for name, entry in params.contrasts.items():
        at = ("contrasts", name)
        if entry.idea not in learners:
            yield _Fault((*at, "idea"), f"no run or generator {entry.idea!r}; {did_you_mean(entry.idea, learners)}")
            continue
        idea, foil = learners[entry.idea], learners.get(entry.foil)
        metrics = _directed_metrics(idea)
        place = (*at, "foil")
        if foil is not None:
            pairs = {
                "task": (idea.task, foil.task),
                "dataset": (idea.dataset, foil.dataset),
                "split": (idea.judged_on, foil.judged_on),
            }
            unequal = [what for what, (ours, theirs) in pairs.items() if ours != theirs]
            if entry.foil == entry.idea:
                yield _Fault(place, f"the idea itself ({entry.foil!r}); fix: name another run")
            elif unequal:
                ours, theirs = pairs[unequal[0]]
                message = f"its {unequal[0]} is {theirs}, the idea's {ours} ({entry.foil!r}); fix: name one of {ours}"
                yield _Fault(place, message)
        elif entry.foil not in TRIVIAL_FOILS:
            near = did_you_mean(entry.foil, [*learners, *TRIVIAL_FOILS])
            yield _Fault(place, f"no run or generator {entry.foil!r}; {near}")
        elif idea.task != (task := TRIVIAL_FOILS[entry.foil]):
            yield _Fault(place, f"an answer to {task} ({entry.foil!r}); fix: name a run of {idea.task}")
        elif task == "classification":
            metrics = [metric for metric in metrics if metric in TRIVIALLY_JUDGED]
        if entry.metric not in metrics:
            message = (
                f"no metric of {idea.task} to judge this by ({entry.metric!r}); {did_you_mean(entry.metric, metrics)}"
            )
            yield _Fault((*at, "metric"), message)


def _directed_metrics(learner: Run | Generator) -> list[str]:
    """The metrics of its task of which it is said which way is better; read without importing them."""
    entries = _table(f"metrics/{learner.task}.py", "METRICS") or []
    found = [name for name, metric in entries if isinstance(metric, ast.Call) and ast.unparse(metric.args[0]) != "None"]
    if isinstance(learner, Run) and isinstance(learner.evaluation, ClassificationEvaluation):
        return [f"top{learner.evaluation.top_k}" if name == "top5" else name for name in found]
    return found


SINGLE = ("seeds", "folds", "retrain", "keep", "distillation", "compile")
"""Keys of `training` that say what is made of a training, not how it goes; they are not searched."""


def _search_faults(params: Params) -> Iterator[_Fault]:
    for name, entry in params.searches.items():
        at: Location = ("searches", name)
        run = params.runs.get(entry.run)
        if run is None:
            yield _Fault((*at, "run"), f"no run {entry.run!r}; {did_you_mean(entry.run, params.runs)}")
            continue
        for key in ("model", "dataset", "inputs"):
            given, of_run = getattr(entry, key), getattr(run, key)
            if given != of_run:
                yield _Fault((*at, key), f"that of its run is {of_run!r} ({given!r}); fix: write {of_run}")
        if not entry.metric.startswith("val_"):
            yield _Fault((*at, "metric"), f"not of the validation split ({entry.metric!r}); fix: write val_loss")
        if re.search(r"://[^/@]*:[^/@]*@", entry.storage):
            message = "an address with a password, which git would keep; fix: export it and write `storage: $NAME`"
            yield _Fault((*at, "storage"), message)
        if entry.method == "grid" and entry.trials is not None:
            yield _Fault((*at, "trials"), f"a grid tries all of its product ({entry.trials}); fix: leave it out")
        if entry.method != "grid" and entry.trials is None:
            yield _Fault(at, "no 'trials'; fix: write `trials: ...` there", True)
        if entry.epochs is not None and run.training is None:
            yield _Fault((*at, "epochs"), f"{run.model} has none ({entry.epochs}); fix: leave it out")
        for key, tried in entry.space.items():
            yield from _tried_faults(entry, run, key, tried, (*at, "space", key))


def _tried_faults(search: Search, run: Run, key: str, tried: Range | Choices, at: Location) -> Iterator[_Fault]:
    """What is wrong with one key of a space: whether the run has it, and whether the values fit it."""
    if isinstance(tried, Range):
        if not tried.low < tried.high:
            yield _Fault((*at, "high"), f"not above low ({tried.high:g}, low {tried.low:g}); fix: swap them")
            return
        if tried.log and tried.low <= 0:
            yield _Fault((*at, "low"), f"has no logarithm ({tried.low:g}); fix: write a number above 0")
            return
        if tried.integer and not (tried.low.is_integer() and tried.high.is_integer()):
            yield _Fault((*at, "low"), f"not whole ({tried.low:g} to {tried.high:g}); fix: write whole numbers")
            return
        if search.method == "grid" and tried.steps is None:
            yield _Fault(at, "no 'steps', which a grid needs; fix: write `steps: ...` or `choices: ...` there", True)
        if search.method != "grid" and tried.steps is not None:
            yield _Fault((*at, "steps"), f"only a grid has steps ({tried.steps}); fix: leave it out")
        values: list[Any] = [int(end) if tried.integer else end for end in (tried.low, tried.high)]
    else:
        values = tried.choices
        if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            yield _Fault((*at, "choices"), "a choice stands there twice; fix: keep one")
    part, _, inner = key.partition(".")
    if part == "model_params" and inner:
        options = _options_of(run.model)
        if options is not None and inner not in options:
            yield _Fault(at, f"{run.model} has no option {inner!r}; {did_you_mean(inner, options)}")
    elif part == "training" and inner and run.training is not None:
        yield from _training_faults(run.training, inner.split("."), values, at)
    else:
        allowed = "model_params.KEY" if run.training is None else "training.KEY or model_params.KEY"
        yield _Fault(at, f"no such key of a run that can be searched; fix: write {allowed}")


def _training_faults(training: Training, keys: list[str], values: list[Any], at: Location) -> Iterator[_Fault]:
    schema: Any = Training
    for index, key in enumerate(keys):
        fields = [name for name in getattr(schema, "model_fields", {}) if schema is not Training or name not in SINGLE]
        if key not in fields:
            where = ".".join(["training", *keys[:index]])
            yield _Fault(at, f"no {key!r} in {where} that can be searched; {did_you_mean(key, fields)}")
            return
        schema = schema.model_fields[key].annotation
    for value in values:
        try:
            Training.model_validate(with_value(training.model_dump(), keys, value))
        except ValidationError as error:
            yield _Fault(at, _explain(Training, error.errors()[0]))
            return


def with_value(content: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """A nested mapping with another value at the end of a path of keys."""
    first, *rest = keys
    return {**content, first: with_value(content.get(first) or {}, rest, value) if rest else value}


def _options_of(model: str) -> tuple[str, ...] | None:
    """The keys of a model's `model_params`; None where it takes any."""
    return _keywords(f"models/{model}.py", "build", "fit")


@cache
def _keywords(file: str, *functions: str) -> tuple[str, ...] | None:
    """The keyword-only parameters of the first of these functions in a file, read without importing it.

    Returns:
        Their names; None where it takes any, or the file does not say, which is told when it is imported.
    """
    try:
        body = ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body
    except SyntaxError:
        return None
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and statement.name in functions:
            takes_any = statement.args.kwarg is not None
            return None if takes_any else tuple(argument.arg for argument in statement.args.kwonlyargs)
    return None


def _unknown_options(at: Location, options: Options, known: Collection[str] | None) -> Iterator[_Fault]:
    """Keys of plain options that what they go to does not have; their values are checked when they go there."""
    for key in options:
        if known is not None and key not in known:
            yield _Fault((*at, key), f"unknown key; {did_you_mean(key, known)}")


def _resources_faults(params: Params) -> Iterator[_Fault]:
    verbs = plug_ins("stages")
    sections = (
        *("datasets", "augmentations", "features", "runs", "generators", "visualisations", "robustness"),
        "searches",
    )
    names = list(dict.fromkeys(name for section in sections for name in getattr(params, section)))
    for key in params.resources:
        verb, _, name = key.partition("@")
        if not (key in verbs or key in names or (verb in verbs and name in names)):
            near = did_you_mean(key, [*verbs, *names])
            yield _Fault(("resources", key), f"no command, entry or command@entry {key!r}; {near}")


def _transform_faults(transform: Mapping[str, Any], at: Location, presets: Sequence[str] | None) -> Iterator[_Fault]:
    """What can be said of a transform without albumentations, which takes seconds to import."""
    preset, choices = transform.get("preset"), presets or []
    if "name" in transform and "preset" in transform:
        yield _Fault(at, "both a name and a preset; fix: make two entries of it")
    elif "name" not in transform and "preset" not in transform:
        yield _Fault(at, "no name and no preset; fix: write `name:` and one of albumentations' transforms")
    elif "name" in transform and not isinstance(transform["name"], str):
        yield _Fault((*at, "name"), f"should be one of albumentations' transforms ({_shown(transform['name'])})")
    elif "preset" in transform and preset not in choices:
        yield _Fault((*at, "preset"), f"no preset {preset!r}; {did_you_mean(str(preset), choices)}")


def _inputs_faults(
    params: Params, entry: Location, inputs: str, kinds: tuple[str, ...], dataset: str | None = None
) -> Iterator[_Fault]:
    at = (*entry, "inputs")
    kind, _, name = inputs.partition("/")
    if kind not in kinds:
        allowed = " or ".join(f"{each}/NAME" for each in kinds)
        yield _Fault(at, f"should be {allowed} ({_shown(inputs)})")
        return
    mappings: dict[str, Mapping[str, Section]] = {
        "raw": params.datasets,
        "augmented": params.augmentations,
        "features": params.features,
        "checkpoints": params.learners,
    }
    if name not in mappings[kind]:
        yield _Fault(at, f"no {inputs!r}; {did_you_mean(inputs, (f'{kind}/{each}' for each in mappings[kind]))}")
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
    if (backbone := params.features[generator.features].backbone) in LEARNT_BACKBONES:
        yield _Fault(at, f"{backbone!r} is fitted to real images and cannot judge samples; fix: a pretrained backbone")
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
    at = tuple(int(key) if key.isdigit() else key for key in where.split("."))
    try:
        return Document(paths.PARAMS).error(at, message)
    except ParamsError:  # options need not come from a file
        return ParamsError(f"{where}: {message}")
