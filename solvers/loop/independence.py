"""Whether the rows of a plain function's state depend on each other.

Where every row has a time of its own, rows that do would be evaluated at different times, and the
numbers would be wrong. One evaluation tells, by the derivative J of the field at the start. Pulled
back, weights w (a row for each sample) come to J^T w. If no row depends on another, weighting row
j by r_j weights row j of J^T w by just r_j, and for powers of two without any rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.fields.base import VectorField, evaluate

_REMEDY = (
    "Rows of the state depend on each other (or the field gives another result each time), and "
    "under error control every row has a time of its own. Take step_size=PID(shared=True), one "
    "step for all rows; or pass y0[None], which is one sample with all rows in it, if the field "
    "takes the axis"
)
_DIGITS = 8


def check_independent(field: VectorField, t: Tensor, y: Tensor) -> int:
    """How many evaluations it took to find that no row of the state depends on another.

    Args:
        field: a plain function of t and y.
        t: the time at the start.
        y: the state there, ``(B, ...)``.

    Raises:
        ValueError: where one does.
    """
    if torch.is_inference_mode_enabled():  # which records nothing
        return _check_by_moving(field, t, y)
    with torch.enable_grad():
        try:
            leaf = y.detach().clone().requires_grad_()
        except RuntimeError:  # within torch.func.grad and its like
            return _check_by_moving(field, t, y.detach())
        slope = field(t.detach().clone(), leaf.view_as(leaf))
        if isinstance(slope, Tensor) and slope.requires_grad and torch.isfinite(slope).any():
            if _coupled_by_derivative(slope, leaf):
                raise ValueError(_REMEDY)
            return 1
    return 1 + _check_by_moving(field, t, y.detach())


def _coupled_by_derivative(slope: Tensor, y: Tensor) -> bool:
    count = y.shape[0]
    # Irregular weights, since those of one would cancel in a field that conserves a sum.
    places = torch.arange(slope.numel(), device=y.device, dtype=torch.float32)
    weights = torch.cos(2.4 * places + 0.5).to(slope.dtype).view(slope.shape)
    weights = torch.where(torch.isfinite(slope), weights, 0.0)

    def pulled(rows: Tensor | None) -> Tensor:
        own = weights if rows is None else weights * rows
        (found,) = torch.autograd.grad(
            slope, y, own, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return found

    plain = pulled(None)
    index = torch.arange(count, device=y.device)
    slack = 64 * torch.finfo(y.dtype).eps
    digit = 1
    while digit < count:  # any two rows differ in one of the digits of their indices
        powers = 2.0 ** (index // digit % _DIGITS)
        rows = powers.to(y.dtype).view(-1, *[1] * (y.ndim - 1))
        scaled, expected = pulled(rows), plain * rows
        largest = torch.maximum(scaled.abs(), expected.abs()).flatten(1).amax(1)
        off = (scaled - expected).abs().flatten(1).amax(1)
        if bool((off > slack * largest).any()):
            return True
        digit *= _DIGITS
    return False


def _check_by_moving(field: VectorField, t: Tensor, y: Tensor) -> int:
    """The same of a function without a derivative: some rows are moved, the others compared."""
    before = evaluate(field, t, y)
    index = torch.arange(y.shape[0], device=y.device)
    odd, late = index % 2 == 1, index >= y.shape[0] // 2
    slack = 64 * torch.finfo(y.dtype).eps
    moved = y + 0.01 * y.abs().amax().clamp(min=1e-2)
    for rows in (odd, ~odd, late, ~late):
        which = rows.view(-1, *[1] * (y.ndim - 1))
        off = (evaluate(field, t, torch.where(which, moved, y)) - before).abs()
        bad = off > slack * before.abs().clamp(min=1e-6)
        if bool((bad & ~which).any()):
            raise ValueError(_REMEDY)
    return 5
