"""Random patterns of synapses, as masks."""

from __future__ import annotations

import torch
from torch import Tensor


def thinned(rows: int, columns: int, sparsity: float, generator: torch.Generator) -> Tensor:
    """A bool matrix with the share ``1 - sparsity`` of random entries set, at least one."""
    kept = max(1, round((1 - sparsity) * rows * columns))
    mask = _nothing(rows * columns)
    mask[_shuffled(rows * columns, generator)[:kept]] = True
    return mask.view(rows, columns)


def ncp_masks(
    input_size: int,
    *,
    motor: int,
    command: int,
    inter: int,
    sensory_fanout: int,
    inter_fanout: int,
    recurrent_command: int,
    motor_fanin: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The masks of the neurons and of the inputs of :meth:`Wiring.ncp`."""
    units = motor + command + inter
    recurrent, inputs = _nothing(units, units), _nothing(units, input_size)
    at_motor, at_command = slice(0, motor), slice(motor, motor + command)
    at_inter = slice(motor + command, units)
    _connect(inputs[at_inter], sensory_fanout, generator)
    _connect(recurrent[at_command, at_inter], inter_fanout, generator)
    pairs = _shuffled(command**2, generator)[:recurrent_command]
    recurrent[motor + pairs // command, motor + pairs % command] = True
    # Transposed, for the motor neurons choose whom they listen to.
    _connect(recurrent[at_motor, at_command].t(), motor_fanin, generator)
    return recurrent, inputs


def _connect(block: Tensor, fan: int, generator: torch.Generator) -> None:
    """Give every column ``fan`` random rows, then every empty row its share of columns, in place.

    The share is the mean over the rows, rounded down, at least 1.
    """
    rows, columns = block.shape
    for column in range(columns):
        block[_shuffled(rows, generator)[:fan], column] = True
    share = max(1, fan * columns // rows)
    for row in torch.nonzero(~block.any(dim=1)).flatten():
        block[row, _shuffled(columns, generator)[:share]] = True


# Always on the CPU, also where torch.device is used as a context: a generator draws on its own
# device alone, and a pattern is not to depend on the device.
def _nothing(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.bool, device="cpu")


def _shuffled(count: int, generator: torch.Generator) -> Tensor:
    """The numbers below ``count``, in random order."""
    return torch.randperm(count, generator=generator, device="cpu")
