"""Looking for NaN and infinities, and when not to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from solvers.solution import NON_FINITE, SUCCESS


def under_transform() -> bool:
    """Whether a compiler or a function transform (vmap, jvp, ...) is tracing the solve."""
    if torch.compiler.is_compiling():
        return True
    if getattr(forward_ad, "_current_level", -1) >= 0:  # dual numbers, which no Function carries
        return True
    stack = getattr(torch._C._functorch, "peek_interpreter_stack", None)
    return stack is None or stack() is not None


def all_finite(y: Tensor) -> bool:
    """Whether no element is NaN or infinite, by one reduction in the usual case."""
    # A finite sum proves it; only a sum that is not (it may have overflowed) needs the full look.
    total = y.sum(dtype=torch.promote_types(y.dtype, torch.float32))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(y).all())


def finite_samples(y: Tensor) -> Tensor:
    """Which samples have no NaN or infinity, bool ``(B,)``."""
    return torch.isfinite(y).flatten(1).all(1) if y.ndim > 1 else torch.isfinite(y)


def finite_status(healthy: Tensor) -> Tensor:
    """SUCCESS where a sample is healthy, NON_FINITE elsewhere: int8 ``(B,)``."""
    return torch.where(healthy, int(SUCCESS), int(NON_FINITE)).to(torch.int8)


def keep_healthy(healthy: Tensor, y: Tensor, fallback: Tensor) -> Tensor:
    """``y`` of the healthy samples, ``fallback`` of the others."""
    return torch.where(healthy.view(-1, *[1] * (y.ndim - 1)), y, fallback)
