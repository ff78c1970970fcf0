"""What a solver integrates: a vector field, and the structure it may expose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor


class VectorField(Protocol):
    """dy/dt = field(t, y), for y of shape ``(B, ...)``.

    No sample's result may depend on another sample, nor on its place in the batch: per-sample
    solvers ask for the samples alone that have not arrived. Of a plain function it is tried out
    whether it can be asked so, by comparing with what it gives for the whole batch; a
    :class:`solvers.ParameterisedField` says so itself.

    ``t`` broadcasts against ``y``: it has no axes where all samples share the time, and shape
    ``(B, 1, ..., 1)`` where every sample has its own. The result has the shape and dtype of y.
    """

    def __call__(self, t: Tensor, y: Tensor, /) -> Tensor: ...


class SemilinearField:
    """dy/dt = (target(t, y) - y) / tau, with ``tau`` fixed during a solve.

    Exponential and semi-implicit methods treat the leak ``-y / tau`` exactly or implicitly and
    evaluate only ``target``; every other method calls the field as dy/dt.

    Args:
        target: ``target(t, y)``, of the shape and dtype of ``y``.
        tau: time constants, positive, a number or a tensor that broadcasts against ``y``.

    Raises:
        ValueError: where a time constant is not positive and finite.

    A subclass whose target does not depend on t may set ``autonomous``; the t it is called with
    is then that of the start of the solve.
    """

    autonomous = False

    def __init__(self, target: Callable[[Tensor, Tensor], Tensor], tau: Tensor | float) -> None:
        if not callable(target):
            raise ValueError(
                f"target must be a function target(t, y), not {type(target).__name__}; "
                "SemilinearField takes (target, tau)"
            )
        if not isinstance(tau, int | float) and not (
            isinstance(tau, Tensor) and tau.is_floating_point() and tau.numel()
        ):
            raise ValueError(f"tau must be a number or a floating-point tensor, not {tau!r}")
        values = torch.as_tensor(tau)
        if not bool(((values > 0) & torch.isfinite(values)).all()):
            raise ValueError(
                "tau must be positive and finite everywhere; "
                f"its smallest value is {values.min().item():g}. Clamp it first."
            )
        self._target = target
        self._rate: Tensor | float = tau.reciprocal() if isinstance(tau, Tensor) else 1.0 / tau

    @property
    def rate(self) -> Tensor | float:
        """1 / tau, in units of 1/time: what every method multiplies with."""
        return self._rate

    @property
    def tau(self) -> Tensor | float:
        """The time constants."""
        return 1.0 / self.rate

    def target(self, t: Tensor, y: Tensor) -> Tensor:
        """The state that the leak pulls towards."""
        return self._target(t, y)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt, of the shape of y."""
        return (self.target(t, y) - y) * self.rate


