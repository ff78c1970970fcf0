"""The linear maps of a CfC cell over a sequence: its parts called as they are, or folded into few.

At every step they make the heads of x' = backbone([x, h]), from which the form makes the state.
Called, each part is a module that may be hooked, wrapped or another one altogether. Where all are
as the cell made them, fewer and larger products give the same heads in two thirds of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.cells.cfc.forms import CfCForm, LeCunTanh
from liquid_ode.cells.wiring.masks import Wired

Heads = Callable[[int, Tensor], Tensor]
"""The heads ``(B, k H)`` of a step, by its number, and the state ``(B, H)`` before it."""

TANHS: dict[type, tuple[float, float]] = {
    nn.Tanh: (1.0, 1.0),
    LeCunTanh: (LeCunTanh.slope, LeCunTanh.gain),
}
"""Slope and gain of the activations gain tanh(slope x)."""

GROUP = 8
"""Steps whose gradients are added up in half precision, before float32 takes their sum."""


class Cast:
    """Tensors that every step uses, in the dtype of its computation."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors

    def at(self, step: int, dtype: torch.dtype) -> Sequence[Tensor]:
        """For the steps in their order."""
        if step == 0:
            # In half precision a sum of many gradients would be rounded at every step.
            self.half = dtype.itemsize < 4
            wide = torch.float32 if self.half else dtype
            self.tensors = [tensor.to(wide) for tensor in self.tensors]
        if self.half and step % GROUP == 0:
            self.now: Sequence[Tensor] = [tensor.to(dtype) for tensor in self.tensors]
        return self.now if self.half else self.tensors


def called(
    x: Tensor,
    backbone: nn.Module,
    maps: Mapping[str, nn.Module],
    form: CfCForm,
    alike: float | None,
) -> Heads:
    """The heads by a call of every part at every step.

    Args:
        x: ``(T, B, I)``.
        backbone: of [x, h].
        maps: of its result, by name.
        form: folds their results.
        alike: the duration of all steps; None for one each.
    """
    inputs = x.unbind()

    def heads(step: int, h: Tensor) -> Tensor:
        features = backbone(torch.cat([inputs[step], h], dim=1))
        results = {name: layer(features) for name, layer in maps.items()}
        return torch.cat([*form.fold(results, alike)], dim=1)

    return heads


class Folded:
    """The same heads, of z_1 = x_t + W_1 h and z_i = W_i act(z_{i-1}) + b_i with folded W and b.

    The share of the inputs is computed for all steps together, the maps of the form are one, and
    the slope and gain of a tanh are those of its neighbours.
    """

    def __init__(
        self,
        x: Tensor,
        backbone: nn.Sequential,
        maps: Mapping[str, nn.Linear],
        form: CfCForm,
        alike: float | None,
    ) -> None:
        linears, acts = _layers(backbone)
        weights = {name: _weight(layer) for name, layer in maps.items()}
        biases = {name: layer.bias for name, layer in maps.items()}
        last, offsets = (torch.cat([*form.fold(of, alike)]) for of in (weights, biases))
        pairs = [*((linear.weight, linear.bias) for linear in linears), (last, offsets)]
        (weight, bias), *rest = _scaled(pairs, acts)
        size = x.shape[2]
        self.inputs = F.linear(x, weight[:, :size], bias).unbind()  # T of (B, F)
        self.acts = [torch.tanh if type(act) in TANHS else act for act in acts]
        tail = (tensor for weight, bias in rest for tensor in (weight.t(), bias))
        self.used = Cast([weight[:, size:].t(), *tail])

    def __call__(self, step: int, h: Tensor) -> Tensor:
        x = self.inputs[step]
        first, *maps = self.used.at(step, x.dtype)
        z = torch.addmm(x, h.to(x.dtype), first)
        for act, weight, bias in zip(self.acts, maps[::2], maps[1::2], strict=True):
            z = torch.addmm(bias, act(z), weight)
        return z


def structure(parts: Sequence[nn.Module]) -> list[Any]:
    """What modules consist of besides values: kinds, and how much is registered on each.

    It is another one wherever a part was replaced, or anything was added to it or taken from it: a
    hook, a parametrization, a bias, a forward of its own.
    """
    return [
        (type(part), *((key, _count(value)) for key, value in vars(part).items()))
        for module in parts
        for part in module.modules()
    ]


def _count(value: object) -> int:
    if not isinstance(value, dict):
        return 0
    return sum(each is not None for each in value.values())


def _layers(backbone: nn.Sequential) -> tuple[list[nn.Linear], list[nn.Module]]:
    """The linear maps, and the activation after each, with a dropout where one is at work."""
    linears: list[nn.Linear] = []
    acts: list[nn.Module] = []
    for module in backbone:
        if isinstance(module, nn.Linear):
            linears.append(module)
        elif not isinstance(module, nn.Dropout):
            acts.append(module)
        elif module.p and module.training:  # its own mode: a user may sample it in evaluation
            acts[-1] = nn.Sequential(acts[-1], module)
    return linears, acts


def _weight(layer: nn.Linear) -> Tensor:
    return layer.wired("weight") if isinstance(layer, Wired) else layer.weight


def _scaled(
    maps: Sequence[tuple[Tensor, Tensor]], acts: Sequence[nn.Module]
) -> list[tuple[Tensor, Tensor]]:
    """The maps with the slope of a tanh after them and the gain of one before them."""
    scaled, before = [], 1.0
    for (weight, bias), act in zip(maps, [*acts, None], strict=True):
        slope, gain = TANHS.get(type(act), (1.0, 1.0))
        scaled.append((_times(weight, slope * before), _times(bias, slope)))
        before = gain
    return scaled


def _times(tensor: Tensor, factor: float) -> Tensor:
    return tensor if factor == 1.0 else factor * tensor
