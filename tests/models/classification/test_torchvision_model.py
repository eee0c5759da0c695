import pytest
import torch
import torchvision
from safetensors.torch import save_file

from pipeline.errors import ParamsError
from pipeline.models import backbones
from pipeline.models.classification import torchvision_model

SMALL = "shufflenet_v2_x0_5"


def test_weights_are_those_of_the_file_and_the_last_layer_is_new(info_of, tmp_path):
    theirs = torchvision.models.get_model(SMALL).eval()
    save_file(theirs.state_dict(), tmp_path / "it.safetensors")
    network = torchvision_model.build(info_of(1, 32), name=SMALL, weights=str(tmp_path / "it.safetensors")).eval()
    images = torch.rand(2, 1, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbones.IMAGENET_MEAN, backbones.IMAGENET_STD))
    theirs.fc = torch.nn.Identity()
    torch.testing.assert_close(network[:2](images), theirs((images.expand(-1, 3, -1, -1) - mean) / std))
    assert (network[2].in_features, network[2].out_features) == (1024, 10)
    assert network[1].is_pretrained


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet"])
def test_networks_that_end_in_a_convolution_or_have_auxiliary_classifiers_give_logits(info_of, name):
    network = torchvision_model.build(info_of(3, 64), name=name).train()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_unknown_names_weights_and_options_are_one_line(info_of):
    for options, message in (
        ({"name": "resnet188"}, "'torchvision/resnet188': unknown .*did you mean 'resnet18'"),
        ({"name": SMALL, "weights": "installed"}, "no installed package carries its weights"),
        ({"name": SMALL, "options": {"speed": 1}}, "torchvision_model shufflenet_v2_x0_5: .*'speed'; fix: its options"),
    ):
        with pytest.raises(ParamsError, match=message) as caught:
            torchvision_model.build(info_of(3, 32), **options)
        assert "\n" not in str(caught.value)
