import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline import params as schema
from pipeline.errors import ParamsError
from pipeline.params import Generator, Run, check_options, load

TOY = (Path(__file__).parent / "toy_params.yaml").read_text(encoding="utf-8")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the toy file, with each pair of texts replaced, as params.yaml of the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(*replacements: tuple[str, str], text: str = TOY) -> Path:
        for old, new in replacements:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        path = Path("params.yaml")
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message(path: Path) -> str:
    """The error of loading `path`, which is one line."""
    with pytest.raises(ParamsError) as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def line_of(text: str) -> int:
    """The line of the toy file in which `text` first stands."""
    return TOY[: TOY.index(text)].count("\n") + 1


def test_a_runs_training_is_merged_over_the_default_one_with_its_sections(write: Write) -> None:
    training = load(write()).runs["resnet"].training
    assert training is not None
    assert (training.epochs, training.lr, training.batch_size) == (8, 0.001, 32)
    assert (training.online.flip, training.online.mixup, training.online.crop) == (0.5, 0.2, 0.0)


def test_a_head_has_no_training(write: Write) -> None:
    params = load(write())
    assert params.runs["linear"].training is None
    assert params.runs["linear"].task == "classification"


def test_learner_finds_runs_and_generators(write: Write) -> None:
    params = load(write())
    assert isinstance(params.learner("resnet"), Run)
    assert isinstance(params.learner("vae"), Generator)
    with pytest.raises(ParamsError, match="did you mean 'resnet'"):
        params.learner("resnett")


@pytest.mark.parametrize(
    ("inputs", "dataset"),
    [
        ("raw/icons", "icons"),
        ("augmented/moved", "digits"),
        ("features/lite0", "digits"),
        ("checkpoints/vae", "digits"),
    ],
)
def test_dataset_of_follows_inputs_to_their_source(write: Write, inputs: str, dataset: str) -> None:
    assert load(write()).dataset_of(inputs) == dataset


def test_numbers_are_read_as_dvc_reads_them(write: Write) -> None:
    numbers = "".join(f"\n        {each}" for each in ("c: 1e-1", "n: 012", "flag: on", "many: 1_000", "at: 12:30:45"))
    params = load(write(("      options: {}", f"      options:{numbers}")))
    # YAML 1.2: 012 is twelve, `on` is text, 12:30:45 is no base-60 number; ruamel keeps 1_000 as a number
    from dvc.utils.serialize import load_yaml

    ours = params.generators["vae"].sampling.options
    assert ours == load_yaml("params.yaml")["generators"]["vae"]["sampling"]["options"]
    assert (ours["c"], ours["n"], ours["flag"], ours["at"]) == (0.1, 12, "on", "12:30:45")


def test_the_projects_own_params_are_right() -> None:
    assert load(Path(__file__).parent.parent / "params.yaml").runs


@pytest.mark.parametrize("old", ["epochs: 8", "batch_size: 256", "threads: 2", "num_samples: 512"])
@pytest.mark.parametrize("value", ["-1", "0", ".nan", ".inf", '"10"', "2.5", "true", "null", "[1]", "{}"])
def test_a_value_that_is_no_positive_integer_is_named(write: Write, old: str, value: str) -> None:
    key = old.split(":", maxsplit=1)[0]
    text = message(write((old, f"{key}: {value}")))
    assert text.startswith(f"params.yaml:{line_of(old)} ")
    assert f".{key}: " in text


