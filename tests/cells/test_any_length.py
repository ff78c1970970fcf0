"""One graph for sequences of every length: torch.compile without gradients, torch.export, ONNX."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import solvers
from liquid_ode.cells import (
    CfCCell,
    ConvLiquidCell,
    LiquidCell,
    LiquidRNN,
    LTCCell,
    MixedMemoryCell,
    RecurrentCell,
    Wiring,
)
from tests.versions import VERSION, needs_compiler

pytestmark = needs_compiler

INPUTS, HIDDEN = 3, 5
SIDES = (4, 2)
needs_cpp = pytest.mark.skipif(shutil.which("c++") is None, reason="the inductor needs a compiler")
needs_loops = pytest.mark.skipif(
    VERSION < (2, 14), reason="the ONNX exporter of torch 2.9 does not take a loop's condition"
)

Make = Callable[..., RecurrentCell]
CELLS: dict[str, Make] = {
    "liquid": partial(LiquidCell, solver=solvers.get("euler", steps=2)),
    "ltc": partial(LTCCell, solver=solvers.get("semi_implicit_euler", steps=2)),
    "cfc": partial(CfCCell, backbone_units=7),
    "conv": partial(ConvLiquidCell, solver=solvers.get("exponential_euler", steps=2)),
    "mixed memory": partial(MixedMemoryCell, cell=partial(CfCCell, backbone_units=7)),
}


def network(name: str, **options: Any) -> LiquidRNN:
    torch.manual_seed(0)
    return LiquidRNN(INPUTS, HIDDEN, cell=CELLS[name], **options).eval()


def given(rnn: LiquidRNN, batch: int, steps: int) -> dict[str, Tensor]:
    cell = rnn.cells[0]
    assert isinstance(cell, RecurrentCell)
    sides = SIDES[: cell.feature_axes - 1]
    return {
        "x": torch.randn(batch, steps, INPUTS, *sides),
        "h0": torch.randn(len(rnn.cells), batch, *cell.state_shape((INPUTS, *sides))),
        "durations": 0.1 + torch.rand(batch, steps),
        "resets": torch.rand(batch, steps) < 0.2,
    }


def close(found: Any, expected: Any) -> None:
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


class Counted:
    """A compiled function, and how many graphs were made for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        torch.compiler.reset()
        self.graphs = 0
        self.run = torch.compile(function, backend=self._backend, fullgraph=True)

    def _backend(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs += 1
        return graph


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_a_network_is_compiled_twice_for_all_lengths(name: str) -> None:
    rnn = network(name)
    compiled = Counted(rnn)
    for steps in (5, 7, 12):
        arguments = given(rnn, 2, steps)
        close(compiled.run(**arguments), rnn(**arguments))
    assert compiled.graphs == 2  # of the first length, and of every other


@torch.no_grad()
def test_a_long_sequence_makes_no_larger_a_graph() -> None:
    sizes = []
    for steps in (3, 60):
        rnn = network("liquid")
        torch.compiler.reset()

        def noted(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
            sizes.append(len(graph.graph.nodes))
            return graph

        x = torch.randn(2, steps, INPUTS)
        close(torch.compile(rnn, backend=noted)(x), rnn(x))
    assert sizes[0] == sizes[1]


def test_steps_that_are_trained_are_compiled_twice_for_all_batches() -> None:
    cell = CELLS["liquid"](INPUTS, HIDDEN)
    compiled = Counted(cell)
    for batch in (2, 3, 5):
        x = torch.randn(batch, INPUTS)
        h = expected = torch.zeros(batch, HIDDEN)
        for _ in range(batch):
            h, expected = compiled.run(x, h).detach(), cell(x, expected)
        close([h], [expected])
    assert compiled.graphs == 2


def test_gradients_are_those_of_unrolled_steps() -> None:
    rnn = network("cfc")
    x = torch.randn(2, 4, INPUTS)
    torch.compiler.reset()
    compiled = torch.compile(rnn, backend="aot_eager", fullgraph=True)
    parameters = list(rnn.parameters())
    found = torch.autograd.grad(compiled(x)[0].square().sum(), parameters)
    close(found, torch.autograd.grad(rnn(x)[0].square().sum(), parameters))


NETWORKS: dict[str, Callable[[], LiquidRNN]] = {
    "liquid, wired": partial(network, "liquid", wiring=Wiring.auto_ncp(INPUTS, HIDDEN, 1)),
    "ltc": partial(network, "ltc"),
    "cfc": partial(network, "cfc"),
    "cfc, two layers, both directions": partial(
        network, "cfc", num_layers=2, bidirectional=True, projection=2
    ),
    "conv": partial(network, "conv"),
}


def exported(rnn: LiquidRNN, arguments: dict[str, Tensor]) -> torch.export.ExportedProgram:
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    shapes = {name: {0: batch, 1: steps} for name in arguments}
    shapes["h0"] = {1: batch}
    return torch.export.export(rnn, (), arguments, dynamic_shapes=shapes)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_network_is_exported_for_sequences_of_any_length(name: str) -> None:
    rnn = NETWORKS[name]()
    program = exported(rnn, given(rnn, 3, 4)).module()
    for batch, steps in ((1, 2), (3, 4), (HIDDEN, 9), (2, 1)):
        arguments = given(rnn, batch, steps)
        close(program(**arguments), rnn(**arguments))


@needs_loops
@pytest.mark.parametrize("name", ["liquid, wired", "cfc"])
@torch.no_grad()
def test_onnx_of_sequences_of_any_length(name: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    rnn = NETWORKS[name]()
    onnx = torch.onnx.export(exported(rnn, given(rnn, 3, 4)), dynamo=True, verbose=False)
    assert onnx is not None
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        onnx.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for batch, steps in ((1, 2), (3, 4), (HIDDEN, 9), (2, 1)):
        arguments = given(rnn, batch, steps)
        found = session.run(None, {name: value.numpy() for name, value in arguments.items()})
        close(map(torch.from_numpy, found), rnn(**arguments))


def test_a_free_length_with_gradients_is_refused() -> None:
    rnn = network("liquid")
    with pytest.raises(ValueError, match=r"any length is exported .* under torch.no_grad\(\)"):
        exported(rnn, given(rnn, 3, 4))


@needs_cpp
def test_a_convolutional_cell_is_compiled_for_maps_of_any_size() -> None:
    torch.compiler.reset()
    cell = ConvLiquidCell(INPUTS, 2, kernel_size=1)

    def drive(x: Tensor) -> Tensor:  # as the cell makes it of one input; the rest takes long
        return cell.fields(x.reshape(1, *x.shape))[0].drive

    x = torch.randn(2, INPUTS, 6, 8)
    close([torch.compile(drive, dynamic=True)(x)], [drive(x)])
