"""Functions that know their own derivative, so that a solve need not record a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, TypeVar

from torch import Tensor

from solvers.fields.base import RelaxationField
from solvers.fields.batch_parts import Rows

Own = TypeVar("Own", bound="PullbackFunction")


class Pullback(Protocol):
    """Pulls gradients back through the evaluations of one solve, the last one first."""

    def pull(
        self, y: Tensor, values: tuple[Tensor, ...], grads: tuple[Tensor, ...], base: Tensor
    ) -> Tensor:
        """base + J^T grads with J = d values / dy, adding to the gradients of the tensors.

        ``values`` are the target, and of a quasilinear field the gain, at ``y``. ``grads`` and
        ``base`` may be overwritten.
        """

    def gradients(self) -> tuple[Tensor, ...]:
        """The gradients of the function's tensors so far, in their order.

        They may be of a wider type than the tensors, and are the solver's to overwrite.
        """


class PullbackFunction(ABC):
    """The function of a relaxation field, made of tensors, that knows how gradients flow to them.

    That of a :class:`solvers.SemilinearField` gives the target, that of a
    :class:`solvers.QuasilinearField` target and gain.

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
    def pullback(self) -> Pullback:
        """A fresh accumulator for one backward sweep."""


def knows_derivative(field: Any) -> bool:
    """Whether a solve of the field can have its gradient written by hand."""
    return isinstance(field, RelaxationField) and isinstance(field.function, PullbackFunction)
