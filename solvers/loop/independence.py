"""Whether the rows of a plain function's state depend on each other.

Where every row has a time of its own, rows that do would be evaluated at different times, and the
numbers would be wrong. It is looked for in two ways. The derivative J at the start, pulled back,
turns weights w (a row for each sample) into J^T w. If no row depends on another, weighting row j
by r_j weights row j of J^T w by just r_j, and for powers of two without any rounding; and a NaN
in row j reaches no other row, whatever weights of a network are still zero. Then, along the solve,
some rows are moved, in state and time, and the others compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solvers.methods.arithmetic import Increment

Evaluate = Callable[[Tensor, Tensor], Tensor]

_REMEDY = (
    "Rows of the state depend on each other (or the field gives another result each time), and "
    "under error control every row has a time of its own, and with events an end of its own. Take "
    "step_size=PID(shared=True), one step and one end for all rows; or pass y0[None], which is one "
    "sample with all rows in it, if the field takes the axis"
)
_DIGITS = 8


def check_by_derivative(evaluate: Evaluate, t: Tensor, y: Tensor) -> int:
    """Look at the derivative; how many evaluations it took.

    Args:
        evaluate: what the method evaluates, as a function of t and y.
        t: the time of each row, ``(B, 1, ..., 1)``.
        y: the state there, ``(B, ...)``.

    Raises:
        ValueError: where a row depends on another.
    """
    with torch.enable_grad():
        try:  # in inference mode, within torch.func, and of what cannot be differentiated: not so
            leaf = y.detach().clone().requires_grad_()
            slope = evaluate(t.detach().clone(), leaf.view_as(leaf))
        except RuntimeError:
            return 0
        if slope.requires_grad and _coupled(slope, leaf):
            raise ValueError(_REMEDY)
    return 1


def _coupled(slope: Tensor, y: Tensor) -> bool:
    index = torch.arange(y.shape[0], device=y.device)
    columns = -1, *[1] * (y.ndim - 1)
    # Irregular weights, since those of one would cancel in a field that conserves a sum.
    places = torch.arange(slope.numel(), device=y.device, dtype=torch.float32)
    weights = torch.cos(2.4 * places + 0.5).to(slope.dtype).view(slope.shape)
    weights = torch.where(torch.isfinite(slope), weights, 0.0)

    def pulled(weights: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(
            slope, y, weights, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return found

    plain, still = pulled(weights), pulled(torch.zeros_like(weights)).isnan()
    for odd in (0, 1):
        poisoned = (index % 2 == odd).view(columns)
        reached = pulled(torch.where(poisoned, torch.nan, torch.zeros_like(weights))).isnan()
        if bool((reached & ~still & ~poisoned).any()):
            return True
    slack = 64 * torch.finfo(y.dtype).eps
    digit = 1
    while digit < len(index):  # any two rows differ in one of the digits of their indices
        rows = (2.0 ** (index // digit % _DIGITS)).to(y.dtype).view(columns)
        scaled, expected = pulled(weights * rows), plain * rows
        largest = torch.maximum(scaled.abs(), expected.abs()).flatten(1).amax(1)
        if bool(((scaled - expected).abs().flatten(1).amax(1) > slack * largest).any()):
            return True
        digit *= _DIGITS
    return False


def check_by_moving(
    evaluate: Evaluate, t: Tensor, y: Tensor, remaining: Increment, count: int
) -> int:
    """Move some rows, to where another is and later, and compare the others; likewise.

    Args:
        evaluate, t, y: as above.
        remaining: the time that each row has left; a number where all have the same times, which
            are then not moved.
        count: how many such checks there were: each divides the rows in another way.
    """
    y = y.detach()
    index = torch.arange(y.shape[0], device=y.device)
    side = index >> (count % max((len(index) - 1).bit_length(), 1)) & 1
    moved = y.roll(1, 0) + 0.01 * y.nan_to_num(0.0, 0.0, 0.0).abs().amax().clamp(min=1e-2)
    later = t + (0.3 * remaining).to(t.dtype) if isinstance(remaining, Tensor) else t
    expected = evaluate(t, y).detach()
    size = expected.abs().flatten(1).amax(1).view(-1, *[1] * (y.ndim - 1))
    slack = 64 * torch.finfo(y.dtype).eps * size
    for one in (0, 1):
        which = (side == one).view(size.shape)
        times = t if later is t else torch.where(which, later, t)
        found = evaluate(times, torch.where(which, moved, y)).detach()
        same = (found - expected).abs() <= slack
        if bool((~same & ~which & torch.isfinite(expected)).any()):
            raise ValueError(_REMEDY)
    return 3
