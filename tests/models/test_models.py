"""What every file under models/ promises, at toy size; a new file is found by itself and asks for a row in TOYS."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import models
from pipeline.errors import ParamsError, PipelineError
from pipeline.models import tasks
from pipeline.ops.boxes import iou
from pipeline.params import is_fitted
from pipeline.structures import IGNORE, Batch, DatasetInfo
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import Checkpoint

FOLDER = Path(models.__file__).parent
TINY = "test_efficientnet"  # timm's own for tests: 82,300 parameters
SELF_SUPERVISED = {
    "encoder_params": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "small_stem": True,
    "neighbours": 1,
    "memory": 8,
}
TOYS = {  # model_params, and lr and steps in which one batch must be learnt
    "classification/resnet": ({"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "small_stem": True}, 0.01, 30),
    "classification/cifar_alexnet": ({"hidden": [16]}, 0.003, 20),
    "classification/lenet": ({}, 0.003, 40),
    "classification/mlp": ({"hidden": [16, 16]}, 0.003, 30),
    "classification/alexnet": (
        {"channels": [8, 16, 16, 16, 16], "hidden": 16, "dropout": 0.0, "small_stem": True},
        0.005,
        40,
    ),
    "classification/zfnet": ({"channels": [8, 16, 16, 16, 16], "hidden": 16, "dropout": 0.0}, 0.005, 40),
    "classification/vgg": ({"blocks": [1, 1, 2], "channels": 8, "hidden": [16], "dropout": 0.0}, 0.005, 40),
    "classification/googlenet": ({"width": 0.125, "dropout": 0.0}, 0.01, 40),
    "classification/resnext": (
        {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "cardinality": 4, "path_width": 2},
        0.01,
        30,
    ),
    "classification/se_resnet": ({"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "reduction": 4}, 0.01, 30),
    "classification/densenet": ({"layers": [2, 2, 2], "growth": 8}, 0.01, 30),
    "classification/mobilenet": ({"width": 0.125, "norm": "group"}, 0.005, 40),
    "classification/shufflenet": ({"layers": [2, 2, 2], "channels": [24, 48, 96], "stem": 8, "groups": 2}, 0.01, 30),
    "classification/timm_model": ({"name": TINY}, 0.005, 80),
    "classification/torchvision_model": ({"name": "squeezenet1_1", "options": {"dropout": 0.0}}, 0.0005, 30),
    "classification/vit": ({"patch": 16, "width": 16, "depth": 2, "heads": 2}, 0.01, 30),
    "classification/mlp_mixer": ({"patch": 16, "width": 16, "depth": 2}, 0.01, 30),
    "classification/swin": ({"patch": 8, "width": 8, "depths": [2, 1], "heads": [2, 2]}, 0.01, 40),
    "classification/attention_cnn": ({"channels": [8, 8, 16]}, 0.01, 30),
    "classification/rotation": (SELF_SUPERVISED | {"small_stem": False}, 0.01, 30),
    "classification/contrastive": (SELF_SUPERVISED | {"temperature": 0.2}, 0.01, 30),
    "detection/fcos": ({"backbone": TINY, "weights": "none", "channels": 64, "convs": 1}, 0.005, 60),
    "segmentation/unet": (
        {"encoder": TINY, "weights": "none", "decoder_channels": [16, 16, 8, 8, 8]},
        0.01,
        50,
    ),
    "generative/vae": ({"latent": 4, "hidden": 32}, 0.01, 60),
    "generative/ddpm": ({"channels": [32], "timesteps": 20}, 0.005, 60),
}
NAMES = sorted(
    f"{path.parent.name}/{path.stem}"
    for path in FOLDER.glob("*/*.py")
    if path.stem != "__init__" and not is_fitted(f"{path.parent.name}/")
)
GENERATIVE = [name for name in NAMES if name.startswith("generative/")]
PREDICTING = [name for name in NAMES if name not in GENERATIVE]
SIDE = 64
SMALL = 8  # side of what generators learn


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def info_for(name):
    side, channels = (SMALL, 1) if name in GENERATIVE else (SIDE, 3)
    return DatasetInfo(
        "toy",
        ["classification", "detection", "semantic"],
        ["red", "green", "blue"],
        channels,
        "none",
        "none",
        "drawn here",
        semantic_classes=["background", "red", "green", "blue"],
        mean=[0.4] * channels,
        std=[0.3] * channels,
        image_size=[side, side],
    )


def batch_for(name, num=4):
    """Grey images, each with one square in the colour of its class and every kind of truth; the last has no object."""
    side, channels = (SMALL, 1) if name in GENERATIVE else (SIDE, 3)
    images, boxes, labels = torch.full((num, channels, side, side), 0.0 if name in GENERATIVE else 0.4), [], []
    semantic = torch.zeros(num, side, side, dtype=torch.long)
    for i in range(num):
        label, left, size = i % 3, (4 + 5 * i) * side // SIDE, (24 + 2 * i) * side // SIDE
        images[i, label % channels, left : left + size, left : left + size] = 1.0
        semantic[i, left : left + size, left : left + size] = label + 1
        boxes.append(torch.tensor([[left, left, left + size, left + size]], dtype=torch.float32))
        labels.append(torch.tensor([label]))
    semantic[:, 0] = IGNORE
    boxes[-1], labels[-1] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    classes = torch.arange(num) % 3
    return Batch(images, list("abcd"), [(side, side)] * num, classes, None, boxes, labels, semantic)


def toy(name):
    return tasks.build(name, info_for(name), TOYS[name][0])


def fitted(name):
    """A toy after a few steps on one batch, so that batch norms have statistics, and its losses."""
    model, batch = toy(name).train(), batch_for(name)
    _, lr, steps = TOYS[name]
    optimiser = torch.optim.AdamW(model.parameters(), lr)
    losses = []
    for _ in range(steps):
        torch.manual_seed(1)  # the generators' noise: the same at each step
        optimiser.zero_grad()
        loss = model.loss(batch)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    if hasattr(model, "finish"):
        model.finish([batch])
    return model.eval(), losses


@pytest.fixture(scope="module")
def learnt():
    """One fitted toy of each model, made when it is asked for."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = fitted(name)
        return made[name]

    return get


