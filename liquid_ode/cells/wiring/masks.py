"""The weights of a wiring: those outside it are never used, and so never change."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from liquid_ode.cells.wiring.wiring import Wiring


@runtime_checkable
class Wired(Protocol):
    """A cell that says which of its weights its wiring is about."""

    def wired_weights(self) -> Iterable[tuple[str, Tensor, Tensor | None]]:
        """Name, value and mask of each; the mask is of its first two axes, None for all."""


def register_masks(
    module: nn.Module, wiring: Wiring | None, input_size: int, hidden_size: int
) -> None:
    """Give ``module`` the buffers ``recurrent_mask`` and ``input_mask``, None where all is wired.

    They are no part of its ``state_dict``. If the module is :class:`Wired`, loading weights of
    another wiring, not zero outside its own, raises ValueError.

    Raises:
        ValueError: where the wiring has another size.
    """
    if wiring is not None and not isinstance(wiring, Wiring):
        raise ValueError(f"wiring must be a Wiring, such as Wiring.random(...), not {wiring!r}")
    if wiring is not None and wiring.units != hidden_size:
        raise ValueError(
            f"the wiring has {wiring.units} units, the cell has hidden_size={hidden_size}"
        )
    if wiring is not None and wiring.input_size not in (None, input_size):
        raise ValueError(
            f"the wiring takes {wiring.input_size} inputs, the cell has input_size={input_size}"
        )
    for name, mask in _masks(wiring):
        # Where the weights are made: under `with torch.device(...)` not where the wiring was.
        # (Not torch.get_default_device(), which knows nothing of `with` in old versions of torch.)
        own = None if mask is None else mask.to(torch.empty(0).device)
        module.register_buffer(name, own, persistent=False)
    if wiring is not None:
        # Of the function, not of the module: copies of the module have it too.
        module.register_load_state_dict_post_hook(partial(_after_loading, wiring))


def set_masks(module: nn.Module, wiring: Wiring | None) -> None:
    """Fill the masks again, which ``module.to_empty(...)`` leaves undefined."""
    for name, mask in _masks(wiring):
        if mask is not None:
            module.get_buffer(name).copy_(mask)


def masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """The weight with zeros outside the mask, which stands for its first two axes."""
    if mask is None:
        return weight
    return weight * mask.reshape(*mask.shape, *(1,) * (weight.ndim - 2))


def clear_unused(weight: Tensor, mask: Tensor | None) -> None:
    """Zero the weights outside the mask, in place: no gradient, nothing to decay."""
    if mask is not None:
        with torch.no_grad():
            weight.copy_(masked(weight, mask))


def _masks(wiring: Wiring | None) -> tuple[tuple[str, Tensor | None], ...]:
    recurrent = None if wiring is None else wiring.recurrent
    inputs = None if wiring is None else wiring.inputs
    return ("recurrent_mask", recurrent), ("input_mask", inputs)


def _after_loading(wiring: Wiring, module: nn.Module, _: object) -> None:
    """Raise ValueError where the loaded weights are those of another wiring."""
    set_masks(module, wiring)
    if not isinstance(module, Wired):
        return
    for name, weight, mask in module.wired_weights():
        if mask is None or weight.is_meta or mask.is_meta:
            continue
        strays = int(torch.count_nonzero(weight.detach()[~mask.to(weight.device)]))
        if strays:
            raise ValueError(
                f"the loaded weights were saved by a cell of another wiring: {strays} entries of "
                f"{name} are not zero, where {wiring} connects nothing. Load them into a cell with "
                "the wiring that they were trained with"
            )
