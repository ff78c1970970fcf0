"""Sums over synapses with sigmoid conductances: what every evaluation of an LTC cell computes.

For neuron j with presynaptic signals v_i, the openings of its synapses s_ji = σ(a_ji v_i + c_ji),
with a = σ_ji and c = -σ_ji μ_ji, are summed to a gain Σ_i w_ji s_ji and a drive Σ_i w_ji E_ji s_ji.
The ``(I, J, B)`` openings are made, on a CPU, some samples at a time, in buffers that stay in the
processor's cache, and are computed again for the gradient: kept, those of one sequence would be
hundreds of megabytes. Everything but the sigmoid is a batched product.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from solvers import HandWritten

# Openings at a time: two megabytes in float32.
_ELEMENTS = 2**19


class _Workspace(threading.local):
    """What a thread was given last under each name."""

    def __init__(self) -> None:
        self.given: dict[tuple[str, torch.dtype, bool], Tensor] = {}


_workspace = _Workspace()


def _buffer(name: str, like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor; on a CPU in the memory that was given last under that name."""
    if like.device.type != "cpu":
        return like.new_empty(shape)
    # A tensor made in inference mode may not be written to outside of it.
    key = name, like.dtype, torch.is_inference_mode_enabled()
    last = _workspace.given.get(key)
    if last is not None and last.shape == shape:
        return last
    count = math.prod(shape)
    if last is None or last.untyped_storage().nbytes() < count * last.element_size():
        last = like.new_empty(count)
    room = _workspace.given[key] = last.as_strided((count,), (1,), 0).view(shape)
    return room


class Synapses:
    """The synapses of one layer of neurons.

    Args:
        lines: a and c, ``(I, 2, J)``.
        weights: w and w E, ``(J, 2, I)``.
    """

    def __init__(self, lines: Tensor, weights: Tensor) -> None:
        self.lines, self.weights = lines, weights

    @classmethod
    def of(cls, sigma: Tensor, mu: Tensor, w: Tensor, erev: Tensor) -> Synapses:
        """Those with these parameters, each ``(J, I)``."""
        lines = torch.stack((sigma, -sigma * mu)).permute(2, 0, 1).contiguous()
        return cls(lines, torch.stack((w, w * erev), 1))

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.lines, self.weights

    def sums(self, v: Tensor, base: Tensor) -> Tensor:
        """base plus gain and drive, ``(2, B, J)``, for the signals v ``(B, I)``."""
        return base + _Sums()(v, *self.tensors)

    def forward(self, v: Tensor) -> Tensor:
        """Gain and drive, ``(2, B, J)``, without a graph."""
        total = v.new_empty(2, v.shape[0], self.weights.shape[0])
        for some, rows in self._blocks(v):
            _, s = self._openings(some)
            # out= also keeps autocast, which would round, away from the products.
            sums = _buffer("sums", v, *self.weights.shape[:2], s.shape[2])
            torch.bmm(self.weights, s.transpose(0, 1), out=sums)  # (J, 2, I) @ (J, I, b)
            total[:, rows] = sums.permute(1, 2, 0)
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
            points, s = self._openings(some)  # (I, 2, b), (I, J, b)
            of_sums = grad[:, rows].permute(2, 0, 1).contiguous()  # (J, 2, b)
            into.add_weights(of_sums, s.permute(1, 2, 0))
            inner = _buffer("inner", v, neurons, sources, s.shape[2])
            torch.bmm(self.weights.transpose(1, 2), of_sums, out=inner)  # dL/ds, (J, I, b)
            of_s = s.transpose(0, 1)
            torch.ops.aten.sigmoid_backward.grad_input(inner, of_s, grad_input=inner)
            of_lines = inner.transpose(0, 1)  # (I, J, b)
            into.add_lines(points, of_lines.transpose(1, 2))
            of_points = _buffer("of_points", v, sources, 1, s.shape[2])
            torch.bmm(self.lines[:, :1], of_lines, out=of_points)
            base[rows].add_(of_points.squeeze(1).t())
        return base

    def _openings(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """v and ones, ``(I, 2, b)``, and s, ``(I, J, b)``."""
        count, sources = v.shape
        points = _buffer("points", v, sources, 2, count)
        points[:, 0] = v.t()
        points[:, 1] = 1.0
        s = _buffer("openings", v, sources, self.lines.shape[2], count)
        torch.bmm(self.lines.transpose(1, 2), points, out=s)
        return points, s.sigmoid_()

    def _blocks(self, v: Tensor) -> Iterator[tuple[Tensor, slice]]:
        """Some samples at a time, and where they are."""
        size = max(1, 2 * _ELEMENTS // self.lines.numel())
        if v.shape[0] <= size or v.device.type != "cpu":
            return iter(((v, slice(None)),))
        starts = range(0, v.shape[0], size)
        return (
            (part, slice(at, at + size)) for part, at in zip(v.split(size), starts, strict=True)
        )


class SynapseGradients:
    """The gradients of the synapses' tensors, added up over evaluations, in float32 at least."""

    def __init__(self, lines: Tensor, weights: Tensor) -> None:
        dtype = torch.promote_types(lines.dtype, torch.float32)
        self.lines = torch.zeros_like(lines, dtype=dtype)
        self.weights = torch.zeros_like(weights, dtype=dtype)

    def add_lines(self, left: Tensor, right: Tensor) -> None:
        _add_product(self.lines, left, right)

    def add_weights(self, left: Tensor, right: Tensor) -> None:
        _add_product(self.weights, left, right)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.lines, self.weights


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the batched product ``left @ right`` to ``total``, in its dtype."""
    if left.dtype == total.dtype:
        total.baddbmm_(left, right)
    else:
        total += torch.bmm(left, right)


def by_autograd(v: Tensor, lines: Tensor, weights: Tensor) -> Tensor:
    """The sums of plain operations, for compilers, transforms and derivatives of derivatives."""
    slope, shift = lines.permute(1, 2, 0).unbind()  # (J, I)
    s = torch.sigmoid(torch.addcmul(shift, v.unsqueeze(-2), slope))  # (B, J, I)
    gain, drive = weights.unbind(1)
    return torch.stack(((s * gain).sum(-1), (s * drive).sum(-1)))


class _Sums(HandWritten):
    """The sums of one evaluation, with the gradient written by hand."""

    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        v, lines, weights = inputs
        return Synapses(lines, weights).forward(v), []

    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        v, lines, weights = inputs
        into = SynapseGradients(lines, weights)
        pulled = Synapses(lines, weights).backward(v, grad, into, torch.zeros_like(v))
        return pulled, into.lines.to(lines.dtype), into.weights.to(weights.dtype)

    def plain(self, *inputs: Tensor) -> Tensor:
        return by_autograd(*inputs)
