"""How the weights of a network begin, whatever its file does by itself.

The variance of what a layer gives is that of its inputs times fan_in times the variance of its weights. Where that
product is below 1, signals and gradients die out in a deep network; where it is above 1, they explode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError, did_you_mean

SMALL_STD = 0.01
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, nn.MultiheadAttention, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)

Start = Callable[[Tensor, bool, torch.Generator | None], object]


def _zeros(weight: Tensor, transposed: bool, generator: torch.Generator | None) -> object:
    """All alike: units that begin alike get equal gradients and stay alike; after a ReLU they get none at all."""
    return nn.init.zeros_(weight)


def _small_gaussian(weight: Tensor, transposed: bool, generator: torch.Generator | None) -> object:
    """N(0, 0.01^2) whatever the fan: dies out in deep networks."""
    return nn.init.normal_(weight, std=SMALL_STD, generator=generator)


def _xavier(weight: Tensor, transposed: bool, generator: torch.Generator | None) -> object:
    """Variance 2 / (fan_in + fan_out), uniform (Glorot and Bengio 2010, equation 16): right for tanh, half for ReLU."""
    return nn.init.xavier_uniform_(weight, generator=generator)


def _kaiming(weight: Tensor, transposed: bool, generator: torch.Generator | None) -> object:
    """N(0, 2 / fan_in) (He et al. 2015, equation 10): makes good for the half that a ReLU takes away."""
    mode: Literal["fan_in", "fan_out"] = "fan_out" if transposed else "fan_in"  # a transposed weight is [in, out, ...]
    return nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu", generator=generator)


KINDS: dict[str, Start | None] = {
    "default": None,
    "zeros": _zeros,
    "small_gaussian": _small_gaussian,
    "xavier": _xavier,
    "kaiming": _kaiming,
}


@torch.no_grad()
def initialise(network: nn.Module, kind: str, generator: torch.Generator | None = None) -> None:
    """Begins the weights of a network's linear and convolutional layers anew; their biases begin at zero.

    As they are stay: pretrained modules (attribute `is_pretrained`), fixed parameters, and weights that the network's
    file begins at zero on purpose, such as those of the last convolution of a residual block.

    Args:
        network: changed in place.
        kind: of KINDS; `default` changes nothing.
        generator: source of the random numbers; None: torch's own.

    Raises:
        ParamsError: no such kind.
    """
    if kind not in KINDS:
        raise ParamsError(f"init {kind!r}: unknown; {did_you_mean(kind, KINDS)}")
    start = KINDS[kind]
    if start is None:
        return
    kept = {id(p) for m in network.modules() if getattr(m, "is_pretrained", False) for p in m.parameters()}
    for module in network.modules():
        if not isinstance(module, LAYERS):
            continue
        own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad and id(p) not in kept}
        weights = [p for name, p in own.items() if "weight" in name and p.any()]
        for weight in weights:
            start(weight, isinstance(module, TRANSPOSED), generator)
        for name, parameter in own.items():
            if weights and "bias" in name:
                nn.init.zeros_(parameter)
