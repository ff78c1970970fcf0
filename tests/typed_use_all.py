"""The rest of the public names, after ``typed_use.py``: together they use each of them.

``.ci/run`` checks this file too; ``tests/test_types.py`` runs it, and sees that none is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import liquid_ode
import solvers
from liquid_ode import (
    DDIM,
    BatchNormalisedMinSNR,
    CfCCell,
    ConvLiquidCell,
    ConvLiquidField,
    DDIMInversion,
    FlowInversion,
    GatedForm,
    GaussianDiffusion,
    LearnedSampler,
    LeCunTanh,
    Likelihood,
    LinearSchedule,
    LiquidCell,
    LiquidField,
    LiquidRNN,
    LTCCell,
    LTCField,
    MixedMemoryCell,
    NoGateForm,
    PureForm,
    RePaint,
    TrainConfig,
    UniformWeighting,
    image_to_image,
    load_pretrained,
    slerp,
    train_sampler,
)
from liquid_ode.cells import ODECell, RecurrentCell
from liquid_ode.training import Moment, Reporter
from solvers import (
    ETDRK2,
    MAX_STEPS,
    NON_FINITE,
    STEP_UNDERFLOW,
    SUCCESS,
    Backpropagation,
    Bosh3,
    ClassicRK4,
    Euler,
    ExponentialEuler,
    ExponentialRungeKutta,
    ExponentialTableau,
    GradientMode,
    HandWritten,
    Heun,
    HeunEuler,
    JacobianField,
    LearnedMethod,
    LearnedSolver,
    Midpoint,
    Problem,
    Pullback,
    PullbackFunction,
    QuasilinearField,
    Ralston,
    Recorder,
    Relaxation,
    RelaxationField,
    Rodas5P,
    Rosenbrock,
    Rosenbrock23,
    RosenbrockTableau,
    SelectableField,
    SemiImplicitEuler,
    SemilinearField,
    SemilinearMethod,
    Solver,
    Stats,
    Status,
)


class Square(HandWritten):
    """A function with a gradient of its own."""

    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        return inputs[0] ** 2, []

    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        return [2 * inputs[0] * grad]

    def plain(self, *inputs: Tensor) -> Tensor:
        return inputs[0] ** 2


class HalfStep(SemilinearMethod):
    """A method of one's own, for semilinear fields alone."""

    order, stages = 1, 1

    def step(
        self, field: solvers.VectorField, t: Tensor, y: Tensor, dt: float | Tensor, first: Tensor
    ) -> solvers.StepResult:
        return solvers.StepResult(y + dt * self.derivative(field, y, first))


def methods() -> None:
    every: list[Solver] = [
        ETDRK2(3), Bosh3(rtol=1e-3), ClassicRK4(3), ExponentialEuler(3), HeunEuler(steps=3),
        Midpoint(3), Ralston(3), SemiImplicitEuler(3), Euler(3, gradient=Backpropagation()),
    ]  # fmt: skip
    leak = SemilinearField(tau=2.0, target=lambda t, y: torch.tanh(y))
    strength = QuasilinearField(lambda t, y: (torch.tanh(y), 1 + y**2), rate=0.5)
    fields: list[RelaxationField] = [leak, strength]
    for solver in every:
        solution = solver.solve(leak, torch.ones(2, 3))
        stats: Stats = solution.stats
        assert_type(stats.accepted, int | Tensor)
        assert bool((solution.status == SUCCESS).all())
    assert_type(fields[1](torch.zeros(()), torch.ones(2, 3)), Tensor)
    failures: list[Status] = [MAX_STEPS, NON_FINITE, STEP_UNDERFLOW]
    name: str = failures[0].name
    assert name
    mode: GradientMode = Backpropagation()
    own = solvers.NativeSolver(steps=3, method=HalfStep(), gradient=mode)
    assert_type(own.solve(leak, torch.ones(2, 3)).y, Tensor)
    tableau = ExponentialTableau(a=(), b=((1.0, 0.0, 0.0),), c=(0.0,), order=1)
    etd1 = ExponentialRungeKutta("etd1", tableau)
    assert_type(solvers.NativeSolver(steps=3, method=etd1).solve(leak, torch.ones(2, 3)).y, Tensor)
    assert_type(Square()(torch.ones(2)), Tensor)
    relaxation = Relaxation("implicit", lambda z: z / (1 + z), lambda z, w, grad: grad)
    assert_type(relaxation.order, int)


def stiff() -> None:
    field = JacobianField(lambda t, y, rate: -rate * y, lambda t, y, rate: -rate, torch.ones(1, 1))
    assert_type(field.jacobian(torch.zeros(()), torch.ones(2, 1)), Tensor)
    stiff: list[Solver] = [Rosenbrock23(rtol=1e-3), Rodas5P(rtol=1e-3)]
    assert_type(stiff[0].solve(lambda t, y: -y, torch.ones(2, 1)).y, Tensor)
    tableau = RosenbrockTableau(
        a=(),
        b=(1.0,),
        c=(0.0,),
        order=1,
        gamma=1.0,
        coupling=(),
        time=(1.0,),
        interpolant=((1.0,),),
    )  # fmt: skip
    assert_type(Rosenbrock(tableau).order, int)


