"""Hooks on a cell, and on its layers, fire; alone and inside a LiquidRNN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.cells.ordinary_cells import (
    BATCH,
    CELLS,
    STEPS,
    close,
    inputs,
    made,
    network,
)


def counted(module: nn.Module) -> dict[str, int]:
    """How often each kind of hook of a module has fired."""
    fired = {"pre": 0, "forward": 0, "backward pre": 0, "backward": 0}

    def note(kind: str) -> Any:
        def hook(*_: Any) -> None:
            fired[kind] += 1

        return hook

    module.register_forward_pre_hook(note("pre"))
    module.register_forward_hook(note("forward"))
    module.register_full_backward_pre_hook(note("backward pre"))
    module.register_full_backward_hook(note("backward"))
    return fired


@pytest.mark.parametrize("name", CELLS)
def test_hooks_on_a_cell_fire_once_a_sequence_inside_a_network(name: str) -> None:
    cell = made(name)
    rnn, x = network(cell), inputs(cell).requires_grad_()
    plain = rnn(x)[0].detach()
    fired = counted(cell)
    states, _ = rnn(x)
    states.sum().backward()
    assert set(fired.values()) == {1}
    close(states, plain)
    cell.sequence(x)
    cell(x[0])
    assert fired["forward"] == 3


def test_a_hook_sees_and_changes_what_goes_in_and_out() -> None:
    cell = made("liquid")
    rnn, x = network(cell), inputs(cell)
    expected = 3 * rnn(2 * x)[0]
    seen = []

    def double(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(tuple(args[0].shape))
        return 2 * args[0], *args[1:]

    def triple(_: nn.Module, args: tuple[Any, ...], states: Tensor) -> Tensor:
        seen.append(tuple(states.shape))
        return 3 * states

    cell.register_forward_pre_hook(double)
    cell.register_forward_hook(triple)
    close(rnn(x)[0], expected)
    assert seen == [(STEPS, BATCH, 3), (STEPS, BATCH, 5)]


def test_hooks_fire_for_each_direction_and_while_recomputing() -> None:
    cell = made("liquid")
    rnn, x = network(cell, bidirectional=True, recompute=True), inputs(cell).requires_grad_()
    fired = counted(cell)
    rnn(x)[0].sum().backward()
    assert fired["pre"] > 2  # by the segment, and again for the gradient
    with torch.no_grad():
        fired.update(pre=0)
        rnn(x)
    assert fired["pre"] == 2