def test_every_model_has_a_toy():
    missing, gone = sorted(set(NAMES) - set(TOYS)), sorted(set(TOYS) - set(NAMES))
    assert not missing, f"add a row to TOYS in {__file__} for {missing}"
    assert not gone, f"TOYS has rows for {gone}, and models/ has no such files"


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_finite_and_every_trainable_parameter_is_connected(name):
    model = toy(name).train()
    parts = model.loss(batch_for(name))
    assert all(value.ndim == 0 and torch.isfinite(value) for value in parts.values())
    parts["loss"].backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_gets_a_gradient(name, learnt):
    # past the first step: a ResNet's last scales and others start at zero and hold some flat; and in training, where
    # auxiliary classifiers learn
    model = copy.deepcopy(learnt(name)[0]).train()
    model.zero_grad()
    model.loss(batch_for(name))["loss"].backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and not p.grad.any()]


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_same_in_evaluation_mode_twice_and_leaves_the_mode(name):
    model, losses = toy(name).eval(), []
    for _ in range(2):
        torch.manual_seed(3)
        with torch.no_grad():
            losses.append(model.loss(batch_for(name))["loss"].item())
    assert losses[0] == losses[1]
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_one_batch_can_be_learnt(name, learnt):
    _, losses = learnt(name)
    assert min(losses[-3:]) < 0.5 * losses[0], losses


@pytest.mark.parametrize("name", [n for n in PREDICTING if n.startswith("classification/")])
def test_classifier_predicts_probabilities_and_has_learnt_them(name, learnt):
    model, _ = learnt(name)
    with torch.inference_mode():
        predictions = model.predict(batch_for(name).images)
    for i, prediction in enumerate(predictions):
        assert prediction.scores.shape == (3,)
        assert prediction.scores.dtype == np.float32
        assert prediction.scores.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.scores.min() >= 0
        assert prediction.scores.argmax() == i % 3