@pytest.mark.parametrize(
    ("old", "new", "at", "what"),
    [
        ("epochs: 8", "epocs: 8", "runs.resnet.training.epocs", "unknown key; did you mean 'epochs'?"),
        ("lr: 0.001", "lr: 0", "defaults.training.lr", "greater than 0 (0)"),
        ("lr: 0.001", "lrr: 0.001", "defaults.training.lrr", "unknown key; did you mean 'lr'?"),
        ("mixup: 0.2", "mixupp: 0.2", "runs.resnet.training.online.mixupp", "did you mean 'mixup'?"),
        ("mixup: 0.2", "flip: 1.5", "runs.resnet.training.online.flip", "less than or equal to 1 (1.5)"),
        ("device: auto", "device: gpu", "defaults.device", "auto, cpu, cuda or cuda:N ('gpu')"),
        ("seed: 0", "seed: -1", "defaults.seed", "greater than or equal to 0 (-1)"),
        ("model: heads/linear", "model: heads/liner", "runs.linear.model", "did you mean 'heads/linear'?"),
        ("model: heads/linear", "model: generative/vae", "runs.linear.model", "no model 'generative/vae'"),
        ("model: heads/linear", "model: ../../x", "runs.linear.model", "no model '../../x'"),
        ("model: generative/vae", "model: heads/linear", "generators.vae.model", "choices: generative/"),
        ("source: digits", "source: digitz", "datasets.digits.source", "did you mean 'digits'?"),
        ("module: cam", "module: draw", "visualisations.gradcam.module", "no module 'draw'"),
        ("method: grad_cam", "method: gradcam", "visualisations.gradcam.method", "did you mean 'grad_cam'?"),
        ("inputs: features/lite0", "inputs: features/lite", "runs.linear.inputs", "did you mean 'features/lite0'?"),
        ("inputs: features/lite0", "inputs: raw/digits", "runs.linear.inputs", "should be features/NAME"),
        ("inputs: augmented/moved", "inputs: features/lite0", "runs.resnet.inputs", "should be raw/NAME or augmented"),
        ("inputs: augmented/moved", "inputs: ../x", "runs.resnet.inputs", "should be raw/NAME"),
        ("inputs: augmented/moved", "inputs: raw/../../x", "runs.resnet.inputs", "no 'raw/../../x'"),
        ("inputs: augmented/moved", "inputs: raw/icons", "runs.resnet.dataset", "derive from 'icons'"),
        ("inputs: raw/digits", "inputs: augmented/moved", "augmentations.moved.inputs", "derives from itself"),
        ("inputs: checkpoints/resnet", "inputs: checkpoints/x", "visualisations.gradcam.inputs", "no 'checkpoints/x'"),
        ("features: lite0", "features: lite1", "generators.vae.features", "did you mean 'lite0'?"),
        ("reference: train", "reference: tain", "generators.vae.evaluation.reference", "'train'"),
        ("training:\n      epochs: 60", "training: null #\n#", "generators.vae.training", "should be a mapping (None)"),
        ("c: 1e-1", "cc: 1e-1", "runs.linear.model_params.cc", "unknown key; did you mean 'c'?"),
        ("options: {}", "options: {trian: 0.5}", "datasets.digits.options.trian", "did you mean 'train'?"),
        ("top_k: 5", "top_n: 5", "runs.linear.evaluation.top_n", "did you mean 'top_k'?"),
        ("training: {}", "training: {epochs: 3}", "runs.linear.training.epochs", "write `training: {}`"),
        ("weights: installed", "weights: ../w.safetensors", "features.lite0.weights", "outside the project"),
        ("weights: installed", "weights: file:///w", "features.lite0.weights", "outside the project"),
        ("- name: Affine", "- nom: Affine", "augmentations.moved.transforms.0", "no name and no preset"),
        ("- name: Affine", "- name: 3", "augmentations.moved.transforms.0.name", "albumentations' transforms (3)"),
        ("- name: Affine", "- preset: wether", "augmentations.moved.transforms.0.preset", "did you mean 'weather'?"),
        (
            "- name: Affine",
            "- preset: weather\n        name: Affine",
            "augmentations.moved.transforms.0",
            "both a name and a preset",
        ),
        ("  moved:", "  Moved-1:", "augmentations.Moved-1", "only a-z, 0-9 and _"),
        ("  moved:", "  ../moved:", "augmentations.../moved", "only a-z, 0-9 and _"),
        ("  moved:", "  digits:", "augmentations.digits", "also a name in datasets"),
        ("  vae:", "  resnet:", "generators.resnet", "also a name in runs"),
        ("  moved:", "  12:", "augmentations.12", "not text (12); fix: quote it"),
        ("epochs: 8", "epochs: 2024-01-01", "runs.resnet.training.epochs", "quote it"),
        ("runs:\n", "rums:\n", "rums", "did you mean 'runs'?"),
    ],
)
def test_a_fault_is_told_with_its_line_and_key(write: Write, old: str, new: str, at: str, what: str) -> None:
    where, _, rest = message(write((old, new))).partition(": ")
    place, key = where.split(" ", 1)
    assert key == at
    assert what in rest
    if not at.endswith(".dataset"):  # that line stands above the one replaced
        assert place == f"params.yaml:{line_of(old)}"


