"""Methods with trained coefficients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from solvers.checks import check_steps
from solvers.fields.base import VectorField
from solvers.methods.arithmetic import Increment, seen_time
from solvers.methods.base import Method, StepResult
from solvers.methods.semilinear import SemilinearMethod, step_ratio

# On liquid fields, 7 and 8 evaluations in two steps leave a smaller error than in one.
_MOST_IN_A_STEP = 5
_TERMS = {"exponential": 3, "explicit": 1}  # of each polynomial of a kind's coefficients


class LearnedStep(nn.Module):
    """The coefficients of one step of :class:`LearnedMethod`, of n evaluations.

    They are parameters that ask for no gradient: they move with the module that holds the solver,
    and its optimizer leaves them alone. They start at equally spaced nodes.

    Attributes:
        logits: ``(n - 1,)``, c = sigmoid(logits).
        lead: ``(n - 2, terms)``, of the polynomials g_2 to g_{n-1}, lowest power first.
        weights: ``(n - 1, terms)``, of the polynomials b_i, before the projection.
    """

    def __init__(self, evaluations: int, terms: int) -> None:
        super().__init__()
        if check_steps(evaluations, "evaluations") < 2:
            raise ValueError(
                "a learned step needs at least 2 evaluations, not 1: with the first alone "
                "there is nothing to learn"
            )
        nodes = torch.arange(1, evaluations) / evaluations
        lead = torch.zeros(evaluations - 2, terms)
        weights = torch.zeros(evaluations - 1, terms)
        # Along the line through the first evaluation and the one before; and equal weights.
        lead[:, 0] = nodes[1:] / (2 * nodes[:-1])
        weights[:, 0] = 1 / (evaluations - 1)
        self.logits = nn.Parameter(nodes.logit(), requires_grad=False)
        self.lead = nn.Parameter(lead, requires_grad=False)
        self.weights = nn.Parameter(weights, requires_grad=False)

    def coefficients(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c, g and the projected b, on the device and in the dtype of ``like``."""
        logits, lead, weights = (
            table.to(like.device, like.dtype) for table in (self.logits, self.lead, self.weights)
        )
        nodes = torch.sigmoid(logits)
        missing = (0.5 - (weights[:, 0] * nodes).sum()) / nodes.square().sum()
        moved = weights[:, 0] + missing * nodes  # the nearest that meet the condition
        return nodes, lead, torch.cat([moved.unsqueeze(1), weights[:, 1:]], dim=1)


