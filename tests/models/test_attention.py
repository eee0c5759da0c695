"""Multi-head attention against torch's own and against its formula, one query at a time."""

import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.layers import MultiHeadAttention

WIDTH, HEADS = 12, 3


@pytest.fixture
def attention() -> MultiHeadAttention:
    torch.manual_seed(0)
    layer = MultiHeadAttention(WIDTH, HEADS)
    for parameter in layer.parameters():  # biases too, which begin at zero
        nn.init.normal_(parameter, std=0.5)
    return layer


def torchs(layer: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's layer with the same weights."""
    other = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    three = (layer.query, layer.key, layer.value)
    state = {
        "in_proj_weight": torch.cat([each.weight for each in three]),
        "in_proj_bias": torch.cat([each.bias for each in three]),
        "out_proj.weight": layer.out.weight,
        "out_proj.bias": layer.out.bias,
    }
    other.load_state_dict(state)
    return other


def test_self_and_cross_attention_are_torchs(attention: MultiHeadAttention) -> None:
    tokens, context = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    other = torchs(attention)
    for keys in (tokens, context):
        want, _ = other(tokens, keys, keys)
        found = attention(tokens, None if keys is tokens else keys)
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)


def test_a_mask_is_torchs_and_hides_what_comes_later(attention: MultiHeadAttention) -> None:
    tokens = torch.randn(2, 5, WIDTH)
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    want, _ = torchs(attention)(tokens, tokens, tokens, attn_mask=~seen)  # torch's says what is hidden
    torch.testing.assert_close(attention(tokens, mask=seen), want, rtol=1e-5, atol=1e-6)
    changed = tokens.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(
        attention(changed, mask=seen)[:, :3], attention(tokens, mask=seen)[:, :3], rtol=0, atol=1e-6
    )


def test_attention_is_its_formula(attention: MultiHeadAttention) -> None:
    tokens = torch.randn(1, 4, WIDTH)
    query, key, value = (layer(tokens)[0] for layer in (attention.query, attention.key, attention.value))
    rows = []
    for place in range(4):
        parts = []
        for head in range(HEADS):
            own = slice(4 * head, 4 * head + 4)
            fit = torch.stack([(query[place, own] * key[other, own]).sum() / 2 for other in range(4)])  # sqrt(4)
            weights = fit.exp() / fit.exp().sum()
            parts.append(sum(weights[other] * value[other, own] for other in range(4)))
        rows.append(attention.out(torch.cat(parts)))
    torch.testing.assert_close(attention(tokens)[0], torch.stack(rows), rtol=1e-5, atol=1e-6)


def test_order_of_tokens_does_not_matter(attention: MultiHeadAttention) -> None:
    tokens, order = torch.randn(2, 6, WIDTH), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(attention(tokens[:, order]), attention(tokens)[:, order], rtol=1e-5, atol=1e-6)


def test_heads_have_to_divide_the_width() -> None:
    with pytest.raises(ParamsError, match="10 channels do not fall into 4 heads; fix: a multiple"):
        MultiHeadAttention(10, 4)