def test_an_unknown_key_of_a_run_whose_model_is_none_is_told_too(write: Write) -> None:
    said = message(write(("model: classification/resnet", "model: null"), ("mixup: 0.2", "mixupp: 0.2")))
    assert "runs.resnet.model: should be a valid string (None)" in said
    with_model = message(write(("mixup: 0.2", "mixupp: 0.2")))
    assert "runs.resnet.training.online.mixupp: unknown key; did you mean 'mixup'?" in with_model


def test_a_missing_key_and_a_missing_section_are_named(write: Write) -> None:
    assert "runs.resnet.training.epochs: missing" in message(write(("      epochs: 8\n", "")))
    assert "no section 'tracking'" in message(write((TOY[TOY.index("tracking:") : TOY.index("datasets:")], "")))


def test_the_first_of_several_faults_is_told_and_the_others_counted(write: Write) -> None:
    text = message(write(("source: digits", "source: x"), ("copies: 3", "copies: 0"), ("epochs: 8", "epochs: 0")))
    assert "augmentations.moved.copies" in text  # before names are held against each other
    assert text.endswith("(1 more error)")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (
            "    copies: 3",
            "    copies: 3\n    copies: 4",
            ":36 augmentations.moved.copies: the key stands in line 35 too",
        ),
        ("    copies: 3", "\tcopies: 3", "indent with spaces"),
        ("copies: 3", "copies: !!python/object/apply:os.system ['touch hacked']", "tags are never run"),
        ("copies: 3", "copies: [3", ":36: not valid YAML"),
        ("augmentations:", "<<<<<<< HEAD\naugmentations:", ":32: a merge marker"),
        ("  vae:\n", "  vae:\n    <<: {model: x}\n", "a merge key"),
    ],
)
def test_yaml_that_cannot_be_read_is_told_with_its_line(write: Write, old: str, new: str, what: str) -> None:
    text = message(write((old, new)))
    assert text.startswith("params.yaml:")
    assert what in text
    assert not Path("hacked").exists()


def test_quoted_merge_marks_are_text(write: Write) -> None:
    params = load(write(("c: 1e-1", 'c: "<<"')))
    assert params.runs["linear"].model_params["c"] == "<<"


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "the file is empty"), ("- 1\n", "not a mapping"), ("[" * 10_000, "nested too deeply"), ("a: b: c", ":1: ")],
)
def test_a_file_that_is_no_mapping_is_refused(write: Write, text: str, what: str) -> None:
    assert what in message(write(text=text))


def test_other_bytes_than_utf8_are_named_with_their_line(write: Write) -> None:
    path = write()
    path.write_bytes(TOY.replace("icons:", "ic\u00f4nes:", 1).encode("latin-1"))
    assert message(path) == "params.yaml:28: not UTF-8 (byte 0xf4); fix: save the file as UTF-8"


def test_no_file_and_a_folder_are_told(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "params.yaml")
    assert "not readable" in message(tmp_path)


@pytest.mark.parametrize("kind", ["list", "mapping", "merge", "loop"])
def test_an_alias_bomb_is_refused_at_once(write: Write, kind: str) -> None:
    lines = ["a0: &a0 [x, x]" if kind == "list" else "a0: &a0 {x: 1}"]
    for level in range(1, 30):
        again = f"*a{level - 1}"
        body = {"list": f"[{again}, {again}]", "mapping": f"{{l: {again}, r: {again}}}"}
        merge = f"{{<<: [{', '.join([again] * 9)}], k{level}: 1}}"
        lines.append(f"a{level}: &a{level} {body.get(kind, merge)}")
    if kind == "loop":
        lines = ["a: &a", "  - *a"]
    path = write(text="\n".join(lines) + "\n" + TOY)
    started = time.perf_counter()
    text = message(path)
    assert time.perf_counter() - started < 1
    assert "merge key" in text if kind == "merge" else "aliases are expanded" in text or "deep" in text


def options(
    *, hidden: int, lr: float = 0.1, kernel: Literal["rbf", "linear"] = "rbf", sizes: tuple[int, ...] = ()
) -> None:
    """A function whose options are checked."""


