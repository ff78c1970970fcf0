"""A cell run over a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liquid_ode.cells.liquid import LiquidCell
from liquid_ode.cells.wiring import Wiring
from solvers import Euler, Solver


class LiquidRNN(nn.Module):
    """A liquid cell over a sequence, with regular or irregular time steps.

    Between two inputs the state flows for the time between them; the input is held constant.

    Args:
        input_size: features of the inputs.
        hidden_size: features of the state.
        solver: the solver of every step.
        cell: the cell's class, called as ``cell(input_size, hidden_size, solver=, wiring=)``.
        wiring: which neurons are connected; None for all.
        batch_first: sequences are ``(B, T, features)``, else ``(T, B, features)``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        solver: Solver = Euler(steps=5),
        cell: type[LiquidCell] = LiquidCell,
        wiring: Wiring | None = None,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.cell = cell(input_size, hidden_size, solver=solver, wiring=wiring)
        self.batch_first = batch_first

    def forward(
        self, x: Tensor, h0: Tensor | None = None, durations: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run over the sequence.

        Args:
            x: ``(B, T, input_size)``.
            h0: ``(B, hidden_size)``; zeros if None.
            durations: ``(B, T)``, the time for which the state flows under each input; 1 each
                if None. (Both ``(T, B, ...)`` without ``batch_first``.)

        Returns:
            all states ``(B, T, hidden_size)``, and the last one ``(B, hidden_size)``.

        Raises:
            ValueError: where a shape does not fit, or a duration is negative or not finite.
        """
        if x.ndim != 3:
            raise ValueError(f"x must have three axes, batch, time and features, not {x.ndim}")
        if durations is not None and durations.shape != x.shape[:2]:
            raise ValueError(
                f"durations must have shape {tuple(x.shape[:2])}, not {tuple(durations.shape)}"
            )
        axis = 1 if self.batch_first else 0
        inputs = x.unbind(axis)
        times = [1.0] * len(inputs) if durations is None else durations.unsqueeze(-1).unbind(axis)
        if not inputs:
            raise ValueError("the sequence is empty")
        state, states = h0, []
        for step, time in zip(inputs, times, strict=True):
            state = self.cell(step, state, duration=time)
            states.append(state)
        return torch.stack(states, dim=axis), states[-1]
