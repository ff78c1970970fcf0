"""Gradients through a LiquidRNN, also twice, against loops over the equations of its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from liquid_ode import LiquidRNN
from liquid_ode.cells import (
    CfCCell,
    ConvLiquidCell,
    LiquidCell,
    LTCCell,
    MixedMemoryCell,
    RecurrentCell,
)
from solvers import Euler, ExponentialEuler, SemiImplicitEuler, Uniform

INPUT, HIDDEN, STEPS = 2, 3, 2
LENGTHS = (2, 4, 1)
Step = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def liquid_rate(cell: LiquidCell, x: Tensor, d: Tensor) -> Tensor:
    """d / tau."""
    gate = torch.sigmoid(cell.tau_mlp(x))
    return d / (cell.tau_base * (0.5 + gate)).clamp(0.1, 5.0)


def euler(cell: LiquidCell, x: Tensor, h: Tensor, d: Tensor) -> Tensor:
    for _ in range(STEPS):
        target = torch.tanh(cell.recurrent @ h + cell.inputs(x))
        h = h + liquid_rate(cell, x, d) / STEPS * (target - h)
    return h


def exponential_euler(cell: LiquidCell, x: Tensor, h: Tensor, d: Tensor) -> Tensor:
    for _ in range(STEPS):
        target = torch.tanh(cell.recurrent @ h + cell.inputs(x))
        h = target + torch.exp(-liquid_rate(cell, x, d) / STEPS) * (h - target)
    return h


def fused(cell: LTCCell, x: Tensor, h: Tensor, d: Tensor) -> Tensor:
    """The update of an LTC in the paper."""
    mapped = cell.input_w * x + cell.input_b

    def sums(prefix: str, v: Tensor) -> tuple[Tensor, Tensor]:
        w, sigma, mu, erev = (getattr(cell, prefix + n) for n in ("w", "sigma", "mu", "erev"))
        opened = F.softplus(w) * torch.sigmoid(sigma * (v - mu))
        return opened.sum(1), (opened * erev).sum(1)

    leak, of_inputs = F.softplus(cell.gleak), sums("sensory_", mapped)
    for _ in range(STEPS):
        gain, drive = sums("", h)
        ratio = d / STEPS / F.softplus(cell.cm)
        total = leak + gain + of_inputs[0]
        h = (h + ratio * (leak * cell.vleak + drive + of_inputs[1])) / (1 + ratio * total)
    return h


def closed(cell: CfCCell, x: Tensor, h: Tensor, d: Tensor) -> Tensor:
    features = cell.backbone(torch.cat([x, h]))
    f, g, a, b = (getattr(cell, name)(features) for name in ("ff1", "ff2", "time_a", "time_b"))
    s = torch.sigmoid(a * d + b)
    return torch.tanh(f) * (1 - s) + torch.tanh(g) * s


def small_cfc(input_size: int, hidden_size: int) -> CfCCell:
    return CfCCell(input_size, hidden_size, backbone_units=4)


KINDS: dict[str, tuple[dict[str, Any], Step]] = {
    "euler": ({"cell": LiquidCell, "solver": Euler(step_size=Uniform(STEPS))}, euler),
    "exponential": ({"cell": LiquidCell, "solver": ExponentialEuler(STEPS)}, exponential_euler),
    "ltc": ({"cell": LTCCell, "solver": SemiImplicitEuler(STEPS)}, fused),
    "cfc": ({"cell": small_cfc}, closed),
}


def by_loops(
    rnn: LiquidRNN, step: Step, xs: Sequence[Tensor], durations: Sequence[Tensor]
) -> Tensor:
    """The outputs of all sequences, one below the other."""
    outs = []
    for x, times in zip(xs, durations, strict=True):
        data = list(x)
        for layer in range(rnn.num_layers):
            forwards, back = rnn.cells[2 * layer], rnn.cells[2 * layer + 1]
            states: list[list[Tensor]] = []
            for cell, order in ((forwards, 1), (back, -1)):
                h, found = torch.zeros(HIDDEN, dtype=x.dtype), []
                for each, d in list(zip(data, times, strict=True))[::order]:
                    h = step(cell, each, h, d)
                    found.append(h)
                states.append(found[::order])
            data = [torch.cat(both) for both in zip(*states, strict=True)]
        outs += data
    return torch.stack(outs)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_on_gradients(kind: str, recompute: bool) -> None:
    """Two layers, both directions, sequences of their own lengths, durations of their own."""
    options, step = KINDS[kind]
    torch.manual_seed(0)
    rnn = LiquidRNN(
        INPUT, HIDDEN, 2, bidirectional=True, recompute=recompute, dtype=torch.float64, **options
    )
    xs = [torch.randn(n, INPUT, dtype=torch.float64).requires_grad_() for n in LENGTHS]
    durations = [torch.rand(n, dtype=torch.float64).requires_grad_() for n in LENGTHS]
    leaves = [*xs, *durations, *rnn.parameters()]

    def twice(outs: Tensor) -> Sequence[Tensor]:
        first = torch.autograd.grad(outs.square().sum(), leaves, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first)
        return [*first, *torch.autograd.grad(penalty, leaves)]

    packed = pack_sequence(xs, enforce_sorted=False)
    out, _ = rnn(packed, durations=pack_sequence(durations, enforce_sorted=False))
    padded, lengths = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    found = torch.cat([part[:n] for part, n in zip(padded, lengths, strict=True)])
    expected = by_loops(rnn, step, xs, durations)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)  # an LTC adds 1e-8
    torch.testing.assert_close(twice(found), twice(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_with_truncated_gradients(kind: str) -> None:
    """The state goes on from one window to the next; the gradient of each is its own."""
    options, step = KINDS[kind]
    torch.manual_seed(0)
    rnn = LiquidRNN(INPUT, HIDDEN, dtype=torch.float64, **options)
    x = torch.randn(1, 6, INPUT, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    parameters = list(rnn.parameters())
    h, state = None, torch.zeros(HIDDEN, dtype=torch.float64)
    for window in x.split(2, dim=1):
        out, h = rnn(window, h)
        h = h.detach()
        h *= 0.9
        expected = []
        for each in window[0]:
            state = step(rnn.cells[0], each, state, one)
            expected.append(state)
        state = 0.9 * state.detach()
        both = out[0], torch.stack(expected)
        gradients = [torch.autograd.grad(outs.square().sum(), parameters) for outs in both]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cell", [LiquidCell, LTCCell, CfCCell, MixedMemoryCell, ConvLiquidCell])
def test_gradients_of_each_sample(cell: type[RecurrentCell]) -> None:
    """By vmap over samples, the parameters being the same for all."""
    torch.manual_seed(0)
    rnn = LiquidRNN(INPUT, HIDDEN, cell=cell, dtype=torch.float64)
    maps = (4, 2) if cell is ConvLiquidCell else ()
    x = torch.randn(3, 4, INPUT, *maps, dtype=torch.float64)
    parameters = dict(rnn.named_parameters())

    def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
        out, _ = torch.func.functional_call(rnn, values, (x,))
        return out.square().sum()

    detached = {name: value.detach() for name, value in parameters.items()}
    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(detached, x)
    for row, sample in enumerate(x):
        of_one = torch.autograd.grad(loss(parameters, sample), list(parameters.values()))
        for name, expected in zip(parameters, of_one, strict=True):
            torch.testing.assert_close(found[name][row], expected, rtol=1e-10, atol=1e-12)
