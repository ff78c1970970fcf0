"""The derivatives of a field, for methods that solve with them: in the state, and in the time.

By reverse mode: one evaluation, whose graph is then pulled back for every element of a row at once.
Rows that do not depend on each other have their Jacobians by one such sweep, since the derivative
of the sum over rows is that of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from solvers.checks import holds, within_a_transform
from solvers.fields.base import RelaxationField, VectorField, evaluate
from solvers.fields.batch_parts import ParameterisedField, is_selectable

Jacobian = Callable[[Tensor, Tensor], Tensor]

LARGEST = 2048
"""Elements of a state whose Jacobian is still made: 16 MiB of float32."""


class JacobianField(ParameterisedField):
    """dy/dt = function(t, y, *arguments), which knows its own Jacobian.

    For methods that solve with the Jacobian, such as :class:`solvers.Rosenbrock23`: it takes the
    place of automatic differentiation. Of any other field it is found by that. (A field of your own
    gives it as a method ``jacobian(t, y)``.)

    Args:
        function: ``function(t, y, *arguments)``, of the shape and dtype of ``y``; no sample's
            result may depend on another's.
        jacobian: ``jacobian(t, y, *arguments)``, the derivative of each element of dy/dt in each
            of the state: ``(B, *state, *state)`` for states ``(B, *state)``, and
            ``(*state, *state)`` for one system ``state``.
        arguments: tensors with a row for each sample, ``(B, ...)``.
        autonomous: whether ``function`` takes no notice of t. The derivative in t costs an
            evaluation of every step otherwise.

    Raises:
        ValueError: where one of the two is not callable; on use, where a Jacobian is not of the
            shape and dtype described.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        jacobian: Callable[..., Tensor],
        *arguments: Tensor,
        autonomous: bool = False,
    ) -> None:
        for name, value in (("function", function), ("jacobian", jacobian)):
            if not callable(value):
                raise ValueError(
                    f"{name} must be callable as {name}(t, y, *arguments), not {value!r}"
                )
        super().__init__(function, *arguments)
        self.derivative, self.autonomous = jacobian, autonomous

    def jacobian(self, t: Tensor, y: Tensor) -> Tensor:
        """d dy/dt / dy, ``(B, *state, *state)``."""
        return self.derivative(t, y, *self.arguments)

    def with_tensors(self, *tensors: Tensor) -> JacobianField:
        return JacobianField(self.function, self.derivative, *tensors, autonomous=self.autonomous)


def own_jacobian(field: Any) -> Jacobian | None:
    """The Jacobian that a field knows itself; none of a relaxation field, which may be wrapped."""
    known = None if isinstance(field, RelaxationField) else getattr(field, "jacobian", None)
    return known if callable(known) else None


def takes_no_notice_of_time(field: Any) -> bool:
    """Whether the field says so."""
    return bool(getattr(field, "autonomous", False))


class Derivatives(NamedTuple):
    """The derivatives of a field at one state ``(B, *state)`` of n elements a row.

    Attributes:
        in_state: ``(B, n, n)`` for rows by themselves; ``(1, B n, B n)`` for all as one system.
        in_time: of the shape of the state; None where it is zero.
    """

    in_state: Tensor
    in_time: Tensor | None


def derivatives(
    field: VectorField, t: Tensor, y: Tensor, *, onwards: bool, independent: bool
) -> Derivatives:
    """Both derivatives of a field, by one evaluation of it (see :func:`is_free`).

    Args:
        field: what is differentiated.
        t, y: where.
        onwards: whether a gradient goes on to what y and the field are made of.
        independent: whether it is known that no row depends on another. Where it is not, the
            derivative itself is asked; rows that do, or cannot be seen not to, are one system.

    Raises:
        ValueError: where the state is too large, or the field's own Jacobian is wrong.
    """
    known = own_jacobian(field)
    rows, size = y.shape[0], y[0].numel()
    _check_size(size, "it has")
    if known is not None:
        jacobian = check_jacobian(known(t, y), y).reshape(rows, size, size)
        in_time = None if is_free(field) else linearised(field, t, y, onwards).in_time()
        return Derivatives(jacobian, in_time)
    linear = linearised(field, t, y, onwards)
    in_time = None if takes_no_notice_of_time(field) else linear.in_time()
    units = torch.eye(size, dtype=y.dtype, device=y.device).view(size, 1, *y.shape[1:])
    weights = units.expand(size, *y.shape)  # (n, B, *state)
    if independent or rows == 1:
        return Derivatives(_of_rows(linear.pull_each(weights)), in_time)
    probes = _probes(y)
    pulled = linear.pull_each(torch.cat((weights, probes)))
    jacobian = _of_rows(pulled[:size])
    if not _explains(jacobian, probes, pulled[size:]):
        size *= rows
        _check_size(size, "its rows, which may depend on each other, together have")
        units = torch.eye(size, dtype=y.dtype, device=y.device).view(size, *y.shape)
        jacobian = linear.pull_each(units).reshape(1, size, size)
    return Derivatives(jacobian, in_time)


def _of_rows(pulled: Tensor) -> Tensor:
    """``(B, n, n)`` out of the pullbacks of the unit vectors, ``(n, B, *state)``."""
    return pulled.flatten(2).transpose(0, 1)


def _probes(y: Tensor) -> Tensor:
    """Two irregular weights, which no two rows have alike, ``(2, B, *state)``."""
    places = torch.arange(2 * y.numel(), device=y.device, dtype=torch.float32)
    return torch.cos(2.4 * places + 0.5).to(y.dtype).view(2, *y.shape)