@pytest.mark.parametrize(
    "given", [{"hidden": 3}, {"hidden": 3, "lr": 1}, {"hidden": 3, "kernel": "linear"}, {"hidden": 3, "sizes": [1, 2]}]
)
def test_check_options_accepts_what_the_signature_says(given: dict[str, Any]) -> None:
    check_options(options, given, "runs.x.model_params")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "runs.x.model_params: no 'hidden'"),
        ({"hidden": 3, "hiden": 4}, "runs.x.model_params.hiden: unknown key; did you mean 'hidden'?"),
        ({"hidden": "3"}, "runs.x.model_params.hidden: should be a valid integer ('3')"),
        ({"hidden": True}, "runs.x.model_params.hidden: should be a valid integer (True)"),
        ({"hidden": 2.0}, "runs.x.model_params.hidden: should be a valid integer (2.0)"),
        ({"hidden": 3, "lr": "1"}, "runs.x.model_params.lr: should be a valid number ('1')"),
        ({"hidden": 3, "kernel": "poly"}, "runs.x.model_params.kernel: should be 'rbf' or 'linear' ('poly')"),
        ({"hidden": 3, "sizes": [1, "2"]}, "runs.x.model_params.sizes.1: should be a valid integer ('2')"),
    ],
)
def test_check_options_names_what_is_wrong(
    given: dict[str, Any], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError) as caught:
        check_options(options, given, "runs.x.model_params")
    assert str(caught.value).startswith(what)


def test_check_options_gives_the_line_where_the_file_has_one(write: Write) -> None:
    write()
    with pytest.raises(ParamsError) as caught:
        check_options(options, {"hidden": 3, "c": 1}, "runs.linear.model_params")
    assert str(caught.value).startswith(f"params.yaml:{line_of('c: 1e-1')} runs.linear.model_params.c: unknown key")


def test_check_options_reads_a_class_and_open_keywords() -> None:
    class Model:
        def __init__(self, info: str, *, depth: int) -> None: ...

    def anything(**options: int) -> None: ...

    check_options(Model, {"depth": 2}, "x")
    check_options(anything, {"whatever": 2}, "x")
    with pytest.raises(ParamsError, match=r"x\.depth: should be a valid integer"):
        check_options(Model, {"depth": "2"}, "x")


def test_values_that_the_schema_itself_supplies_stay_as_they_are() -> None:
    """No stage depends on params.py: whoever changes one of these must write the old value into params.yaml files."""
    supplied = {
        f"{section.__name__}.{name}": field.get_default(call_default_factory=True)
        for section in (getattr(schema, name) for name in dir(schema))
        if isinstance(section, type)
        and issubclass(section, schema.Section)
        and section
        not in (schema.Params, schema.Compare, schema.Gate, schema.Resources)  # no stage reads what these supply
        for name, field in section.model_fields.items()
        if not field.is_required()
    }
    assert supplied == {
        "Defaults.launch": "",
        "Features.options": {},
        "DetectionEvaluation.engine": "native",
        "DetectionEvaluation.suppression": "greedy",
        "Distillation.temperature": 2.0,
        "Distillation.weight": 0.5,
        "Online.flip": 0.0,
        "Online.crop": 0.0,
        "Online.mixup": 0.0,
        "Online.cutmix": 0.0,
        "Online.cutout": 0.0,
        "Prediction.augment": [],
        "Prediction.ensemble": False,
        "Prediction.fold": False,
        "Robustness.num_images": None,
        "Range.integer": False,
        "Range.log": False,
        "Range.steps": None,
        "Search.epochs": None,
        "Search.pruning": "none",
        "Search.storage": "",
        "Search.trials": None,
        "Training.momentum": 0.9,
        "Training.nesterov": True,
        "Training.milestones": [0.5, 0.75],
        "Training.splits": ["train"],
        "Training.step_factor": 0.1,
        "Training.accumulate": 1,
        "Training.label_smoothing": 0.0,
        "Training.l1": 0.0,
        "Training.backbone_lr_factor": 1.0,
        "Training.layer_decay": 1.0,
        "Training.freeze": [],
        "Training.loss": "cross_entropy",
        "Training.init": "default",
        "Training.keep": "last",
        "Training.monitor": "val_loss",
        "Training.patience": None,
        "Training.folds": 0,
        "Training.retrain": False,
        "Training.compile": False,
        "Training.image_size": None,
        "Training.distillation": None,
        "Training.online": schema.Online(flip=0.0, crop=0.0, mixup=0.0, cutmix=0.0, cutout=0.0),
        "Training.seeds": [],
    }


WITHOUT = TOY.replace("robustness: {}\n", "")
SHAKEN = """robustness:
  shaken:
    run: resnet
    dataset: digits
    metric: top1
    corruptions: [fog, jpeg_compression]
    severities: [1, 5]
"""


