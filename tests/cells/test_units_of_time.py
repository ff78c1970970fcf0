"""Durations in any unit: what the dynamics keep bounded, the default solver keeps bounded."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import solvers
from liquid_ode import LiquidCell, LiquidRNN, create_model
from liquid_ode.cells import ConvLiquidCell
from solvers import Euler


@pytest.mark.parametrize("duration", [0.01, 8.0, 20.0, 60.0, 1e6])
def test_the_default_keeps_a_recurrent_network_bounded(duration: float) -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(5, 32)
    x = 3 * torch.randn(4, 12, 5)
    durations = duration * torch.rand(4, 12)
    out, _ = rnn(x, durations=durations)
    assert out.abs().max() <= 1 + 1e-6
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rnn.parameters())
    out, _ = rnn(x, 2 * torch.ones(1, 4, 32), durations)
    assert out.abs().max() <= 2 + 1e-6


def test_so_do_maps_and_the_image_models_with_small_time_constants() -> None:
    torch.manual_seed(0)
    cell = ConvLiquidCell(3, 8)
    assert cell(3 * torch.randn(2, 3, 6, 6), duration=60.0).abs().max() <= 1 + 1e-6
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([3, 700])
    for name in ("improved", "original"):
        model = create_model(name, solver=Euler(steps=5)).eval()
        cells = [module for module in model.modules() if isinstance(module, LiquidCell)]
        outputs: dict[str, torch.Tensor] = {}
        for number, each in enumerate(cells):
            torch.nn.init.constant_(each.tau_base, 0.1)  # a tenth of the duration
            each.register_forward_hook(partial(noted, outputs, str(number)))
        with torch.no_grad():
            model(x, t)
        assert len(outputs) == len(cells) > 0
        assert max(float(out.abs().max()) for out in outputs.values()) <= 1 + 1e-6


def noted(outputs: dict[str, torch.Tensor], name: str, *call: Any) -> None:
    outputs[name] = call[-1]


def test_steps_no_longer_than_tau_are_those_of_the_textbook() -> None:
    torch.manual_seed(0)
    cell = LiquidCell(3, 8, tau_init=5.0).double()
    x, h = torch.randn(4, 3).double(), torch.randn(4, 8).double()
    field, state, sizes = cell.field(x), h, []

    def noted(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        sizes.append(float(t.flatten()[0]))
        return field(t, y)

    # A plain function has no target to end at: the same numbers by y + dt f(y).
    state = Euler(steps=5).solve(noted, h).y
    assert len(sizes) == 5
    torch.testing.assert_close(cell(x, h), state, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["uniform_euler", "heun", "rk4"])
def test_steps_too_long_for_the_time_constants_are_told(name: str) -> None:
    torch.manual_seed(1)
    rnn = LiquidRNN(3, 12, solver=solvers.get(name, steps=3))
    x = torch.randn(4, 7, 3)
    with pytest.warns(RuntimeWarning, match=r"steps of .* are too long .* numbers are wrong"):
        rnn(x, durations=12.0)
    rnn(x, durations=0.5)  # a warning is an error here
