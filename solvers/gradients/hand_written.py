"""Gradients written by hand, and everything that must hold of each of them.

One that is right by itself is easily wrong in company: differentiated again, it must not pass
through what made its inputs; batched by vmap, it must not write in place; recomputed, run under
autocast or traced by a compiler, it has to be the same function. All of that is here, once.
"""

from __future__ import annotations

import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from solvers.checks import is_dual


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
        if torch.compiler.is_compiling():
            return self.plain(*inputs)
        if _inside.forward:  # of another, which sees to all this
            return self.forward(inputs, keep=False)[0]
        if any(map(is_dual, inputs)):
            return self.plain(*inputs)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        return cast(Tensor, _Call.apply(self, keep, [], *inputs))


class _Inside(threading.local):
    """Whether this thread is in the forward pass of a function."""

    forward = False


_inside = _Inside()


class _Call(torch.autograd.Function):
    """The function itself."""

    @staticmethod
    def forward(rule: HandWritten, keep: bool, kept: list[Any], *inputs: Tensor) -> Tensor:
        caching = torch.is_autocast_cache_enabled()
        _inside.forward = True
        # A cast that autocast makes here, without a graph, is not to be used again outside.
        torch.set_autocast_cache_enabled(False)
        try:
            result, found = rule.forward(inputs, keep=keep)
        finally:
            torch.set_autocast_cache_enabled(caching)
            _inside.forward = False
        kept.append(found)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rule, ctx.keep, kept, *tensors = inputs
        if not ctx.keep:
            return
        device = tensors[0].device.type
        ctx.autocast = device, *_casts(device)
        ctx.count = len(tensors)
        ctx.ran = bool(kept)  # not under vmap
        ctx.save_for_backward(*tensors, *(kept.pop() if kept else ()))
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: a checkpoint makes them again at each reading
        inputs, kept = saved[: ctx.count], saved[ctx.count :]
        if ctx.ran and not torch.is_grad_enabled():
            try:
                with _autocast(grad.device.type, False):
                    found: Sequence[Tensor] = ctx.rule.backward(inputs, kept, grad)
                return (None, None, None, *found)
            except RuntimeError:  # a batch of gradients cannot be written over: see below
                pass
        # To be differentiated again (create_graph), or many at a time (vmap, is_grads_batched). An
        # input may be made of another, by an earlier call say: what goes from one to the other out
        # there is not this function's to differentiate, and torch.func knows its arguments alone.
        with _autocast(*ctx.autocast):
            pull: Any = torch.func.vjp(ctx.rule.plain, *inputs)[1]
            return (None, None, None, *pull(grad))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        # Whole, for an expanded one has no tangent of its own.
        inputs = [x.contiguous() for x in ctx.saved_tensors[: ctx.count]]
        directions = [
            torch.zeros_like(x) if tangent is None else tangent
            for x, tangent in zip(inputs, tangents[-ctx.count :], strict=True)
        ]
        return cast(Tensor, torch.func.jvp(ctx.rule.plain, tuple(inputs), tuple(directions))[1])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], rule: HandWritten, keep: bool, kept: Any, *inputs: Any
    ) -> tuple[Tensor, int]:
        plain = torch.vmap(rule.plain, in_dims=in_dims[3:], randomness=info.randomness)
        return plain(*inputs), 0


# Autograd asks for it at every call, and to find it takes longer than a small step.
_Call.forward.__signature__ = inspect.signature(_Call.forward)  # type: ignore[attr-defined]


def _casts(device: str) -> tuple[bool, torch.dtype | None]:
    """Whether autocast is on, and to which dtype; there are devices that have none."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return False, None
    return True, torch.get_autocast_dtype(device)


@contextmanager
def _autocast(device: str, enabled: bool, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Autocast on or off; nothing to do where it is off and stays off."""
    if not enabled and not _casts(device)[0]:
        yield
        return
    with torch.autocast(device, dtype=dtype, enabled=enabled):
        yield
