"""What is read of the neurons of a wired cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from liquid_ode.cells.wiring.wiring import Wiring


class MotorReadout(nn.Module):
    """The states of a wiring's motor neurons alone, y = weight * h + bias where ``affine``.

    They are the outputs of a circuit, as in ncps; the other neurons are hidden.

    >>> wiring = Wiring.auto_ncp(input_size=2, units=16, motor=1)
    >>> rnn = LiquidRNN(2, 16, cell=LTCCell, wiring=wiring, projection=MotorReadout(wiring))
    >>> rnn(torch.randn(8, 20, 2))[0].shape
    torch.Size([8, 20, 1])

    Args:
        wiring: with a layer ``"motor"``, as :meth:`Wiring.ncp` and :meth:`Wiring.auto_ncp` have.
        affine: whether each motor neuron has a weight, which starts at 1, and a bias, which starts
            at 0, as ``output_mapping="affine"`` of ncps.

    Raises:
        ValueError: where the wiring has no motor neurons; on use, where the last axis is not that
            of its neurons, as with both directions of a network or with maps.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, wiring: Wiring, *, affine: bool = False) -> None:
        super().__init__()
        if not isinstance(wiring, Wiring):
            raise ValueError(
                f"wiring must be a Wiring, such as Wiring.auto_ncp(...), not {wiring!r}"
            )
        if wiring.motor is None:
            raise ValueError(
                f"{wiring} has no layer 'motor': take Wiring.auto_ncp(...) or Wiring.ncp(...), or "
                "name it, as in Wiring.from_mask(..., layers={'motor': slice(0, 2), ...})"
            )
        self.units, self.motor = wiring.units, wiring.motor
        size = wiring.motor.stop - wiring.motor.start
        self.weight = nn.Parameter(torch.ones(size)) if affine else None
        self.bias = nn.Parameter(torch.zeros(size)) if affine else None

    def reset_parameters(self) -> None:
        """Back to weights of 1 and biases of 0."""
        with torch.no_grad():
            for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
                if parameter is not None:
                    parameter.fill_(value)

    def forward(self, h: Tensor) -> Tensor:
        """The outputs ``(..., motor)`` of states ``(..., units)``."""
        if h.ndim == 0 or h.shape[-1] != self.units:
            raise ValueError(
                f"the wiring has {self.units} neurons, so states must have shape (..., "
                f"{self.units}), not {tuple(h.shape)}; of both directions, or of maps, take "
                "another projection"
            )
        y = h[..., self.motor]
        if self.weight is not None:
            y = y * self.weight
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        names = [name for name in ("weight", "bias") if getattr(self, name) is not None]
        return ", ".join(
            [f"units={self.units}, motor={self.motor.start}:{self.motor.stop}", *names]
        )
