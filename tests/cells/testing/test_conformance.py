"""The shipped conformance suite for cells: every cell passes it, with every solver and wiring."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import liquid_ode.cells
import solvers
from liquid_ode.cells import (
    CfCCell,
    LiquidCell,
    LTCCell,
    MixedMemoryCell,
    RecurrentCell,
    Wiring,
    testing,
)
from liquid_ode.cells.cfc.forms import CfCForm, GatedForm, NoGateForm, PureForm
from liquid_ode.cells.cfc.wired import WiredCfCCell
from liquid_ode.cells.liquid.conv import ConvLiquidCell
from solvers.testing.kinds import has_budget

ODE_CELLS: list[Callable[..., RecurrentCell]] = [LiquidCell, LTCCell, ConvLiquidCell]
CELLS = [*ODE_CELLS, CfCCell, WiredCfCCell, MixedMemoryCell]
NAMES = [
    "euler",
    "uniform_euler",
    "heun",
    "exponential_euler",
    "etdrk2",
    "semi_implicit_euler",
    "rk4",
    "dopri5",
    "tsit5",
]
SHARED_STEPS = {"dopri5"}
# Of the other solvers the methods are like those above; what a cell asks of them is checked.
MORE_NAMES = [name for name in solvers.names() if name not in NAMES]
# For the time constants of an LTC cell, which are small.
LTC_STEPS = {"euler": 12, "uniform_euler": 12, "heun": 10, "rk4": 5}
LTC_STEPS |= {"midpoint": 10, "ralston": 10, "classic_rk4": 5}
# What is asked of a cell does not depend on how small its errors are, but the time of a method of
# low order does.
LOOSE = {name: {"rtol": 1e-3, "atol": 1e-4} for name in ("heun_euler", "rosenbrock23", "rodas5p")}
WIRINGS: dict[str, Callable[[int, int], Wiring]] = {
    "full": lambda inputs, hidden: Wiring.full(hidden),
    "recurrent": lambda inputs, hidden: Wiring.random(hidden, sparsity=0.6),
    "sparse": lambda inputs, hidden: Wiring.random(hidden, sparsity=0.5, input_size=inputs),
    "ncp": lambda inputs, hidden: Wiring.auto_ncp(inputs, hidden, 1),
}


def wired(
    kind: Callable[..., RecurrentCell], wiring: Callable[[int, int], Wiring], **options: Any
) -> testing.Make:
    return lambda inputs, hidden: kind(inputs, hidden, wiring=wiring(inputs, hidden), **options)


def driven(kind: Callable[..., RecurrentCell], name: str) -> testing.Make:
    options: dict[str, Any] = LOOSE.get(name, {})
    if kind is LTCCell and name in LTC_STEPS:
        options = {"steps": LTC_STEPS[name]}
    return partial(kind, solver=solvers.get(name, **options))


def is_refused(make: testing.Make, kind: Callable[..., RecurrentCell], name: str) -> bool:
    """Whether the solver is not for the time constants of the cell, which has to be said."""
    if kind is not LTCCell or "etdrk" not in name:
        return False
    with pytest.raises(ValueError, match="take semi_implicit_euler or exponential_euler"):
        make(3, 5)(torch.zeros(2, 3))
    return True


# Where all samples share their steps is torchdiffeq's affair, not the cell's: one cell shows it.
FULL = [
    (kind, name)
    for kind in ODE_CELLS
    for name in NAMES
    if name not in SHARED_STEPS or kind is LiquidCell
]
PARTLY = [
    (kind, name)
    for kind in ODE_CELLS
    for name in [*MORE_NAMES, *SHARED_STEPS]
    if (kind, name) not in FULL
]


@pytest.mark.parametrize(("kind", "name"), FULL)
def test_every_ode_cell_conforms_with_every_solver(
    kind: Callable[..., RecurrentCell], name: str
) -> None:
    make = driven(kind, name)
    if not is_refused(make, kind, name):
        testing.check_cell(make, per_sample=name not in SHARED_STEPS)


@pytest.mark.parametrize(("kind", "name"), PARTLY)
def test_every_other_solver_treats_samples_and_times_alike(
    kind: Callable[..., RecurrentCell], name: str
) -> None:
    make = driven(kind, name)
    if not is_refused(make, kind, name):
        testing.check_shapes(make)
        if name not in SHARED_STEPS:
            testing.check_batch_independence(make)
        if has_budget(solvers.get(name)):
            testing.check_durations(make)


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("kind", [*ODE_CELLS, CfCCell])
def test_every_cell_conforms_with_every_wiring(
    kind: Callable[..., RecurrentCell], wiring: str
) -> None:
    testing.check_cell(wired(kind, WIRINGS[wiring]))


@pytest.mark.parametrize("form", [GatedForm(), NoGateForm(), PureForm()], ids=repr)
def test_every_form_of_a_closed_form_cell_conforms(form: CfCForm) -> None:
    testing.check_cell(partial(CfCCell, form=form, backbone_units=7))
    testing.check_cell(wired(CfCCell, WIRINGS["sparse"], form=form, mask_time=False))
    testing.check_cell(wired(WiredCfCCell, WIRINGS["ncp"], form=form))


OTHERS: dict[str, testing.Make] = {
    "no backbone": partial(CfCCell, backbone_layers=0),
    "two layers of SiLU": partial(CfCCell, backbone_units=6, backbone_layers=2, activation=nn.SiLU),
    "dropout": partial(CfCCell, backbone_units=8, backbone_layers=2, backbone_dropout=0.5),
    "wired without time": wired(WiredCfCCell, WIRINGS["ncp"], mask_time=False),
    "mixed memory": MixedMemoryCell,
    "mixed memory of an LTC": partial(MixedMemoryCell, cell=LTCCell),
    "mixed memory, wired": wired(MixedMemoryCell, WIRINGS["ncp"], cell=WiredCfCCell),
    "kernels 3 and 1": partial(ConvLiquidCell, recurrent_kernel_size=1),
    "kernels 1 and 5": partial(ConvLiquidCell, kernel_size=1, recurrent_kernel_size=5),
    "tau": partial(LiquidCell, tau_init=0.3, tau_hidden=3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_cells_with_other_options_conform(name: str) -> None:
    testing.check_cell(OTHERS[name])


def test_a_cell_with_a_learned_solver_conforms() -> None:
    method = solvers.LearnedMethod.of("explicit", 2)
    testing.check_cell(lambda i, h: LiquidCell(i, h, solver=solvers.LearnedSolver([method])))


@pytest.mark.parametrize("mode", [solvers.Checkpointing(), solvers.BacksolveAdjoint()])
def test_a_cell_whose_solver_has_another_gradient_conforms(mode: solvers.GradientMode) -> None:
    testing.check_cell(partial(LiquidCell, solver=replace(solvers.Heun(4), gradient=mode)))


def test_no_cell_is_forgotten() -> None:
    found = [getattr(liquid_ode.cells, name) for name in liquid_ode.cells.__all__]
    kinds = {kind for kind in found if inspect.isclass(kind) and issubclass(kind, RecurrentCell)}
    assert {kind for kind in kinds if not inspect.isabstract(kind)} <= set(CELLS)


class DecayingGRU(RecurrentCell):
    """A cell of a user's own: the state decays for some time, then takes the input in at once."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gru = nn.GRUCell(input_size, hidden_size)
        self.rate = nn.Parameter(torch.ones(hidden_size))

    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], self.hidden_size) if h0 is None else h0
        times = torch.as_tensor(duration, dtype=x.dtype).expand(*x.shape[:2], 1)
        states = []
        for each, time in zip(x.unbind(), times.unbind(), strict=True):
            new = self.gru(each, h * torch.exp(-time * self.rate.abs()))
            h = torch.where(time > 0, new, h)
            states.append(h)
        return torch.stack(states)


def test_a_cell_of_ones_own_conforms() -> None:
    testing.check_cell(DecayingGRU)


def test_make_has_to_give_cells_of_the_sizes_asked_for() -> None:
    with pytest.raises(ValueError, match=r"must give a RecurrentCell, not Linear"):
        testing.check_shapes(nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"gave a cell of sizes \(3, 4\)"):
        testing.check_shapes(lambda inputs, hidden: LiquidCell(3, 4))


def test_checks_leave_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    testing.check_cell(LiquidCell)
    assert torch.equal(torch.rand(4), expected)
