"""The public names as a user's typed program uses them.

``.ci/run`` checks this file with ``mypy --strict`` and pyright against the installed package;
``tests/test_types.py`` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import liquid_ode
import solvers
from liquid_ode import (
    DDIM,
    DDPM,
    CfCCell,
    ConvLiquidCell,
    CosineSchedule,
    DPMSolver,
    GaussianDiffusion,
    Guidance,
    KarrasHeun,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MinSNR,
    MotorReadout,
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
from liquid_ode.diffusion import (
    KarrasGrid,
    LogSNRGrid,
    Sampled,
    Sampler,
    TimeList,
)
from liquid_ode.models import Denoiser
from solvers import (
    ETDRK4,
    PID,
    BacksolveAdjoint,
    BoundMethod,
    Budget,
    BudgetRule,
    ButcherTableau,
    Checkpointing,
    Crossings,
    DormandPrince,
    ErrorControl,
    Euler,
    Event,
    GradientScaled,
    Heun,
    Increment,
    Judgement,
    Method,
    NativeSolver,
    ParameterisedField,
    Problem,
    Recorder,
    RungeKutta,
    SemilinearField,
    Solution,
    SolutionPath,
    Solver,
    SolverError,
    Span,
    Start,
    StepResult,
    StepSizeRule,
    TorchDiffEq,
    Tsit5,
    Uniform,
)


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
    pair = torch.ones(4, 3), torch.zeros(4)
    both = Heun(steps=2).solve(lambda t, y: (-y[0], y[0].sum(1)), pair)
    assert_type(both.y, tuple[Tensor, Tensor])
    parts = Tsit5(rtol={"z": 1e-3}).solve(
        lambda t, y, k: {"z": -k * y["z"]}, {"z": pair[0]}, args=(2.0,)
    )
    assert_type(parts.y, dict[str, Tensor])


class TwoStage(Method):
    """A method of one's own."""

    order, stages = 2, 2

    def step(
        self, field: solvers.VectorField, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> StepResult:
        return StepResult(y + dt * field(t + dt / 2, y + dt / 2 * first))


@dataclass(frozen=True)
class Graded(BudgetRule):
    """A rule of one's own, of a number of steps."""

    def propose(self, control: Budget, derivative: Tensor | None) -> Increment:
        done = self.steps - control.steps_left
        return (2 * done + 1) / (self.steps**2 - done**2) * control.remaining


@dataclass(frozen=True)
class Doubling(PID):
    """A rule of one's own, by the error; it could write the whole of a rule as well."""

    def start(self, bound: BoundMethod, span: Span, y0: Tensor) -> Start:
        return super().start(bound, span, y0)

    def judge(
        self,
        control: ErrorControl,
        dt: Increment,
        result: StepResult,
        y: Tensor,
        bound: BoundMethod,
    ) -> Judgement:
        judged = super().judge(control, dt, result, y, bound)
        after: ErrorControl = judged.control
        factor = torch.where(after.ratio > 1, 0.5, torch.where(after.ratio < 0.01, 2.0, 1.0))
        return judged._replace(control=after._replace(dt=control.dt * factor))


class Named(NativeSolver, method=TwoStage(), step_size=Uniform(3)):
    """A solver of one's own, with a name."""


def more_solving() -> None:
    heun = RungeKutta(ButcherTableau(a=((1.0,),), b=(0.5, 0.5), c=(0.0, 1.0), order=2))
    every: list[Solver] = [
        Euler(step_size=GradientScaled(3, sharpness=0.4)),
        DormandPrince(step_size=PID(1e-3, shared=True), gradient=Checkpointing()),
        Tsit5(rtol=1e-3, atol=1e-4, gradient=BacksolveAdjoint()),
        NativeSolver(steps=4, method=heun),
        Named(4),
        Heun(step_size=Graded(3)),
        Tsit5(step_size=Doubling(rtol=1e-3)),
        TorchDiffEq("dopri5", rtol=1e-4),
        Recorder(Heun(3)),
    ]
    rates = torch.ones(4, 1)
    field = ParameterisedField(lambda t, y, rates: -rates * y, rates)
    for solver in every:
        assert_type(solver.with_steps(2).solve(field, torch.ones(4, 3)), Solution)
    assert_type(Named(4).with_steps(2), Named)
    assert_type(Named(4).step_size, StepSizeRule)
    solvers.register("typed_use", Named)
    solvers.register("typed_use", Named(4), replace=True)
    solvers.register("typed_use", TwoStage(), replace=True)
    assert_type(solvers.get("tests.typed_use:Named", steps=2), Solver)
    stop = Event(lambda t, y: y[:, 0] - 0.5, direction=-1)
    found = Tsit5().solve(field, torch.ones(4, 3), event=stop, throw=False)
    assert_type(found.event_time, Tensor | None)
    low = Event(lambda t, y: y[:, 0] - 0.7, terminal=False)
    found = Heun(20).solve(field, torch.ones(4, 3), event=[stop, low])
    assert_type(found.event_index, Tensor | None)
    assert_type(found.events, tuple[Crossings, ...])
    assert_type(found.events[1].times, Tensor)
    path = Tsit5().solve(field, torch.ones(4, 3), dense=True).path
    assert_type(path, SolutionPath | None)
    if path is not None:
        assert_type(path.sizes, Tensor)
    assert_type(ETDRK4(rtol=1e-3), ETDRK4)
    assert_type(Problem(field, torch.ones(4, 3)).y0, Tensor)
    try:
        Tsit5(step_size=PID(max_steps=1)).solve(field, torch.ones(4, 3))
    except SolverError as error:
        assert_type(error.solution, Solution[Any] | None)


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
    rnn = LiquidRNN(3, 8, cell=GRU, projection=4)
    assert_type(rnn, LiquidRNN)
    resets = torch.zeros(2, 5, dtype=torch.bool)
    _, h = rnn.forward(torch.zeros(2, 5, 3), None, 0.5, resets)
    assert_type(h, Tensor)
    assert_type(rnn.last(torch.zeros(2, 5, 3), h, resets=resets)[0], Tensor)
    assert_type(MotorReadout(Wiring.auto_ncp(3, 8, 2), affine=True), MotorReadout)


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
    sampled = DPMSolver(KarrasGrid(2)).draw(process, 2, image_shape=(3, 8, 8))
    assert_type(sampled, Sampled)
    assert_type(sampled.evaluations, Tensor)
    guidance = Guidance(2.0, weak=process.with_model(model), interval=(0.1, 5.0))
    every: list[Sampler] = [DDPM(2), KarrasHeun(TimeList([5, 1]), churn=1.0), DDIM(LogSNRGrid(2))]
    for sampler in every:
        images = sampler.sample(process, 1, guidance=guidance, image_shape=(3, 8, 8))
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