def _explains(jacobian: Tensor, probes: Tensor, pulled: Tensor) -> bool:
    """Whether the Jacobians of the rows alone give the pullbacks of the probes.

    Of rows that depend on each other ``jacobian`` holds sums over rows, which do not. False where
    values cannot be read, as under vmap and a compiler.
    """
    jacobian, pulled = jacobian.detach(), pulled.detach().flatten(2)
    probes = probes.flatten(2)
    expected = torch.einsum("bij,kbi->kbj", jacobian, probes)
    size = torch.einsum("bij,kbi->kbj", jacobian.abs(), probes.abs()).amax(2, keepdim=True)
    # What is missed is so small that a step is none the worse for it.
    same = (pulled - expected).abs() <= torch.finfo(pulled.dtype).eps ** 0.5 * size
    return holds(same | ~torch.isfinite(expected)) is True


def is_free(field: Any) -> bool:
    """Whether the derivatives take no evaluation of the field."""
    return own_jacobian(field) is not None and takes_no_notice_of_time(field)


def _check_size(size: int, what: str) -> None:
    if size > LARGEST:
        raise ValueError(
            f"a Rosenbrock method solves with the dense Jacobian of a sample, and {what} {size} "
            f"elements, more than {LARGEST}: take an explicit method, such as Tsit5, or an "
            "exponential one for a SemilinearField, such as ETDRK4. (A ParameterisedField says "
            "that its rows do not depend on each other.)"
        )


def rows_are_known(field: Any) -> bool:
    """Whether the field says that its rows do not depend on each other."""
    known = own_jacobian(field) is not None or getattr(field, "independent", False)
    return bool(known) or is_selectable(field)


def check_jacobian(value: Any, y: Tensor, axes: int = 1) -> Tensor:
    """Return the Jacobian that a field gave, cast where autocast made it.

    Args:
        value: what it gave.
        y: the state that it was given.
        axes: how many of the state's are the batch's: 0 for one system.

    Raises:
        ValueError: where it is no tensor of the shape and dtype of :class:`JacobianField`.
    """
    expected = (*y.shape, *y.shape[axes:])
    if not isinstance(value, Tensor):
        raise ValueError(f"the field's jacobian(t, y) must return a tensor, not {value!r}")
    autocast = value.is_floating_point() and torch.is_autocast_enabled(y.device.type)
    if value.shape == expected and (value.dtype == y.dtype or autocast):
        return value.to(y.dtype)
    raise ValueError(
        f"the field's jacobian(t, y) must return shape {expected} {y.dtype} for a state of shape "
        f"{tuple(y.shape)}: the derivative of each element of dy/dt in each element of "
        f"{'the same sample' if axes else 'the state'}. It returned {tuple(value.shape)} "
        f"{value.dtype}"
    )


class Linear(Protocol):
    """A field at one state and time, and the pullbacks of its derivative."""

    slope: Tensor

    def pull_each(self, weights: Tensor) -> Tensor:
        """J^T w of each of several weights, ``(k, B, *state)``."""

    def in_time(self) -> Tensor | None:
        """d field / dt; None where the graph shows that it is zero."""


def linearised(field: VectorField, t: Tensor, y: Tensor, onwards: bool) -> Linear:
    """The field at one state and time, by one evaluation; for ``onwards`` as above."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or within_a_transform():
        return _Transformed(field, t, y)
    return _Recorded(field, t, y, onwards)


class _Recorded:
    """By the graph of autograd, which a field may itself differentiate in, and which is quicker."""

    def __init__(self, field: VectorField, t: Tensor, y: Tensor, onwards: bool) -> None:
        self.onwards = onwards
        with torch.enable_grad():
            self.t, self.y = (x.view_as(x) for x in (t, y))
            for x in (self.t, self.y):
                if not x.requires_grad:
                    x.requires_grad_()
            self.slope: Tensor = evaluate(field, self.t, self.y)

    def pull_each(self, weights: Tensor) -> Tensor:
        if not self.slope.requires_grad:
            return torch.zeros_like(weights)
        (found,) = torch.autograd.grad(
            self.slope, self.y, weights, retain_graph=True, create_graph=self.onwards,
            allow_unused=True, is_grads_batched=True,
        )  # fmt: skip
        return torch.zeros_like(weights) if found is None else found

    def in_time(self) -> Tensor | None:
        if not self.slope.requires_grad:
            return None
        # Of weights w the pullback is sum w df/dt, whose derivative in w is df/dt, each by itself.
        with torch.enable_grad():
            weights = torch.zeros_like(self.slope).requires_grad_()
            (total,) = torch.autograd.grad(
                self.slope, self.t, weights, create_graph=True, allow_unused=True
            )
            if total is None or not total.requires_grad:
                return None
            (found,) = torch.autograd.grad(
                total.sum(), weights, create_graph=self.onwards, allow_unused=True
            )
        return None if found is None else found


class _Transformed:
    """By torch.func: within its transforms, under a compiler and in inference mode."""

    def __init__(self, field: VectorField, t: Tensor, y: Tensor) -> None:
        def value(t: Tensor, y: Tensor) -> Tensor:
            result: Tensor = evaluate(field, t, y)
            return result

        made: Any = torch.func.vjp(value, t, y)  # of two things or three, for its types
        self.slope, self._pull = made

    def pull_each(self, weights: Tensor) -> Tensor:
        pulled: Tensor = torch.func.vmap(lambda each: self._pull(each)[1])(weights)
        return pulled

    def in_time(self) -> Tensor:
        made: Any = torch.func.vjp(
            lambda weights: self._pull(weights)[0].sum(), torch.zeros_like(self.slope)
        )
        total, pull = made
        found: Tensor = pull(torch.ones_like(total))[0]
        return found
