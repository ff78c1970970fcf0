"""The liquid cell of feature maps: its recurrent and its input map are convolutions.

tau(x) dh/dt = -h + tanh(W_rec * h + W_in * x + b), where * is a convolution
tau(x) = clamp(tau_base (1/2 + sigmoid(MLP(x))), 0.1, 5), the MLP at every pixel by itself
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.cells.liquid.dynamics import (
    LiquidDynamics,
    LiquidParameters,
    LiquidTarget,
    bounded_tau,
)
from liquid_ode.cells.names import explained
from liquid_ode.cells.ode import of_each
from liquid_ode.cells.wiring.masks import WiredConv2d
from liquid_ode.cells.wiring.wiring import Wiring, check_count
from solvers import Euler, Solver


class MapTarget(LiquidTarget):
    """tanh(W_rec * h + drive), ``(B, hidden, H, W)``.

    A derivative of its own (solvers.PullbackFunction) was tried, and is no faster than autograd's:
    the convolutions take the time, and they are the same in both.
    """

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        around = self.recurrent.shape[-1] // 2
        return torch.tanh(F.conv2d(y, self.recurrent, padding=around) + self.drive)


class ConvLiquidField(LiquidDynamics):
    """The dynamics of a convolutional liquid cell for one input: a field for any solver.

    dh/dt = (tanh(W_rec * h + drive) - h) rate, with drive = W_in * x + b and rate = 1 / tau(x)
    computed once, not once per evaluation.

    Args:
        recurrent: W_rec, ``(hidden, hidden, k, k)`` with k odd.
        drive: ``(B, hidden, H, W)``.
        rate: ``(B, hidden, H, W)``, in units of 1/time.

    Raises:
        ValueError: where a shape is another.
    """

    kind = MapTarget
    axes: ClassVar[tuple[str, ...]] = ("B", "hidden", "H", "W")

    def __init__(self, recurrent: Tensor, drive: Tensor, rate: Tensor) -> None:
        if recurrent.ndim != 4 or recurrent.shape[2:] != (recurrent.shape[-1] | 1,) * 2:
            raise ValueError(
                "recurrent must have shape (hidden, hidden, k, k) with k odd, not "
                f"{tuple(recurrent.shape)}"
            )
        super().__init__(recurrent, drive, rate)


class ConvLiquidCell(LiquidParameters):
    """A liquid cell of feature maps, whose dynamics are integrated by an injected solver.

    τ(x) dh/dt = -h + tanh(W_rec * h + W_in * x + b), where * is a convolution that keeps the size
    of a map (zeros around it), and τ(x) = clamp(τ_base (1/2 + σ(MLP(x))), 0.1, 5.0) with the MLP
    at every pixel by itself. With kernels of size 1 it is the LiquidCell at every pixel.

    >>> cell = ConvLiquidCell(16, 32)
    >>> cell(torch.randn(8, 16, 28, 28)).shape
    torch.Size([8, 32, 28, 28])

    W_rec starts delta-orthogonal: an orthogonal matrix with gain 0.8 at the centre of the kernel,
    zeros around it, so that no pixel's state spreads before training has found a use for it.
    τ_base starts at ``tau_init``.

    Maps in ``torch.channels_last`` stay so, and on a CPU are faster; let the parameters have that
    format too, ``cell.to(memory_format=torch.channels_last)``.

    Args:
        input_size: channels of x.
        hidden_size: channels of the state h.
        kernel_size: side of the kernels, odd.
        recurrent_kernel_size: side of the kernel of W_rec, odd, where it is another: 1 saves most
            of the work of a solve, and still lets W_in see the neighbours.
        solver: any solver of :mod:`solvers`; 3 to 7 steps are usual.
        wiring: which channels are connected; None for all. Weights outside it are never used.
        tau_init: initial τ_base, in the unit of time of ``duration``.
        tau_hidden: width of the MLP of τ; a quarter of ``hidden_size``, at least 8, if None.

    Raises:
        ValueError: where a size is below 1, a kernel's is even, τ is out of range, the wiring has
            another size, or the solver is none.

    Reference: Hasani et al., Liquid time-constant networks, AAAI 2021, for the idea of an
    input-dependent time constant; Xiao et al., Dynamical isometry and a mean field theory of
    CNNs, ICML 2018, for the delta-orthogonal start.
    """

    feature_axes: ClassVar[int] = 3

    inputs: nn.Conv2d

    @explained
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        kernel_size: int = 3,
        recurrent_kernel_size: int | None = None,
        solver: Solver = Euler(steps=5),
        wiring: Wiring | None = None,
        tau_init: float = 1.0,
        tau_hidden: int | None = None,
    ) -> None:
        side = _check_kernel("kernel_size", kernel_size)
        if recurrent_kernel_size is None:
            recurrent_kernel_size = side
        own = _check_kernel("recurrent_kernel_size", recurrent_kernel_size)
        super().__init__(
            input_size,
            hidden_size,
            solver,
            wiring,
            tau_init,
            tau_hidden,
            inputs=partial(nn.Conv2d, kernel_size=side, padding=side // 2),
            wired_inputs=lambda size, hidden, mask: WiredConv2d(
                size, hidden, side, mask, padding=side // 2
            ),
            pixelwise=partial(nn.Conv2d, kernel_size=1),
            kernel=(own, own),
        )
        self.kernel_size = side

    def state_shape(self, features: Sequence[int]) -> tuple[int, ...]:
        return self.hidden_size, *features[1:]

    def time_constant(self, x: Tensor) -> Tensor:
        """τ(x) within [0.1, 5.0], in the unit of ``duration``: ``(*batch, hidden_size, H, W)``."""
        features = self._features(x)
        logits = self.tau_mlp(x.reshape(-1, *features))
        tau = bounded_tau(self.tau_base.view(-1, 1, 1), logits)
        return tau.reshape(*x.shape[:-3], *self.state_shape(features))

    def fields_in_unit_time(self, x: Tensor, durations: Tensor) -> Sequence[ConvLiquidField]:
        return self.fields(x, durations)

    def fields(self, x: Tensor, durations: Tensor | None = None) -> Sequence[ConvLiquidField]:
        steps, batch = x.shape[:2]
        # All inputs as one batch (T B, C, H, W). Flattening several would not keep channels_last;
        # squeezing one, torch 2.14 does not compile at a second size of the maps.
        maps = x.flatten(0, 1) if steps == 1 else torch.cat(x.unbind())
        drive = self._drive(maps)
        times = None if durations is None else durations.flatten(0, 1)
        rate = self._rates(maps, drive.dtype, times)
        recurrent = self.wired("recurrent").to(drive.dtype)
        parts = (of_each(part.unflatten(0, (steps, batch))) for part in (drive, rate))
        return [ConvLiquidField(recurrent, *of_one) for of_one in zip(*parts, strict=True)]

    def extra_repr(self) -> str:
        sides = [self.kernel_size, self.recurrent.shape[-1]]
        own = "" if sides[0] == sides[1] else f", recurrent_kernel_size={sides[1]}"
        return f"{super().extra_repr()}, kernel_size={sides[0]}{own}"


def _check_kernel(name: str, side: int) -> int:
    """Return the side of a kernel, or raise ValueError where it has no centre."""
    if check_count(name, side) % 2 == 0:
        raise ValueError(
            f"{name} must be odd, for the kernel to have a centre, not {side}: take {side + 1}"
        )
    return side