def test_robustness_may_be_absent_or_name_a_run(write: Write) -> None:
    assert load(write(text=WITHOUT)).robustness == {}
    entry = load(write(text=WITHOUT + SHAKEN)).robustness["shaken"]
    assert (entry.corruptions, entry.severities, entry.num_images) == (["fog", "jpeg_compression"], [1, 5], None)


@pytest.mark.parametrize(
    ("old", "new", "at", "what"),
    [
        (
            "run: resnet\n    dataset: digits\n    metric",
            "run: resnt\n    dataset: digits\n    metric",
            "run",
            "no run",
        ),
        ("dataset: digits\n    metric", "dataset: icons\n    metric", "dataset", "its run is of 'digits' ('icons')"),
        ("[fog,", "[fogg,", "corruptions.0", "no corruption 'fogg'; did you mean 'fog'?"),
        ("[1, 5]", "[1, 6]", "severities.1", "less than or equal to 5 (6)"),
        ("[1, 5]", "[]", "severities", "at least 1 item"),
    ],
)
def test_fault_of_robustness_is_told_with_its_key(write: Write, old: str, new: str, at: str, what: str) -> None:
    text = message(write((old, new), text=WITHOUT + SHAKEN))
    assert f" robustness.shaken.{at}: " in text
    assert what in text


BARE = TOY.replace("contrasts: {}\n", "")
CONTRASTED = """contrasts:
  depth:
    idea: resnet
    foil: linear
    metric: top1
    claim: A network sees more than a line.
"""


def test_contrasts_may_be_absent_or_name_two_runs(write: Write) -> None:
    assert load(write(text=BARE)).contrasts == {}
    entry = load(write(text=BARE + CONTRASTED)).contrasts["depth"]
    assert (entry.idea, entry.foil, entry.metric) == ("resnet", "linear", "top1")


@pytest.mark.parametrize("foil", ["majority", "chance"])
def test_a_contrast_with_an_answer_without_learning_is_judged_by_classes_alone(write: Write, foil: str) -> None:
    replaced = ("foil: linear", f"foil: {foil}")
    assert load(write(replaced, text=BARE + CONTRASTED)).contrasts["depth"].foil == foil
    text = message(write(replaced, ("metric: top1", "metric: log_loss"), text=BARE + CONTRASTED))
    assert "contrasts.depth.metric: no metric of classification to judge this by ('log_loss')" in text


@pytest.mark.parametrize(
    ("replaced", "at", "what"),
    [
        ([("idea: resnet", "idea: resnett")], "idea", "no run or generator 'resnett'; did you mean 'resnet'?"),
        ([("foil: linear", "foil: majorty")], "foil", "no run or generator 'majorty'; did you mean 'majority'?"),
        ([("foil: linear", "foil: resnet")], "foil", "the idea itself ('resnet'); fix: name another run"),
        ([("foil: linear", "foil: fcos")], "foil", "its task is detection, the idea's classification ('fcos')"),
        ([("idea: resnet", "idea: fcos"), ("foil: linear", "foil: chance")], "foil", "an answer to classification"),
        (
            [("foil: linear", "foil: mean")],
            "foil",
            "an answer to regression ('mean'); fix: name a run of classification",
        ),
        (
            [("split: test", "split: val")],
            "foil",
            "its split is val, the idea's test ('linear'); fix: name one of test",
        ),
        ([("metric: top1", "metric: top2")], "metric", "to judge this by ('top2'); did you mean 'top"),
        ([("idea: resnet", "idea: vae"), ("metric: top1", "metric: fid_noise")], "foil", "its task is classification"),
        ([("claim: A", "clam: A")], "clam", "unknown key; did you mean 'claim'?"),
    ],
)
def test_fault_of_a_contrast_is_told_with_its_key(
    write: Write, replaced: list[tuple[str, str]], at: str, what: str
) -> None:
    text = message(write(*replaced, text=BARE + CONTRASTED))
    assert f" contrasts.depth.{at}: " in text
    assert what in text


SEARCHED = TOY.replace(
    "searches: {}\n",
    """searches:
  lrs:
    run: resnet
    model: classification/resnet
    dataset: digits
    inputs: augmented/moved
    space:
      training.lr: {low: 1e-4, high: 0.1, log: true}
      training.online.mixup: {low: 0, high: 1}
      model_params.layers: {choices: [[1, 1, 1, 1], [2, 2, 2, 2]]}
    method: random
    trials: 6
    metric: val_loss
  cs:
    run: linear
    model: heads/linear
    dataset: digits
    inputs: features/lite0
    space:
      model_params.c: {low: 0.01, high: 100, log: true, steps: 5}
    method: grid
    metric: val_top1
""",
)


