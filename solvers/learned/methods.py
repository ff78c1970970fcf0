"""Steps with trained coefficients, and methods made of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from solvers.checks import check_steps
from solvers.fields.base import VectorField
from solvers.methods.arithmetic import Increment, seen_time
from solvers.methods.base import Method, StepResult
from solvers.methods.semilinear import SemilinearMethod, step_ratio

# On liquid fields, 7 and 8 evaluations in two steps leave a smaller error than in one.
_MOST_IN_A_STEP = 5


class _Module(nn.Module):
    """One that is equal to itself alone, as torch takes it, not by its values as methods are."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class LearnedStep(_Module, Method):
    r"""A step of n evaluations with trained coefficients; of one of the two kinds below.

    With k_i the evaluations, D_i = k_i - k_0, and stages i = 1 to n - 1 at nodes c_i in (0, 1),

        Y_i = y + a(c_i) (d + g_i D_{i-1}),   D_0 = 0,   k_i evaluated at (t + c_i dt, Y_i),
        y1  = y + a(1) (d + sum_i b_i D_i),

    where d is the way that k_0 points and a(c) how much of it is gone by c dt. Only differences
    are weighted, so a constant evaluation is integrated exactly whatever the coefficients; and b
    is projected so that sum_i b_i c_i = 1/2 as dt goes to 0. Every method of this form therefore
    has order 2. A stage sees no more than the first evaluation and the one before it, which for
    n <= 3 is all there are, and keeps the coefficients and the work few for more.

    The coefficients are parameters that ask for no gradient: they move with the module that holds
    the solver, and its optimizer leaves them alone. They start at equally spaced nodes.

    Args:
        evaluations: n, at least 2.

    Raises:
        ValueError: where n is below 2.

    Attributes:
        logits: ``(n - 1,)``, c = sigmoid(logits).
        lead: ``(n - 2, terms)``, of the polynomials g_2 to g_{n-1}, lowest power first.
        weights: ``(n - 1, terms)``, of the polynomials b_i, before the projection.
    """

    kind: ClassVar[str]
    terms: ClassVar[int]
    order = 2

    def __init__(self, evaluations: int) -> None:
        super().__init__()
        if check_steps(evaluations, "evaluations") < 2:
            raise ValueError(
                "a learned step needs at least 2 evaluations, not 1: with the first alone "
                "there is nothing to learn"
            )
        nodes = torch.arange(1, evaluations) / evaluations
        lead = torch.zeros(evaluations - 2, self.terms)
        weights = torch.zeros(evaluations - 1, self.terms)
        # Along the line through the first evaluation and the one before; and equal weights.
        lead[:, 0] = nodes[1:] / (2 * nodes[:-1])
        weights[:, 0] = 1 / (evaluations - 1)
        self.logits = nn.Parameter(nodes.logit(), requires_grad=False)
        self.lead = nn.Parameter(lead, requires_grad=False)
        self.weights = nn.Parameter(weights, requires_grad=False)

    @property
    def stages(self) -> int:  # type: ignore[override]
        return len(self.logits) + 1

    def coefficients(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c, g and the projected b, on the device and in the dtype of ``like``."""
        logits, lead, weights = (
            table.to(like.device, like.dtype) for table in (self.logits, self.lead, self.weights)
        )
        nodes = torch.sigmoid(logits)
        missing = (0.5 - (weights[:, 0] * nodes).sum()) / nodes.square().sum()
        moved = weights[:, 0] + missing * nodes  # the nearest that meet the condition
        return nodes, lead, torch.cat([moved.unsqueeze(1), weights[:, 1:]], dim=1)

    @abstractmethod
    def way(self, y: Tensor, first: Tensor) -> Tensor:
        """d, of the shape of y."""

    @abstractmethod
    def scale(self, field: VectorField, dt: Increment, y: Tensor) -> Tensor:
        """-dt in the unit of the method; broadcasts against y."""

    @abstractmethod
    def lost(self, scale: Tensor) -> Tensor:
        """-a of a part of the step, out of that part's scale."""

    @abstractmethod
    def variable(self, scale: Tensor) -> Tensor | None:
        """What the polynomials are of, out of the step's scale; None where they are numbers."""

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        state = y.to(torch.promote_types(y.dtype, torch.float32))
        start = first.to(state.dtype)
        way, scale = self.way(state, start), self.scale(field, dt, state)
        x = self.variable(scale)
        nodes, lead, weights = (table.unbind() for table in self.coefficients(state))
        to, total = way, way
        for index, node in enumerate(nodes):
            inner = torch.addcmul(state, self.lost(node * scale), to, value=-1).to(y.dtype)
            change = evaluate(self, field, t + node * dt, inner).to(state.dtype) - start
            total = torch.addcmul(total, polynomial(weights[index], x), change)
            if index < len(lead):
                to = torch.addcmul(way, polynomial(lead[index], x), change)
        return StepResult(torch.addcmul(state, self.lost(scale), total, value=-1).to(y.dtype))


def evaluate(method: Method, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
    """What the method evaluates of the field."""
    return method.first(field, seen_time(t, y), y)


def polynomial(coefficients: Tensor, x: Tensor | None) -> Tensor:
    """sum_k coefficients_k x^k; the constant alone where there is no x."""
    *lower, value = coefficients.unbind()
    if x is not None:
        for coefficient in reversed(lower):
            value = value * x + coefficient
    return value


class LearnedExponentialStep(LearnedStep, SemilinearMethod):
    r"""For dy/dt = (u(t, y) - y) / tau: k = u, d = k_0 - y, a(c) = 1 - e^(c z), z = -dt/tau.

    g and b are quadratic in x = z / (z - 2), which lies in [0, 1), element by element: in a liquid
    cell every neuron has its own z. No step limit comes from the leak.

    Reference: explicit exponential Runge-Kutta methods, Hochbruck & Ostermann, Exponential
    integrators, Acta Numerica 2010, section 2.3. Training takes the place of the conditions for
    orders above 2.
    """

    kind = "exponential"
    terms = 3
    name = "a solver learned on semilinear fields"

    def way(self, y: Tensor, first: Tensor) -> Tensor:
        return first - y

    def scale(self, field: VectorField, dt: Increment, y: Tensor) -> Tensor:
        return -step_ratio(field, dt, y)

    def lost(self, scale: Tensor) -> Tensor:
        return torch.expm1(scale)

    def variable(self, scale: Tensor) -> Tensor | None:
        return scale / (scale - 2)


class LearnedRungeKuttaStep(LearnedStep):
    """For any dy/dt = f(t, y): k = f, d = k_0, a(c) = c dt, and g and b are numbers."""

    kind = "explicit"
    terms = 1

    def way(self, y: Tensor, first: Tensor) -> Tensor:
        return first

    def scale(self, field: VectorField, dt: Increment, y: Tensor) -> Tensor:
        return -torch.as_tensor(dt, dtype=y.dtype, device=y.device)

    def lost(self, scale: Tensor) -> Tensor:
        return scale

    def variable(self, scale: Tensor) -> Tensor | None:
        return None


_KINDS: dict[str, type[LearnedStep]] = {
    kind.kind: kind for kind in (LearnedExponentialStep, LearnedRungeKuttaStep)
}


class LearnedMethod(_Module, Method):
    """Learned steps one after another, each with coefficients of its own, as one step.

    Args:
        kind: ``exponential`` for semilinear fields, ``explicit`` for any.
        parts: evaluations of each step.

    Raises:
        ValueError: where the kind is unknown, or the parts are none or one is below 2.

    Attributes:
        shares: ``(len(parts),)``, logarithms of the parts of dt, up to a constant.
    """

    order = 2
    __eq__ = object.__eq__  # its coefficients are tensors
    __hash__ = object.__hash__

    def __init__(self, kind: str, parts: Sequence[int]) -> None:
        super().__init__()
        if kind not in _KINDS or not parts:
            raise ValueError(
                f"a learned method is of kind {' or '.join(_KINDS)} and has at least one part, "
                f"not {kind!r} with parts {list(parts)}"
            )
        self.kind = kind
        self.steps = nn.ModuleList(_KINDS[kind](part) for part in parts)
        self.shares = nn.Parameter(torch.tensor(parts).log(), requires_grad=False)

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
    def parts(self) -> tuple[int, ...]:
        """Evaluations of each step."""
        return tuple(step.stages for step in self._steps)

    @property
    def stages(self) -> int:  # type: ignore[override]
        return sum(self.parts)

    @property
    def _steps(self) -> list[LearnedStep]:
        return [cast(LearnedStep, step) for step in self.steps]

    def check(self, field: VectorField) -> None:
        self._steps[0].check(field)

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        return self._steps[0].first(field, t, y)

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        return self._steps[0].derivative(field, y, first)

    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        shares = self.shares.to(y.device, torch.promote_types(y.dtype, torch.float32)).softmax(0)
        evaluation: Tensor | None = first
        for step, share in zip(self._steps, shares, strict=True):
            if evaluation is None:
                evaluation = evaluate(step, field, t, y)
            y = step.step(field, t, y, share * dt, evaluation).y
            t, evaluation = t + share * dt, None
        return StepResult(y)