def drop_in() -> None:
    y0, t = torch.ones(2, 3), torch.tensor([0.0, 0.5])
    solvers.odeint(lambda t, y: -y, y0, t, method="euler")
    module = nn.Linear(3, 3)

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = module

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            found: Tensor = self.layer(y)
            return found

    solvers.odeint_adjoint(Field(), y0, t, rtol=1e-3, atol=1e-4)
    event: Callable[..., Any] = solvers.odeint_event
    assert callable(event)


def learning() -> None:
    assert_type(solvers.names(), list[str])
    assert_type(solvers.options("euler"), dict[str, Any])
    rates = torch.linspace(0.5, 3.0, 4)[:, None]
    field = solvers.ParameterisedField(lambda t, y, rate: -rate * y, rates)
    asked: SelectableField = field
    assert asked is field
    problem = Problem(field, torch.eye(4)[:, :2] + 0.5)
    recorder = Recorder(Heun(2))
    recorder.solve(field, torch.ones(4, 2))
    learned = solvers.train_solver([problem], [2], starts=1, iterations=1)
    assert_type(learned, LearnedSolver)
    parts: list[LearnedMethod] = [LearnedMethod("explicit", [2])]
    assert len(parts) == 1
    errors = solvers.relative_errors({"learned": learned, "heun": Heun(1)}, [problem])
    assert_type(errors, dict[str, float])


def more_cells() -> None:
    x = torch.zeros(2, 3)
    ltc: ODECell = LTCCell(3, 8)
    of_ltc, of_liquid = ltc.field(x), LiquidCell(3, 8).field(x)
    of_maps = ConvLiquidCell(3, 8).field(torch.zeros(2, 3, 4, 4))
    assert isinstance(of_ltc, LTCField)
    assert isinstance(of_liquid, LiquidField)
    assert isinstance(of_maps, ConvLiquidField)
    function = of_liquid.function
    if isinstance(function, PullbackFunction):
        pullback: Pullback = function.pullback()
        assert_type(pullback.gradients(), tuple[Tensor, ...])
    forms = [GatedForm(), NoGateForm(), PureForm()]
    cells: list[RecurrentCell] = [CfCCell(3, 8, form=form) for form in forms]
    cells += [MixedMemoryCell(3, 8, cell=LTCCell)]
    assert_type(cells[0](x), Tensor)
    out, h = LiquidRNN(3, 8)(torch.zeros(2, 5, 3), durations=0.5)
    assert_type(out, Tensor)
    assert_type(h, Tensor)
    assert_type(LeCunTanh()(x), Any)
    change: Callable[[nn.Module], RecurrentCell | LiquidRNN] = liquid_ode.from_ncps
    assert callable(change)


def more_diffusion() -> None:
    diffusion = load_pretrained("unet", solver=Heun(2), device="cpu")
    assert_type(diffusion, GaussianDiffusion)
    weightings = (UniformWeighting(), BatchNormalisedMinSNR(5.0))
    plain = GaussianDiffusion(diffusion.model, LinearSchedule(1000), "epsilon", weightings[0])
    assert_type(plain(torch.zeros(2, 3, 8, 8)), Tensor)
    model = liquid_ode.create_model("improved")
    assert_type(model(torch.zeros(1, 3, 8, 8), torch.zeros(1)), Tensor)
    images = torch.zeros(1, 3, 8, 8)
    with torch.no_grad():
        assert_type(DDIMInversion(DDIM(2)).invert(diffusion, images), Tensor)
        assert_type(FlowInversion(Heun(1)).invert(diffusion, images), Tensor)
        assert_type(image_to_image(DDIM(2), diffusion, images, seeds=0), Tensor)
        known = torch.ones(1, 1, 8, 8)
        filled = RePaint(DDIM(2, eta=1.0), jump=1, resamplings=1).inpaint(diffusion, images, known)
        assert_type(filled, Tensor)
    assert_type(slerp(torch.ones(1, 2), torch.ones(1, 2), 0.5), Tensor)
    assert_type(Likelihood(Heun(1), 1).probes, int)


def few_evaluations(diffusion: GaussianDiffusion) -> LearnedSampler:
    """Called by nobody: training takes minutes."""
    return train_sampler(diffusion, 5, image_shape=(3, 32, 32))


class Told(Reporter):
    """A callback of one's own."""

    def step(self, moment: Moment) -> None:
        assert_type(moment.loss, float)


def from_python() -> None:
    config = TrainConfig.from_preset("unet", epochs=1)
    assert_type(config.lr, float)
    assert_type(config.image_size, int | str)
    assert_type(config.image_shape, tuple[int, int, int])
    callbacks: list[Reporter] = [Told()]
    assert len(callbacks) == 1
