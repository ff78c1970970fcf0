"""The public names as a user's typed program uses them.

``.ci/run`` checks this file with ``mypy --strict`` and pyright against the installed package;
``tests/test_types.py`` runs it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import liquid_ode
import solvers
from liquid_ode import (
    DDIM,
    CfCCell,
    ConvLiquidCell,
    CosineSchedule,
    GaussianDiffusion,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MinSNR,
    ProbabilityFlow,
    RecurrentCell,
    TrainConfig,
    WiredCfCCell,
    Wiring,
    create_model,
    load_run,
    model_names,
    train,
)
from liquid_ode.cells import ODECell
from liquid_ode.models import Denoiser
from solvers import Euler, Heun, SemilinearField, Solution, Solver


def solve() -> None:
    euler = Euler(steps=5)
    solution = euler.solve(lambda t, y: -y, torch.ones(4, 3))
    assert_type(solution, Solution)
    assert_type(solution.y, Tensor)
    assert_type(solution.ys, Tensor | None)
    assert_type(solution.stats.nfe, int | Tensor)
    assert_type(solution.status, Tensor)
    field = SemilinearField(tau=2.0, target=lambda t, y: torch.tanh(y))
    assert_type(Heun(steps=2).solve(field, torch.ones(4, 3), (0.0, 0.5), t_eval=[0.2]).y, Tensor)
    assert_type(field.target(torch.zeros(()), torch.ones(4, 3)), Tensor)
    assert_type(solvers.get("heun", steps=3), Solver)


class GRU(RecurrentCell):
    """A cell of one's own."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.step = nn.GRUCell(input_size, hidden_size)

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        h, states = h0, []
        for each in x:
            h = self.step(each, h)
            states.append(h)
        return torch.stack(states)


def cells() -> None:
    wiring = Wiring.random(8, sparsity=0.5)
    cell = LiquidCell(3, 8, solver=Euler(steps=5), wiring=wiring)
    assert_type(cell, LiquidCell)
    assert_type(cell.solver, Solver)
    assert_type(cell.field(torch.zeros(2, 3))(torch.zeros(()), torch.zeros(2, 8)), Tensor)
    assert_type(cell.time_constant(torch.zeros(2, 3)), Tensor)
    ltc = LTCCell(3, 8)
    ode_cells: list[ODECell] = [cell, ltc, ConvLiquidCell(3, 8)]
    ncp = WiredCfCCell(3, 8, wiring=Wiring.auto_ncp(3, 8, 2))
    every: list[RecurrentCell] = [*ode_cells, CfCCell(3, 8), ncp, GRU(3, 8)]
    assert_type(every[0].sequence(torch.zeros(5, 2, 3), None, torch.ones(5, 2)), Tensor)
    assert_type(LiquidRNN(3, 8, num_layers=2, solver=Heun(2)), LiquidRNN)
    assert_type(LiquidRNN(3, 8, cell=GRU, projection=4), LiquidRNN)


def diffusion() -> None:
    assert_type(model_names(), list[str])
    model = create_model("unet", solver=Euler(steps=3), num_classes=10)
    assert_type(model, Denoiser)
    process = GaussianDiffusion(model, schedule=CosineSchedule(10), weighting=MinSNR(5.0))
    assert_type(process, GaussianDiffusion)
    labels = torch.tensor([1, 2])
    assert_type(process.loss(torch.zeros(2, 3, 8, 8), class_labels=labels), Tensor)
    images = DDIM(steps=2, eta=0.0).sample(process, 2, seeds=0, image_shape=(3, 8, 8))
    assert_type(images, Tensor)
    flow = ProbabilityFlow(solver=Heun(steps=1))
    assert_type(flow.sample(process, 1, image_shape=(3, 8, 8)), Tensor)


def training() -> None:
    config = TrainConfig(model="improved", solver="euler", epochs=1)
    assert_type(config, TrainConfig)
    assert_type(config.epochs, int)
    assert_type(liquid_ode.__version__, str)


def resume(run: Path) -> GaussianDiffusion:
    """Called by nobody: a run takes minutes."""
    assert_type(train(TrainConfig(), resume=run), Path)
    return load_run(run, solver=solvers.get("heun"), solver_steps=[3, 5, 7])