def test_a_space_is_read_as_ranges_and_choices(write: Write) -> None:
    searches = load(write(text=SEARCHED)).searches
    assert searches["lrs"].space == {
        "training.lr": schema.Range(low=1e-4, high=0.1, log=True),
        "training.online.mixup": schema.Range(low=0, high=1),
        "model_params.layers": schema.Choices(choices=[[1, 1, 1, 1], [2, 2, 2, 2]]),
    }
    assert (searches["lrs"].trials, searches["cs"].trials) == (6, None)


@pytest.mark.parametrize(
    ("old", "new", "at", "what"),
    [
        ("run: linear", "run: liner", "cs.run", "no run 'liner'; did you mean 'linear'?"),
        ("inputs: augmented/moved\n    space", "inputs: raw/digits\n    space", "lrs.inputs", "write augmented/moved"),
        (
            "model: heads/linear\n    dataset: digits\n    inputs: features/lite0\n    space",
            "model: heads/mlp\n    dataset: digits\n    inputs: features/lite0\n    space",
            "cs.model",
            "write heads/linear",
        ),
        ("training.lr: {", "training.lrr: {", "lrs.space.training.lrr", "no 'lrr' in training"),
        ("training.lr: {", "training.lrr: {", "lrs.space.training.lrr", "did you mean 'lr'?"),
        ("online.mixup", "online.mixip", "lrs.space.training.online.mixip", "did you mean 'mixup'?"),
        ("training.lr: {", "training.seeds: {", "lrs.space.training.seeds", "that can be searched"),
        ("training.lr: {", "prediction.lr: {", "lrs.space.prediction.lr", "write training.KEY or model_params.KEY"),
        ("model_params.layers", "model_params.layer", "lrs.space.model_params.layer", "did you mean 'layers'?"),
        ("model_params.c:", "training.lr:", "cs.space.training.lr", "write model_params.KEY"),
        ("model_params.c:", "model_params.cc:", "cs.space.model_params.cc", "no option 'cc'"),
        ("low: 1e-4", "low: 0", "lrs.space.training.lr.low", "has no logarithm (0)"),
        ("low: 1e-4", "low: 1", "lrs.space.training.lr.high", "not above low (0.1, low 1)"),
        ("{low: 0, high: 1}", "{low: 0, high: 1.5, integer: true}", "lrs.space.training.online.mixup.low", "not whole"),
        (
            "{low: 0, high: 1}",
            "{low: -1, high: 1}",
            "lrs.space.training.online.mixup",
            "greater than or equal to 0 (-1.0)",
        ),
        ("{low: 0, high: 1}", "{low: 0}", "lrs.space.training.online.mixup.high", "missing"),
        ("{low: 0, high: 1}", "{low: 0, hihg: 1}", "lrs.space.training.online.mixup.hihg", "did you mean 'high'?"),
        ("{low: 0, high: 1}", "{choices: [a]}", "lrs.space.training.online.mixup", "valid number ('a')"),
        ("[[1, 1, 1, 1], [2, 2, 2, 2]]", "[[1, 1], [1, 1]]", "lrs.space.model_params.layers.choices", "twice"),
        (", steps: 5", "", "cs.space.model_params.c", "no 'steps', which a grid needs"),
        ("high: 0.1, log: true", "high: 0.1, log: true, steps: 5", "lrs.space.training.lr.steps", "only a grid"),
        ("    trials: 6\n", "", "lrs", "no 'trials'"),
        ("metric: val_top1", "metric: val_top1\n    trials: 5", "cs.trials", "tries all of its product (5)"),
        ("metric: val_top1", "metric: val_top1\n    epochs: 5", "cs.epochs", "heads/linear has none"),
        ("metric: val_loss", "metric: loss", "lrs.metric", "not of the validation split ('loss')"),
        (
            "trials: 6",
            "trials: 6\n    storage: mysql://me:hunter2@host/db",
            "lrs.storage",
            "an address with a password",
        ),
        ("method: random", "method: randem", "lrs.method", "'grid', 'random' or 'bayesian'"),
    ],
)
def test_a_fault_of_a_search_is_told_with_its_key(write: Write, old: str, new: str, at: str, what: str) -> None:
    text = message(write((old, new), text=SEARCHED))
    assert f" searches.{at}: " in text
    assert what in text
