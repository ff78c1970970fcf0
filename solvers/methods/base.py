"""One step of a method, from t to t + dt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, cast

from torch import Tensor

from solvers.fields.base import VectorField, check_like, evaluate
from solvers.methods.arithmetic import Increment
from solvers.methods.interpolation import Path, hermite, line
from solvers.methods.tableaus import Tableau


class StepResult(NamedTuple):
    """What one step came to.

    Attributes:
        y: the state at t + dt.
        error: estimate of the local error, of the shape of y; None where the method has none.
        last: the first evaluation of the next step, where this step has made it already.
        slopes: the evaluations, where the method's own dense output needs them.
    """

    y: Tensor
    error: Tensor | None = None
    last: Tensor | None = None
    slopes: tuple[Tensor, ...] = ()


class Method(ABC):
    """How one step is made: a value. A subclass gives ``order``, ``stages`` and :meth:`step`."""

    order: int
    """Order of convergence."""
    stages: int
    """Evaluations a step, the first one included."""
    first_same_as_last: bool = False
    """Whether a step's last evaluation is the first of the next step."""
    jacobians: int = 0
    """Jacobians of the field a step; an evaluation that one takes is among the stages."""
    compilable: bool = True
    """Whether ``compiled=True`` can compile its steps."""
    error_order: int | None = None
    """The error estimate behaves as dt^error_order; None where the method has none, so that its
    steps cannot be sized by it."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @property
    def needs_end(self) -> bool:
        """Whether the states within a step need dy/dt at its end."""
        return self.order > 1

    def check(self, field: VectorField) -> None:
        """Raise ValueError where the method cannot solve this field."""
        if not callable(field):
            raise ValueError(f"field must be callable as field(t, y), not {type(field).__name__}")

    def first(self, field: VectorField, t: Tensor, y: Tensor) -> Tensor:
        """The first evaluation of a step, made before the step size is chosen."""
        return cast(Tensor, evaluate(field, t, y))

    def derivative(self, field: VectorField, y: Tensor, first: Tensor) -> Tensor:
        """dy/dt at the start of the step, out of the first evaluation."""
        return first

    @abstractmethod
    def step(
        self, field: VectorField, t: Tensor, y: Tensor, dt: Increment, first: Tensor
    ) -> StepResult:
        """The state at t + dt."""

    def error(self, result: StepResult, dt: Increment) -> Tensor:
        """The estimate of the local error of a step, of the shape of the state."""
        return cast(Tensor, result.error)

    def path(
        self, field: VectorField, y: Tensor, dt: Increment, first: Tensor, result: StepResult
    ) -> Path:
        """The states within a step: linear for order 1, else cubic Hermite."""
        if result.last is None or self.order == 1:
            return Path(y, dt, line, (result.y,))
        ends = self.derivative(field, y, first), self.derivative(field, result.y, result.last)
        return Path(y, dt, hermite, (result.y, *ends))

    def bind(
        self, field: VectorField, *, controlled: bool = False, bounded: bool = False
    ) -> BoundMethod:
        """The method on one field, for one solve; it may keep what does not change between steps.

        Args:
            field: what it is to solve.
            controlled: whether the steps are sized by their error, so that their values are read,
                which no function transform allows: the method may then write over its own arrays
                where no gradient is recorded.
            bounded: whether a step of explicit Euler towards a target ends there at the latest.

        Raises:
            ValueError: where the method cannot solve this field.
        """
        self.check(field)
        return BoundMethod(self, field)


class TableauMethod(Method):
    """A method that its tableau describes."""

    tableau: Tableau[Any]

    @property
    def order(self) -> int:  # type: ignore[override]
        return self.tableau.order

    @property
    def stages(self) -> int:  # type: ignore[override]
        return self.tableau.stages

    @property
    def error_order(self) -> int | None:  # type: ignore[override]
        order = self.tableau.embedded_order
        return None if order is None else order + 1


class BoundMethod:
    """A method on one field, for one solve: what the integration loop calls.

    Each call is that of the method, of the step made last where a step is meant.
    """

    def __init__(self, method: Method, field: VectorField) -> None:
        self.method = method
        self.field = field

    @property
    def stages(self) -> int:
        """Evaluations a step of this field, the first one included."""
        return self.method.stages

    def on(self, field: VectorField) -> BoundMethod:
        """The same method on another field of the same kind."""
        return type(self)(self.method, field)

    def first(self, t: Tensor, y: Tensor) -> Tensor:
        return self.method.first(self.field, t, y)

    def derivative(self, y: Tensor, first: Tensor) -> Tensor:
        return self.method.derivative(self.field, y, first)

    def step(self, t: Tensor, y: Tensor, dt: Increment, first: Tensor) -> StepResult:
        result = self.method.step(self.field, t, y, dt, first)
        if not isinstance(result, StepResult):
            raise ValueError(
                f"{type(self.method).__name__}.step must return a solvers.StepResult, not "
                f"{type(result).__name__}"
            )
        check_like(result.y, y, f"{type(self.method).__name__}.step")
        return result

    def error(self, result: StepResult, dt: Increment) -> Tensor:
        what = f"{type(self.method).__name__}.step, which has an error_order, as the error"
        return check_like(self.method.error(result, dt), result.y, what)

    def path(self, y: Tensor, dt: Increment, first: Tensor, result: StepResult) -> Path:
        return self.method.path(self.field, y, dt, first, result)
