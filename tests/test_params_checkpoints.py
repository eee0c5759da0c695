"""Runs of params.yaml that begin at another run's checkpoint, and averaged answers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.params import load

TOY = (Path(__file__).parent / "toy_params.yaml").read_text(encoding="utf-8")
TUNED = """  tuned:
    model: classification/resnet
    dataset: digits
    inputs: checkpoints/resnet
    model_params: {}
    training:
      epochs: 2
      distillation:
        temperature: 4.0
      seeds: [0, 1]
    prediction:
      split: test
      batch_size: 256
      augment: [flip, shift]
      ensemble: true
    evaluation:
      top_k: 5
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the toy file with a run that learns from another one, with each pair of texts replaced in that run."""
    monkeypatch.chdir(tmp_path)

    def write(*replacements: tuple[str, str], outside: tuple[str, str] = ("", "")) -> Path:
        text = TUNED
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = Path("params.yaml")
        path.write_text(TOY.replace("generators:\n", f"{text}generators:\n", 1).replace(*outside, 1))
        return path

    return write


def test_a_run_from_a_checkpoint_reads_the_images_of_its_own_dataset(write: Write) -> None:
    runs = load(write()).runs
    assert (runs["tuned"].parent, runs["tuned"].images) == ("resnet", "raw/digits")
    assert (runs["resnet"].parent, runs["resnet"].images) == (None, "augmented/moved")
    assert runs["tuned"].prediction.ensemble


def test_weights_may_come_from_another_dataset_but_answers_may_not(write: Write) -> None:
    other = ("dataset: digits", "dataset: icons")
    plain = ("      distillation:\n        temperature: 4.0\n", "")
    assert load(write(other, plain)).runs["tuned"].images == "raw/icons"
    with pytest.raises(ParamsError, match=r"runs\.tuned\.dataset: its teacher is of 'digits' \('icons'\)"):
        load(write(other))


@pytest.mark.parametrize(
    ("old", "new", "at", "what"),
    [
        ("checkpoints/resnet", "checkpoints/resnt", "inputs", "did you mean 'checkpoints/resnet'?"),
        ("checkpoints/resnet", "checkpoints/linear", "inputs", "heads/linear has no network to begin from"),
        ("checkpoints/resnet", "checkpoints/vae", "inputs", "generative/vae has no network to begin from"),
        ("checkpoints/resnet", "checkpoints/fcos", "inputs", "a run of detection, this one is of classification"),
        ("checkpoints/resnet", "checkpoints/tuned", "inputs", "begins at itself"),
        ("checkpoints/resnet", "raw/digits", "training.distillation", "no teacher, its inputs are 'raw/digits'"),
        ("dataset: digits", "dataset: digitz", "dataset", "did you mean 'digits'?"),
        ("seeds: [0, 1]", "seeds: [3]", "prediction.ensemble", "of 1 seeds; fix: write two or more"),
        ("temperature: 4.0", "temperature: 0", "training.distillation.temperature", "greater than 0 (0)"),
        ("[flip, shift]", "[flop]", "prediction.augment.0", "'flip' or 'shift' ('flop')"),
    ],
)
def test_a_fault_of_such_a_run_is_told_with_its_key(write: Write, old: str, new: str, at: str, what: str) -> None:
    with pytest.raises(ParamsError) as caught:
        load(write((old, new)))
    assert f" runs.tuned.{at}: " in str(caught.value)
    assert what in str(caught.value)


def test_two_runs_that_begin_at_each_other_are_told(write: Write) -> None:
    with pytest.raises(ParamsError, match=r"runs\.resnet\.inputs: begins at itself"):
        load(write(outside=("inputs: augmented/moved", "inputs: checkpoints/tuned")))


@pytest.mark.parametrize(("key", "value"), [("augment", "[flip]"), ("ensemble", "true")])
@pytest.mark.parametrize(("run", "batch_size"), [("linear", 256), ("fcos", 16)])
def test_only_networks_that_classify_average_their_answers(
    write: Write, key: str, value: str, run: str, batch_size: int
) -> None:
    old = f"batch_size: {batch_size}\n"
    with pytest.raises(ParamsError, match=rf"runs\.{run}\.prediction\.{key}: answers of \w+/{run} are not averaged"):
        load(write(outside=(old, f"{old}      {key}: {value}\n")))
