"""Rules that choose the size of each step.

A rule plans the step with the first evaluation in hand, so that it costs no evaluation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from solvers.checks import check_number, check_steps
from solvers.fields.structures import Layout
from solvers.methods.arithmetic import Increment
from solvers.methods.base import BoundMethod, Method, StepResult
from solvers.solution import MAX_STEPS, finite_samples, finite_status

Span = tuple[float, float]
Tolerance = float | Tensor | Sequence[Any] | Mapping[str, Any]
"""A number or a tensor; or, as the state is one, a structure of these."""
Own = TypeVar("Own", bound="StepSizeRule")


class Judgement(NamedTuple):
    """What a rule makes of a step, for each of the samples that took part.

    Attributes:
        control: the rule's after the step.
        accepted: whether the step is taken, bool ``(n, 1, ..., 1)``; None takes it for all,
            unexamined.
        ended: whether the sample has arrived or failed, bool ``(n,)``; None where accepted is.
    """

    control: Any
    accepted: Tensor | None = None
    ended: Tensor | None = None


class Start(NamedTuple):
    """How a rule begins a solve.

    Attributes:
        control: the rule's before the first step.
        first: the first evaluation at t0, if the rule had to make it.
        evaluations: how many evaluations it made.
    """

    control: Any
    first: Tensor | None = None
    evaluations: int = 0


class StepSizeRule(ABC):
    """Chooses the size of each step; an immutable value.

    What a solve must remember of its steps is the rule's *control*, made by :meth:`start` and
    replaced by :meth:`judge`: a named tuple whose tensors have one row a sample and whose
    ``remaining`` is the time left until t1.
    """

    controlled: ClassVar[bool] = False
    """Whether the steps depend on their error, so that samples have steps and ends of their own."""
    needs_derivative: ClassVar[bool] = False
    """Whether :meth:`propose` looks at dy/dt."""
    bounded: ClassVar[bool] = False
    """Whether a step of explicit Euler towards a target, of a relaxation field, ends there at the
    latest: as long as a step is no longer than tau it is Euler's own."""
    most_tries: float = math.inf
    """Steps, taken or not, after which every sample ends."""
    shared: bool = False
    """Whether all samples take the same steps, as one system would."""

    @abstractmethod
    def start(self, bound: BoundMethod, span: Span, y0: Tensor) -> Start:
        """What the first step needs."""

    @abstractmethod
    def propose(self, control: Any, derivative: Tensor | None) -> Increment:
        """The size of the next step, out of dy/dt at its start if ``needs_derivative``."""

    @abstractmethod
    def judge(
        self, control: Any, dt: Increment, result: StepResult, y: Tensor, bound: BoundMethod
    ) -> Judgement:
        """What becomes of a step of size ``dt`` from ``y``."""

    def status(self, judgement: Judgement) -> Tensor:
        """SUCCESS, or why a sample ended, int8 ``(n,)``; read where one has ended.

        Unless a rule knows better a sample has arrived where no time remains, ran out of tries
        where its last step was accepted, and met what is not finite where it was not.
        """
        accepted = torch.as_tensor(judgement.accepted).view(-1)
        on_its_way = accepted & (judgement.control.remaining > 0).view(-1)
        return finite_status(accepted).masked_fill_(on_its_way, int(MAX_STEPS))

    def running(self, control: Any) -> bool:
        """Whether there are steps to come, as far as the rule knows."""
        return True

    def check(self, method: Method) -> None:  # noqa: B027  # most rules work with any method
        """Raise ValueError where the rule cannot work with the method."""

    def with_steps(self: Own, steps: int) -> Own:
        """The same rule with a budget of ``steps``; itself, where it has none."""
        return self

    def with_tolerances(self: Own, rtol: Tolerance | None, atol: Tolerance | None) -> Own:
        """The same rule with these tolerances, where they are not None.

        Raises:
            ValueError: where the rule has none.
        """
        raise ValueError(
            f"{type(self).__name__} takes a number of steps and no tolerances: take "
            "step_size=PID(rtol=..., atol=...), or leave step_size out"
        )

    def laid_out(self: Own, layout: Layout) -> Own:
        """The same rule for a state that is packed so."""
        return self

    def with_rounding(self: Own, rounding: float | Tensor) -> Own:
        """The same rule for fields that round so coarsely, all of the state or each element."""
        return self


class Budget(NamedTuple):
    """The control of a rule that splits a time span into a number of steps."""

    remaining: Increment
    steps_left: int
    equal: float
    """The size of an equal step."""


