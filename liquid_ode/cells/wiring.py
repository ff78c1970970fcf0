"""Which neurons of a cell are connected."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Wiring:
    """An immutable pattern of synapses: who drives whom.

    Build one with :meth:`full`, :meth:`random`, :meth:`ncp` or :meth:`from_mask`.

    Attributes:
        recurrent: bool ``(units, units)``; ``recurrent[i, j]`` where neuron j drives neuron i,
            as in ``W_rec``.
        inputs: bool ``(units, input_size)``, or None where every input drives every neuron.
        kind: how it was made, for printing.
    """

    recurrent: Tensor
    inputs: Tensor | None = None
    kind: str = "mask"

    def __post_init__(self) -> None:
        mask = self.recurrent
        if mask.dtype != torch.bool or mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
            raise ValueError(
                "a recurrent mask must be a square bool matrix (units, units), "
                f"not {tuple(mask.shape)} {mask.dtype}"
            )
        if self.inputs is not None and (
            self.inputs.dtype != torch.bool
            or self.inputs.ndim != 2
            or self.inputs.shape[0] != self.units
        ):
            raise ValueError(
                f"an input mask must be a bool matrix ({self.units}, input_size), "
                f"not {tuple(self.inputs.shape)} {self.inputs.dtype}"
            )

    @property
    def units(self) -> int:
        """Number of neurons."""
        return self.recurrent.shape[0]

    @property
    def synapses(self) -> int:
        """Number of recurrent connections."""
        return int(self.recurrent.sum())

    @property
    def sparsity(self) -> float:
        """Share of the recurrent connections that are absent, 0 for a full wiring."""
        return 1.0 - self.synapses / self.units**2

    def __repr__(self) -> str:
        return (
            f"Wiring.{self.kind}(units={self.units}, synapses={self.synapses}, "
            f"sparsity={self.sparsity:.2f})"
        )

    @classmethod
    def full(cls, units: int) -> Wiring:
        """Every neuron drives every neuron."""
        return cls(torch.ones(check_count("units", units), units, dtype=torch.bool), kind="full")

    @classmethod
    def from_mask(cls, recurrent: Tensor, inputs: Tensor | None = None) -> Wiring:
        """The wiring of explicit masks, bool ``(units, units)`` and ``(units, input_size)``."""
        return cls(recurrent.clone(), None if inputs is None else inputs.clone())

    @classmethod
    def random(cls, units: int, *, sparsity: float, seed: int = 0) -> Wiring:
        """A random share ``1 - sparsity`` of all recurrent connections, rounded to a whole number.

        Raises:
            ValueError: where ``sparsity`` is outside [0, 1).
        """
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must lie in [0, 1), not {sparsity}")
        total = check_count("units", units) ** 2
        kept = max(1, round((1 - sparsity) * total))
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        mask = torch.zeros(total, dtype=torch.bool)
        mask[order[:kept]] = True
        return cls(mask.view(units, units), kind="random")

    @classmethod
    def ncp(
        cls,
        input_size: int,
        *,
        inter: int,
        command: int,
        motor: int,
        sensory_fanout: int,
        inter_fanout: int,
        recurrent_command: int,
        motor_fanin: int,
        seed: int = 0,
    ) -> Wiring:
        """A neural circuit policy: inputs -> inter -> command -> motor neurons.

        The neurons are ordered motor, command, inter. Every input drives ``sensory_fanout``
        inter neurons, every inter neuron ``inter_fanout`` command neurons; there are
        ``recurrent_command`` connections among the command neurons, and every motor neuron
        listens to ``motor_fanin`` of them. Inter and command neurons that nobody would drive
        get one connection.

        Reference: Lechner et al., Neural circuit policies, Nature Machine Intelligence 2020.

        Raises:
            ValueError: where a count is below 1 or a fan is larger than the layer it reaches.
        """
        limits = {
            "sensory_fanout": (sensory_fanout, inter),
            "inter_fanout": (inter_fanout, command),
            "motor_fanin": (motor_fanin, command),
            "recurrent_command": (recurrent_command, command**2),
        }
        for name, (value, limit) in limits.items():
            if not 0 <= value <= limit:
                raise ValueError(f"{name} must lie in 0..{limit}, not {value}")
        units = sum(check_count(*item) for item in (("motor", motor), ("command", command)))
        units += check_count("inter", inter)
        generator = torch.Generator().manual_seed(seed)
        recurrent = torch.zeros(units, units, dtype=torch.bool)
        sensory = torch.zeros(units, check_count("input_size", input_size), dtype=torch.bool)
        command_at, inter_at = motor, motor + command

        for source in range(input_size):
            picked = torch.randperm(inter, generator=generator)[:sensory_fanout]
            sensory[inter_at + picked, source] = True
        _drive_the_idle(sensory, slice(inter_at, units), slice(0, input_size), generator)
        for source in range(inter_at, units):
            picked = torch.randperm(command, generator=generator)[:inter_fanout]
            recurrent[command_at + picked, source] = True
        _drive_the_idle(recurrent, slice(command_at, inter_at), slice(inter_at, units), generator)
        pairs = torch.randperm(command**2, generator=generator)[:recurrent_command]
        recurrent[command_at + pairs // command, command_at + pairs % command] = True
        for target in range(motor):
            picked = torch.randperm(command, generator=generator)[:motor_fanin]
            recurrent[target, command_at + picked] = True
        return cls(recurrent, sensory, kind="ncp")


def _drive_the_idle(
    mask: Tensor, targets: slice, sources: slice, generator: torch.Generator
) -> None:
    """Give every target without a source one random source, in place."""
    block = mask[targets, sources]
    for row in torch.nonzero(~block.any(dim=1)).flatten():
        block[row, torch.randint(block.shape[1], (), generator=generator)] = True


def check_count(name: str, value: int) -> int:
    """Return ``value``, or raise ValueError where it is no whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value
