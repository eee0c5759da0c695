"""Layers that several architectures share: normalisation, activation, stochastic depth, attention, and folding."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pipeline.errors import ParamsError, PipelineError, did_you_mean

NormKind = Literal["batch", "layer", "instance", "group", "none"]
ActivationKind = Literal["relu", "leaky_relu", "elu", "selu", "gelu", "softplus", "sigmoid", "tanh", "maxout"]
GROUPS = 32  # Wu and He 2018, table 3
MAXOUT_PIECES = 2

Folds = TypeVar("Folds", nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Normalise(nn.Module):
    """(images - mean) / std per channel; grey images become RGB when three channels are wanted.

    Args:
        mean, std: C values for images in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).clamp_min(1e-6).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """[B, C or 1, H, W] in 0..1 -> [B, C, H, W]."""
        return (images.expand(-1, self.mean.shape[1], -1, -1) - self.mean) / self.std


def norm(kind: str, channels: int, dimensions: int = 2) -> nn.Module:
    """A normalisation layer for [B, C, ...], with a scale and a shift per channel.

    What shares one mean and variance: `batch` all images and places of a channel (Ioffe and Szegedy 2015; running
    averages of them in evaluation), `layer` all of one image (Ba et al. 2016, equation 3), `instance` the places of one
    channel of one image (Ulyanov et al. 2016), `group` those of up to 32 groups of two or more channels of one image
    (Wu and He 2018); `none` is the identity.

    Args:
        kind: one of NormKind.
        channels: C.
        dimensions: of each channel: 2 for maps [B, C, H, W], 1 for [B, C, T], 0 for vectors [B, C].

    Raises:
        ParamsError: no such kind, or `instance` of vectors, whose channels have nothing to take a variance over.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm1d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    if kind == "instance":
        if dimensions == 0:
            raise ParamsError("norm 'instance': a channel of a vector is one number; fix: batch, layer, group or none")
        return nn.GroupNorm(channels, channels)
    if kind == "group":
        # of two channels or more each, or a map of one pixel would have nothing to take a variance over
        groups = max(num for num in range(1, min(GROUPS, max(1, channels // 2)) + 1) if channels % num == 0)
        return nn.GroupNorm(groups, channels)
    if kind == "none":
        return nn.Identity()
    raise ParamsError(f"norm {kind!r}: unknown; {did_you_mean(kind, get_args(NormKind))}")


class Maxout(nn.Module):
    """The largest of each `MAXOUT_PIECES` neighbouring channels (Goodfellow et al. 2013, section 3)."""

    def forward(self, values: Tensor) -> Tensor:
        """[B, pieces * C, ...] -> [B, C, ...]."""
        return values.unflatten(1, (-1, MAXOUT_PIECES)).amax(2)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.01),  # Maas et al. 2013, equation 2
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "maxout": Maxout,
}


def activation(name: str) -> nn.Module:
    """A non-linearity by its name in ActivationKind.

    The layer before it must give `pieces(name)` channels for each that is wanted.

    Raises:
        ParamsError: no such name.
    """
    if name not in ACTIVATIONS:
        raise ParamsError(f"activation {name!r}: unknown; {did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def pieces(name: str) -> int:
    """How many channels an activation takes for each that it gives: 2 for maxout, else 1."""
    return MAXOUT_PIECES if name == "maxout" else 1


class StochasticDepth(nn.Module):
    """Leaves a residual branch out for some images of a batch while training (Huang et al. 2016, equation 2).

    What stays is divided by its chance to stay, so evaluation needs no factor (the paper has it there, equation 5).

    Args:
        rate: chance of an image to go without the branch, 0 up to 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """[B, ...], the branch before it is added."""
        if not self.training or self.rate == 0:
            return branch
        shape = (len(branch), *(1,) * (branch.ndim - 1))
        kept = torch.rand(shape, device=branch.device) >= self.rate
        return branch * kept.to(branch.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        """Shown when the network is printed."""
        return f"rate={self.rate}"


def depth_rates(last: float, num: int) -> list[float]:
    """The linear rule for the chances of `num` blocks to be left out: l / L of the last one's (Huang et al., eq. 4)."""
    return [last * (block + 1) / num for block in range(num)]


class MultiHeadAttention(nn.Module):
    """Each query takes a mean of the values, weighed by how well their keys fit it (Vaswani et al. 2017, section 3.2).

    softmax(Q K' / sqrt(d)) V in each of `heads` parts of the channels, d wide, and a linear map of all parts together.
    Queries, keys and values are linear maps of the tokens; keys and values of other tokens make it cross-attention.

    Args:
        width: D, channels of a token.
        heads: parts.

    Raises:
        ParamsError: the channels do not fall into the heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ParamsError(f"{width} channels do not fall into {heads} heads; fix: a multiple")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D].

        Args:
            tokens: ask.
            context: [B, M, D], answers; the tokens themselves when None.
            mask: bool, broadcast to [B, heads, N, M], True where a token may look; everywhere when None.
        """
        context = tokens if context is None else context
        query, key, value = (
            layer(each).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, d]
            for layer, each in ((self.query, tokens), (self.key, context), (self.value, context))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


@torch.no_grad()
def fold(layer: Folds, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> Folds:
    """One layer that gives what a layer and the batch norm after it give in evaluation.

    With s = scale / sqrt(variance + eps) of each output channel: weight' = s weight, bias' = s (bias - mean) + shift.

    Args:
        layer: a convolution or a linear layer; left as it is.
        norm: with running statistics.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = torch.zeros_like(norm.running_mean)
    if norm.affine:
        scale, shift = scale * norm.weight, norm.bias
    bias = torch.zeros_like(norm.running_mean) if layer.bias is None else layer.bias
    folded = copy.deepcopy(layer)
    folded.weight = nn.Parameter(layer.weight * scale.view(-1, *(1,) * (layer.weight.ndim - 1)))
    folded.bias = nn.Parameter((bias - norm.running_mean) * scale + shift)
    return folded


def folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose batch norms stand inside the layers before them, where nothing else reads these.

    Args:
        module: left as it is.

    Raises:
        PipelineError: its forward pass depends on values, so that which layer follows which cannot be read off it.
    """
    network = copy.deepcopy(module).eval()
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception as error:  # whatever the forward pass says of being given no values
        kind = type(module).__name__
        raise PipelineError(
            f"{kind}: its layers cannot be followed ({' '.join(str(error).split())[:120]}); "
            "fix: leave its batch norms as they are (prediction.fold: false)"
        ) from error
    modules: dict[str, Any] = dict(network.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        if calls.count(node.target) > 1 or calls.count(before.target) > 1:
            continue
        layer, after = modules[str(before.target)], modules[str(node.target)]
        is_norm = isinstance(after, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and after.track_running_stats
        if is_norm and isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            network.set_submodule(str(before.target), fold(layer, after))  # type: ignore[type-var]
            network.set_submodule(str(node.target), nn.Identity())
    return network


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    norm_kind: str = "batch",
    activation_kind: str | None = "relu",
) -> nn.Sequential:
    """A convolution, its norm and its activation: [B, in, H, W] -> [B, out, h, w].

    Its weights start as Kaiming's (He et al. 2015, equation 14), so that gradients keep their size through deep stacks.

    Args:
        in_channels, out_channels: of the whole, so that before maxout the convolution gives twice as many.
        kernel: height and width.
        stride: h is about H / stride.
        padding: on each side; None: half the kernel, which keeps H and W at stride 1.
        groups: each sees in / groups channels and gives out / groups.
        norm_kind: see `norm`; the convolution has a bias where it is `none`.
        activation_kind: see `activation`; None: linear.

    Raises:
        ParamsError: the channels do not fall into the groups.
    """
    if in_channels % groups or out_channels % groups:
        raise ParamsError(f"{in_channels} and {out_channels} channels do not fall into {groups} groups; fix: multiples")
    channels = out_channels * (pieces(activation_kind) if activation_kind else 1)
    padding = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=norm_kind == "none")
    # what a number goes to: within its group; nn.init.kaiming_normal_ takes all channels
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (kernel**2 * channels / groups)))
    modules: list[nn.Module] = [layer]
    if norm_kind != "none":
        modules.append(norm(norm_kind, channels))
    if activation_kind is not None:
        modules.append(activation(activation_kind))
    return nn.Sequential(*modules)


