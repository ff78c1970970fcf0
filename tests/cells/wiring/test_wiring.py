"""Wirings: values that nothing can edit, their layers and counts, and bad arguments."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from liquid_ode import LiquidCell, Wiring

NCP = {
    "inter": 6,
    "command": 4,
    "motor": 2,
    "sensory_fanout": 3,
    "inter_fanout": 2,
    "recurrent_command": 5,
    "motor_fanin": 3,
}


def some_masks() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.rand(9, 9, generator=generator) < 0.3,
        torch.rand(9, 4, generator=generator) < 0.4,
    )


LAYERS = {"front": slice(0, 4), "middle": slice(4, 7), "back": slice(7, 9)}
WIRINGS = {
    "full": Wiring.full(5),
    "random": Wiring.random(12, sparsity=0.7, input_size=5, seed=4),
    "ncp": Wiring.ncp(5, **NCP, seed=3),
    "auto_ncp": Wiring.auto_ncp(6, 20, 4),
    "from_mask": Wiring.from_mask(*some_masks(), layers=LAYERS),
}
every_wiring = pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)


# Values


@every_wiring
def test_nothing_can_be_set(wiring: Wiring) -> None:
    names = [name for name in dir(Wiring) if not name.startswith("__")]
    for name in [*names, *vars(wiring), "new"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(wiring, name, None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(wiring, name)
    with pytest.raises(TypeError, match="does not support item assignment"):
        wiring.layers["motor"] = slice(0, 1)  # type: ignore[index]


@every_wiring
def test_editing_what_it_hands_out_changes_nothing(wiring: Wiring) -> None:
    before, counts = wiring.recurrent, (wiring.synapses, wiring.sensory_synapses, wiring.sparsity)
    wiring.recurrent.logical_not_()
    if wiring.inputs is not None:
        inputs = wiring.inputs
        wiring.inputs.logical_not_()
        assert torch.equal(wiring.inputs, inputs)
    assert torch.equal(wiring.recurrent, before)
    assert (wiring.synapses, wiring.sensory_synapses, wiring.sparsity) == counts
    assert wiring.synapses == int(before.sum())


def test_editing_the_masks_it_was_made_of_changes_nothing() -> None:
    recurrent, inputs = some_masks()
    layers = dict(LAYERS)
    wiring = Wiring.from_mask(recurrent, inputs, layers=layers)
    recurrent.fill_(True)
    inputs.fill_(True)
    layers.clear()
    assert wiring == WIRINGS["from_mask"]
    assert wiring.synapses < 81
    assert list(wiring.layers) == ["front", "middle", "back"]


@every_wiring
def test_copies_are_equal(wiring: Wiring) -> None:
    same = [
        pickle.loads(pickle.dumps(wiring)),
        copy.copy(wiring),
        copy.deepcopy(wiring),
        Wiring.from_mask(wiring.recurrent, wiring.inputs, layers=wiring.layers),
    ]
    for other in same:
        assert other == wiring
        assert hash(other) == hash(wiring)
        assert torch.equal(other.recurrent, wiring.recurrent)
    assert len({wiring, *same}) == 1
    assert repr(same[0]) == repr(wiring)


def test_equality_is_that_of_masks_and_layers() -> None:
    recurrent, inputs = some_masks()
    wiring = Wiring.from_mask(recurrent, inputs, layers=LAYERS)
    flipped = recurrent.clone()
    flipped[3, 5] ^= True
    renamed = dict(zip("abc", LAYERS.values(), strict=True))
    others = [
        Wiring.from_mask(flipped, inputs, layers=LAYERS),
        Wiring.from_mask(recurrent, ~inputs, layers=LAYERS),
        Wiring.from_mask(recurrent, layers=LAYERS),
        Wiring.from_mask(recurrent, inputs),
        Wiring.from_mask(recurrent, inputs, layers=renamed),
        Wiring.from_mask(recurrent, inputs, layers={"front": slice(0, 5), "back": slice(5, 9)}),
        Wiring.from_mask(recurrent.t(), inputs, layers=LAYERS),
    ]
    assert len({wiring, *others}) == 1 + len(others)
    assert wiring not in others
    assert wiring != "wiring"
    assert Wiring.full(3) == Wiring.from_mask(torch.ones(3, 3, dtype=torch.bool))
    assert Wiring.from_mask(recurrent.t().contiguous().t(), inputs, layers=LAYERS) == wiring


def test_a_module_and_a_default_argument_may_hold_it() -> None:
    cell = LiquidCell(5, 12, wiring=WIRINGS["ncp"])
    twin = copy.deepcopy(cell)
    assert twin.wiring == cell.wiring == WIRINGS["ncp"]
    x = torch.randn(3, 5)
    assert torch.equal(twin(x), cell(x))

    @dataclasses.dataclass
    class Config:
        wiring: Wiring = WIRINGS["ncp"]  # dataclasses refuse defaults without a hash

    assert Config() == Config(Wiring.ncp(5, **NCP, seed=3))


def test_the_default_device_does_not_matter() -> None:
    with torch.device("meta"):
        made = [
            Wiring.full(5),
            Wiring.random(12, sparsity=0.7, input_size=5, seed=4),
            Wiring.ncp(5, **NCP, seed=3),
            Wiring.auto_ncp(6, 20, 4),
        ]
        assert {wiring.recurrent.device.type for wiring in made} == {"cpu"}
    assert made == list(WIRINGS.values())[:4]


# Layers, counts and the repr


def test_layers() -> None:
    ncp = WIRINGS["ncp"]
    assert list(ncp.layers.items()) == [
        ("motor", slice(0, 2)),
        ("command", slice(2, 6)),
        ("inter", slice(6, 12)),
    ]
    assert ncp.motor == slice(0, 2)
    assert dict(WIRINGS["from_mask"].layers) == LAYERS
    for name in ("full", "random"):
        assert dict(WIRINGS[name].layers) == {"neurons": slice(0, WIRINGS[name].units)}
        assert WIRINGS[name].motor is None
    motor_last = {"inter": slice(0, 7, 1), "motor": slice(7, 9)}
    assert Wiring.from_mask(some_masks()[0], layers=motor_last).motor == slice(7, 9)


@pytest.mark.parametrize(
    "layers",
    [
        {"a": slice(0, 4)},  # ends early
        {"a": slice(0, 4), "b": slice(5, 9)},  # a gap
        {"a": slice(0, 4), "b": slice(3, 9)},  # an overlap
        {"b": slice(4, 9), "a": slice(0, 4)},  # another order
        {"a": slice(0, 4), "b": slice(4, 10)},  # past the end
        {"a": slice(0, 4), "b": slice(4, -1)},
        {"a": slice(0, 4), "b": slice(4, None)},
        {"a": slice(None, 9)},
        {"a": slice(0, 9, 2)},
        {"a": slice(0, 0), "b": slice(0, 9)},  # empty
        {"a": slice(0.0, 9.0)},
        {"a": range(9)},
        {"": slice(0, 9)},
        {3: slice(0, 9)},
        {},
        ["a"],
        "motor",
    ],
    ids=repr,
)
def test_bad_layers(layers: Any) -> None:
    with pytest.raises(ValueError, match=r"layers must map names to slices .* neurons 0\.\.9"):
        Wiring.from_mask(some_masks()[0], layers=layers)


def test_counts() -> None:
    recurrent = torch.tensor([[True, False], [True, True]])
    inputs = torch.tensor([[True, False, True], [True, False, False]])
    wiring = Wiring.from_mask(recurrent, inputs)
    assert (wiring.units, wiring.input_size) == (2, 3)
    assert (wiring.synapses, wiring.sensory_synapses, wiring.sparsity) == (3, 3, 0.25)
    full = Wiring.full(3)
    assert (full.synapses, full.sparsity) == (9, 0.0)
    assert full.inputs is full.input_size is full.sensory_synapses is None


def test_repr() -> None:
    assert repr(Wiring.full(4)) == "Wiring.full(units=4, synapses=16, sparsity=0.00)"
    assert repr(Wiring.random(4, sparsity=0.5, input_size=3)) == (
        "Wiring.random(units=4, input_size=3, synapses=8, sensory_synapses=6, sparsity=0.50)"
    )
    assert repr(Wiring.from_mask(torch.eye(9, dtype=torch.bool), layers=LAYERS)) == (
        "Wiring.from_mask(units=9, layers=(front 4, middle 3, back 2), synapses=9, sparsity=0.89)"
    )
    assert repr(WIRINGS["auto_ncp"]).startswith(
        "Wiring.auto_ncp(units=20, layers=(motor 4, command 6, inter 10), input_size=6, synapses="
    )


# Bad input


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "4", None])
def test_bad_counts(bad: Any) -> None:
    whole = "must be a whole number"
    for name in NCP:
        if name == "recurrent_command" and bad == 0 and bad is not False:
            continue  # none of these is fine
        with pytest.raises(ValueError, match=f"^{name} {whole}"):
            Wiring.ncp(5, **{**NCP, name: bad})
    with pytest.raises(ValueError, match=f"^input_size {whole}"):
        Wiring.ncp(bad, **NCP)
    with pytest.raises(ValueError, match=f"^units {whole}"):
        Wiring.full(bad)
    with pytest.raises(ValueError, match=f"^units {whole}"):
        Wiring.random(bad, sparsity=0.5)
    if bad is not None:
        with pytest.raises(ValueError, match=f"^input_size {whole}"):
            Wiring.random(4, sparsity=0.5, input_size=bad)
    with pytest.raises(ValueError, match=f"^input_size {whole}"):
        Wiring.auto_ncp(bad, 8, 2)
    with pytest.raises(ValueError, match=f"^units {whole}"):
        Wiring.auto_ncp(5, bad, 2)
    with pytest.raises(ValueError, match=f"^motor {whole}"):
        Wiring.auto_ncp(5, 8, bad)


def test_fans_larger_than_their_layer() -> None:
    limits = {"sensory_fanout": 6, "inter_fanout": 4, "motor_fanin": 4, "recurrent_command": 16}
    for name, limit in limits.items():
        Wiring.ncp(5, **{**NCP, name: limit})
        least = 0 if name == "recurrent_command" else 1
        expected = f"{name} must be a whole number in {least}..{limit}, not {limit + 1}"
        with pytest.raises(ValueError, match=expected):
            Wiring.ncp(5, **{**NCP, name: limit + 1})


def test_too_many_motor_neurons() -> None:
    Wiring.auto_ncp(5, 8, 5)
    with pytest.raises(ValueError, match=r"motor must be at most units - 3.*not 6 of 8"):
        Wiring.auto_ncp(5, 8, 6)


@pytest.mark.parametrize("bad", [1.0, 1.5, -0.1, float("nan"), "0.5", None])
def test_bad_sparsity(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"sparsity must lie in \[0, 1\), not"):
        Wiring.random(4, sparsity=bad)
    with pytest.raises(ValueError, match=r"sparsity must lie in \[0, 1\), not"):
        Wiring.auto_ncp(4, 8, 2, sparsity=bad)


@pytest.mark.parametrize("bad", [-1, 2**64, 1.0, True, None, "3"])
def test_bad_seed(bad: Any) -> None:
    made = (
        lambda: Wiring.random(4, sparsity=0.5, seed=bad),
        lambda: Wiring.ncp(5, **NCP, seed=bad),
        lambda: Wiring.auto_ncp(5, 8, 2, seed=bad),
    )
    for make in made:
        with pytest.raises(ValueError, match="seed must be a whole number from 0"):
            make()


def test_bad_masks() -> None:
    for mask in (
        torch.ones(3, 4, dtype=torch.bool),
        torch.ones(3, 3),
        torch.ones(3, dtype=torch.bool),
        torch.tensor(True),
        torch.ones(0, 0, dtype=torch.bool),
        np.ones((3, 3), dtype=bool),
        [[True]],
        None,
    ):
        with pytest.raises(ValueError, match=r"recurrent mask must be a .*square bool matrix"):
            Wiring.from_mask(mask)  # type: ignore[arg-type]
    recurrent = torch.ones(3, 3, dtype=torch.bool)
    for inputs in (
        torch.ones(4, 3, dtype=torch.bool),
        torch.ones(3, 0, dtype=torch.bool),
        torch.ones(3, 4),
        torch.ones(3, dtype=torch.bool),
        np.ones((3, 4), dtype=bool),
    ):
        with pytest.raises(ValueError, match=r"input mask must be a .*matrix \(3, input_size\)"):
            Wiring.from_mask(recurrent, inputs)  # type: ignore[arg-type]
