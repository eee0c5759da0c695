"""What each layer of a network costs: shapes, parameters, FLOPs, memory of activations and receptive field.

Shapes alone are computed, without weights or pixels. The closed forms, for one image:
parameters of a convolution (kh kw in / groups + 1) out, of a dense layer (in + 1) out;
FLOPs, twice the multiply-adds: 2 kh kw in / groups for each number of the result, 2 in of a dense layer; norms,
activations and pools are not counted, nor are biases; what is none of these is as torch's own counter has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline.visualise import receptive_field
from pipeline.visualise.receptive_field import Field

BYTES = 4  # of a float32
CLOSED_FLOPS: dict[str, Any] = {
    "conv2d": lambda inputs, out: 2 * out.numel() * inputs[1][0].numel(),
    "conv_transpose2d": lambda inputs, out: 2 * inputs[0].numel() * inputs[1][0].numel(),
    "linear": lambda inputs, out: 2 * out.numel() * inputs[1].shape[1],
}
"""FLOPs of a call from its tensors and its result; those of other functions are as torch counts them."""


@dataclass(frozen=True)
class Layer:
    """A row of the table: a module that computes something, or the sums and products of one between its parts.

    Attributes:
        name: of the module in the network.
        kind: its class, or the functions that it calls by itself.
        shape: of its result for one image; empty where it is not run in evaluation.
        parameters: its own.
        flops: 2 for each multiplication and addition.
        memory: bytes of the results that it allocates, in float32; 0 for a view or a result in place.
        kernel, stride: of a convolution or pool, height and width.
        receptive_field, jump: pixels of the image, height and width; None where places are cut into windows.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int = 0
    flops: int = 0
    memory: int = 0
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    receptive_field: tuple[float, float] | None = None
    jump: tuple[float, float] | None = None


@dataclass
class _Open:
    """A module that is running."""

    name: str
    module: nn.Module
    functions: list[str] = field(default_factory=list)
    flops: int = 0
    memory: int = 0
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None


class _Follower(TorchFunctionMode):
    """Sees every function that a network calls, and in which module."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.seen: set[int] = set()  # ids of parameters that have been counted
        self.running: list[_Open] = []
        height, width = image.shape[2:]
        self.fields: dict[int, Field | None] = {id(image): Field((1, 1), (1, 1), (height, width), (2, 3))}
        self.alive: list[Tensor] = [image]  # so that no id is given twice

    def enter(self, name: str, module: nn.Module) -> None:
        """A module begins."""
        self.running.append(_Open(name, module))

    def leave(self, inputs: Any, output: Any) -> None:
        """The module that began last ends: a row, if it computed, holds or reshaped anything."""
        done = self.running.pop()
        result, before = (next(iter(_tensors(each)), None) for each in ([output], inputs))
        shape = () if result is None else tuple(result.shape[1:])
        parameters = self.count(done.module)
        is_leaf = not list(done.module.children())
        reshapes = is_leaf and before is not None and tuple(before.shape[1:]) != shape
        if not (parameters or done.flops or done.memory or reshapes):
            return
        kind = type(done.module).__name__ if is_leaf else " ".join(dict.fromkeys(done.functions))
        found = None if result is None else self.fields.get(id(result))
        self.layers.append(
            Layer(
                done.name,
                kind or type(done.module).__name__,
                shape,
                parameters,
                done.flops,
                done.memory,
                done.kernel,
                done.stride,
                found.size if found else None,
                found.jump if found else None,
            )
        )

    def count(self, module: nn.Module) -> int:
        """Parameters of a module by itself that were not counted yet."""
        own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in self.seen]
        self.seen.update(id(parameter) for parameter in own)
        return sum(parameter.numel() for parameter in own)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        inputs = list(_tensors([args, kwargs]))
        stored = {tensor.untyped_storage()._cdata for tensor in inputs}
        shapes = [tuple(tensor.shape) for tensor in inputs]  # before an operation in place
        if name in CLOSED_FLOPS:
            result = func(*args, **kwargs)
            flops = CLOSED_FLOPS[name](inputs, result)
        else:
            with FlopCounterMode(display=False) as counter:
                result = func(*args, **kwargs)
            flops = counter.get_total_flops()
        outputs = list(_tensors([result]))
        if not outputs or not self.running:
            return result
        now = self.running[-1]
        now.flops += flops
        fresh = [tensor for tensor in outputs if tensor.untyped_storage()._cdata not in stored]
        now.memory += BYTES * sum(tensor.numel() for tensor in fresh)
        if fresh:
            now.functions.append(name.strip("_"))
        known = [self.fields[id(tensor)] for tensor in inputs if id(tensor) in self.fields]
        if known:
            reach = receptive_field.reach_of(name, inputs, args, kwargs, outputs[0])
            if reach is not None:
                now.kernel, now.stride = reach.kernel, reach.stride
            for output in outputs:
                self.fields[id(output)] = receptive_field.behind(name, known, reach, shapes[0], args, kwargs, output)
                self.alive.append(output)
        return result


def _tensors(values: Any) -> Iterable[Tensor]:
    """The tensors in nested lists and dicts, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def layers_of(network: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of a network in evaluation mode, in the order in which they finish, for one image.

    Args:
        network: [B, C, H, W] -> anything; comes back on the meta device, without its weights.
        image_shape: C, H, W.

    Returns:
        Rows whose parameters add up to those of the network; those of modules that only train stand at the end.
    """
    network = network.to("meta").eval()
    image = torch.zeros(1, *image_shape, device="meta")
    follower = _Follower(image)
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda m, _inputs, name=name: follower.enter(name, m)))
        hooks.append(module.register_forward_hook(lambda _m, inputs, output: follower.leave(inputs, output)))
    try:
        with torch.no_grad(), follower:
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    idle = [(name, module, follower.count(module)) for name, module in network.named_modules()]
    rest = [Layer(name, f"{type(module).__name__} (training only)", (), num) for name, module, num in idle if num]
    return follower.layers + rest
