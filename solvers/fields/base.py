"""What a solver integrates: a vector field, and the leak that some fields show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from solvers.checks import holds
from solvers.fields.batch_parts import Rows, is_selectable, select

Own = TypeVar("Own", bound="RelaxationField")
Function = Callable[[Tensor, Tensor], Any]
Wrap = Callable[[Function], Function]


class VectorField(Protocol):
    """dy/dt = field(t, y), for y of shape ``(B, ...)``, or ``(d,)`` for one system.

    ``t`` has no axes where all samples share the time, and shape ``(B, 1, ..., 1)``, which
    broadcasts against y, where every sample has its own: under error control, and with steps that
    are scaled by the gradient. The result has the shape and dtype of y.

    t has the dtype of y, or float32 for states in half precision that share it: a field of
    float32 states that depends on times far from 0, such as seconds since 1970, should subtract
    their start. y is not to be written to, nor a result that was given back before.

    Where samples have times of their own, no sample's result may depend on another sample. A
    field with :class:`solvers.SelectableField`'s ``select`` says so itself, and is asked only for
    the samples that have not arrived; of a plain function it is found out, by its
    derivative and by moving rows along the solve.
    """

    def __call__(self, t: Tensor, y: Tensor, /) -> Tensor: ...


class RelaxationField(ABC):
    """dy/dt = rate gain(t, y) (target(t, y) - y), with ``rate`` fixed during a solve.

    Made of a function, that it is not copied out of: what the function says of itself, such as
    how it is asked for some samples or which tensors it is made of, holds for the field.

    Attributes:
        rate: in units of 1/time, a number or a tensor that broadcasts against the state.
    """

    function: Function
    rate: Tensor | float

    @abstractmethod
    def leak(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """target(t, y), and gain(t, y) or None where it is 1."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt, of the shape of y."""
        target, gain = self.leak(t, y)
        away = target - y
        return (away if gain is None else away * gain) * self.rate

    @classmethod
    def of_rate(cls: type[Own], function: Function, rate: Tensor | float) -> Own:
        """The field of this rate, unchecked: for makers whose rates are right by construction."""
        field = cls.__new__(cls)
        field.function, field.rate = function, rate
        return field

    @property
    def autonomous(self) -> bool:
        """Whether the function takes no notice of the time."""
        return bool(getattr(self.function, "autonomous", False))

    @property
    def selectable(self) -> bool:
        """Whether :meth:`select` may be called."""
        return is_selectable(self.function)

    def select(self: Own, rows: Rows) -> Own:
        """The field of the samples ``rows``, where ``rate`` has all the axes of the state."""
        rate = self.rate
        if isinstance(rate, Tensor) and rate.ndim and rate.shape[0] > 1:
            rate = rate[rows]
        return self.of_rate(select(self.function, rows), rate)

    def wrapped(self: Own, wrap: Wrap, rate: Tensor | float) -> Own:
        """The field with the function wrapped, and another rate."""
        return self.of_rate(wrap(self.function), rate)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the field names: the rate, and those of its function."""
        own = (self.rate,) if isinstance(self.rate, Tensor) else ()
        return (*own, *getattr(self.function, "tensors", ()))

    def with_tensors(self: Own, *tensors: Tensor) -> Own:
        """The same field of other tensors, in that order."""
        rate, function = self.rate, self.function
        if isinstance(rate, Tensor):
            rate, *rest = tensors
            tensors = tuple(rest)
        if tensors:
            function = function.with_tensors(*tensors)  # type: ignore[attr-defined]
        return self.of_rate(function, rate)


class SemilinearField(RelaxationField):
    """dy/dt = (target(t, y) - y) / tau, with ``tau`` fixed during a solve.

    Exponential and semi-implicit methods treat the leak ``-y / tau`` exactly or implicitly and
    evaluate only ``target``; every other method calls the field as dy/dt.

    Args:
        target: ``target(t, y)``, of the shape and dtype of ``y``.
        tau: time constants, positive, a number or a tensor that broadcasts against ``y``.

    Raises:
        ValueError: where a time constant is not positive and finite.
    """

    def __init__(self, target: Callable[[Tensor, Tensor], Tensor], tau: Tensor | float) -> None:
        if not callable(target):
            raise ValueError(
                f"target must be a function target(t, y), not {type(target).__name__}; "
                "SemilinearField takes (target, tau)"
            )
        if not isinstance(tau, (int, float)) and not (
            isinstance(tau, Tensor) and tau.is_floating_point() and tau.numel()
        ):
            raise ValueError(f"tau must be a number or a floating-point tensor, not {tau!r}")
        values = torch.as_tensor(tau)
        if holds((values > 0) & torch.isfinite(values)) is False:
            raise ValueError(
                "tau must be positive and finite everywhere; "
                f"its smallest value is {values.min().item():g}. Clamp it first."
            )
        self.function = target
        self.rate = tau.reciprocal() if isinstance(tau, Tensor) else 1.0 / tau

    @property
    def target(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The state that the leak pulls towards, as a function of t and y."""
        return self.function

    @property
    def tau(self) -> Tensor | float:
        """The time constants, 1 / rate."""
        return 1.0 / self.rate

    def leak(self, t: Tensor, y: Tensor) -> tuple[Tensor, None]:
        return self.function(t, y), None