def stem(in_channels: int, channels: int, *, small: bool, norm_kind: str, activation_kind: str) -> nn.Sequential:
    """Images to maps of a quarter of their sides (He et al. 2016, table 1); `small`: of their own sides, by one 3x3."""
    if small:
        return convolution(in_channels, channels, 3, norm_kind=norm_kind, activation_kind=activation_kind)
    first = convolution(in_channels, channels, 7, stride=2, norm_kind=norm_kind, activation_kind=activation_kind)
    return first.append(nn.MaxPool2d(3, 2, padding=1))


def small_stem(network: Any, in_channels: int) -> None:
    """Gives a ResNet the stem for images of about 32 pixels (He et al. 2016, section 4.2): one 3x3, and no pooling.

    Args:
        network: timm's; changed in place.
        in_channels: of the images.

    Raises:
        ParamsError: the network begins otherwise.
    """
    first = getattr(network, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(network, "maxpool"):
        what = f"a {type(network).__name__} that does not begin with a convolution and a pool"
        raise ParamsError(f"small_stem: {what}; fix: set it to false, or name a ResNet")
    network.conv1 = nn.Conv2d(in_channels, first.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


@fx.wrap
def _response_norm(norm: nn.LocalResponseNorm, maps: Tensor) -> Tensor:
    """`norm` in float32: in bfloat16 what is added to k would be lost.

    Args:
        norm: gives size, alpha, beta and k.
        maps: [B, C, H, W].
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    # a GPU adds up the gradients of a pool over three axes in any order, of one over two in one order
    values = maps.flatten(2) if maps.is_cuda else maps
    return F.local_response_norm(values, norm.size, norm.alpha, norm.beta, norm.k).view_as(maps)


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch's, the same on every device and under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same, float32 or wider."""
        return _response_norm(self, input)


def response_norm(wanted: bool) -> list[nn.Module]:
    """A normalisation across neighbouring maps (Krizhevsky et al. 2012, section 3.3), or nothing.

    Alpha is five times theirs, because torch divides it by the number of maps.
    """
    return [LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)] if wanted else []


def spared(network: nn.Module) -> None:
    """Lets narrow 1x1 convolutions with a stride see only what they look at, for training on a CPU: the same sums.

    The backward pass of torch 2.15's oneDNN writes beyond its memory, and the process dies, where such a convolution
    has fewer than 16 channels and maps of 48 pixels or more in channels_last.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.in_channels < 16
            and (module.kernel_size, module.padding) == ((1, 1), (0, 0))
            and module.stride != (1, 1)
        ):
            module.register_forward_pre_hook(partial(_looked_at, stride=module.stride))  # type: ignore[arg-type]
            module.stride = (1, 1)


def _looked_at(_module: nn.Module, inputs: tuple[Tensor], *, stride: tuple[int, int]) -> Tensor:
    return inputs[0][..., :: stride[0], :: stride[1]]


def dense(widths: Sequence[int], dropout: Sequence[float | None], activation_kind: str) -> nn.Sequential:
    """Dense layers from the first width to the last, with an activation after each but the last.

    Args:
        widths: of what comes in, and of what each of the layers gives.
        dropout: before each of the layers; None: no such module.
        activation_kind: see `activation`.
    """
    modules: list[nn.Module] = []
    for layer, ((before, after), rate) in enumerate(zip(itertools.pairwise(widths), dropout, strict=True), 1):
        if rate is not None:
            modules.append(nn.Dropout(rate))
        if layer < len(dropout):
            modules += [nn.Linear(before, after * pieces(activation_kind)), activation(activation_kind)]
        else:
            modules.append(nn.Linear(before, after))
    return nn.Sequential(*modules)


def classifier(channels: int, num_classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Maps [B, C, H, W] of any size -> logits [B, K], from the mean of each map (Lin et al. 2014, section 3.2)."""
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes))


