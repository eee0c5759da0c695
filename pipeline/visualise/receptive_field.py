"""How far the places of a tensor see in the image that it was computed from, followed through functions of torch.

Behind a kernel of k places the receptive field is r = r before + (k - 1) jump before, and the jump between two places
is jump before * stride (Araujo et al. 2019, equations 2 and 3). A dense layer on flattened maps is a kernel over all of
their places, as is a mean over them. From where a layer sees all places, by a dense layer, a mean, a gate or attention,
the field stays as it is; where places are cut into windows it is not told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

SIGNATURES = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation"),
    "conv_transpose2d": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation"),
    "avg_pool2d": ("input", "kernel_size", "stride"),
}
ATTENTION = ("scaled_dot_product_attention", "matmul", "bmm", "einsum", "multi_head_attention_forward")
RESHAPES = ("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze")
TURNS = ("transpose", "permute")
REDUCTIONS = ("mean", "sum", "amax", "max")


@dataclass(frozen=True)
class Field:
    """What the places of a tensor see of the image.

    Attributes:
        size, jump: in pixels, height and width.
        extent: how many places there are, height and width.
        axes: of the tensor, over which places lie; None where that was lost.
        whole: whether each place sees all others; then nothing widens it.
    """

    size: tuple[float, float]
    jump: tuple[float, float]
    extent: tuple[int, int]
    axes: tuple[int, ...] | None
    whole: bool = False

    def behind(self, kernel: Sequence[int], stride: Sequence[float], extent: Sequence[int]) -> Field:
        """Of the result of a kernel (dilated: its whole reach) that makes steps."""
        if self.whole:
            return replace(self, extent=(extent[0], extent[1]))
        size = tuple(s + (k - 1) * j for s, k, j in zip(self.size, kernel, self.jump, strict=True))
        jump = tuple(j * s for j, s in zip(self.jump, stride, strict=True))
        return Field((size[0], size[1]), (jump[0], jump[1]), (extent[0], extent[1]), self.axes)

    def over_all(self, axes: tuple[int, ...] | None = None) -> Field:
        """Of the result of something that sees all places."""
        return replace(self.behind(self.extent, (1, 1), self.extent), axes=axes, whole=True)


@dataclass(frozen=True)
class Reach:
    """How a function moves over places: the kernel as it is given, its whole reach with dilation, and its steps."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    reach: tuple[int, int]
    enlarges: bool = False


def reach_of(name: str, inputs: list[Tensor], args: Any, kwargs: Any, output: Tensor) -> Reach | None:
    """Of a convolution or pool; None of any other function."""
    if name.startswith("adaptive_"):
        sides = list(zip(inputs[0].shape[-2:], output.shape[-2:], strict=True))
        kernel, stride = pair([-(-side // out) for side, out in sides]), pair([max(1, s // o) for s, o in sides])
        return Reach(kernel, stride, kernel)
    if name not in SIGNATURES:
        return None
    given = dict(zip(SIGNATURES[name], args, strict=False)) | kwargs
    kernel = pair(inputs[1].shape[2:] if name.startswith("conv") else given["kernel_size"])
    stride = pair(given.get("stride") or (kernel if name.endswith("pool2d") else 1))
    dilation = pair(given.get("dilation") or 1)
    reach = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    return Reach(kernel, stride, reach, name == "conv_transpose2d")


def behind(
    name: str,
    known: list[Field | None],
    reach: Reach | None,
    shape: tuple[int, ...],
    args: Any,
    kwargs: Any,
    output: Tensor,
) -> Field | None:
    """What the places of a function's result see; None where that cannot be told.

    Args:
        name: of the function.
        known: what its inputs see.
        reach: of a convolution or pool.
        shape: of its first input.
        args, kwargs: that it was called with.
        output: its result.
    """
    if any(each is None for each in known):
        return None
    found = _union([each for each in known if each is not None])
    if reach is not None:
        extent = output.shape[-2:]
        if reach.enlarges:  # a place of the result gets something from ceil(kernel / stride) places
            touched = [-(-k // s) for k, s in zip(reach.reach, reach.stride, strict=True)]
            return found.behind(touched, [1 / s for s in reach.stride], extent)
        if name.startswith("adaptive_") and tuple(extent) == (1, 1):
            return found.over_all((2, 3))
        return found.behind(reach.reach, reach.stride, extent)
    if found.whole or (tuple(output.shape) == shape and name not in (*ATTENTION, *TURNS, "linear")):
        return found
    if name in ATTENTION:
        return found.over_all() if output.shape[-2] >= found.extent[0] * found.extent[1] else None
    if name == "interpolate":
        scale = [before / after for before, after in zip(shape[-2:], output.shape[-2:], strict=True)]
        return found.behind((1, 1), scale, output.shape[-2:])
    if found.axes is None:
        return None
    return _along(name, found, found.axes, shape, args, kwargs, output)


def _along(
    name: str, found: Field, axes: tuple[int, ...], shape: tuple[int, ...], args: Any, kwargs: Any, output: Tensor
) -> Field | None:
    """`behind` of what depends on the axes along which places lie."""
    after, last = tuple(output.shape), len(shape) - 1
    if name == "linear":
        return found.over_all() if last in axes else found
    if name in TURNS:
        order = list(range(len(shape)))
        if name == "transpose":
            one, other = (axis % len(shape) for axis in args[1:3])
            order[one], order[other] = other, one
        else:
            order = list(args[1] if isinstance(args[1], Sequence) else args[1:])
        return replace(found, axes=tuple(sorted(order.index(axis) for axis in axes)))
    if name in REDUCTIONS:
        dims = kwargs.get("dim", args[1] if len(args) > 1 else range(len(shape)))
        reduced = {dim % len(shape) for dim in ([dims] if isinstance(dims, int) else dims)}
        return found.over_all(()) if reduced >= set(axes) else None
    if name in RESHAPES:
        if len(axes) == 2 and axes[0] == last - 1 and after[-2:] == shape[-2:]:
            return replace(found, axes=(len(after) - 2, len(after) - 1))
        places = found.extent[0] * found.extent[1]
        if len(after) == 2 or after[-1] == places:
            return replace(found, axes=(len(after) - 1,))
        return None
    if name in ("cat", "concat", "__getitem__", "getitem") and len(after) == len(shape):
        return found  # more or fewer channels, or a token besides those of places
    return None


def _union(fields: list[Field]) -> Field:
    """What a place sees that is made from several: the most of each; places as where there are most."""
    first = max(fields, key=lambda each: each.extent[0] * each.extent[1])
    pairs = [
        [max(each[i] for each in values) for i in (0, 1)]
        for values in ([each.size for each in fields], [each.jump for each in fields])
    ]
    (height, width), (down, right) = pairs
    return Field((height, width), (down, right), first.extent, first.axes, any(each.whole for each in fields))


def pair(value: Any) -> tuple[int, int]:
    """Height and width of what is given as one number or as two."""
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])
