"""Functions that know their own derivative, so that a solve need not record a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, TypeVar

from torch import Tensor

from solvers.fields.base import RelaxationField
from solvers.fields.batch_parts import Rows

Own = TypeVar("Own", bound="PullbackFunction")


class TargetPullback(Protocol):
    """Pulls gradients back through the targets of one solve, last evaluation first."""

    def pull(self, y: Tensor, target: Tensor, grad: Tensor, base: Tensor) -> Tensor:
        """base + J^T grad with J = d target / dy, adding to the gradients of the tensors.

        ``grad`` and ``base`` may be overwritten.
        """

    def gradients(self) -> tuple[Tensor, ...]:
        """The gradients of the function's tensors so far, in their order.

        They may be of a wider type than the tensors, and are the solver's to overwrite.
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

        It adds to the gradients of the tensors. The last three may be overwritten.
        """

    def gradients(self) -> tuple[Tensor, ...]:
        """As those of :class:`TargetPullback`."""


class PullbackFunction(ABC):
    """The function of a relaxation field, made of tensors, that knows how gradients flow to them.

    That of a :class:`solvers.SemilinearField` gives the target, and a :class:`TargetPullback`;
    that of a :class:`solvers.QuasilinearField` target and gain, and a :class:`LeakPullback`.

    A subclass computes its result from ``tensors`` and ``y`` alone: it takes no notice of t. The
    target is a new tensor each time, which a solver may overwrite.
    """

    autonomous = True

    @abstractmethod
    def __call__(self, t: Tensor, y: Tensor) -> Any:
        """The target, or target and gain."""

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """What the gradient flows to, besides state and rate.

        Those with a row for each sample have it on their first axis.
        """

    @abstractmethod
    def with_tensors(self: Own, *tensors: Tensor) -> Own:
        """The same function of other tensors, which need not have the shapes of these."""

    @abstractmethod
    def select(self: Own, rows: Rows) -> Own:
        """The function of the samples ``rows``."""

    @abstractmethod
    def pullback(self) -> Any:
        """A fresh accumulator for one backward sweep."""


def knows_derivative(field: Any) -> bool:
    """Whether a solve of the field can have its gradient written by hand."""
    return isinstance(field, RelaxationField) and isinstance(field.function, PullbackFunction)
