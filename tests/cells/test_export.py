"""Cells outside Python: torch.export and ONNX of each, run beside the cell; torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import solvers
from liquid_ode.cells import (
    CfCCell,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MixedMemoryCell,
    RecurrentCell,
    Wiring,
)
from liquid_ode.cells.cfc.forms import NoGateForm, PureForm
from liquid_ode.cells.cfc.wired import WiredCfCCell
from liquid_ode.cells.liquid.conv import ConvLiquidCell
from tests.versions import needs_compiler

pytestmark = needs_compiler

INPUTS, HIDDEN, STEPS = 3, 5, 2
SIDES = (4, 2)
NCP = Wiring.auto_ncp(INPUTS, HIDDEN, 1)

Run = Callable[..., Sequence[Tensor]]


def of_solver(
    name: str, kind: Callable[..., RecurrentCell] = LiquidCell, **options: Any
) -> RecurrentCell:
    # Two steps: the graph grows with their number, and has nothing new in a third.
    return kind(INPUTS, HIDDEN, solver=solvers.get(name, steps=2), **options)


CELLS: dict[str, Callable[[], RecurrentCell]] = {
    "liquid, euler": lambda: LiquidCell(INPUTS, HIDDEN),
    "liquid, uniform_euler": lambda: of_solver("uniform_euler"),
    "liquid, heun": lambda: of_solver("heun"),
    "liquid, exponential_euler": lambda: of_solver("exponential_euler"),
    "liquid, wired": lambda: of_solver("euler", wiring=NCP),
    "ltc, semi_implicit_euler": lambda: of_solver("semi_implicit_euler", LTCCell),
    "ltc, wired": lambda: of_solver("semi_implicit_euler", LTCCell, wiring=NCP),
    "conv, euler": lambda: of_solver("euler", ConvLiquidCell),
    "cfc": lambda: CfCCell(INPUTS, HIDDEN, backbone_units=7),
    "cfc, no gate": lambda: CfCCell(INPUTS, HIDDEN, form=NoGateForm(), wiring=NCP),
    "cfc, pure": lambda: CfCCell(INPUTS, HIDDEN, form=PureForm()),
    "cfc, wired": lambda: WiredCfCCell(INPUTS, HIDDEN, wiring=NCP),
    "cfc, mixed memory": lambda: MixedMemoryCell(INPUTS, HIDDEN),
}


def exported(
    module: nn.Module, arguments: dict[str, Tensor], axes: dict[str, int]
) -> tuple[Run, Run]:
    """What torch.export and ONNX Runtime run, for batches of any size.

    Args:
        module: what to export.
        arguments: of its forward by name.
        axes: which axis of each argument is the batch.
    """
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    batch = torch.export.Dim("batch")
    shapes = {name: {axis: batch} for name, axis in axes.items()}
    module.eval()
    program = torch.export.export(module, (), arguments, dynamic_shapes=shapes)
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx is not None
    session = runtime.InferenceSession(
        onnx.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert {each.name for each in session.get_inputs()} == set(arguments)

    def by_onnx(**given: Tensor) -> list[Tensor]:
        found = session.run(None, {name: value.numpy() for name, value in given.items()})
        return [torch.from_numpy(value) for value in found]

    run = program.module()

    def by_torch(**given: Tensor) -> Sequence[Tensor]:
        found = run(**given)
        return [found] if isinstance(found, Tensor) else found

    return by_torch, by_onnx


def close(found: Sequence[Tensor], expected: Any) -> None:
    expected = [expected] if isinstance(expected, Tensor) else expected
    for each, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(each, wanted, rtol=1e-5, atol=1e-5)


def step_arguments(cell: RecurrentCell, batch: int) -> dict[str, Tensor]:
    sides = SIDES[: cell.feature_axes - 1]
    duration = 0.1 + torch.rand(batch, *(1,) * cell.feature_axes)
    h0 = torch.randn(batch, *cell.state_shape((INPUTS, *sides)))
    return {"x": torch.randn(batch, INPUTS, *sides), "h0": h0, "duration": duration}


@cache
def exported_step(name: str) -> tuple[RecurrentCell, tuple[Run, Run]]:
    """A cell, and its exported steps."""
    torch.manual_seed(0)
    cell = CELLS[name]()
    arguments = step_arguments(cell, 3)
    return cell, exported(cell, arguments, dict.fromkeys(arguments, 0))


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_a_step_of_every_cell(name: str) -> None:
    cell, runs = exported_step(name)
    for run in runs:
        for batch in (1, 3, HIDDEN, 8):
            given = step_arguments(cell, batch)
            close(run(**given), cell(**given))


@torch.no_grad()
def test_a_stream_of_exported_steps_is_the_sequence() -> None:
    cell, runs = exported_step("liquid, euler")
    x, durations = torch.randn(6, 2, INPUTS), 0.1 + torch.rand(6, 2)
    states = cell.sequence(x, None, durations)
    for run in runs:
        h = torch.zeros(2, HIDDEN)
        for each, times, expected in zip(x, durations, states, strict=True):
            (h,) = run(x=each, h0=h, duration=times.unsqueeze(1))
            close([h], expected)


@torch.no_grad()
def test_a_cell_at_rest_for_the_duration_of_one() -> None:
    torch.manual_seed(0)
    cell = of_solver("semi_implicit_euler", LTCCell)
    for run in exported(cell, {"x": torch.randn(3, INPUTS)}, {"x": 0}):
        x = torch.randn(7, INPUTS)
        close(run(x=x), cell(x))


RNNS: dict[str, Callable[[], LiquidRNN]] = {
    "liquid": lambda: LiquidRNN(INPUTS, HIDDEN, solver=solvers.get("euler", steps=2)),
    "time first": lambda: LiquidRNN(
        INPUTS, HIDDEN, solver=solvers.get("uniform_euler", steps=2), batch_first=False
    ),
    "ltc": lambda: LiquidRNN(
        INPUTS, HIDDEN, cell=LTCCell, solver=solvers.get("semi_implicit_euler", steps=2)
    ),
    "conv": lambda: LiquidRNN(
        INPUTS, HIDDEN, cell=ConvLiquidCell, solver=solvers.get("exponential_euler", steps=2)
    ),
    "cfc, two layers, both directions": lambda: LiquidRNN(
        INPUTS, HIDDEN, 2, cell=CfCCell, bidirectional=True, projection=2
    ),
    "recomputing": lambda: LiquidRNN(
        INPUTS, HIDDEN, solver=solvers.get("exponential_euler", steps=2), recompute=True
    ),
}


def rnn_arguments(rnn: LiquidRNN, batch: int) -> dict[str, Tensor]:
    cell = rnn.cells[0]
    assert isinstance(cell, RecurrentCell)
    sides = SIDES[: cell.feature_axes - 1]
    lead = (batch, STEPS) if rnn.batch_first else (STEPS, batch)
    h0 = torch.randn(len(rnn.cells), batch, HIDDEN, *sides)
    x = torch.randn(*lead, INPUTS, *sides)
    return {"x": x, "h0": h0, "durations": 0.1 + torch.rand(lead)}


@pytest.mark.parametrize("name", RNNS)
@torch.no_grad()
def test_a_network_over_a_sequence_of_known_length(name: str) -> None:
    torch.manual_seed(0)
    rnn = RNNS[name]()
    lead = 0 if rnn.batch_first else 1
    axes = {"x": lead, "h0": 1, "durations": lead}
    for run in exported(rnn, rnn_arguments(rnn, 3), axes):
        for batch in (1, 3, HIDDEN):
            given = rnn_arguments(rnn, batch)
            close(run(**given), rnn(**given))


@torch.no_grad()
def test_a_network_without_states_or_durations() -> None:
    torch.manual_seed(0)
    rnn = LiquidRNN(INPUTS, HIDDEN, cell=CfCCell)
    for run in exported(rnn, {"x": torch.randn(3, STEPS, INPUTS)}, {"x": 0}):
        x = torch.randn(5, STEPS, INPUTS)
        close(run(x=x), rnn(x))


def test_an_adaptive_solver_says_that_it_cannot_be_exported() -> None:
    cell = LiquidCell(INPUTS, HIDDEN, solver=solvers.get("tsit5"))
    with pytest.raises(Exception, match="take a number of steps"):
        torch.export.export(cell.eval(), (torch.randn(3, INPUTS),))


# Traced forwards and backwards as one graph, and run by PyTorch: no C++ compiler is needed.
@pytest.mark.parametrize(
    "name", ["liquid, euler", "ltc, semi_implicit_euler", "conv, euler", "cfc"]
)
def test_compiled_steps_and_sequences(name: str) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    cell = CELLS[name]()
    given = step_arguments(cell, 4)
    sequence = [
        given["x"].unsqueeze(0).repeat_interleave(2, 0),
        given["h0"],
        given["duration"].reshape(1, -1).repeat(2, 1),
    ]

    def step(x: Tensor, h0: Tensor, duration: Tensor) -> Tensor:
        return cell(x, h0, duration=duration)

    for function, arguments in ((step, list(given.values())), (cell.sequence, sequence)):
        leaves = [tensor.requires_grad_() for tensor in arguments]
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        found = []
        for run in (compiled, function):
            states = run(*leaves)
            gradients = torch.autograd.grad(states.square().sum(), [*leaves, *cell.parameters()])
            found.append([states, *gradients])
        for ours, expected in zip(*found, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