@pytest.mark.parametrize("name", [n for n in PREDICTING if n.startswith("detection/")])
def test_detector_predicts_boxes_inside_the_image_before_suppression(name, learnt):
    model, _ = learnt(name)
    batch = batch_for(name)
    with torch.inference_mode():
        predictions = model.predict(batch.images)
    assert len(predictions) == 4
    for prediction, truth, label in zip(predictions[:3], batch.boxes, batch.box_labels, strict=False):
        num = len(prediction.boxes)
        assert prediction.boxes.shape == (num, 4)
        assert prediction.scores.shape == prediction.labels.shape == (num,)
        assert (prediction.boxes.dtype, prediction.scores.dtype) == (np.float32, np.float32)
        assert prediction.labels.dtype == np.int64
        assert prediction.boxes.min() >= 0
        assert prediction.boxes.max() <= SIDE
        assert (prediction.boxes[:, 2:] >= prediction.boxes[:, :2]).all()
        assert prediction.scores.min() > 0
        assert prediction.scores.max() <= 1
        assert set(prediction.labels) <= {0, 1, 2}
        best = prediction.scores.argmax()
        assert prediction.labels[best] == label[0]
        assert iou(prediction.boxes[best, None], truth.numpy())[0, 0] > 0.5
        overlaps = iou(prediction.boxes, prediction.boxes) * ~np.eye(num, dtype=bool)
        same = prediction.labels[:, None] == prediction.labels
        assert (overlaps * same).max() > 0.7  # suppression would leave none of these


