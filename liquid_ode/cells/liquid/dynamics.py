"""What the liquid cells share, of vectors and of maps: the parameters and the dynamics.

tau(x) dh/dt = -h + tanh(recurrent map of h + input map of x + b)
tau(x) = clamp(tau_base (1/2 + sigmoid(MLP(x))), 0.1, 5)
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from liquid_ode.cells.ode import ODECell
from liquid_ode.cells.wiring.masks import Wired, check_wired, masks_of, own_parameter
from liquid_ode.cells.wiring.wiring import Wiring, check_count
from solvers import SemilinearField, Solver
from solvers.checks import holds

TAU_MIN = 0.1
TAU_MAX = 5.0

Target = TypeVar("Target", bound="LiquidTarget")


class LiquidTarget:
    """tanh(recurrent map of h + drive), for one input; a subclass gives the map.

    Args:
        recurrent: W_rec, ``(hidden, hidden, *kernel)``.
        drive: W_in x + b, ``(B, hidden, *map)``.
    """

    autonomous = True

    def __init__(self, recurrent: Tensor, drive: Tensor) -> None:
        self.recurrent, self.drive = recurrent, drive

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.recurrent, self.drive

    def with_tensors(self: Target, *tensors: Tensor) -> Target:
        """A copy, also of what a subclass added, with other tensors."""
        other = copy.copy(self)
        other.recurrent, other.drive = tensors
        return other

    def select(self: Target, rows: Tensor | slice) -> Target:
        return self.with_tensors(self.recurrent, self.drive[rows])


class LiquidDynamics(SemilinearField):
    """dh/dt = (target(h) - h) rate for one input; a subclass names the kind of target.

    Args:
        recurrent: W_rec, ``(hidden, hidden, *kernel)``.
        drive: W_in x + b, ``(B, hidden, *map)``.
        rate: 1 / tau(x), of the same shape, in units of 1/time.

    Raises:
        ValueError: where a shape is another.
    """

    kind: ClassVar[type[LiquidTarget]]
    axes: ClassVar[tuple[str, ...]] = ("B", "hidden")
    """Names of the axes of a state."""

    def __init__(self, recurrent: Tensor, drive: Tensor, rate: Tensor) -> None:
        if rate.shape != drive.shape or drive.ndim != len(self.axes):
            raise ValueError(
                f"drive and rate must have the same shape ({', '.join(self.axes)}), not "
                f"{tuple(drive.shape)} and {tuple(rate.shape)}"
            )
        # Not checked as a field of a user's is: the cell's parameterisation keeps tau in its
        # range, and looking again would cost a synchronisation on an accelerator.
        self.function = self.kind(recurrent.to(drive.dtype), drive)  # type: ignore[assignment]
        self.rate = rate

    @property
    def recurrent(self) -> Tensor:
        return cast(LiquidTarget, self.function).recurrent

    @property
    def drive(self) -> Tensor:
        return cast(LiquidTarget, self.function).drive


Layer = nn.Linear | nn.Conv2d


class LiquidParameters(ODECell):
    """A cell with the parameters of a liquid cell; a subclass gives the fields and τ.

    Args:
        inputs: makes the layer from ``input_size`` to ``hidden_size``.
        wired_inputs: likewise, of these and a mask.
        pixelwise: makes a layer of the MLP of τ.
        kernel: the axes of W_rec after the first two.

    The others are those of the cells.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        solver: Solver,
        wiring: Wiring | None,
        tau_init: float,
        tau_hidden: int | None,
        *,
        inputs: Callable[[int, int], Layer],
        wired_inputs: Callable[[int, int, Tensor], Layer],
        pixelwise: Callable[[int, int], Layer],
        kernel: tuple[int, ...] = (),
    ) -> None:
        super().__init__(input_size, hidden_size, solver, wiring)
        check_tau(tau_init)
        width = max(8, hidden_size // 4)
        if tau_hidden is not None:
            width = check_count("tau_hidden", tau_hidden)
        of_neurons, of_inputs = masks_of(wiring)
        self.tau_init = float(tau_init)
        if of_inputs is None:
            self.inputs = inputs(input_size, hidden_size)
        else:
            self.inputs = wired_inputs(input_size, hidden_size, of_inputs)
        self.recurrent = nn.Parameter(torch.empty(hidden_size, hidden_size, *kernel))
        self.tau_base = nn.Parameter(torch.empty(hidden_size))
        self.tau_mlp = nn.Sequential(
            pixelwise(input_size, width), nn.SiLU(), pixelwise(width, hidden_size)
        )
        self.wire(of_neurons, "recurrent")
        self._has_wired_inputs = isinstance(self.inputs, Wired)
        self._draw_own()

    def reset_parameters(self) -> None:
        """Draw all weights anew, and set τ_base to ``tau_init``.

        Raises:
            ValueError: where one was replaced by what is made of others.
        """
        # As when they are made, so that a seed gives the same weights.
        for layer in (self.inputs, self.tau_mlp[0], self.tau_mlp[2]):
            for name in ("weight", "bias"):
                own_parameter(layer, name)
            cast(Layer, layer).reset_parameters()
        self._draw_own()

    def _draw_own(self) -> None:
        """Draw what the layers do not draw themselves, or draw otherwise."""
        recurrent = own_parameter(self, "recurrent")
        nn.init.constant_(own_parameter(self, "tau_base"), self.tau_init)
        nn.init.zeros_(recurrent)
        centre = recurrent.detach()
        for side in recurrent.shape[2:]:
            centre = centre.select(2, side // 2)
        nn.init.orthogonal_(centre, gain=0.8)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.zeros_(cast(Tensor, self.inputs.bias))
        for module in (self, self.inputs):
            if isinstance(module, Wired):
                module.clear_unwired()

    def flow(
        self,
        x: Tensor,
        h0: Tensor | None,
        duration: float | Tensor,
        resets: Tensor | None = None,
    ) -> Tensor:
        states = super().flow(x, h0, duration, resets)
        if states.numel() == 0:
            return states
        # The dynamics keep |h| <= max(|h0|, 1).
        most = states.new_ones(()) if h0 is None else h0.detach().abs().amax().clamp(min=1.0)
        if holds(states.detach().abs().amax() > 2 * most):  # not of a NaN, which is told elsewhere
            warnings.warn(
                f"states of the {type(self).__name__} are more than twice as large as its dynamics "
                f"let them be, max(|h0|, 1): the steps of {self.solver} are too long for its time "
                "constants, and the numbers are wrong. Take more steps, the default "
                "solvers.Euler(steps=5), solvers.ExponentialEuler(steps=5) or error control",
                RuntimeWarning,
                stacklevel=2,
            )
        return states

    def _drive(self, x: Tensor) -> Tensor:
        """W_in x + b."""
        if self._has_wired_inputs:
            check_wired("inputs", self.inputs)
        drive: Tensor = self.inputs(x)
        return drive

    def _rates(self, x: Tensor, dtype: torch.dtype, durations: Tensor | None) -> Tensor:
        """1 / τ(x), times the durations where there are some."""
        # CUDA's autocast takes reciprocals in float32; the field is in the dtype of its drive.
        rate = self.time_constant(x).reciprocal().to(dtype)
        return rate if durations is None else rate * durations.to(dtype)

    @abstractmethod
    def time_constant(self, x: Tensor) -> Tensor:
        """τ(x) within [0.1, 5.0], in the unit of ``duration``."""


def check_tau(tau_init: float) -> None:
    """Raise ValueError where an initial time constant is out of range."""
    if not TAU_MIN <= tau_init <= TAU_MAX:
        raise ValueError(f"tau_init must lie in [{TAU_MIN}, {TAU_MAX}], not {tau_init}")


def bounded_tau(base: Tensor, logits: Tensor) -> Tensor:
    """τ = clamp(base (1/2 + σ(logits)), 0.1, 5.0)."""
    gate = torch.sigmoid(logits)
    base = base.to(gate.dtype)
    return torch.addcmul(0.5 * base, base, gate).clamp(TAU_MIN, TAU_MAX)
