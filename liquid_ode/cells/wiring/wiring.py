"""Which neurons of a cell are connected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from liquid_ode.cells.wiring.parts import Bounds, Mask, bounds
from liquid_ode.cells.wiring.patterns import ncp_masks, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, init=False, repr=False)
class Wiring:
    """An immutable pattern of synapses: who drives whom.

    Build one with :meth:`full`, :meth:`random`, :meth:`ncp`, :meth:`auto_ncp` or
    :meth:`from_mask`. Wirings are equal where their masks and layers are.

    Attributes:
        kind: how it was made, for printing.
    """

    _recurrent: Mask
    _inputs: Mask | None
    _layers: Bounds
    kind: str = field(compare=False)

    def __init__(
        self,
        recurrent: Tensor,
        inputs: Tensor | None = None,
        *,
        layers: Mapping[str, slice] | None = None,
        kind: str = "from_mask",
    ) -> None:
        square = Mask.recurrent(recurrent)
        units = square.shape[0]
        values = {
            "_recurrent": square,
            "_inputs": None if inputs is None else Mask.inputs(inputs, units),
            "_layers": (("neurons", 0, units),) if layers is None else bounds(layers, units),
            "kind": kind,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)  # as a frozen dataclass's own __init__ does

    @property
    def recurrent(self) -> Tensor:
        """Bool ``(units, units)``, on the CPU, a copy.

        ``recurrent[i, j]`` where neuron j drives neuron i, as in ``W_rec``.
        """
        return self._recurrent.tensor()

    @property
    def inputs(self) -> Tensor | None:
        """Bool ``(units, input_size)``, on the CPU, a copy; None where every input drives all.

        ``inputs[i, j]`` where input j drives neuron i, as in ``W_in``.
        """
        return None if self._inputs is None else self._inputs.tensor()

    @property
    def units(self) -> int:
        """Number of neurons."""
        return self._recurrent.shape[0]

    @property
    def input_size(self) -> int | None:
        """Number of inputs; None where the wiring takes any number, each driving every neuron."""
        return None if self._inputs is None else self._inputs.shape[1]

    @property
    def layers(self) -> Mapping[str, slice]:
        """Where each layer's neurons are, in the order of the neurons; read-only.

        One layer, ``"neurons"``, where the wiring names none.
        """
        return MappingProxyType({name: slice(start, stop) for name, start, stop in self._layers})

    @property
    def motor(self) -> slice | None:
        """Where the motor neurons are, a cell's output; None without a layer ``"motor"``."""
        return self.layers.get("motor")

    @property
    def synapses(self) -> int:
        """Number of recurrent connections, those from neuron to neuron."""
        return self._recurrent.count

    @property
    def sensory_synapses(self) -> int | None:
        """Number of connections from inputs to neurons.

        None where every input drives every neuron: these are ``units`` times the inputs of the
        cell, which the wiring does not know.
        """
        return None if self._inputs is None else self._inputs.count

    @property
    def sparsity(self) -> float:
        """Share of the recurrent connections that are absent, 0 for a full wiring."""
        return 1.0 - self.synapses / self.units**2

    def __repr__(self) -> str:
        parts = [f"units={self.units}"]
        if len(self._layers) > 1:
            sizes = (f"{name} {stop - start}" for name, start, stop in self._layers)
            parts.append(f"layers=({', '.join(sizes)})")
        if self._inputs is not None:
            parts.append(f"input_size={self.input_size}")
        parts.append(f"synapses={self.synapses}")
        if self._inputs is not None:
            parts.append(f"sensory_synapses={self.sensory_synapses}")
        return f"Wiring.{self.kind}({', '.join(parts)}, sparsity={self.sparsity:.2f})"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it; see :func:`liquid_ode.cells.wiring.plot.plot_wiring`."""
        from liquid_ode.cells.wiring.plot import plot_wiring

        return plot_wiring(self, ax)

    @classmethod
    def full(cls, units: int) -> Wiring:
        """Every neuron drives every neuron."""
        ones = torch.ones(check_count("units", units), units, dtype=torch.bool, device="cpu")
        return cls(ones, kind="full")

    @classmethod
    def from_mask(
        cls,
        recurrent: Tensor,
        inputs: Tensor | None = None,
        *,
        layers: Mapping[str, slice] | None = None,
    ) -> Wiring:
        """The wiring of explicit masks.

        Args:
            recurrent: bool ``(units, units)``, [i, j] where neuron j drives neuron i.
            inputs: bool ``(units, input_size)``, [i, j] where input j drives neuron i; None
                where all do.
            layers: name -> ``slice(start, stop)``, in the order of the neurons and covering them
                all, such as ``{"motor": slice(0, 2), "inter": slice(2, 8)}``; None for one layer.

        Raises:
            ValueError: where an argument is not of that form.
        """
        return cls(recurrent, inputs, layers=layers)

    @classmethod
    def random(
        cls, units: int, *, sparsity: float, input_size: int | None = None, seed: int = 0
    ) -> Wiring:
        """A random share ``1 - sparsity`` of all recurrent connections, rounded to a whole number.

        Args:
            units: number of neurons.
            sparsity: share of the connections left out, in [0, 1); one at least stays.
            input_size: number of inputs, whose connections are then thinned as much; None for
                any number of inputs that all drive every neuron. The recurrent connections of a
                seed are the same either way.
            seed: of the choice.

        Raises:
            ValueError: where an argument is not as described.
        """
        _check_sparsity(sparsity)
        check_count("units", units)
        generator = _generator(seed)
        recurrent = thinned(units, units, sparsity, generator)
        inputs = None
        if input_size is not None:
            inputs = thinned(units, check_count("input_size", input_size), sparsity, generator)
        return cls(recurrent, inputs, kind="random")

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

        The neurons are ordered motor, command, inter, and these are the :attr:`layers`. Every
        input drives ``sensory_fanout`` inter neurons, every inter neuron ``inter_fanout`` command
        neurons; there are ``recurrent_command`` connections among the command neurons, and every
        motor neuron listens to ``motor_fanin`` of them. Neurons that this leaves without a source,
        and command neurons that it leaves without a target, then get the mean number of their
        layer, rounded down, at least one. So every neuron is reached by an input, and every
        input and neuron reaches a motor neuron.

        Reference: Lechner et al., Neural circuit policies enabling auditable autonomy, Nature
        Machine Intelligence 2020, steps 1 to 4 of the design of a network. Their step 2 gives
        every neuron of a layer targets in the next; where ``motor_fanin`` counts sources
        instead, as in ncps, the repair of command neurons makes that hold.

        Raises:
            ValueError: where a count is no whole number of at least 1 (``recurrent_command``: 0),
                or a fan is larger than the layer it reaches.
        """
        sizes = {"motor": motor, "command": command, "inter": inter}
        for name, size in {"input_size": input_size, **sizes}.items():
            check_count(name, size)
        _check_within("sensory_fanout", sensory_fanout, 1, inter)
        _check_within("inter_fanout", inter_fanout, 1, command)
        _check_within("recurrent_command", recurrent_command, 0, command**2)
        _check_within("motor_fanin", motor_fanin, 1, command)
        recurrent, inputs = ncp_masks(
            input_size,
            **sizes,
            sensory_fanout=sensory_fanout,
            inter_fanout=inter_fanout,
            recurrent_command=recurrent_command,
            motor_fanin=motor_fanin,
            generator=_generator(seed),
        )
        layers, start = {}, 0
        for name, size in sizes.items():
            layers[name] = slice(start, start + size)
            start += size
        return cls(recurrent, inputs, layers=layers, kind="ncp")

    @classmethod
    def auto_ncp(
        cls, input_size: int, units: int, motor: int, *, sparsity: float = 0.5, seed: int = 0
    ) -> Wiring:
        """A neural circuit policy of ``units`` neurons in all, sized by the rule of ncps' AutoNCP.

        Of the neurons that are not motor neurons, 40% are command neurons, the others inter
        neurons. Every fan of :meth:`ncp` is the share ``1 - sparsity`` of the layer it chooses
        from, and ``2 (1 - sparsity)`` recurrent connections come on a command neuron; all
        rounded down, at least 1.

        Args:
            input_size: number of inputs.
            units: number of neurons.
            motor: how many of them are motor neurons, at most ``units - 3``.
            sparsity: in [0, 1), of the connections between two layers, not of all.
            seed: of the random connections.

        Raises:
            ValueError: where an argument is not as described.
        """
        _check_sparsity(sparsity)
        if check_count("motor", motor) > check_count("units", units) - 3:
            raise ValueError(
                "motor must be at most units - 3, which leaves one command and two inter "
                f"neurons, not {motor} of {units}"
            )
        density = 1.0 - sparsity
        command = max(int(0.4 * (units - motor)), 1)
        inter = units - motor - command
        of_command = max(int(command * density), 1)
        made = cls.ncp(
            input_size,
            inter=inter,
            command=command,
            motor=motor,
            sensory_fanout=max(int(inter * density), 1),
            inter_fanout=of_command,
            recurrent_command=min(max(int(command * density * 2), 1), command**2),
            motor_fanin=of_command,
            seed=seed,
        )
        return cls(made.recurrent, made.inputs, layers=made.layers, kind="auto_ncp")


def _generator(seed: int) -> torch.Generator:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, not {seed!r}")
    return torch.Generator("cpu").manual_seed(seed)


def _check_within(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number in {least}..{most}, not {value!r}")


def _check_sparsity(sparsity: float) -> None:
    if not isinstance(sparsity, (int, float)) or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must lie in [0, 1), not {sparsity!r}")


def check_count(name: str, value: int) -> int:
    """Return ``value``, or raise ValueError where it is no whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        remedy = "; a wiring is given as wiring=, with hidden_size=wiring.units"
        raise ValueError(
            f"{name} must be a whole number of at least 1, not {value!r}"
            f"{remedy if isinstance(value, Wiring) else ''}"
        )
    return value
