"""Sums over synapses with sigmoid conductances: what every evaluation of an LTC cell computes.

For neuron j with presynaptic signals v_i, s_ji = σ(a_ji v_i + c_ji),

    gain_j = Σ_i w_ji s_ji,    drive_j = Σ_i w_ji E_ji s_ji.

The ``(J, B, I)`` openings s are made and used some rows at a time, in room that stays in the
processor's cache, and are computed again for the gradient: kept, those of one sequence would be
hundreds of megabytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from solvers.finite import under_transform

# Openings at a time: a megabyte in float32.
_ELEMENTS = 2**18


class Rooms:
    """Memory that one evaluation leaves to the next, for each thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def take(self, name: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """An uninitialised tensor, the same for the same name and shape."""
        room: Tensor | None = getattr(self._local, name, None)
        if room is None or room.shape != shape or room.dtype != like.dtype:
            room = like.new_empty(shape)
            setattr(self._local, name, room)
        return room


class Synapses:
    """The synapses of one layer of neurons.

    Args:
        slope: a, ``(J, I)``.
        shift: c, ``(J, I)``.
        weights: w and w E, ``(J, 2, I)``.
        rooms: where to compute.
    """

    def __init__(self, slope: Tensor, shift: Tensor, weights: Tensor, rooms: Rooms) -> None:
        self.slope, self.shift, self.weights, self.rooms = slope, shift, weights, rooms

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.slope, self.shift, self.weights

    def sums(self, v: Tensor) -> Tensor:
        """gain and drive ``(2, B, J)`` for the signals v ``(B, I)``."""
        if under_transform():
            return by_autograd(v, *self.tensors)
        if torch.is_grad_enabled():
            return _Sums.apply(v, *self.tensors, self.rooms)
        return self.forward(v)

    def forward(self, v: Tensor) -> Tensor:
        """The sums without a graph."""
        neurons = self.slope.shape[0]
        total = v.new_empty(2, v.shape[0], neurons)
        for rows in self._blocks(v):
            s = self._openings(v[rows])
            # out= also keeps autocast, which would round, away from the products.
            sums = self.rooms.take("sums", v, (neurons, 2, s.shape[1]))
            # (J, 2, I) @ (J, I, b): a quarter of the time of the product the other way round
            torch.bmm(self.weights, s.transpose(1, 2), out=sums)
            total[:, rows] = sums.permute(1, 2, 0)
        return total

    def backward(self, v: Tensor, grad: Tensor, into: SynapseGradients) -> Tensor:
        """The gradient of v; those of the synapses are added up in ``into``.

        Args:
            v: ``(B, I)``.
            grad: of the sums, ``(2, B, J)``.
            into: where to add.
        """
        pulled = torch.empty_like(v)
        for rows in self._blocks(v):
            some = v[rows]
            s = self._openings(some)  # (J, b, I)
            of_sums = grad[:, rows].permute(2, 0, 1).contiguous()  # (J, 2, b)
            into.weights.baddbmm_(of_sums, s)
            inner = self.rooms.take("inner", v, tuple(s.shape))
            torch.bmm(of_sums.transpose(1, 2), self.weights, out=inner)  # dL/ds
            torch.ops.aten.sigmoid_backward.grad_input(inner, s, grad_input=inner)
            into.shift.add_(inner.sum(1))
            into.slope.add_(torch.mul(inner, some, out=s).sum(1))
            torch.sum(torch.mul(inner, self.slope.unsqueeze(1), out=s), 0, out=pulled[rows])
        return pulled

    def _openings(self, v: Tensor) -> Tensor:
        """s, ``(J, b, I)``."""
        shape = (self.slope.shape[0], *v.shape)
        room = self.rooms.take("openings", v, shape)
        return torch.addcmul(
            self.shift.unsqueeze(1), v, self.slope.unsqueeze(1), out=room
        ).sigmoid_()

    def _blocks(self, v: Tensor) -> Iterator[slice]:
        rows = max(1, _ELEMENTS // self.slope.numel())
        return (slice(start, start + rows) for start in range(0, v.shape[0], rows))


class SynapseGradients:
    """The gradients of the synapses' tensors, added up over evaluations."""

    def __init__(self, slope: Tensor, shift: Tensor, weights: Tensor) -> None:
        self.slope = torch.zeros_like(slope)
        self.shift = torch.zeros_like(shift)
        self.weights = torch.zeros_like(weights)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.slope, self.shift, self.weights


def by_autograd(v: Tensor, slope: Tensor, shift: Tensor, weights: Tensor) -> Tensor:
    """The sums of plain operations, for compilers, transforms and derivatives of derivatives."""
    s = torch.sigmoid(torch.addcmul(shift, v.unsqueeze(-2), slope))  # (B, J, I)
    gain, drive = weights.unbind(1)
    return torch.stack(((s * gain).sum(-1), (s * drive).sum(-1)))


class _Sums(torch.autograd.Function):
    """The sums of one evaluation, with the gradient written by hand."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, slope: Tensor, shift: Tensor, weights: Tensor, rooms: Rooms
    ) -> Tensor:
        ctx.save_for_backward(v, slope, shift, weights)
        ctx.rooms = rooms
        return Synapses(slope, shift, weights, rooms).forward(v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: a derivative of this one will be asked for
            wanted = [tensor for tensor in tensors if tensor.requires_grad]
            sums = by_autograd(*tensors)
            found = iter(torch.autograd.grad(sums, wanted, grad, create_graph=True))
            return *(next(found) if x.requires_grad else None for x in tensors), None
        v, slope, shift, weights = tensors
        into = SynapseGradients(slope, shift, weights)
        pulled = Synapses(slope, shift, weights, ctx.rooms).backward(v, grad, into)
        return pulled, *into.tensors, None
