from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ParamsError
from pipeline.models import backbones, tasks
from pipeline.params import Training
from pipeline.structures import IGNORE, Batch, DatasetInfo

LOGITS = torch.tensor([[3.0, 5.0, -2.0], [1.0, 0.5, 1.25]])
LABELS = torch.tensor([0, 2])
MODEL = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4], "small_stem": True}
INFO = DatasetInfo("toy", ["classification"], list("abc"), 1, "", "", "", mean=[0.5], std=[0.3], image_size=[8, 8])


def batch(logits=LOGITS, labels=LABELS, label_weights=None):
    return Batch(logits, ["a"] * len(logits), [(1, 1)] * len(logits), labels, label_weights)


def training(**changes):
    values = {
        "epochs": 1, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0, "schedule": "constant", "warmup_epochs": 0.0,
        "batch_size": 4, "clip_norm": 0.0, "ema_decay": 0.0,
    }  # fmt: skip
    return Training(**(values | changes))


def test_hinge_loss_by_hand():
    model = tasks.Classification(torch.nn.Identity(), loss="hinge")
    # max(0, 5 - 3 + 1) + max(0, -2 - 3 + 1) = 3; max(0, 1 - 1.25 + 1) + max(0, 0.5 - 1.25 + 1) = 0.75 + 0.25
    assert model.loss(batch())["loss"].item() == pytest.approx((3 + 1) / 2)


def test_hinge_loss_of_equal_scores_is_one_less_than_the_classes():
    assert tasks.hinge(torch.full((4, 10), 7.0), torch.arange(4), 0.0).item() == pytest.approx(9)
    assert tasks.hinge(torch.randn(4, 1), torch.zeros(4, dtype=torch.long), 0.0).item() == 0


def test_hinge_loss_against_torch_where_the_rest_of_the_scores_count():
    logits, labels = torch.randn(20, 6, dtype=torch.float64), torch.arange(20) % 6
    want = F.multi_margin_loss(logits, labels) * 6  # torch divides by K
    torch.testing.assert_close(tasks.hinge(logits, labels, 0.0), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("smoothing", "weights", "what"),
    [(0.1, None, "label_smoothing"), (0.0, torch.full((2, 3), 1 / 3), r"online\.mixup or online\.cutmix")],
)
def test_hinge_loss_refuses_shares_of_classes(smoothing, weights, what):
    model = tasks.Classification(torch.nn.Identity(), loss="hinge", label_smoothing=smoothing)
    with pytest.raises(ParamsError, match=rf"hinge knows one class of an image, not the shares of {what}; fix:"):
        model.loss(batch(label_weights=weights))


@pytest.mark.parametrize("loss", tasks.LOSSES)
def test_losses_of_logits_in_bfloat16_are_computed_in_float32(loss):
    model = tasks.Classification(torch.nn.Identity(), loss=loss)
    logits = torch.linspace(-3, 3, 40).reshape(4, 10).bfloat16()
    labels = torch.arange(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(batch(logits, labels))["loss"]
    assert found.dtype == torch.float32
    assert found == model.loss(batch(logits.float(), labels))["loss"]


def test_binary_loss_by_hand():
    logits = torch.tensor([[np.log(3.0), 0.0]])
    # class 0 is likely by 3/4, class 1 by 1/2; the truth is 0: -ln(3/4) - ln(1 - 1/2)
    found = tasks.binary_cross_entropy(logits, torch.tensor([0]), 0.0)
    assert found.item() == pytest.approx(-np.log(3 / 4) - np.log(1 / 2))
    # smoothed by 0.2 the truths are 0.8 + 0.1 and 0.1
    found = tasks.binary_cross_entropy(logits, torch.tensor([0]), 0.2).item()
    assert found == pytest.approx(-0.9 * np.log(3 / 4) - 0.1 * np.log(1 / 4) - np.log(1 / 2), rel=1e-6)
    mixed = tasks.binary_cross_entropy(logits, torch.tensor([[0.25, 0.75]]), 0.0).item()
    assert mixed == pytest.approx(-0.25 * np.log(3 / 4) - 0.75 * np.log(1 / 4) - np.log(1 / 2), rel=1e-6)


def test_binary_loss_of_zero_logits_is_k_ln_2():
    found = tasks.binary_cross_entropy(torch.zeros(5, 10), torch.arange(5), 0.0)
    assert found.item() == pytest.approx(10 * np.log(2))


def test_predictions_follow_the_loss():
    network, images = torch.nn.Identity(), torch.tensor([[np.log(3.0), 0.0, -np.log(3.0)], [-200.0, -201.0, -300.0]])
    softmax = tasks.Classification(network).predict(images)
    assert softmax[0].scores == pytest.approx([9 / 13, 3 / 13, 1 / 13])  # 3 : 1 : 1/3
    binary = tasks.Classification(network, loss="binary_cross_entropy").predict(images)
    assert binary[0].scores == pytest.approx([0.5, 1 / 3, 1 / 6])  # 3/4 : 1/2 : 1/4
    assert binary[1].scores[:2] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.e)])  # e^-200 : e^-201
    hinge = tasks.Classification(network, loss="hinge")
    assert np.array_equal(hinge.predict(images)[1].scores, images[1].numpy())
    assert [tasks.Classification(network, loss=name).probabilities for name in tasks.LOSSES] == [True, False, True]