@pytest.mark.parametrize("name", [n for n in PREDICTING if n.startswith("detection/")])
def test_detector_learns_from_a_batch_without_any_object(name):
    batch = batch_for(name)
    batch.boxes, batch.box_labels = [torch.zeros(0, 4)] * 4, [torch.zeros(0, dtype=torch.long)] * 4
    model = toy(name).train()
    loss = model.loss(batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", [n for n in PREDICTING if n.startswith("segmentation/")])
def test_segmenter_predicts_a_class_of_each_pixel_and_has_learnt_them(name, learnt):
    model, _ = learnt(name)
    batch = batch_for(name)
    with torch.inference_mode():
        predictions = model.predict(batch.images)
    maps = np.stack([prediction.label_map for prediction in predictions])
    assert maps.shape == (4, SIDE, SIDE)
    assert maps.dtype == np.uint8
    assert maps.max() < 4
    truth = batch.semantic.numpy()
    assert (maps == truth)[truth != IGNORE].mean() > 0.9


@pytest.mark.parametrize("name", GENERATIVE)
def test_samples_have_the_shape_and_range_of_images_and_follow_their_generator(name, learnt):
    model, _ = learnt(name)
    with torch.inference_mode():
        first, again, other = (model.sample(3, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert first.shape == (3, 1, SMALL, SMALL)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def answer(name, model):
    """All that a model says about one batch, as arrays."""
    with torch.inference_mode():
        if name in GENERATIVE:
            return [model.sample(2, torch.Generator().manual_seed(0)).numpy()]
        predictions = model.predict(batch_for(name).images)
    return [value for prediction in predictions for value in vars(prediction).values() if value is not None]


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_model_gives_equal_answers(name, learnt, tmp_path):
    model, _ = learnt(name)
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    checkpoints.save(tmp_path / "it", Checkpoint(name, TOYS[name][0], info_for(name), arrays))
    loaded = checkpoints.load(tmp_path / "it")
    restored = tasks.restore(loaded.model, loaded.info, loaded.model_params, loaded.arrays)
    assert not restored.training
    before, after = answer(name, model), answer(name, restored)
    assert len(before) == len(after) > 0
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", PREDICTING)
def test_another_number_of_classes_names_the_tensor(name):
    model = toy(name)
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    other = replace(info_for(name), classes=list("abcde"), semantic_classes=list("vwxyz"))
    with pytest.raises(PipelineError, match=rf"checkpoint of {name}: \S+ is \([34].*, the network wants \(5") as caught:
        tasks.restore(name, other, TOYS[name][0], arrays)
    assert "\n" not in str(caught.value)


def test_a_missing_and_a_strange_tensor_are_named():
    name = "generative/vae"
    arrays = {key: value.numpy() for key, value in toy(name).state_dict().items()}
    rest = {key: value for key, value in arrays.items() if key != "decoder.0.bias"}
    with pytest.raises(PipelineError, match=r"decoder\.0\.bias is missing, the network wants \(32,\)"):
        tasks.restore(name, info_for(name), TOYS[name][0], rest)
    with pytest.raises(PipelineError, match=r"count is \(\), the network wants none"):
        tasks.restore(name, info_for(name), TOYS[name][0], {**arrays, "count": np.array(3)})


@pytest.mark.parametrize(("name", "where"), [("detection/fcos", "backbone"), ("segmentation/unet", "encoder")])
def test_pretrained_weights_are_frozen_as_asked_and_a_checkpoint_brings_its_own(name, where, monkeypatch):
    params = {**TOYS[name][0], where: "tf_efficientnet_lite0", "weights": "installed", "frozen_stride": 8}
    info = info_for(name)
    model = tasks.build(name, info, params)
    key = next(key for key in model.state_dict() if key.endswith("conv_stem.weight"))
    stem = dict(model.named_parameters())[key]
    assert not stem.requires_grad
    assert torch.equal(stem, tasks.backbones.state_of("tf_efficientnet_lite0", "installed")["conv_stem.weight"])
    assert any(p.requires_grad for k, p in model.named_parameters() if "blocks.6" in k)
    monkeypatch.setattr(tasks.backbones, "INSTALLED", {})  # restoring must not ask for the package
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    restored = tasks.restore(name, info, params, arrays)
    assert all(torch.equal(value, restored.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "where"), [("detection/fcos", "backbone"), ("segmentation/unet", "encoder")])
def test_pretrained_asks_timm_for_its_download(name, where, monkeypatch):
    import timm

    asked = []
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *args, pretrained=False, **kwargs: asked.append(pretrained) or create(*args, **kwargs),
    )
    tasks.build(name, info_for(name), {**TOYS[name][0], "weights": "pretrained"})
    assert asked[-1] is True


@pytest.mark.parametrize(("name", "where"), [("detection/fcos", "backbone"), ("segmentation/unet", "encoder")])
def test_an_unknown_backbone_is_one_line_with_near_names(name, where):
    with pytest.raises(ParamsError, match=r"'tf_efficientnet_lite9'.*did you mean 'tf_efficientnet_lite") as caught:
        tasks.build(name, info_for(name), {**TOYS[name][0], where: "tf_efficientnet_lite9"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[1, 1, 1], [1, 1, 1, 0]])
@pytest.mark.parametrize("key", ["layers", "channels"])
def test_a_resnet_of_other_than_four_groups_is_refused(key, values):
    with pytest.raises(ParamsError, match=f"classification/resnet {key}: .*; fix: write 4 numbers, each at least 1"):
        tasks.build("classification/resnet", info_for("classification/resnet"), {key: values})


def test_sizes_that_a_network_cannot_take_are_refused_with_the_fix():
    info = replace(info_for("segmentation/unet"), image_size=[48, 64])
    with pytest.raises(PipelineError, match=r"multiples of 32 \(\[48, 64\]\); fix: set training\.image_size"):
        tasks.build("segmentation/unet", info, TOYS["segmentation/unet"][0])
    info = replace(info_for("generative/vae"), image_size=None)
    with pytest.raises(PipelineError, match=r"images of one size; fix: set training\.image_size"):
        tasks.build("generative/vae", info, TOYS["generative/vae"][0])


def test_classification_loss_against_mixed_labels_by_hand():
    model = tasks.Classification(torch.nn.Identity())
    batch = Batch(torch.tensor([[1.0, 0.0]]), ["a"], [(1, 1)], torch.tensor([0]))
    # -log(e / (e + 1)) = log(1 + 1 / e) = 0.313262
    assert model.loss(batch)["loss"].item() == pytest.approx(0.313262, abs=1e-6)
    batch.label_weights = torch.tensor([[0.25, 0.75]])
    # 0.25 * 0.313262 + 0.75 * (1 + 0.313262)
    assert model.loss(batch)["loss"].item() == pytest.approx(1.063262, abs=1e-6)


def test_dice_loss_by_hand():
    # two pixels of class 0 and one of class 1; the last pixel is not scored; probabilities of class 1: 0, 1/2, 1/2
    logits = torch.tensor([[[[100.0, 0, 0, 0]], [[0.0, 0, 0, 100]]]])
    target = torch.tensor([[[0, 0, 1, IGNORE]]])
    # class 0: P T = 1.5, |P| = 2, |T| = 2: 3 / 4; class 1: P T = 0.5, |P| = 1, |T| = 1: 1 / 2
    assert tasks.soft_dice_loss(logits, target).item() == pytest.approx(1 - (0.75 + 0.5) / 2, abs=1e-6)


def test_dice_loss_counts_only_classes_that_are_there():
    logits = torch.tensor([[[[100.0, 100.0]], [[0.0, 0.0]], [[0.0, 0.0]]]])
    assert tasks.soft_dice_loss(logits, torch.zeros(1, 1, 2).long()).item() == pytest.approx(0, abs=1e-6)
    assert tasks.soft_dice_loss(logits, torch.full((1, 1, 2), IGNORE)).item() == 1  # nothing is scored
