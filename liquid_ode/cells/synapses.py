"""The weights of a wiring: those outside it are never used, and so never change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liquid_ode.cells.wiring import Wiring


def register_masks(
    module: nn.Module, wiring: Wiring | None, input_size: int, hidden_size: int
) -> None:
    """Give ``module`` the buffers ``recurrent_mask`` and ``input_mask``, None where all is wired.

    Raises:
        ValueError: where the wiring has another size.
    """
    if wiring is not None and not isinstance(wiring, Wiring):
        raise ValueError(f"wiring must be a Wiring, such as Wiring.random(...), not {wiring!r}")
    if wiring is not None and wiring.units != hidden_size:
        raise ValueError(
            f"the wiring has {wiring.units} units, the cell has hidden_size={hidden_size}"
        )
    inputs = None if wiring is None else wiring.inputs
    if inputs is not None and inputs.shape[1] != input_size:
        raise ValueError(
            f"the wiring takes {inputs.shape[1]} inputs, the cell has input_size={input_size}"
        )
    recurrent = None if wiring is None else wiring.recurrent
    for name, mask in (("recurrent_mask", recurrent), ("input_mask", inputs)):
        # Where the weights are made: under `with torch.device(...)` not where the wiring was.
        own = None if mask is None else mask.to(torch.get_default_device())
        module.register_buffer(name, own, persistent=False)


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
