import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline.errors import ParamsError
from pipeline.models import backbones
from pipeline.models.classification import timm_model

TINY = "test_efficientnet"


def test_weights_are_those_of_the_file_and_the_last_layer_is_new(info_of, tmp_path):
    theirs = timm.create_model(TINY).eval()
    save_file(theirs.state_dict(), tmp_path / "it.safetensors")
    network = timm_model.build(info_of(1, 32), name=TINY, weights=str(tmp_path / "it.safetensors")).eval()
    normalise, body, head = network
    images = torch.rand(2, 1, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in backbones.normalisation(TINY))
    features = theirs.forward_head(
        theirs.forward_features((images.expand(-1, 3, -1, -1) - mean) / std), pre_logits=True
    )
    torch.testing.assert_close(body(normalise(images)), features)
    assert head[-1].out_features == 10
    assert body.is_pretrained


def test_fresh_networks_take_the_channels_and_size_of_the_data(info_of):
    body = timm_model.build(info_of(1, 32), name=TINY)[1]
    assert body.conv_stem.in_channels == 1
    assert not body.is_pretrained
    patches = timm_model.build(info_of(1, 32), name="vit_tiny_patch16_224", options={"depth": 1})[1]
    assert patches.pos_embed.shape[1] == 1 + (32 // 16) ** 2


def test_unknown_names_weights_and_options_are_one_line(info_of):
    for options, message in (
        ({"name": "resnet188"}, "'resnet188': timm has no such model .*did you mean 'resnet18'"),
        ({"name": TINY, "weights": "installed"}, "no installed package carries its weights"),
        ({"name": TINY, "options": {"speed": 1}}, "timm_model test_efficientnet: .*'speed'; fix: its options"),
    ):
        with pytest.raises(ParamsError, match=message) as caught:
            timm_model.build(info_of(3, 32), **options)
        assert "\n" not in str(caught.value)
