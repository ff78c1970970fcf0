"""What every cell of an ordinary differential equation offers: its fields, and their solution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.unit_time import in_unit_time
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import Solver, SolverError, VectorField


class ODECell(RecurrentCell):
    """A cell whose state follows an ordinary differential equation, integrated by a solver.

    A subclass gives :meth:`fields`.

    Args:
        input_size: features (channels) of an input.
        hidden_size: features (channels) of the state.
        solver: any solver of :mod:`solvers`.
        wiring: which neurons are connected; None for all.

    Raises:
        ValueError: where a size is below 1, the solver is none, or the wiring has another size.
    """

    def __init__(
        self, input_size: int, hidden_size: int, solver: Solver, wiring: Wiring | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, wiring)
        if not isinstance(solver, Solver):
            raise ValueError(
                "solver must be a solver, such as solvers.Euler(steps=5) or "
                f"solvers.get('heun'), not {solver!r}"
            )
        self.solver = solver

    @abstractmethod
    def fields(self, x: Tensor) -> Sequence[VectorField]:
        """The vector field under each of T inputs, x ``(T, B, *features)``.

        Each is for states ``(B, *state)`` like x: of its device, and of its dtype, or, where it is
        a relaxation field whose ``rate`` is a tensor, of that of the rate. What does not depend on
        the state is best computed here, for all inputs together.
        """

    def fields_in_unit_time(self, x: Tensor, durations: Tensor) -> Sequence[VectorField]:
        """The vector field under each input, in the time s = t / duration.

        A subclass need not give it: where one knows a quicker way, it saves a product an input.

        Args:
            x: ``(T, B, *features)``.
            durations: ``(T, B, 1, ..., 1)`` with the axes of ``x``.
        """
        pairs = zip(self.fields(x), of_each(durations.to(x.dtype)), strict=True)
        return [in_unit_time(field, duration) for field, duration in pairs]

    def field(self, x: Tensor) -> VectorField:
        """The vector field under the inputs x ``(B, *features)``, for a state ``(B, *state)``.

        What does not change during a solve is computed here, once.
        """
        self._features(x)
        if x.ndim != 1 + self.feature_axes:
            raise ValueError(
                f"field(x) takes x with a batch axis and those of a sample, not {tuple(x.shape)}"
            )
        return self.fields(x.unsqueeze(0))[0]

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        if isinstance(duration, Tensor):
            fields, span = self.fields_in_unit_time(x, duration), (0.0, 1.0)
        else:
            fields, span = self.fields(x), (0.0, float(duration))
        state = self._rest(x, fields[0])
        if h0 is not None:
            state = h0.to(state.dtype)
        if span[1] == 0:
            states = state.repeat(x.shape[0], *[1] * state.ndim)  # not h0 itself
            return states if resets is None else states.masked_fill(resets.cumsum(0) > 0, 0)
        if state.numel() == 0:  # nothing to solve, but gradients of zero, as every part of a batch
            return torch.stack([state + field(state.new_zeros(()), state) for field in fields])
        try:
            if resets is None:
                return self.solver.solve_chain(fields, state, span)
            return self.solver.solve_chain(fields, state, span, resets)
        except SolverError as error:
            if error.problem is None:
                raise
            words = f"step {error.problem}: {error.__cause__}"
            raise SolverError(words, error.solution) from error.__cause__

    def _rest(self, x: Tensor, field: VectorField) -> Tensor:
        """Zeros ``(B, *state)``, in the dtype of the dynamics."""
        shape = (x.shape[1], *self.state_shape(x.shape[2:]))
        rate = getattr(field, "rate", None)
        if not isinstance(rate, Tensor):
            return x.new_zeros(shape)
        return torch.zeros_like(rate) if rate.shape == shape else rate.new_zeros(shape)

    def extra_repr(self) -> str:
        wiring = "" if self.wiring is None else f", wiring={self.wiring}"
        return f"{self.input_size}, {self.hidden_size}, solver={self.solver}{wiring}"


def of_each(x: Tensor) -> Sequence[Tensor]:
    """The parts ``(B, ...)`` of values ``(T, B, ...)`` of T inputs."""
    # The gradient of unbind is a copy, that of a view is none.
    return x.unbind() if x.shape[0] > 1 else (x.squeeze(0),)
