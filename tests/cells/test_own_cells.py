"""ODE cells of a user's own: the vector fields are all that they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from liquid_ode.cells import LiquidRNN, ODECell, WiredConv2d, WiredLinear, Wiring, testing
from solvers import (
    Backpropagation,
    Checkpointing,
    ExponentialEuler,
    Heun,
    ParameterisedField,
    SemilinearField,
    Tsit5,
    VectorField,
)
from tests.cells.ordinary_cells import close

SPARSE = Wiring.random(5, sparsity=0.5, input_size=3)


class Rate(ODECell):
    """dh/dt = tanh(W h + U x + b) - h, as in the README."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        solver: Any = Heun(steps=4),
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, solver, wiring)
        wiring = wiring or Wiring.full(hidden_size)
        self.inputs = WiredLinear(input_size, hidden_size, wiring.inputs)
        self.recurrent = WiredLinear(hidden_size, hidden_size, wiring.recurrent, bias=False)

    def slope(self, t: Tensor, h: Tensor, drive: Tensor) -> Tensor:
        return torch.tanh(self.recurrent(h) + drive) - h

    def fields(self, x: Tensor) -> Sequence[VectorField]:
        return [ParameterisedField(self.slope, drive) for drive in self.inputs(x)]


class Leaky(ODECell):
    """τ dh/dt = U x + b - h, each neuron with a τ of its own; all in closed form."""

    def __init__(
        self, input_size: int, hidden_size: int, solver: Any = ExponentialEuler(steps=2)
    ) -> None:
        super().__init__(input_size, hidden_size, solver)
        self.inputs = nn.Linear(input_size, hidden_size)
        self.tau = nn.Parameter(torch.linspace(0.2, 2.0, hidden_size))

    def fields(self, x: Tensor) -> Sequence[VectorField]:
        return [
            SemilinearField(lambda t, h, target=target: target + 0 * h, self.tau)
            for target in self.inputs(x)
        ]

    def exact(self, x: Tensor, h0: Tensor, durations: Tensor) -> Tensor:
        states, h = [], h0
        for target, time in zip(self.inputs(x), durations, strict=True):
            h = target + (h - target) * torch.exp(-time.unsqueeze(1) / self.tau)
            states.append(h)
        return torch.stack(states)


class Forced(Leaky):
    """τ dh/dt = (U x + b) cos(t) - h: a plain function, whose time begins with each input."""

    def __init__(self, input_size: int, hidden_size: int, solver: Any = Heun(steps=4)) -> None:
        super().__init__(input_size, hidden_size, solver)

    def fields(self, x: Tensor) -> Sequence[VectorField]:
        return [
            lambda t, h, drive=drive: (drive * torch.cos(t) - h) / self.tau
            for drive in self.inputs(x)
        ]

    def exact(self, x: Tensor, h0: Tensor, durations: Tensor) -> Tensor:
        states, h = [], h0
        for drive, time in zip(self.inputs(x), durations.unsqueeze(2), strict=True):
            part = drive / (1 + self.tau**2)
            h = (h - part) * torch.exp(-time / self.tau)
            h = h + part * (torch.cos(time) + self.tau * torch.sin(time))
            states.append(h)
        return torch.stack(states)


class SemilinearForced(Forced):
    def fields(self, x: Tensor) -> Sequence[VectorField]:
        return [
            SemilinearField(lambda t, h, drive=drive: drive * torch.cos(t) + 0 * h, self.tau)
            for drive in self.inputs(x)
        ]


class Maps(ODECell):
    """The first one, of maps."""

    feature_axes: ClassVar[int] = 3

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, Heun(steps=2))
        self.inputs = WiredConv2d(input_size, hidden_size, 3, SPARSE.inputs, padding=1)

    def state_shape(self, features: Sequence[int]) -> tuple[int, ...]:
        return self.hidden_size, *features[1:]

    def fields(self, x: Tensor) -> Sequence[VectorField]:
        drives = self.inputs(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return [ParameterisedField(lambda t, h, drive: drive.tanh() - h, each) for each in drives]


class Given(Rate):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        wiring = Wiring.random(hidden_size, sparsity=0.5, input_size=input_size)
        super().__init__(input_size, hidden_size, wiring=wiring)


@pytest.mark.parametrize("kind", [Rate, Given, Leaky])
def test_a_cell_of_fields_conforms(kind: type[ODECell]) -> None:
    testing.check_cell(kind)


@pytest.mark.parametrize("kind", [Forced, SemilinearForced])
def test_a_cell_whose_fields_depend_on_time(kind: type[Forced]) -> None:
    for check in (testing.check_batch_independence, testing.check_streaming):
        check(kind)
    testing.check_gradients(kind)
    torch.manual_seed(0)
    cell = kind(3, 5, Tsit5(rtol=1e-10, atol=1e-11)).double()
    x, h0 = torch.randn(4, 6, 3).double(), torch.randn(6, 5).double()
    durations = 3 * torch.rand(4, 6).double()
    expected = cell.exact(x, h0, durations)
    torch.testing.assert_close(cell.sequence(x, h0, durations), expected, rtol=1e-8, atol=1e-8)


def test_a_cell_of_maps_conforms() -> None:
    class Local(Maps):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            ODECell.__init__(self, input_size, hidden_size, Heun(steps=2))
            self.inputs = nn.Conv2d(input_size, hidden_size, 3, padding=1)

    for check in (testing.check_shapes, testing.check_durations, testing.check_gradients):
        check(Local)
    maps = Maps(3, 5)
    mask = SPARSE.inputs
    assert mask is not None
    assert torch.equal(maps.inputs.weight.flatten(2).any(2), mask)


@pytest.mark.parametrize("solver", [ExponentialEuler(steps=1), Tsit5(rtol=1e-10, atol=1e-11)])
def test_durations_of_each_sample_are_those_of_the_closed_form(solver: Any) -> None:
    torch.manual_seed(0)
    cell = Leaky(3, 5, solver).double()
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    h0, durations = torch.randn(6, 5).double(), torch.rand(4, 6).double()
    durations[2, 1] = 0.0
    expected = cell.exact(x, h0, durations)
    torch.testing.assert_close(cell.sequence(x, h0, durations), expected, rtol=1e-8, atol=1e-9)
    rnn = LiquidRNN(3, 5, cell=lambda i, h: cell, batch_first=False)
    out, _ = rnn(x, h0.unsqueeze(0), durations)
    torch.testing.assert_close(out, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mode", [Backpropagation(), Checkpointing()])
def test_the_wiring_and_the_solver_come_from_the_network(mode: Any) -> None:
    torch.manual_seed(0)
    solver = Heun(steps=3, gradient=mode)
    rnn = LiquidRNN(3, 5, cell=Rate, wiring=SPARSE, solver=solver).double()
    dense = LiquidRNN(3, 5, cell=Rate, solver=solver).double()
    dense.load_state_dict(rnn.state_dict())
    x, durations = torch.randn(2, 4, 3).double(), torch.rand(2, 4).double()
    close(rnn(x, durations=durations)[0], dense(x, durations=durations)[0])
    rnn(x)[0].square().sum().backward()
    cell = rnn.cells[0]
    assert isinstance(cell, Rate)
    assert cell.recurrent.weight.grad is not None
    assert torch.equal(cell.recurrent.weight.grad != 0, SPARSE.recurrent)
    other = LiquidRNN(3, 5, cell=Rate, wiring=Wiring.random(5, sparsity=0.5, seed=1))
    with pytest.raises(ValueError, match="saved by a cell of another wiring"):
        other.load_state_dict(rnn.state_dict())