class QuasilinearField(RelaxationField):
    """dy/dt = rate gain(t, y) (target(t, y) - y), with ``rate`` fixed during a solve.

    A leak whose strength depends on the state, as that of a membrane with synapses does, where
    1 / rate is the capacitance and gain the conductance. Exponential and semi-implicit Euler
    hold gain and target over each step at what they are at its start; methods of a higher order
    for semilinear fields do not apply; every other method calls the field as dy/dt.

    Args:
        leak: ``leak(t, y)`` gives target and gain, the gain not negative, of the shape and dtype
            of ``y``.
        rate: in units of 1/(time gain), at least 0, a number or a tensor that broadcasts against
            ``y``.

    Raises:
        ValueError: where a rate is negative or not finite.
    """

    def __init__(
        self, leak: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], rate: Tensor | float
    ) -> None:
        if not callable(leak):
            raise ValueError(
                f"leak must be a function leak(t, y), not {type(leak).__name__}; "
                "QuasilinearField takes (leak, rate)"
            )
        values = torch.as_tensor(rate)
        if holds((values >= 0) & torch.isfinite(values)) is False:
            raise ValueError(
                "rate must be finite and at least 0 everywhere; "
                f"its smallest value is {values.min().item():g}"
            )
        self.function, self.rate = leak, rate

    def leak(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        target, gain = self.function(t, y)
        return target, gain


def fitted(field: VectorField, y0: Tensor) -> VectorField:
    """The field with a rate of as many axes as the state, so that it can be asked for samples.

    Raises:
        ValueError: where the rate does not broadcast to the state.
    """
    if not isinstance(field, RelaxationField) or not isinstance(field.rate, Tensor):
        return field
    rate = field.rate
    matched = y0.shape[y0.ndim - rate.ndim :] if rate.ndim <= y0.ndim else ()
    if len(matched) != rate.ndim or any(
        own not in (size, 1) for own, size in zip(rate.shape, matched, strict=True)
    ):
        raise ValueError(
            f"tau has shape {tuple(rate.shape)}, which does not broadcast to that of the state, "
            f"{tuple(y0.shape)}"
        )
    if rate.ndim == y0.ndim:
        return field
    return field.of_rate(field.function, rate.view(*[1] * (y0.ndim - rate.ndim), *rate.shape))


def check_like(value: Any, y: Tensor, what: str) -> Tensor:
    """Return ``value``, or say how it differs from the state it has to match.

    Under autocast, whose products come out in half precision, it is cast to the state's dtype.

    Raises:
        ValueError: where it is no tensor of the shape and dtype of ``y``.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must return a tensor, not {type(value).__name__}")
    if value.shape == y.shape and value.dtype == y.dtype:
        return value
    autocast = value.is_floating_point() and torch.is_autocast_enabled(y.device.type)
    if value.shape == y.shape and autocast:
        return value.to(y.dtype)
    raise ValueError(
        f"{what} must return the shape and dtype of the state, "
        f"{tuple(y.shape)} {y.dtype}; it returned {tuple(value.shape)} {value.dtype}. "
        "Broadcast or cast inside the field."
    )


def evaluate(function: Function, t: Tensor, y: Tensor, what: str = "field(t, y)") -> Any:
    """function(t, y), of the shape and dtype of y; each of several results likewise.

    Raises:
        ValueError: where the result is another, or the function takes the times of several
            samples for one number.
    """
    try:
        value = function(t, y)
    except (RuntimeError, ValueError, TypeError) as error:
        if t.ndim == 0 or not any(words in str(error) for words in _ONE_NUMBER):
            raise
        raise ValueError(
            f"{what} took t for one number ({error}). Here every sample has a time of its own, "
            f"t of shape {tuple(t.shape)}: write torch.sin(t) for math.sin(t) and "
            "torch.where(t < a, x, z) for an if. Or let all samples share their steps, and t have "
            "no axes: step_size=PID(shared=True) for error control, Uniform(steps) for equal steps"
        ) from error
    if type(value) is Tensor and value.dtype == y.dtype and value.shape == y.shape:
        return value  # first, for a step of a small batch notices every call
    if isinstance(value, tuple):
        return tuple(check_like(each, y, what) for each in value)
    return check_like(value, y, what)


# How torch words that a tensor of several elements is no number.
_ONE_NUMBER = (
    "cannot be converted to Scalar",
    "only one element tensors can be converted",
    "only integer tensors of a single element can be converted",
    "only length-1 arrays can be converted",
    "Boolean value of Tensor with more than one value is ambiguous",
)
