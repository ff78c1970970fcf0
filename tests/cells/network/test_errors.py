"""What LiquidRNN refuses, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from liquid_ode import LiquidCell, LiquidRNN
from tests.cells.network.rnn_cells import HIDDEN, INPUT, MapCell, PlainCell


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be a whole number of at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), not 1.0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\)"),
        ({"projection": 0}, "projection must be a whole number of at least 1"),
        ({"projection": "linear"}, "projection must be a size or a module"),
        ({"cell": MapCell, "projection": 3}, "MapCell gives maps: projection must be a module"),
        ({"cell": LiquidCell(3, 5)}, "cell must be a class, .*, not the cell LiquidCell"),
        ({"cell": nn.GRUCell}, "must give a RecurrentCell, not GRUCell"),
        ({"cell": "liquid"}, "cell='liquid' cannot be called as cell"),
        ({"cell": lambda i, h: PlainCell(i, 7)}, r"gave a cell of sizes \(3, 7\)"),
        ({"solver": "euler"}, "solver must be a solver"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LiquidRNN(INPUT, HIDDEN, **options)


def packed(*lengths: int, features: tuple[int, ...] = (INPUT,)) -> PackedSequence:
    return pack_sequence([torch.ones(n, *features) for n in lengths], enforce_sorted=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3),), r"\(B, T, 3\), or \(T, 3\) unbatched, not \(3,\)"),
        ((torch.zeros(2, 4, 6, 3),), r"x must have shape \(B, T, 3\)"),
        ((torch.zeros(2, 4, 5),), r"x must have shape \(B, T, 3\)"),
        (([[1.0]],), "x must be a tensor or a PackedSequence, not list"),
        ((torch.zeros(2, 0, 3),), "the sequence is empty"),
        ((torch.zeros(0, 3),), "the sequence is empty"),
        ((packed(2, 4, features=(5,)),), r"packed x must have shape \(N, 3\), not \(6, 5\)"),
        ((torch.zeros(2, 4, 3), torch.zeros(2, 5)), r"h0 must have shape \(1, 2, 5\)"),
        ((torch.zeros(2, 4, 3), torch.zeros(1, 3, 5)), r"h0 must have .*, not \(1, 3, 5\)"),
        ((torch.zeros(4, 3), torch.zeros(1, 1, 5)), r"h0 must have shape \(1, 5\)"),
        ((packed(2, 4), torch.zeros(1, 4, 5)), r"h0 must have shape \(1, 2, 5\)"),
        ((torch.zeros(2, 4, 3), None, torch.ones(4, 2)), r"shape \(2, 4\) or .* not \(4, 2\)"),
        ((torch.zeros(2, 4, 3), None, torch.ones(2)), r"or \(4,\) for all samples .* not \(2,\)"),
        ((torch.zeros(2, 4, 3), None, torch.ones(2, 4, 3)), r"must have .*, not \(2, 4, 3\)"),
        ((torch.zeros(2, 4, 3), None, torch.ones(1)), r"or be a single one, not \(1,\)"),
        ((torch.zeros(4, 3), None, torch.ones(1, 4)), r"shape \(4,\) or \(4, 1\), or be"),
        (
            (torch.zeros(2, 4, 3), None, [0.5] * 4),
            "torch.as_tensor makes one of a list .* not list",
        ),
        ((torch.zeros(2, 4, 3), None, True), "durations must be a number, .* not bool"),
        (
            (torch.zeros(2, 4, 3), None, torch.ones(2, 4) > 0),
            "must be real numbers, not torch.bool",
        ),
        ((torch.zeros(2, 4, 3), None, torch.ones(2, 4) + 0j), "numbers, not torch.complex64"),
        ((torch.zeros(2, 4, 3), None, -1), "a duration must be finite and at least 0, not -1"),
        ((torch.zeros(2, 4, 3), None, float("nan")), "a duration must be finite"),
        ((torch.zeros(2, 4, 3), None, torch.tensor(-1)), "every duration must be finite"),
        ((torch.zeros(2, 4, 3), None, packed(4, 4)), "durations are packed, x is not"),
        ((torch.zeros(2, 1, 3), None, -torch.ones(2, 1)), "every duration must be finite"),
        ((torch.zeros(2, 1, 3), None, torch.full((2, 1), torch.nan)), "every duration"),
        ((packed(2, 4), None, packed(4, 2, features=())), r"x, \[2, 4\], not \[4, 2\]"),
        ((packed(2, 4), None, packed(2, 3, features=())), r"x, \[2, 4\], not \[2, 3\]"),
        ((packed(2, 4), None, packed(2, 4, 1, features=())), r"\[2, 4\], not \[2, 4, 1\]"),
        ((packed(2, 4), None, packed(2, 4)), r"data of packed durations .* not \(6, 3\)"),
        ((packed(2, 4), None, torch.ones(2, 3)), r"longest length 4; .* not \(2, 3\)"),
        ((packed(2, 4), None, torch.ones(3, 4)), r"B = 2 .* not \(3, 4\)"),
        ((packed(2, 4), None, torch.ones(6)), r"longest length 4; .* not \(6,\)"),
        ((packed(2, 4), None, -packed(2, 4, features=()).data), "not .6,"),
        ((packed(2, 4), None, -torch.ones(2, 4)), "every duration must be finite"),
        ((packed(2, 4), None, torch.ones(3)), r"or \(4,\) for all samples alike; not \(3,\)"),
        (
            (torch.zeros(2, 4, 3), None, None, [True] * 4),
            "resets must be a bool tensor .* not list",
        ),
        ((torch.zeros(2, 4, 3), None, None, torch.ones(2, 4)), "resets != 0 makes it of 0 and 1"),
        ((torch.zeros(2, 4, 3), None, None, torch.ones(4, 2) > 0), r"resets must .* not \(4, 2\)"),
        (
            (torch.zeros(2, 4, 3), None, None, packed(2, 4)),
            "resets must be bool, not torch.float32",
        ),
    ],
)
def test_bad_inputs(arguments: tuple[Any, ...], message: str) -> None:
    rnn = LiquidRNN(INPUT, HIDDEN)
    with pytest.raises(ValueError, match=message):
        rnn(*arguments)
    with pytest.raises(ValueError, match=message):
        rnn.last(*arguments)


def test_bad_maps() -> None:
    rnn = LiquidRNN(3, 4, cell=MapCell)
    with pytest.raises(ValueError, match=r"x must have shape \(B, T, 3, H, W\)"):
        rnn(torch.zeros(2, 3, 6, 7)[0])
    with pytest.raises(ValueError, match=r"h0 must have shape \(1, 2, 4, 6, 7\)"):
        rnn(torch.zeros(2, 5, 3, 6, 7), torch.zeros(1, 2, 4, 6, 6))


def test_a_duration_is_named_by_its_place_in_the_users_tensor() -> None:
    durations = torch.ones(4, 7)
    durations[0, 3] = -1.0
    with pytest.raises(ValueError, match=r"the first is -1 at \(0, 3\)"):
        LiquidRNN(3, 4)(torch.randn(4, 7, 3), durations=durations)
