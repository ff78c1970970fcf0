"""TorchScript is refused with what serves in its place; shapes are known without data."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import solvers
from liquid_ode.cells import LiquidCell, LTCCell, MixedMemoryCell
from tests.cells.ordinary_cells import BATCH, CELLS, HIDDEN, STEPS, inputs, made, network
from tests.versions import VERSION


def old_onnx(module: nn.Module, *arguments: Any) -> None:
    how = {"dynamo": False} if VERSION >= (2, 5) else {}
    torch.onnx.export(module, arguments, io.BytesIO(), **how)


WAYS: dict[str, Callable[..., Any]] = {
    "trace": torch.jit.trace,
    "script": lambda module, *_: torch.jit.script(module),
    "onnx": old_onnx,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["liquid", "ltc", "cfc", "wired cfc", "conv"])
def test_torchscript_is_refused(name: str, way: str) -> None:
    cell = made(name, torch.float32)
    x = inputs(cell, dtype=torch.float32)
    for module, given in ((cell, x[0]), (nn.Sequential(cell), x[0]), (network(cell), x)):
        words = r"does not go into TorchScript, .*: take torch.export.export"
        with pytest.raises(ValueError, match=words):
            WAYS[way](module, given)


@pytest.mark.parametrize("name", CELLS)
def test_shapes_are_known_without_data(name: str) -> None:
    cell = made(name)
    x = inputs(cell)
    expected = cell.sequence(x)
    cell.to("meta")
    x = x.to("meta").requires_grad_()
    times = torch.ones(STEPS, BATCH, device="meta")
    resets = torch.zeros(STEPS, BATCH, dtype=torch.bool, device="meta")
    for durations, anew in ((None, None), (times, None), (times, resets)):
        out, h_n = network(cell)(x, None, durations, anew)
        assert out.is_meta
        assert (out.shape, out.dtype) == (expected.shape, expected.dtype)
        assert h_n.shape == expected[-1:].shape
    state = cell(x[0])
    assert state.shape == expected[0].shape
    state.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("name", ["euler", "heun", "exponential_euler", "classic_rk4"])
def test_shapes_are_known_whatever_the_solver_with_a_number_of_steps(name: str) -> None:
    with torch.device("meta"):
        cells = [LiquidCell(3, HIDDEN, solver=solvers.get(name, steps=2)), LTCCell(3, HIDDEN)]
        cells.append(MixedMemoryCell(3, HIDDEN))
        for cell in cells:
            assert cell(torch.zeros(2, 3)).is_meta


def test_control_of_the_error_needs_data() -> None:
    cell = LiquidCell(3, HIDDEN, solver=solvers.get("tsit5")).to("meta")
    with pytest.raises(ValueError, match="take a number of steps"):
        cell(torch.zeros(2, 3, device="meta"))
