"""Weights of which a wiring uses some entries: the others are never used, and so never change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.cells.wiring.wiring import Wiring


class Wired(nn.Module):
    """A module that uses some entries of its weights alone.

    An entry outside a mask is never used: it gets no gradient, it starts at zero, and no weight
    decay moves it from there. Loading weights of another wiring, which are not zero outside this
    one, raises ValueError. A subclass says which weights have a mask with :meth:`wire`, computes
    with :meth:`wired`, and calls :meth:`clear_unwired` after it has drawn weights anew.

    The masks are buffers, and no part of the ``state_dict``.
    """

    _wires: Mapping[str, tuple[str, Tensor]] = {}
    """The buffer of each weight's mask, and what it holds."""

    def wire(self, mask: Tensor | None, *names: str) -> None:
        """Give weights a mask, and zero what is outside it.

        Args:
            mask: bool, of the first two axes of each weight; None for all entries.
            names: of the parameters.

        Raises:
            ValueError: where the mask has another shape.
        """
        if mask is None or _is_full(mask):
            return
        place = f"wires_of_{names[0]}"
        for name in names:
            shape = getattr(self, name).shape
            if shape[:2] != mask.shape:
                raise ValueError(
                    f"the mask of {name}, whose shape is {tuple(shape)}, must have shape "
                    f"{tuple(shape[:2])}, not {tuple(mask.shape)}"
                )
        if not self._wires:
            # A function, not a method: a copy of the module would check the original.
            self.register_load_state_dict_post_hook(_after_loading)
        self._wires = {**self._wires, **dict.fromkeys(names, (place, mask.cpu()))}
        self.register_buffer(place, None, persistent=False)
        self.clear_unwired()

    def masks(self) -> dict[str, Tensor]:
        """The mask of each weight that has one, by name; the same tensor where they share it."""
        return {name: getattr(self, place) for name, (place, _) in self._wires.items()}

    def wired(self, name: str) -> Tensor:
        """The weight of this name as it is now, with zeros outside its mask."""
        return self.masked(name, getattr(self, name))

    def masked(self, name: str, values: Tensor) -> Tensor:
        """Values made of the weight of this name, with zeros outside its mask."""
        if name not in self._wires:
            return values
        mask = getattr(self, self._wires[name][0])
        return values * mask.reshape(*mask.shape, *(1,) * (values.ndim - 2))

    def clear_unwired(self) -> None:
        """Zero the weights outside their masks, in place; and fill the masks anew.

        ``module.to_empty(...)`` leaves masks undefined, as it does weights.
        """
        self._fill()
        with torch.no_grad():
            for name in self._wires:
                getattr(self, name).copy_(self.wired(name))

    def _fill(self) -> None:
        for name, (place, values) in self._wires.items():
            setattr(self, place, values.to(getattr(self, name).device))


class WiredLinear(Wired, nn.Linear):
    """An ``nn.Linear`` some of whose connections are left out.

    Args:
        in_features: features of an input.
        out_features: features of an output.
        mask: bool ``(out_features, in_features)``, [i, j] where input j drives output i; None
            where all do.
        options: those of ``nn.Linear``.

    Raises:
        ValueError: where the mask has another shape.
    """

    def __init__(
        self, in_features: int, out_features: int, mask: Tensor | None = None, **options: Any
    ) -> None:
        super().__init__(in_features, out_features, **options)
        self.wire(mask, "weight")

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.clear_unwired()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.wired("weight"), self.bias)


class WiredConv2d(Wired, nn.Conv2d):
    """An ``nn.Conv2d`` some of whose channels are not connected.

    Args:
        in_channels: channels of an input.
        out_channels: channels of an output.
        kernel_size: side of the kernel.
        mask: bool ``(out_channels, in_channels)``, as for :class:`WiredLinear`.
        options: those of ``nn.Conv2d``, with zeros around a map.

    Raises:
        ValueError: where the mask has another shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        mask: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.wire(mask, "weight")

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.clear_unwired()

    def forward(self, input: Tensor) -> Tensor:
        weight = self.wired("weight")
        return F.conv2d(
            input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


def masks_of(wiring: Wiring | None) -> tuple[Tensor | None, Tensor | None]:
    """Those of the connections between neurons, and from inputs; None where there are all."""
    if wiring is None:
        return None, None
    masks = wiring.recurrent, wiring.inputs
    recurrent, inputs = (None if mask is None or _is_full(mask) else mask for mask in masks)
    return recurrent, inputs


def check_fits(wiring: Wiring | None, input_size: int, hidden_size: int) -> None:
    """Raise ValueError where this is no wiring for a cell of these sizes."""
    if wiring is None:
        return
    if not isinstance(wiring, Wiring):
        raise ValueError(f"wiring must be a Wiring, such as Wiring.random(...), not {wiring!r}")
    if wiring.units != hidden_size:
        raise ValueError(
            f"the wiring has {wiring.units} units, the cell has hidden_size={hidden_size}"
        )
    if wiring.input_size not in (None, input_size):
        raise ValueError(
            f"the wiring takes {wiring.input_size} inputs, the cell has input_size={input_size}"
        )


def check_wired(name: str, layer: nn.Module) -> None:
    """Raise ValueError where a layer that had a mask was replaced by one that knows of none."""
    if not isinstance(layer, Wired):
        raise ValueError(
            f"{name} was replaced by a {type(layer).__name__}, which may connect what the wiring "
            "leaves out. Change the weight of the layer that was there, which is masked after it: "
            f"torch.nn.utils.parametrize.register_parametrization(cell.{name}, 'weight', ...), "
            "say; or replace it by a liquid_ode.cells.WiredLinear"
        )


def own_parameter(module: nn.Module, name: str) -> nn.Parameter:
    """A parameter to draw values for.

    Raises:
        ValueError: where it was replaced by what is made of others, and drawing would be in vain.
    """
    value = getattr(module, name)
    if not isinstance(value, nn.Parameter):
        raise ValueError(
            f"{name} of {type(module).__name__} is no parameter any more, but is made of others, "
            "by pruning, a weight norm or another parametrization: draw values before, or undo "
            "that first, as prune.remove and parametrize.remove_parametrizations do"
        )
    return value


def _is_full(mask: Tensor) -> bool:
    try:
        return bool(mask.all())
    except RuntimeError:  # a tensor without data
        return False


def _after_loading(module: Wired, _: object) -> None:
    """Raise ValueError where the loaded weights are those of another wiring."""
    module._fill()
    for name, mask in module.masks().items():
        weight = getattr(module, name)
        if weight.is_meta:
            continue
        strays = int(torch.count_nonzero(weight.detach()[~mask]))
        if strays:
            raise ValueError(
                f"the loaded weights were saved by a cell of another wiring: {strays} entries of "
                f"{name} of {type(module).__name__} are not zero, where its wiring connects "
                "nothing. Load them into a cell with the wiring that they were trained with"
            )
