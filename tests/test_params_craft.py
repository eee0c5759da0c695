"""Options of a training that its task, or another option of it, gives no meaning are told at load."""

from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.params import load

TOY = (Path(__file__).parent / "toy_params.yaml").read_text(encoding="utf-8")
OF = {"resnet": "epochs: 8\n      online:\n        mixup: 0.2\n", "fcos": "epochs: 3\n", "vae": "epochs: 60\n"}
LBFGS = "epochs: 8\n      optimizer: lbfgs\n      batch_size: all\n      clip_norm: 0.0\n"


def written(tmp_path, name, training):
    path = tmp_path / "params.yaml"
    assert TOY.count(OF[name]) == 1
    path.write_text(TOY.replace(OF[name], training), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "training", "at", "what"),
    [
        ("fcos", ["online: {mixup: 0.2}"], "online.mixup", "changes what detection is to learn from an image (0.2)"),
        ("fcos", ["online: {cutmix: 1.0}"], "online.cutmix", "changes what detection is to learn"),
        ("vae", ["online: {cutout: 0.5}"], "online.cutout", "changes what generative is to learn"),
        (
            "fcos",
            ["label_smoothing: 0.1"],
            "label_smoothing",
            "detection has no labels to smooth (0.1); fix: write 0.0",
        ),
        ("vae", ["loss: hinge"], "loss", "a loss of classification, not of generative (hinge); fix: leave it out"),
        ("resnet", ["splits: [val]"], "splits", "not train, or train and val (['val']); fix: write train"),
        ("resnet", ["splits: [train, train]"], "splits", "not train, or train and val"),
        ("resnet", ["splits: [train, val]", "patience: 2"], "patience", "nothing is held out where val is learnt from"),
        (
            "fcos",
            ["splits: [train, val]", "keep: best"],
            "keep",
            "nothing is held out where val is learnt from ('best')",
        ),
        ("resnet", ["loss: hinge", "label_smoothing: 0.1"], "label_smoothing", "the hinge loss knows one (0.1)"),
        ("resnet", ["loss: hinge", "online: {cutmix: 1.0}"], "online.cutmix", "the hinge loss knows one (1)"),
    ],
)
def test_an_option_without_meaning_is_told_with_its_line(tmp_path, name, training, at, what):
    block = "epochs: 2\n" + "".join(f"      {line}\n" for line in training)
    with pytest.raises(ParamsError) as caught:
        load(written(tmp_path, name, block))
    text = str(caught.value)
    assert f".{name}.training.{at}: " in text
    assert what in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("line", "at", "needed"),
    [
        ("batch_size: 32", "batch_size", "all"),
        ("clip_norm: 1.0", "clip_norm", "0.0"),
        ("l1: 0.1", "l1", "0.0"),
        ("layer_decay: 0.5", "layer_decay", "1.0"),
        ("accumulate: 2", "accumulate", "1"),
    ],
)
def test_lbfgs_asks_for_one_smooth_loss_of_all_images(tmp_path, line, at, needed):
    key = line.partition(":")[0]
    kept = "".join(f"{each}\n" for each in LBFGS.splitlines() if f"{key}:" not in each)
    with pytest.raises(ParamsError, match=rf"resnet\.training\.{at}: lbfgs searches along one .* fix: {needed}$"):
        load(written(tmp_path, "resnet", f"{kept}      {line}\n"))


def test_what_has_a_meaning_is_let_through(tmp_path):
    hinge = "epochs: 8\n      loss: hinge\n      online:\n        cutout: 0.5\n"
    assert load(written(tmp_path, "resnet", hinge)).runs["resnet"].training.loss == "hinge"
    assert load(written(tmp_path, "resnet", LBFGS)).runs["resnet"].training.batch_size == "all"


@pytest.mark.parametrize("name", ["linear", "fcos"])
def test_folding_is_for_networks_whose_layers_can_be_followed(tmp_path, name):
    head, tail = TOY.split(f"  {name}:\n", 1)
    tail = tail.replace("    prediction:\n", "    prediction:\n      fold: true\n", 1)
    path = tmp_path / "params.yaml"
    path.write_text(f"{head}  {name}:\n{tail}", encoding="utf-8")
    with pytest.raises(ParamsError, match=rf"runs\.{name}\.prediction\.fold: the layers of .* cannot be folded; fix:"):
        load(path)
