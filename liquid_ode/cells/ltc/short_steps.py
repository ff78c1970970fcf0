"""Semi-implicit Euler steps of a small LTC layer, with the gradient through all steps at once.

Where an evaluation is a few thousand openings, starting the operations takes longer than what
they compute. Forward, a step is six of them. For the gradient all states are known: the openings
and the Jacobians ``(B, J, I)`` of all steps are made together, so that the sweep back is one
product a step, and the gradients of the parameters are made together again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.cells.ltc.conductance import by_autograd
from solvers import HandWritten


@dataclass(eq=False)
class ShortSteps(HandWritten):
    """The states after each of T inputs, ``(T, B, J)``.

    y1 = (y + r drive(y)) / (1 + r gain(y)), ``steps`` times an input, of y0 ``(B, J)``, base gain
    and drive ``(T, 2, B, J)``, r = dt rate ``(T, B, J)``, and the synapses' lines and weights.
    """

    steps: int

    def plain(self, *inputs: Tensor) -> Tensor:
        y, base, ratio, lines, weights = inputs
        ends = []
        for of_base, r in zip(base.unbind(), ratio.unbind(), strict=True):
            for _ in range(self.steps):
                gain, drive = (of_base + by_autograd(y, lines, weights)).unbind()
                y = (y + r * drive) / (1 + r * gain)
            ends.append(y)
        return torch.stack(ends)

    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        y0, base, ratio, lines, weights = inputs
        batch, size = y0.shape
        slope, shift = lines.permute(1, 2, 0).contiguous().unbind()  # (J, I)
        products = weights.transpose(1, 2).contiguous()  # (J, I, 2)
        count = base.shape[0] * self.steps
        states = y0.new_empty(count + 1, batch, size)
        states[0] = y0
        sums = y0.new_empty(count, size, batch, 2)
        s, n, d = y0.new_empty(batch, size, size), torch.empty_like(y0), torch.empty_like(y0)
        by_neuron, one = s.transpose(0, 1), y0.new_ones(())
        y, points, of_step = states.unbind(), states.unsqueeze(2).unbind(), sums.unbind()
        gain, drive = (each.unbind() for each in sums.permute(3, 0, 2, 1).unbind())
        bases, ratios = base.permute(0, 3, 2, 1).contiguous().unbind(), ratio.unbind()
        for k in range(count):
            b, r = bases[k // self.steps], ratios[k // self.steps]
            # out= also keeps autocast, which would round, away from the product.
            torch.sigmoid(torch.addcmul(shift, points[k], slope, out=s), out=s)
            torch.baddbmm(b, by_neuron, products, out=of_step[k])
            torch.addcmul(y[k], r, drive[k], out=n)
            torch.div(n, torch.addcmul(one, r, gain[k], out=d), out=y[k + 1])
        ends = states[self.steps :: self.steps]
        return ends.clone() if keep else ends, [states, sums] if keep else []

    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        _, _, ratio, lines, weights = inputs
        states, sums = kept
        y, y1 = states[:-1], states[1:]
        slope, shift = lines.permute(1, 2, 0).contiguous().unbind()  # (J, I)
        of_gain, of_drive = weights.permute(1, 0, 2).contiguous().unbind()
        gain, drive = sums.permute(3, 0, 2, 1).unbind()  # (E, B, J)
        r = ratio.repeat_interleave(self.steps, 0)
        per = (1 + r * gain).reciprocal_()  # dy1/dy at fixed sums
        to_drive = r * per
        to_gain = -to_drive * y1
        s = torch.addcmul(shift, y.unsqueeze(2), slope).sigmoid_()  # (E, B, J, I)
        steep = s * (1 - s)
        jacobian = to_drive.unsqueeze(-1) * of_drive
        jacobian.addcmul_(to_gain.unsqueeze(-1), of_gain).mul_(steep).mul_(slope)
        jacobian.diagonal(dim1=2, dim2=3).add_(per)
        grads, of_y0 = self._sweep(jacobian, grad)
        on_drive, on_gain = grads * to_drive, grads * to_gain
        of_sums = torch.stack((on_gain, on_drive), 1)  # (E, 2, B, J)
        of_ratio = (drive - y1 * gain).mul_(grads).mul_(per)
        z = on_drive.unsqueeze(-1) * of_drive
        z.addcmul_(on_gain.unsqueeze(-1), of_gain).mul_(steep)
        of_lines = torch.stack((torch.einsum("ebji,ebi->ij", z, y), z.sum((0, 1)).t()), 1)
        of_weights = torch.einsum("ekbj,ebji->jki", of_sums, s)
        per_input = (-1, self.steps)
        return (
            of_y0,
            of_sums.unflatten(0, per_input).sum(1),
            of_ratio.unflatten(0, per_input).sum(1),
            of_lines,
            of_weights,
        )

    def _sweep(self, jacobian: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of the states after every step, ``(E, B, J)``, and of the first."""
        found = grad.new_empty(jacobian.shape[:3])
        rows, steps, ends = (
            found.unsqueeze(2).unbind(),
            jacobian.unbind(),
            grad.unsqueeze(2).unbind(),
        )
        rows[-1].copy_(ends[-1])
        for k in range(len(rows) - 1, 0, -1):
            if k % self.steps:
                torch.bmm(rows[k], steps[k], out=rows[k - 1])
            else:
                torch.baddbmm(ends[k // self.steps - 1], rows[k], steps[k], out=rows[k - 1])
        return found, torch.bmm(rows[0], steps[0]).squeeze(1)
