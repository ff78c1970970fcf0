"""A liquid cell with the memory of an LSTM, which learns what to keep over a long time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from liquid_ode.cells.base import RecurrentCell
from liquid_ode.cells.cfc.cell import CfCCell
from liquid_ode.cells.names import explained
from liquid_ode.cells.network.making import make_cell
from liquid_ode.cells.wiring.wiring import Wiring
from solvers import Solver


class MixedMemoryCell(RecurrentCell):
    """A cell whose state passes through an LSTM before it flows.

    With the gates i, f and o of the input x and the state h, each σ(W x + b + U h),

        c1 = f c + i tanh(W_g x + b_g + U_g h),    h' = o tanh(c1),    h1 = cell(x, h', duration).

    The memory c has no time: it is kept and forgotten once for each input. Gradients reach far
    back through it, where those of the state fade. A duration of 0 leaves h and c as they are.

    The state is h and c side by side, ``(*batch, 2 * hidden_size)``, as the first and the last half
    of its features. A :class:`LiquidRNN` gives h alone as outputs, and takes and returns both as
    its states.

    >>> rnn = LiquidRNN(20, 50, cell=MixedMemoryCell)
    >>> rnn = LiquidRNN(20, 50, cell=functools.partial(MixedMemoryCell, cell=LTCCell))

    W starts Xavier-uniform, U orthogonal, b at 0, but at 1 for the gate f.

    Args:
        input_size: features of x.
        hidden_size: features of h and of c.
        cell: the class of the cell, or a callable that makes one, as for :class:`LiquidRNN`; its
            state is a vector of this size.
        solver: of that cell; its own default if None.
        wiring: likewise. It does not hold for the LSTM, which connects everything.

    Raises:
        ValueError: where the cell cannot be made of these, or has a state of another shape.

    Reference: Lechner & Hasani, Learning long-term dependencies in irregularly-sampled time
    series, 2020, where the cell is an ODE-RNN.
    """

    @explained
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        cell: Callable[..., RecurrentCell] = CfCCell,
        solver: Solver | None = None,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.cell = make_cell(cell, input_size, hidden_size, solver, wiring)
        state = (self.cell.feature_axes, *self.cell.state_shape((input_size,)))
        if state != (1, hidden_size):
            raise ValueError(
                "the cell of a MixedMemoryCell has vectors of hidden_size features as states, as "
                f"CfCCell and LTCCell do; {type(self.cell).__name__} has others"
            )
        self.gates_of_input = nn.Linear(input_size, 4 * hidden_size)  # i, f, g, o
        self.gates_of_state = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of the LSTM anew."""
        nn.init.xavier_uniform_(self.gates_of_input.weight)
        nn.init.orthogonal_(self.gates_of_state.weight)
        bias = torch.zeros_like(self.gates_of_input.bias)
        bias[self.hidden_size : 2 * self.hidden_size] = 1.0
        with torch.no_grad():
            self.gates_of_input.bias.copy_(bias)

    def state_shape(self, features: Sequence[int]) -> tuple[int, ...]:
        return (2 * self.hidden_size,)

    def output(self, states: Tensor) -> Tensor:
        return states[..., : self.hidden_size].contiguous()

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        if h0 is None:
            h0 = x.new_zeros(x.shape[1], 2 * self.hidden_size)
        if not isinstance(duration, Tensor) and duration == 0:
            return h0.repeat(x.shape[0], 1, 1)  # not h0 itself
        states, state = [], h0
        of_inputs = self.gates_of_input(x)  # (T, B, 4 H)
        for step, (given, gates) in enumerate(zip(x.unbind(), of_inputs.unbind(), strict=True)):
            time = duration[step] if isinstance(duration, Tensor) else duration
            h, c = state.chunk(2, 1)
            i, f, g, o = (gates + self.gates_of_state(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = self.cell(given, torch.sigmoid(o) * torch.tanh(c), duration=time)
            new = torch.cat([h, c], 1)
            state = torch.where(time > 0, new, state) if isinstance(time, Tensor) else new
            states.append(state)
        return torch.stack(states)
