"""Numeric against analytic gradients: the central difference in float64, entry by entry.

The relative error |a - n| / max(|a|, |n|) and what it says are those of the CS231n notes ("Gradient checks"): 1e-7 and
less is right; up to 1e-4 is fine where there are kinks (ReLU, max, hinge); above that the gradient is probably wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

STEPS = (1e-5, 1e-4, 1e-6, 1e-3)
"""Half the distance of both points, tried until the error is RIGHT: rounding wants it large, curvature small."""
RIGHT, FINE = 1e-7, 1e-4
SMALLEST = 1e-5
"""Below this share of the loss a gradient drowns in the rounding of the loss: errors are relative to this then."""


@dataclass(frozen=True)
class Entry:
    """One number of a parameter.

    Attributes:
        index: into the flattened tensor.
        analytic: what the backward pass says.
        numeric: the central difference.
        error: their relative distance.
        on_kink: the slopes on both sides differ and the analytic one lies between them, so that it is not wrong.
    """

    index: int
    analytic: float
    numeric: float
    error: float
    on_kink: bool = False


@dataclass(frozen=True)
class Checked:
    """The entries of one tensor that were looked at."""

    name: str
    entries: list[Entry]

    @property
    def error(self) -> float:
        """The worst relative error, those on kinks left out; 0 where all are."""
        return max((entry.error for entry in self.entries if not entry.on_kink), default=0.0)

    @property
    def verdict(self) -> str:
        """right, fine or wrong."""
        return "right" if self.error <= RIGHT else "fine" if self.error <= FINE else "wrong"

    @property
    def note(self) -> str:
        """What is to be said of its entries."""
        kinks = sum(entry.on_kink for entry in self.entries)
        if kinks:
            return f"{kinks} on a kink, set aside"
        return "all are 0" if all(entry.analytic == entry.numeric == 0 for entry in self.entries) else ""


def central_difference(function: Callable[[], float], values: Tensor, index: int, step: float) -> float:
    """(f(x + h) - f(x - h)) / 2h of one number, whose error falls with h squared.

    Args:
        function: of `values`, which it reads anew at each call.
        values: flat, float64, changed in place and given back as it was.
        index: of the number.
        step: h.
    """
    return _slope(function, values, index, step, step)


def _slope(function: Callable[[], float], values: Tensor, index: int, up: float, down: float) -> float:
    before = values[index].item()
    values[index] = high = before + up
    at_high = function()
    values[index] = low = before - down
    at_low = function()
    values[index] = before
    return (at_high - at_low) / (high - low)


def relative_error(analytic: float, numeric: float, smallest: float = 0.0) -> float:
    """|a - n| / max(|a|, |n|, smallest); 0 where both are 0."""
    size = max(abs(analytic), abs(numeric), smallest)
    return abs(analytic - numeric) / size if size else 0.0


def check(
    loss: Callable[[], Tensor], parameters: Mapping[str, Tensor], *, entries: int, seed: int
) -> Iterator[Checked]:
    """Looks at some numbers of each tensor: the one with the largest gradient, and random ones.

    Args:
        loss: a float64 scalar of the parameters, the same at each call.
        parameters: float64 leaves that want gradients, by name.
        entries: how many numbers of each tensor, at least one.
        seed: of the choice.

    Yields:
        One per tensor, in their order.
    """
    value = loss()
    gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    smallest = SMALLEST * max(1.0, abs(value.item()))
    rng = np.random.default_rng(seed)

    def function() -> float:
        with torch.no_grad():
            return loss().item()

    for (name, tensor), gradient in zip(parameters.items(), gradients, strict=True):
        flat = tensor.detach().view(-1)
        slopes = torch.zeros_like(flat) if gradient is None else gradient.reshape(-1)
        chosen = [int(slopes.abs().argmax()), *rng.permutation(len(flat))[: entries - 1].tolist()]
        found = [_entry(function, flat, index, slopes[index].item(), smallest) for index in dict.fromkeys(chosen)]
        yield Checked(name, found)


def _entry(function: Callable[[], float], flat: Tensor, index: int, analytic: float, smallest: float) -> Entry:
    best: tuple[float, float] | None = None
    for step in STEPS:
        numeric = central_difference(function, flat, index, step)
        error = relative_error(analytic, numeric, smallest)
        if best is None or error < best[0]:
            best = error, numeric
        if error <= RIGHT:
            break
    assert best is not None
    error, numeric = best
    on_kink = error > FINE and _is_on_kink(function, flat, index, analytic, smallest)
    return Entry(index, analytic, numeric, error, on_kink)


def _is_on_kink(function: Callable[[], float], flat: Tensor, index: int, analytic: float, smallest: float) -> bool:
    """Whether the slopes up and down differ by far more than curvature explains, with the analytic one between them."""
    step = min(STEPS)
    low, high = sorted((_slope(function, flat, index, step, 0.0), _slope(function, flat, index, 0.0, step)))
    margin = 1e-3 * max(abs(low), abs(high), smallest)
    return high - low > margin and low - margin <= analytic <= high + margin


class _InFloat64(TorchFunctionMode):
    """What a model brings to float32 for autocast's sake stays in float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        elif func is torch.Tensor.to:
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        if kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


@contextmanager
def in_float64() -> Iterator[None]:
    """Tensors that are made or converted inside are of float64 where they would be of float32."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _InFloat64():
            yield
    finally:
        torch.set_default_dtype(default)