@dataclass(frozen=True)
class BudgetRule(StepSizeRule):
    """A rule that takes a given number of steps and lands on t1 with the last.

    Args:
        steps: at least 1.

    Raises:
        ValueError: where it is none.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        check_steps(self.steps)

    def with_steps(self: Own, steps: int) -> Own:
        return replace(self, steps=check_steps(steps))  # type: ignore[type-var]

    def start(self, bound: BoundMethod, span: Span, y0: Tensor) -> Start:
        whole = span[1] - span[0]
        return Start(Budget(self.whole(whole, y0), self.steps, whole / self.steps))

    def whole(self, span: float, y0: Tensor) -> Increment:
        """The time before the first step, in the form the rule works on."""
        return span

    def judge(
        self, control: Budget, dt: Increment, result: StepResult, y: Tensor, bound: BoundMethod
    ) -> Judgement:
        # Less the increment as applied: a bfloat16 one is rounded, and the rest makes up for it.
        return Judgement(Budget(control.remaining - dt, control.steps_left - 1, control.equal))

    def running(self, control: Budget) -> bool:
        return control.steps_left > 0


@dataclass(frozen=True)
class Examined(StepSizeRule):
    """A budget whose every step is examined: a sample that leaves the finite numbers ends there."""

    rule: BudgetRule

    @property
    def needs_derivative(self) -> bool:  # type: ignore[override]
        return self.rule.needs_derivative

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        return self.rule.bounded

    def start(self, bound: BoundMethod, span: Span, y0: Tensor) -> Start:
        return self.rule.start(bound, span, y0)

    def propose(self, control: Budget, derivative: Tensor | None) -> Increment:
        return self.rule.propose(control, derivative)

    def running(self, control: Budget) -> bool:
        return self.rule.running(control)

    def status(self, judgement: Judgement) -> Tensor:
        return finite_status(torch.as_tensor(judgement.accepted).view(-1))

    def judge(
        self, control: Budget, dt: Increment, result: StepResult, y: Tensor, bound: BoundMethod
    ) -> Judgement:
        after = self.rule.judge(control, dt, result, y, bound).control
        finite = finite_samples(result.y)
        ended = torch.ones_like(finite) if after.steps_left == 0 else ~finite
        return Judgement(after, finite.view(-1, *[1] * (y.ndim - 1)), ended)


@dataclass(frozen=True)
class Uniform(BudgetRule):
    """Equal steps: dt = span / steps."""

    def propose(self, control: Budget, derivative: Tensor | None) -> Increment:
        return control.equal


@dataclass(frozen=True)
class GradientScaled(BudgetRule):
    r"""Steps per sample that are shorter where the RMS of dy/dt is larger.

    With m steps left for a remaining time R, an equal step would be R/m long and move the
    sample by d = RMS(dy/dt) R/m. The step taken is

        dt = R / (1 + (m - 1) phi),    phi = 1 - relax + sharpness min(d, cap)^4,

    so that phi = 1 is the equal step, the last step (m = 1) lands on t1 exactly, and no step
    costs an evaluation. The size of the step carries no gradient.

    What to expect of it. For a linear field with rates below the step limit (dt < tau), equal
    steps are the best there are: prod(1 - dt_k / tau) with a fixed sum of dt_k is largest, and
    nearest to exp(-T / tau), where all dt_k are equal (the inequality of arithmetic and
    geometric means). The rule therefore stays within 2% of equal steps while d is small, where
    the slightly longer first step wins under 0.1% of the error, and shortens the step only where
    d says that equal steps would jump about as far as the whole state (|h| <= 1), that is where
    dt nears or exceeds 2 tau and Euler with equal steps oscillates. That is where it pays.

    Of a relaxation field, dy/dt = (u - y) / tau, explicit Euler then takes y1 = y + min(dt/tau, 1)
    (u - y): its own step wherever dt <= tau, and never beyond the target u, which the solution
    does not pass either. So with |u| <= 1 the state keeps |y| <= max(|y0|, 1) over every time
    span, where steps longer than 2 tau would grow. Of any other field, and with any other
    method, the steps are as the method makes them.

    Args:
        steps: how many, at least 1.
        sharpness: how strongly a large movement shortens the step.
        relax: how much longer than equal the first steps are while the movement is small.
        cap: the movement above which the step shrinks no further.

    Raises:
        ValueError: where steps < 1, sharpness < 0, relax is outside [0, 1), or cap <= 0.
    """

    sharpness: float = 0.5
    relax: float = 0.02
    cap: float = 2.0

    needs_derivative: ClassVar[bool] = True
    bounded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sharpness", "relax", "cap"):
            check_number(name, getattr(self, name), -math.inf, math.inf)
        if self.sharpness < 0:
            raise ValueError(f"sharpness must be at least 0, not {self.sharpness}")
        if not 0 <= self.relax < 1:
            raise ValueError(f"relax must lie in [0, 1), not {self.relax}")
        if not self.cap > 0:
            raise ValueError(f"cap must be positive, not {self.cap}")

    def whole(self, span: float, y0: Tensor) -> Tensor:
        return per_sample(span, y0, torch.promote_types(y0.dtype, torch.float32))

    def propose(self, control: Budget, derivative: Tensor | None) -> Increment:
        remaining, steps_left, _ = control
        if steps_left == 1 or derivative is None:
            return remaining
        # The movement d is norm * remaining * unit; the constants are gathered around it.
        unit = math.prod(derivative.shape[1:]) ** -0.5 / steps_left
        left = steps_left - 1
        moved = remaining * sample_norm(derivative)
        fourth = moved.clamp(max=self.cap / unit).square().square()  # a NaN stays one
        phi = fourth.mul_(left * self.sharpness * unit**4).add_(1 + left * (1 - self.relax))
        return remaining / phi


def per_sample(value: float, y: Tensor, dtype: torch.dtype) -> Tensor:
    """A number for each sample, ``(B, 1, ..., 1)``."""
    return torch.full((y.shape[0], *([1] * (y.ndim - 1))), value, dtype=dtype, device=y.device)


def sample_norm(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample, ``(B, 1, ..., 1)``."""
    axes = tuple(range(1, x.ndim))
    return torch.linalg.vector_norm(x, dim=axes, keepdim=True) if axes else x.abs()


def sample_rms(x: Tensor) -> Tensor:
    """The root of the mean square of each sample's elements, ``(B, 1, ..., 1)``."""
    return sample_norm(x).mul_(math.prod(x.shape[1:]) ** -0.5)
