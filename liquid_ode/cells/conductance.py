"""Sums over synapses with sigmoid conductances: what every evaluation of an LTC cell computes.

For neuron j with presynaptic signals v_i, the openings of its synapses s_ji = σ(σ_ji (v_i - μ_ji))
are summed to a gain Σ_i w_ji s_ji and a drive Σ_i w_ji E_ji s_ji. With t = tanh(a v + c) and
s = (1 + t) / 2, where a = σ/2 and c = -σ μ/2, what has to be evaluated is

    Σ_i (w_ji / 2) t_ji    and    Σ_i (w_ji E_ji / 2) t_ji;

the rest does not depend on v. The ``(I, J, B)`` values t are made and used some samples at a time,
in room that stays in the processor's cache, and are computed again for the gradient: kept, those of
one sequence would be hundreds of megabytes. Everything but the tanh is a batched product.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from solvers.finite import under_transform

# Values t at a time: two megabytes in float32.
_ELEMENTS = 2**19


class Rooms:
    """Memory that one evaluation leaves to the next, for each thread."""

    def __init__(self) -> None:
        # A dict, since torch.compile cannot follow the making of a threading.local.
        self._rooms: dict[tuple[int, str], Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """A tensor with what the last user of the name and shape left there, ones at first."""
        key = threading.get_ident(), name
        room = self._rooms.get(key)
        if room is None or room.shape != shape or room.dtype != like.dtype:
            room = self._rooms[key] = like.new_ones(shape)
        return room


class Synapses:
    """The synapses of one layer of neurons.

    Args:
        lines: a and c, ``(I, 2, J)``.
        weights: w / 2 and w E / 2, ``(J, 2, I)``.
        rooms: where to compute.
    """

    def __init__(self, lines: Tensor, weights: Tensor, rooms: Rooms) -> None:
        self.lines, self.weights, self.rooms = lines, weights, rooms

    @classmethod
    def of(cls, sigma: Tensor, mu: Tensor, w: Tensor, erev: Tensor, rooms: Rooms) -> Synapses:
        """Those with these parameters, each ``(J, I)``."""
        slope, weight = 0.5 * sigma, 0.5 * w
        lines = torch.stack((slope, -slope * mu)).permute(2, 0, 1).contiguous()
        return cls(lines, torch.stack((weight, weight * erev), 1), rooms)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.lines, self.weights

    @property
    def constant(self) -> Tensor:
        """What does not depend on the signals: Σ w/2 and Σ w E/2, ``(2, 1, J)``."""
        return self.weights.sum(-1).t().unsqueeze(1)

    def sums(self, v: Tensor, base: Tensor) -> Tensor:
        """base + Σ (w/2) t and Σ (w E/2) t, ``(2, B, J)``, for the signals v ``(B, I)``."""
        if under_transform():
            return base + by_autograd(v, *self.tensors)
        if torch.is_grad_enabled():
            return base + _Sums.apply(v, *self.tensors, self.rooms)
        return self.forward(v, base)

    def forward(self, v: Tensor, base: Tensor | None) -> Tensor:
        """The same without a graph."""
        total = v.new_empty(2, v.shape[0], self.weights.shape[0])
        for some, rows in self._blocks(v):
            _, t = self._values(some)
            # out= also keeps autocast, which would round, away from the products.
            sums = self.rooms.take("sums", v, *self.weights.shape[:2], t.shape[2])
            torch.bmm(self.weights, t.transpose(0, 1), out=sums)  # (J, 2, I) @ (J, I, b)
            if base is None:
                total[:, rows] = sums.permute(1, 2, 0)
            else:
                own = base if base.shape[1] == 1 else base[:, rows]
                torch.add(own, sums.permute(1, 2, 0), out=total[:, rows])
        return total

    def backward(self, v: Tensor, grad: Tensor, into: SynapseGradients, base: Tensor) -> Tensor:
        """base plus the gradient of v; those of the synapses are added up in ``into``.

        Args:
            v: ``(B, I)``.
            grad: of the sums, ``(2, B, J)``.
            into: where to add.
            base: ``(B, I)``, which is overwritten.
        """
        sources, _, neurons = self.lines.shape
        for some, rows in self._blocks(v):
            points, t = self._values(some)  # (I, 2, b), (I, J, b)
            of_sums = grad[:, rows].permute(2, 0, 1).contiguous()  # (J, 2, b)
            into.weights.baddbmm_(of_sums, t.permute(1, 2, 0))
            inner = self.rooms.take("inner", v, neurons, sources, t.shape[2])
            torch.bmm(self.weights.transpose(1, 2), of_sums, out=inner)  # dL/dt, (J, I, b)
            of_t = t.transpose(0, 1)
            torch.ops.aten.tanh_backward.grad_input(inner, of_t, grad_input=inner)
            of_lines = inner.transpose(0, 1)  # (I, J, b)
            into.lines.baddbmm_(points, of_lines.transpose(1, 2))
            of_points = self.rooms.take("of_points", v, sources, 1, t.shape[2])
            torch.bmm(self.lines[:, :1], of_lines, out=of_points)
            base[rows].add_(of_points.squeeze(1).t())
        return base

    def _values(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """v and ones, ``(I, 2, b)``, and t, ``(I, J, b)``."""
        count, sources = v.shape
        points = self.rooms.take("points", v, sources, 2, count)  # of ones at first
        points[:, 0] = v.t()
        t = self.rooms.take("t", v, sources, self.lines.shape[2], count)
        torch.bmm(self.lines.transpose(1, 2), points, out=t)
        return points, t.tanh_()

    def _blocks(self, v: Tensor) -> Iterator[tuple[Tensor, slice]]:
        """Some samples at a time, and where they are."""
        size = max(1, 2 * _ELEMENTS // self.lines.numel())
        if v.shape[0] <= size:
            return iter(((v, slice(None)),))
        starts = range(0, v.shape[0], size)
        return (
            (part, slice(at, at + size)) for part, at in zip(v.split(size), starts, strict=True)
        )


class SynapseGradients:
    """The gradients of the synapses' tensors, added up over evaluations."""

    def __init__(self, lines: Tensor, weights: Tensor) -> None:
        self.lines = torch.zeros_like(lines)
        self.weights = torch.zeros_like(weights)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.lines, self.weights


def by_autograd(v: Tensor, lines: Tensor, weights: Tensor) -> Tensor:
    """The sums of plain operations, for compilers, transforms and derivatives of derivatives."""
    slope, shift = lines.permute(1, 2, 0).unbind()  # (J, I)
    t = torch.tanh(torch.addcmul(shift, v.unsqueeze(-2), slope))  # (B, J, I)
    gain, drive = weights.unbind(1)
    return torch.stack(((t * gain).sum(-1), (t * drive).sum(-1)))


class _Sums(torch.autograd.Function):
    """The sums of one evaluation, with the gradient written by hand."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, lines: Tensor, weights: Tensor, rooms: Rooms) -> Tensor:
        ctx.save_for_backward(v, lines, weights)
        ctx.rooms = rooms
        return Synapses(lines, weights, rooms).forward(v, None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: a derivative of this one will be asked for
            wanted = [tensor for tensor in tensors if tensor.requires_grad]
            sums = by_autograd(*tensors)
            found = iter(torch.autograd.grad(sums, wanted, grad, create_graph=True))
            return *(next(found) if x.requires_grad else None for x in tensors), None
        v, lines, weights = tensors
        into = SynapseGradients(lines, weights)
        synapses = Synapses(lines, weights, ctx.rooms)
        pulled = synapses.backward(v, grad, into, torch.zeros_like(v))
        return pulled, *into.tensors, None
