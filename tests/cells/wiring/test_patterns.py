"""The patterns that wirings draw: shares, layers, and that no neuron is left out."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from liquid_ode import Wiring
from tests.cells.wiring.test_wiring import NCP


def test_random_keeps_the_share_it_is_asked_for() -> None:
    for seed in range(20):
        wiring = Wiring.random(10, sparsity=0.73, input_size=6, seed=seed)
        assert (wiring.synapses, wiring.sensory_synapses) == (27, 16)  # of 100 and of 60
    assert Wiring.random(3, sparsity=0.999, input_size=1).synapses == 1
    assert Wiring.random(3, sparsity=0, input_size=2).sensory_synapses == 6


def test_random_draws_the_neurons_of_a_seed_alike_with_inputs_or_without() -> None:
    without = Wiring.random(4, sparsity=0.7, seed=1)
    # The pattern of this seed since the first version.
    assert without.recurrent.nonzero().tolist() == [[1, 0], [1, 1], [1, 2], [2, 3], [3, 3]]
    assert without.inputs is None
    for inputs in (1, 7):
        with_inputs = Wiring.random(4, sparsity=0.7, input_size=inputs, seed=1)
        assert torch.equal(with_inputs.recurrent, without.recurrent)
    patterns = {Wiring.random(4, sparsity=0.7, input_size=7, seed=seed) for seed in range(50)}
    assert len(patterns) == 50


def test_ncp_has_the_layers_it_is_made_of() -> None:
    wiring = Wiring.ncp(5, **NCP, seed=3)
    motor, command, inter = (wiring.layers[name] for name in ("motor", "command", "inter"))
    mask, inputs = wiring.recurrent, wiring.inputs
    assert inputs is not None
    assert inputs[:6].sum() == 0  # inputs drive inter neurons only
    assert (inputs[inter].sum(dim=0) >= 3).all()
    assert inputs[inter].any(dim=1).all()
    assert (mask[motor, command].sum(dim=1) >= 3).all()
    assert mask[motor, inter].sum() == mask[:, motor].sum() == mask[inter].sum() == 0
    assert mask[command, command].sum() == 5
    assert (mask[command, inter].sum(dim=0) >= 2).all()


def reached(edges: dict[Any, set[Any]], start: set[Any]) -> set[Any]:
    """What can be reached from ``start``, itself too."""
    seen, open_ = set(start), list(start)
    while open_:
        for other in edges.get(open_.pop(), set()) - seen:
            seen.add(other)
            open_.append(other)
    return seen


def check_reach(wiring: Wiring) -> None:
    """Every neuron is driven by some input, every input and neuron drives some motor neuron."""
    assert wiring.inputs is not None
    assert wiring.motor is not None
    forward: dict[Any, set[Any]] = {}
    back: dict[Any, set[Any]] = {}
    pairs = [(j, i) for i, j in wiring.recurrent.nonzero().tolist()]
    pairs += [(f"input {j}", i) for i, j in wiring.inputs.nonzero().tolist()]
    for source, target in pairs:
        forward.setdefault(source, set()).add(target)
        back.setdefault(target, set()).add(source)
    neurons = set(range(wiring.units))
    inputs = {f"input {j}" for j in range(wiring.inputs.shape[1])}
    motor = set(range(wiring.motor.start, wiring.motor.stop))
    assert reached(forward, inputs) == reached(back, motor) == neurons | inputs


def test_every_neuron_of_an_ncp_is_reached_and_reaches_a_motor_neuron() -> None:
    draw = random.Random(0)
    for seed in range(150):
        inter, command, motor = (draw.randint(1, 9) for _ in range(3))
        wiring = Wiring.ncp(
            draw.randint(1, 6),
            inter=inter,
            command=command,
            motor=motor,
            sensory_fanout=draw.randint(1, min(2, inter)),
            inter_fanout=draw.randint(1, min(2, command)),
            recurrent_command=draw.randint(0, min(3, command**2)),
            motor_fanin=draw.randint(1, min(2, command)),
            seed=seed,
        )
        check_reach(wiring)
    for seed in range(60):
        units = draw.randint(4, 60)
        motor = draw.randint(1, units - 3)
        sparsity = draw.uniform(0, 0.999)
        check_reach(Wiring.auto_ncp(draw.randint(1, 9), units, motor, sparsity=sparsity, seed=seed))


def test_neurons_left_over_get_the_mean_of_their_layer() -> None:
    counts = set()
    for seed in range(60):
        wiring = Wiring.ncp(
            8,
            inter=4,  # 8 inputs, one synapse each: 2 a neuron
            command=3,  # 4 inter neurons, one synapse each: 1 a neuron
            motor=6,  # 6 motor neurons that listen to one each: 2 a command neuron
            sensory_fanout=1,
            inter_fanout=1,
            recurrent_command=0,
            motor_fanin=1,
            seed=seed,
        )
        motor, command, inter = (wiring.layers[name] for name in ("motor", "command", "inter"))
        assert wiring.inputs is not None
        outputs = wiring.recurrent[motor, command]
        parts = (wiring.inputs[inter], wiring.recurrent[command, inter], outputs)
        counts.add(tuple(int(part.sum()) for part in parts))
        assert (outputs.sum(dim=1) >= 1).all()
    per_part = [set(values) for values in zip(*counts, strict=True)]
    # None left over, one, or two (of three command neurons no more can be).
    assert per_part[0] >= {8, 10}
    assert per_part[0] <= {8, 10, 12, 14}
    assert per_part[1] >= {4, 5}
    assert per_part[1] <= {4, 5, 6}
    assert per_part[2] >= {6, 8}
    assert per_part[2] <= {6, 8, 10}


# What ncps 1.0.1 makes of AutoNCP(units, output_size, sparsity_level): inter and command neurons,
# sensory fan-out, inter fan-out, recurrent command synapses, motor fan-in.
AUTO_NCP = {
    (64, 8, 0.5): (34, 22, 17, 11, 22, 11),
    (32, 4, 0.5): (17, 11, 8, 5, 11, 5),
    (20, 5, 0.8): (9, 6, 1, 1, 2, 1),
    (4, 1, 0.5): (2, 1, 1, 1, 1, 1),
    (100, 30, 0.9): (42, 28, 4, 2, 5, 2),
    (28, 7, 0.25): (13, 8, 9, 6, 12, 6),
    (50, 10, 0.1): (24, 16, 21, 14, 28, 14),
}


@pytest.mark.parametrize(("asked", "expected"), AUTO_NCP.items())
def test_auto_ncp_follows_the_rule_of_ncps(
    asked: tuple[int, int, float], expected: tuple[int, ...]
) -> None:
    units, outputs, sparsity = asked
    wiring = Wiring.auto_ncp(64, units, outputs, sparsity=sparsity)
    motor, command, inter = (wiring.layers[name] for name in ("motor", "command", "inter"))
    mask, inputs = wiring.recurrent, wiring.inputs
    assert inputs is not None
    assert (wiring.units, wiring.motor) == (units, slice(0, outputs))
    # The least fan of a layer is that of a neuron to which no repair added.
    found = (
        inter.stop - inter.start,
        command.stop - command.start,
        int(inputs[inter].sum(dim=0).min()),
        int(mask[command, inter].sum(dim=0).min()),
        int(mask[command, command].sum()),
        int(mask[motor, command].sum(dim=1).min()),
    )
    assert found == expected


def test_auto_ncp_at_the_ends_of_its_range() -> None:
    dense = Wiring.auto_ncp(3, 4, 1, sparsity=0)
    assert dense.synapses == 2 + 1 + 1  # inter to command, command to itself, command to motor
    assert dense.sensory_synapses == 6
    assert Wiring.auto_ncp(3, 20, 4) == Wiring.auto_ncp(3, 20, 4, sparsity=0.5, seed=0)
    assert Wiring.auto_ncp(3, 20, 4) != Wiring.auto_ncp(3, 20, 4, seed=1)
