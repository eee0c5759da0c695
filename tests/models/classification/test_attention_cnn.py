import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models.classification import attention_cnn


def test_the_network_begins_as_the_plain_one(info_of):
    info, options = info_of(3, 32), {"channels": [4, 8, 8]}
    plain = attention_cnn.build(info, attention=False, **options).eval()
    whole = attention_cnn.build(info, **options).eval()
    layers = [layer for layer in whole[1] if not isinstance(layer, attention_cnn.SelfAttention)]
    assert len(layers) == len(whole[1]) - 1
    for own, other in zip(layers, plain[1], strict=True):
        own.load_state_dict(other.state_dict())
    whole[2].load_state_dict(plain[2].state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(whole(images), plain(images))
    next(layer for layer in whole[1] if isinstance(layer, attention_cnn.SelfAttention)).gamma.data.fill_(1.0)
    assert not torch.allclose(whole(images), plain(images))


def test_attention_is_equations_1_to_3_of_the_paper():
    layer = attention_cnn.SelfAttention(8)  # queries, keys and values of 8 / 8 = 1 channel
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    maps = torch.randn(1, 8, 2, 2)
    query, key, value = (each(maps).flatten() for each in (layer.query, layer.key, layer.value))
    places = []
    for place in range(4):
        weights = (query[place] * key).exp() / (query[place] * key).exp().sum()
        places.append((weights * value).sum())
    want = maps + layer.gamma * layer.out(torch.stack(places).view(1, 1, 2, 2))
    torch.testing.assert_close(layer(maps), want, rtol=1e-5, atol=1e-5)


def test_a_place_sees_the_whole_image_only_by_attention(info_of):
    for attention in (True, False):
        model = attention_cnn.build(info_of(1, 32), channels=[4, 4], attention=attention).eval()
        if attention:
            next(layer for layer in model[1] if isinstance(layer, attention_cnn.SelfAttention)).gamma.data.fill_(1.0)
        images = torch.rand(1, 1, 32, 32, requires_grad=True)
        maps = model[1](images)
        (gradient,) = torch.autograd.grad(maps[0, :, 0, 0].sum(), images)
        assert bool(gradient[0, 0, 20:, 20:].any()) is attention


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32)])
def test_images_of_both_kinds_give_logits(info_of, channels, side):
    model = attention_cnn.build(info_of(channels, side))
    assert model(torch.rand(2, channels, side, side)).shape == (2, 10)


def test_images_that_cannot_be_halved_so_often_are_told(info_of):
    with pytest.raises(PipelineError, match="at least 16 pixels"):
        attention_cnn.build(info_of(1, 8), channels=[4, 4, 4, 4, 4])