def elementwise(name: str) -> nn.Module:
    """An activation that gives as many channels as it takes, as is wanted behind a sum.

    Raises:
        ParamsError: no such name, or maxout.
    """
    if pieces(name) != 1:
        raise ParamsError(f"activation {name!r}: halves the channels, which a sum cannot; fix: relu or another")
    return activation(name)


def at_least(side: int, image_size: Sequence[int] | None, model: str) -> tuple[int, int]:
    """Height and width of the images, which `model` needs to be at least `side`.

    Raises:
        PipelineError: smaller, or of several sizes.
    """
    fix = f"fix: set training.image_size to {side} or more"
    if image_size is None:
        raise PipelineError(f"{model} needs images of one size; {fix}")
    if min(image_size) < side:
        raise PipelineError(f"{model} needs images of at least {side} pixels a side ({list(image_size)}); {fix}")
    height, width = image_size
    return height, width


def places(side: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """How many places a kernel takes along a side: (side + 2 padding - kernel) / stride + 1, rounded down; 0 for none.

    >>> places(227, 11, stride=4)
    55
    """
    return max(0, (side + 2 * padding - kernel) // stride + 1)


def map_size(chain: nn.Module, image_size: Sequence[int] | None, model: str) -> tuple[int, int]:
    """Height and width of the maps that a chain of convolutions and pools makes of images.

    Args:
        chain: modules that follow each other; those that are no convolution or pool leave the size as it is.
        image_size: of the images.
        model: that needs them, for the error.

    Raises:
        PipelineError: the images are of several sizes, or too small: says which size would do.
    """

    def side_after(side: int) -> int:
        for module in chain.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                kernel, stride, padding = (
                    value if isinstance(value, int) else int(value[0])
                    for value in (module.kernel_size, module.stride, module.padding)
                )
                side = places(side, kernel, stride, padding) if side else 0
        return side

    smallest = next(side for side in itertools.count(1) if side_after(side))
    height, width = at_least(smallest, image_size, model)
    return side_after(height), side_after(width)


def check_numbers(values: Sequence[int], num: int, where: str) -> None:
    """Refuses a list of other than `num` numbers, or with one below 1.

    Raises:
        ParamsError: names `where`.
    """
    if len(values) != num or min(values) < 1:
        raise ParamsError(f"{where}: {list(values)}; fix: write {num} numbers, each at least 1")
