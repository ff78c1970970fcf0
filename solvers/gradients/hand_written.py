"""Gradients written by hand, and everything that must hold of each of them.

One that is right by itself is easily wrong in company: differentiated again, it must not pass
through what made its inputs; batched by vmap, it must not write in place; recomputed, run under
autocast or traced by a compiler, it has to be the same function. All of that is here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad


class HandWritten(ABC):
    """A function of tensors with a gradient of its own. An instance serves one call.

    A subclass may leave what :meth:`backward` needs besides tensors on itself in :meth:`forward`.
    It must depend on no tensor that is not among the inputs.
    """

    @abstractmethod
    def forward(self, inputs: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, list[Tensor]]:
        """The result, and the tensors that the gradient needs besides the inputs.

        Without a graph, and on plain tensors. There are such tensors if ``keep``, and none else.
        """

    @abstractmethod
    def backward(
        self, inputs: Sequence[Tensor], kept: Sequence[Tensor], grad: Tensor
    ) -> Sequence[Tensor]:
        """The gradients of the inputs. Without a graph; ``grad`` is not to be overwritten."""

    @abstractmethod
    def plain(self, *inputs: Tensor) -> Tensor:
        """The same result by ordinary operations."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result, with its gradient."""
        if torch.compiler.is_compiling() or any(map(_is_dual, inputs)):
            return self.plain(*inputs)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        return cast(Tensor, _Call.apply(self, keep, [], *inputs))


def _is_dual(tensor: Tensor) -> bool:
    """Whether forward-mode differentiation goes through the tensor."""
    return forward_ad.unpack_dual(tensor).tangent is not None


class _Call(torch.autograd.Function):
    """The function itself."""

    @staticmethod
    def forward(rule: HandWritten, keep: bool, kept: list[Tensor], *inputs: Tensor) -> Tensor:
        result, found = rule.forward(inputs, keep=keep)
        kept.extend(found)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rule, _, kept, *tensors = inputs
        device = tensors[0].device.type
        ctx.autocast = device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.count = len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        ctx.save_for_forward(*tensors)
        kept.clear()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: a checkpoint makes them again at each reading
        inputs, kept = saved[: ctx.count], saved[ctx.count :]
        if kept and not torch.is_grad_enabled():
            try:
                return None, None, None, *_Gradient.apply(ctx.rule, ctx.count, grad, *inputs, *kept)
            except RuntimeError:  # of gradients batched by is_grads_batched, that nothing tells
                pass
        # To be differentiated again (create_graph). An input may be made of another, by an earlier
        # call say: what goes from one to the other out there is not this function's to
        # differentiate, and torch.func knows its arguments alone.
        with _autocast(*ctx.autocast):
            _, pull = torch.func.vjp(ctx.rule.plain, *inputs)
        return None, None, None, *pull(grad)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        inputs = ctx.saved_tensors[: ctx.count]
        directions = [
            torch.zeros_like(x) if tangent is None else tangent
            for x, tangent in zip(inputs, tangents[-ctx.count :], strict=True)
        ]
        _, moved = torch.func.jvp(ctx.rule.plain, tuple(inputs), tuple(directions))
        return cast(Tensor, moved)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], rule: HandWritten, keep: bool, kept: Any, *inputs: Any
    ) -> tuple[Tensor, int]:
        plain = torch.vmap(rule.plain, in_dims=in_dims[3:], randomness=info.randomness)
        return plain(*inputs), 0


class _Gradient(torch.autograd.Function):
    """The gradient, as a function of its own: vmap turns to it where gradients are batched."""

    @staticmethod
    def forward(rule: HandWritten, count: int, grad: Tensor, *saved: Tensor) -> tuple[Tensor, ...]:
        with _autocast(grad.device.type, False, None):
            return tuple(rule.backward(saved[:count], saved[count:], grad))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing: it is not differentiated, since then `plain` is."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], rule: HandWritten, count: int, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        dims = in_dims[2:]
        found = []
        for index in range(info.batch_size):
            one = [
                tensor if dim is None else tensor.select(dim, index)
                for tensor, dim in zip(tensors, dims, strict=True)
            ]
            found.append(_Gradient.apply(rule, count, *one))
        together = tuple(torch.stack(parts) for parts in zip(*found, strict=True))
        return together, (0,) * len(together)


@contextmanager
def _autocast(device: str, enabled: bool, dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast as it was; nothing to do where it is so already."""
    if torch.is_autocast_enabled(device) == enabled:
        yield
        return
    with torch.autocast(device, dtype=dtype, enabled=enabled):
        yield