class LearnedMethod(nn.Module, SemilinearMethod):
    r"""Steps with trained coefficients one after another, each with its own, as one step.

    With k_i the n evaluations of a step, D_i = k_i - k_0, and stages i = 1 to n - 1 at nodes c_i
    in (0, 1),

        Y_i = y + a(c_i) (d + g_i D_{i-1}),   D_0 = 0,   k_i evaluated at (t + c_i dt, Y_i),
        y1  = y + a(1) (d + sum_i b_i D_i),

    where d is the way that k_0 points and a(c) how much of it is gone by c dt. Only differences
    are weighted, so a constant evaluation is integrated exactly whatever the coefficients; and b
    is projected so that sum_i b_i c_i = 1/2 as dt goes to 0. Every method of this form therefore
    has order 2. A stage sees no more than the first evaluation and the one before it, which for
    n <= 3 is all there are, and keeps the coefficients and the work few for more.

    ``exponential``, for dy/dt = (u(t, y) - y) / tau: k = u, d = k_0 - y, a(c) = 1 - e^(c z),
    z = -dt/tau; g and b are quadratic in x = z / (z - 2), which lies in [0, 1), element by
    element: in a liquid cell every neuron has its own z. No step limit comes from the leak.

    ``explicit``, for any dy/dt = f(t, y): k = f, d = k_0, a(c) = c dt, and g and b are numbers.

    Args:
        kind: ``exponential`` or ``explicit``.
        parts: evaluations of each step.

    Raises:
        ValueError: where the kind is unknown, or the parts are none or one is below 2.

    Attributes:
        shares: ``(len(parts),)``, logarithms of the parts of dt, up to a constant.

    Reference: explicit exponential Runge-Kutta methods, Hochbruck & Ostermann, Exponential
    integrators, Acta Numerica 2010, section 2.3. Training takes the place of the conditions for
    orders above 2.
    """

    name = "a solver learned on semilinear fields"
    order = 2
    __eq__ = object.__eq__  # its coefficients are tensors
    __hash__ = object.__hash__

    def __init__(self, kind: str, parts: Sequence[int]) -> None:
        super().__init__()
        if kind not in _TERMS or not parts:
            raise ValueError(
                f"a learned method is of kind {' or '.join(_TERMS)} and has at least one part, "
                f"not {kind!r} with parts {list(parts)}"
            )
        self.kind, self.parts = kind, tuple(parts)
        self.steps = nn.ModuleList(LearnedStep(part, _TERMS[kind]) for part in parts)
        self.shares = nn.Parameter(torch.tensor(parts).log(), requires_grad=False)
        # What it evaluates of a field, and of which fields.
        self._base: Any = SemilinearMethod if kind == "exponential" else Method

    @classmethod
    def of(cls, kind: str, evaluations: int) -> LearnedMethod:
        """The untrained method of so many evaluations, at least 2: steps of 5, the first of 2 to 6.

        Raises:
            ValueError: where the kind is unknown or the number below 2.
        """
        first, parts = check_steps(evaluations, "evaluations"), []
        while first > _MOST_IN_A_STEP + 1:
            first -= _MOST_IN_A_STEP
            parts.append(_MOST_IN_A_STEP)
        return cls(kind, [first, *parts])

    @property
    def stages(self) -> int:  # type: ignore[override]
        return sum(self.parts)

    def check(self, field: VectorField) -> None:
        self._base.check(self, field)

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        return cast(Tensor, self._base.first(self, field, seen_time(t, y), y))

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        return cast(Tensor, self._base.derivative(self, field, y, first))

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        shares = self.shares.to(y.device, torch.promote_types(y.dtype, torch.float32)).softmax(0)
        for index, (step, share) in enumerate(zip(self.steps, shares, strict=True)):
            if index:
                first = self.first(field, t, y)
            y = self._part(cast(LearnedStep, step), field, t, y, share * dt, first)
            t = t + share * dt
        return StepResult(y)

    def _part(
        self, step: LearnedStep, field: VectorField, t: Tensor, y: Tensor, dt: Tensor, first: Tensor
    ) -> Tensor:
        """The state after one of the steps."""
        state = y.to(torch.promote_types(y.dtype, torch.float32))
        start = first.to(state.dtype)
        nodes, lead, weights = (table.unbind() for table in step.coefficients(state))
        lost: Callable[[Tensor], Tensor]  # -a
        if self.kind == "exponential":
            z, lost = -step_ratio(field, dt, state), torch.expm1
            way, x = start - state, z / (z - 2)
        else:
            z, lost = -dt.to(state), torch.positive
            way, x = start, None
        to, total = way, way
        for index, node in enumerate(nodes):
            inner = torch.addcmul(state, lost(node * z), to, value=-1).to(y.dtype)
            change = self.first(field, t + node * dt, inner).to(state.dtype) - start
            total = torch.addcmul(total, polynomial(weights[index], x), change)
            if index < len(lead):
                to = torch.addcmul(way, polynomial(lead[index], x), change)
        return torch.addcmul(state, lost(z), total, value=-1).to(y.dtype)


def polynomial(coefficients: Tensor, x: Tensor | None) -> Tensor:
    """sum_k coefficients_k x^k; the constant alone where there is no x."""
    *lower, value = coefficients.unbind()
    if x is not None:
        for coefficient in reversed(lower):
            value = value * x + coefficient
    return value