class QuasilinearField(ABC):
    """dy/dt = rate gain(t, y) (target(t, y) - y), with ``rate`` fixed during a solve.

    A leak whose strength depends on the state, as that of a membrane with synapses does, where
    1 / rate is the capacitance and gain the conductance. Exponential and semi-implicit Euler
    hold gain and target over each step at what they are at its start; methods of a higher order
    for semilinear fields do not apply; every other method calls the field as dy/dt.

    Args:
        rate: in units of 1/(time gain), at least 0, a number or a tensor that broadcasts against
            ``y``.

    Raises:
        ValueError: where a rate is negative or not finite.
    """

    autonomous = False

    def __init__(self, rate: Tensor | float) -> None:
        values = torch.as_tensor(rate)
        if not bool(((values >= 0) & torch.isfinite(values)).all()):
            raise ValueError(
                "rate must be finite and at least 0 everywhere; "
                f"its smallest value is {values.min().item():g}"
            )
        self.rate = rate

    @abstractmethod
    def leak(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """target(t, y) and gain(t, y), the gain not negative, of the shape and dtype of ``y``."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt, of the shape of y."""
        target, gain = self.leak(t, y)
        return (target - y) * gain * self.rate


class TargetPullback(Protocol):
    """Pulls gradients back through the targets of one solve, last evaluation first."""

    def pull(self, y: Tensor, target: Tensor, grad: Tensor, base: Tensor) -> Tensor:
        """base + J^T grad with J = d target / dy, adding to the gradients of the inputs.

        ``grad`` and ``base`` may be overwritten.
        """

    def gradients(self) -> tuple[Tensor, ...]:
        """The gradients of the inputs so far, in their order.

        They may be of a wider type than the inputs, and are the solver's to overwrite.
        """


class LeakPullback(Protocol):
    """Pulls gradients back through targets and gains of one solve, last evaluation first."""

    def pull(
        self,
        y: Tensor,
        target: Tensor,
        gain: Tensor,
        target_grad: Tensor,
        gain_grad: Tensor,
        base: Tensor,
    ) -> Tensor:
        """base + J^T (target_grad, gain_grad) with J = d (target, gain) / dy.

        It adds to the gradients of the inputs. The last three may be overwritten.
        """

    def gradients(self) -> tuple[Tensor, ...]:
        """The gradients of the inputs so far, in their order.

        They may be of a wider type than the inputs, and are the solver's to overwrite.
        """


Own = TypeVar("Own", bound="_KnowsDerivative")


class _KnowsDerivative:
    """A field that is made of tensors, and knows how gradients flow to them."""

    autonomous = True

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors, besides state and rate, that the gradient flows to.

        Those with a row for each sample have it on their first axis.
        """
        raise NotImplementedError

    def with_inputs(self: Own, rate: Tensor, *inputs: Tensor) -> Own:
        """The same field of other tensors, which need not have the shapes of these."""
        raise NotImplementedError


class PullbackField(_KnowsDerivative, SemilinearField):
    """A semilinear field that knows its own derivative, so that a solve need not record a graph.

    A subclass must compute ``target(t, y)`` from ``inputs`` and ``y`` alone: it is autonomous. It
    must return a new tensor each time, which a solver may overwrite.
    """

    autonomous = True

    def pullback(self, *inputs: Tensor) -> TargetPullback:
        """A fresh accumulator for one backward sweep."""
        raise NotImplementedError


class LeakPullbackField(_KnowsDerivative, QuasilinearField):
    """A quasilinear field that knows its own derivative, so that a solve need not record a graph.

    A subclass must compute ``leak(t, y)`` from ``inputs`` and ``y`` alone: it is autonomous.
    """

    autonomous = True

    def pullback(self, *inputs: Tensor) -> LeakPullback:
        """A fresh accumulator for one backward sweep."""
        raise NotImplementedError


def check_rate(field: SemilinearField | QuasilinearField, y0: Tensor) -> None:
    """Raise ValueError where the time constants do not fit the state."""
    rate = field.rate
    if not isinstance(rate, Tensor):
        return
    sizes = list(zip(reversed(rate.shape), reversed(y0.shape), strict=False))
    if rate.ndim > y0.ndim or any(own not in (size, 1) for own, size in sizes):
        raise ValueError(
            f"tau has shape {tuple(rate.shape)}, which does not broadcast to that of the state, "
            f"{tuple(y0.shape)}"
        )


def knows_derivative(field: Any) -> bool:
    """Whether the field's own derivative is that of its target, gain and rate.

    It is not where a subclass overrides one of these and inherits the derivative.
    """
    if not isinstance(field, PullbackField | LeakPullbackField):
        return False
    order = type(field).__mro__

    def place(name: str) -> int:
        return next((i for i, kind in enumerate(order) if name in vars(kind)), len(order))

    return place("pullback") <= min(place("target"), place("leak"), place("rate"))


def check_like(value: Any, y: Tensor, what: str) -> Tensor:
    """Return ``value``, or say how it differs from the state it has to match.

    Raises:
        ValueError: where it is no tensor of the shape and dtype of ``y``.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must return a tensor, not {type(value).__name__}")
    if value.shape != y.shape or value.dtype != y.dtype:
        raise ValueError(
            f"{what} must return the shape and dtype of the state, "
            f"{tuple(y.shape)} {y.dtype}; it returned {tuple(value.shape)} {value.dtype}. "
            "Broadcast or cast inside the field."
        )
    return value