@pytest.mark.parametrize("loss", sorted(tasks.LOSSES))
def test_a_restored_classifier_predicts_by_the_loss_it_was_trained_with(loss):
    torch.manual_seed(0)
    model = tasks.build("classification/resnet", INFO, MODEL, training(loss=loss)).eval()
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    restored = tasks.restore("classification/resnet", INFO, MODEL, arrays)
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        before, after = model.predict(images), restored.predict(images)
    assert restored.probabilities == (loss != "hinge")
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(before, after, strict=True))
    assert ("loss_kind" in arrays) == (loss != "cross_entropy")


def test_tasks_take_of_training_what_they_name():
    model = tasks.build(
        "classification/resnet", INFO, MODEL, training(loss="binary_cross_entropy", label_smoothing=0.2)
    )
    assert (model.criterion, model.label_smoothing) == ("binary_cross_entropy", 0.2)
    with pytest.raises(AttributeError):
        tasks.build("classification/resnet", INFO, MODEL, SimpleNamespace(init="default"))


def test_the_init_of_a_training_is_applied_where_a_network_is_built_for_it():
    model = tasks.build("classification/resnet", INFO, MODEL, training(init="zeros"))
    assert not model.network[1].fc.weight.any()
    assert not model.network[1].conv1.weight.any()
    assert tasks.build("classification/resnet", INFO, MODEL).network[1].fc.weight.any()


def test_default_training_builds_the_same_bytes_as_none():
    states = []
    for given in (None, training()):
        torch.manual_seed(3)
        states.append(tasks.build("classification/resnet", INFO, MODEL, given).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        ("segmentation/unet", {}, {"weights": "other"}),  # by default what a package carries
        ("detection/fcos", {"weights": "pretrained", "convs": 1}, {"weights": "other", "convs": 1}),
        ("segmentation/unet", {"weights": "none"}, {"weights": "none"}),
        ("classification/timm_model", {"name": "resnet18"}, {"name": "resnet18"}),  # by default none
        ("classification/resnet", {"small_stem": True}, {"small_stem": True}),  # there are none
    ],
)
def test_pretrained_weights_are_replaced_also_where_they_are_the_default(model, given, expected):
    assert tasks.with_weights(model, given, "other") == expected


def test_restoring_reads_no_pretrained_weights(monkeypatch):
    monkeypatch.setattr(backbones, "INSTALLED", {})
    info = replace(INFO, semantic_classes=["a", "b"], image_size=[32, 32])
    options = {"decoder_channels": [4, 4, 4, 4, 4]}
    trained = tasks.build("segmentation/unet", info, options | {"weights": backbones.FROM_CHECKPOINT}).state_dict()
    arrays = {key: value.numpy() for key, value in trained.items()}
    tasks.restore("segmentation/unet", info, options, arrays)


def test_a_classifier_of_a_single_class_is_sure_of_it():
    model = tasks.build("classification/resnet", replace(INFO, classes=["only"]), MODEL)
    images = batch(torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))
    assert model.loss(images)["loss"].item() == 0
    with torch.no_grad():
        assert [p.scores.tolist() for p in model.eval().predict(images.images)] == [[1.0], [1.0]]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_label_maps_that_are_not_scored_teach_a_segmenter_nothing(label_smoothing):
    model = tasks.Segmentation(torch.nn.Conv2d(1, 3, 1), label_smoothing=label_smoothing)
    images, ids, sizes = torch.rand(2, 1, 4, 4), ["a", "b"], [(4, 4)] * 2
    parts = model.loss(Batch(images, ids, sizes, semantic=torch.full((2, 4, 4), IGNORE)))
    assert {name: part.item() for name, part in parts.items()} == {"loss": 0, "cross_entropy": 0, "dice": 0}
    parts["loss"].backward()
    assert [parameter.grad.abs().max().item() for parameter in model.parameters()] == [0, 0]


def test_the_loss_of_a_segmenter_by_hand():
    # two pixels count, of classes 0 and 1, at probabilities 3/4 and 1/2; the third is not scored
    logits = torch.tensor([[np.log(3.0), 0.0, 9.0], [0.0, 0.0, -9.0]]).reshape(1, 2, 1, 3)
    target = torch.tensor([[[0, 1, IGNORE]]])
    model = tasks.Segmentation(torch.nn.Identity())
    parts = model.loss(Batch(logits, ["a"], [(1, 3)], semantic=target))
    assert parts["cross_entropy"].item() == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    # 2 * 3/4 / (5/4 + 1) and 2 * 1/2 / (3/4 + 1)
    assert parts["dice"].item() == pytest.approx(1 - (2 / 3 + 4 / 7) / 2)
    assert parts["loss"].item() == pytest.approx(parts["cross_entropy"].item() + parts["dice"].item())
