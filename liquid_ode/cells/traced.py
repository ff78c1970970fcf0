"""A sequence inside a graph: a loop of the graph, so that one graph is for every length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor | None, float | Tensor], Tensor]
"""The states ``(1, B, *state)`` after one input ``(1, B, *features)``, as a cell's ``flow``."""


def is_looped(x: Tensor) -> bool:
    """Whether the steps under x ``(T, B, ...)`` are to be a loop of a graph, and not unrolled.

    So they are for torch.compile, and for torch.export where T is free, as long as no gradient is
    recorded: those of torch's loop are wrong (of torch.while_loop up to 2.14).

    Raises:
        ValueError: where torch.export is to leave T free, and gradients are recorded.
    """
    if torch.compiler.is_dynamo_compiling():
        return not torch.is_grad_enabled() and x.shape[0] > 1
    if not isinstance(x.shape[0], torch.SymInt):
        return False
    if torch.is_grad_enabled():
        raise ValueError(
            "a sequence of any length is exported without gradients: call torch.export.export "
            "under torch.no_grad(); or give the length a number"
        )
    return True


def looped(
    step: Step,
    x: Tensor,
    h0: Tensor | None,
    duration: float | Tensor,
    resets: Tensor | None,
) -> Tensor:
    """The states after each of T > 1 inputs, by a step for each.

    Args:
        step: of one input.
        x, h0, duration, resets: as for :meth:`liquid_ode.cells.RecurrentCell.flow`.
    """

    x = x.contiguous()
    if isinstance(duration, Tensor):
        duration = duration.contiguous()

    def of_one(place: Tensor, h: Tensor | None) -> Tensor:
        time = duration
        if isinstance(duration, Tensor):
            time = duration.index_select(0, place)
        if h is not None and resets is not None:
            h = h.masked_fill(resets.index_select(0, place).squeeze(0), 0)
        return step(x.index_select(0, place), h, time).squeeze(0).contiguous()

    def body(place: Tensor, h: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = of_one(place, h)
        return place + 1, h, states.index_copy(0, place, h.unsqueeze(0))

    def goes_on(place: Tensor, h: Tensor, states: Tensor) -> Tensor:
        return (place < x.shape[0]).squeeze(0)

    place = torch.zeros(1, dtype=torch.int64, device=x.device)
    h = of_one(place, h0)  # outside, for it may start from nothing
    states = h.new_zeros(x.shape[0], *h.shape).index_copy(0, place, h.unsqueeze(0))
    _, _, states = torch.while_loop(goes_on, body, (place + 1, h, states))
    return states.detach()
