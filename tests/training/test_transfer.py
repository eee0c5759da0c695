from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models import tasks
from pipeline.params import Distillation
from pipeline.structures import DatasetInfo
from pipeline.training import optim, transfer
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.distillation import Distilled

RESNET = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8], "small_stem": True}


def info(num_classes=3, side=8):
    classes = [str(index) for index in range(num_classes)]
    return DatasetInfo("toy", [], classes, 1, "", "", "", mean=[0.5], std=[0.2], image_size=[side, side])


def checkpoint(of, model="classification/resnet", params=RESNET):
    torch.manual_seed(1)
    arrays = {key: value.numpy() for key, value in tasks.build(model, of, params).state_dict().items()}
    return Checkpoint(model, params, of, arrays)


class Settings:
    def __init__(self, distillation=None):
        self.distillation = distillation


def test_tensors_of_the_same_name_and_shape_are_taken_and_the_others_named(capsys):
    at, own = checkpoint(info(5)), info(3)
    torch.manual_seed(2)
    model = tasks.build("classification/resnet", own, RESNET)
    last = model.network[1].fc.weight.clone()
    assert transfer.begin(model, at, own, Settings(), "tuned") is model
    said = capsys.readouterr().err
    num = len(model.state_dict())
    assert said == f"tuned: {num - 2} of {num} tensors taken; new are network.1.fc.weight, network.1.fc.bias\n"
    for key, value in model.state_dict().items():
        assert key.startswith("network.1.fc.") or np.array_equal(value.numpy(), at.arrays[key])
    assert torch.equal(model.network[1].fc.weight, last)


def test_what_was_taken_learns_at_its_own_rate():
    model = tasks.build("classification/resnet", info(3), RESNET)
    transfer.take(model, checkpoint(info(5)).arrays, "x")
    training = SimpleNamespace(
        optimizer="sgd", lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0, freeze=[], l1=0.0,
        backbone_lr_factor=0.1, layer_decay=1.0,
    )  # fmt: skip
    groups = optim.optimiser(model, training).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for key, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.5 if key.startswith("network.1.fc.") else 0.05), key


def test_many_new_tensors_are_counted():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    said = transfer.take(model, {"0.weight": np.ones((1, 1), np.float32), "1.weight": np.ones(1, np.float32)}, "x")
    assert said == "1 of 8 tensors taken; new are 0.bias, 1.weight, 1.bias, 2.weight and 3 more"
    assert model[0].weight.item() == 1


def test_how_logits_are_read_is_not_taken():
    model = tasks.Classification(nn.Linear(1, 2), loss="hinge")
    other = tasks.Classification(nn.Linear(1, 2), loss="binary_cross_entropy")
    transfer.take(model, {key: value.numpy() for key, value in other.state_dict().items()}, "x")
    assert int(model.state_dict()[tasks.LOSS_KIND]) == list(tasks.LOSSES).index("hinge")
    assert torch.equal(model.network.weight, other.network.weight)


def test_weights_of_another_network_are_refused():
    model = tasks.build("classification/vit", info(), {"patch": 4})
    with pytest.raises(PipelineError, match=r"run tuned: the checkpoint of classification/resnet has no weight of"):
        transfer.begin(model, checkpoint(info()), info(), Settings(), "tuned")


def test_a_checkpoint_teaches_where_distillation_is_asked_for():
    at, student = checkpoint(info()), tasks.build("classification/vit", info(), {"patch": 4})
    model = transfer.begin(student, at, info(), Settings(Distillation(temperature=3.0, weight=0.25)), "student")
    assert isinstance(model, Distilled)
    assert (model.temperature, model.weight) == (3.0, 0.25)
    images = torch.rand(2, 1, 8, 8)
    want = tasks.restore(at.model, at.info, at.model_params, at.arrays).network(images)
    torch.testing.assert_close(model.teacher[0](images), want)
    assert list(model.state_dict()) == list(student.state_dict())


@pytest.mark.parametrize(
    ("own", "what"),
    [(info(4), r"has classes \['0', '1', '2'\], it has"), (info(3, 16), r"has image_size \[8, 8\], it")],
)
def test_a_teacher_of_other_images_is_refused(own, what):
    model = tasks.build("classification/vit", own, {"patch": 4})
    with pytest.raises(PipelineError, match=rf"run student: its teacher {what}"):
        transfer.begin(model, checkpoint(info()), own, Settings(Distillation()), "student")


def test_one_that_gives_no_logits_cannot_teach():
    at = checkpoint(info(), "classification/rotation", {"encoder_params": {"layers": [1, 1, 1, 1]}, "memory": 4})
    model = tasks.build("classification/vit", info(), {"patch": 4})
    with pytest.raises(PipelineError, match="run student: classification/rotation cannot teach it"):
        transfer.begin(model, at, info(), Settings(Distillation()), "student")


def test_without_a_parent_nothing_happens():
    model = nn.Linear(1, 1)
    assert transfer.begin(model, None, info(), Settings(), "plain") is model
    assert transfer.digest(None) == ""


def test_the_digest_tells_weights_apart():
    one, other = checkpoint(info()), checkpoint(info())
    assert transfer.digest(one) == transfer.digest(other)
    name = next(key for key, array in other.arrays.items() if array.size > 1)
    other.arrays[name] = other.arrays[name] + 1
    assert transfer.digest(one) != transfer.digest(other)
