"""Ways between two images or two noises."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_PARALLEL = 1e-4  # below this angle, in radians, the straight line is the arc to float32 rounding


def slerp(first: Tensor, last: Tensor, share: Tensor | float) -> Tensor:
    """Spherical interpolation of each sample: the arc from ``first`` to ``last``.

    With θ the angle between a = first/|first| and b = last/|last|,

        ((1 − s)|first| + s |last|) (sin((1 − s)θ) a + sin(sθ) b)/sin θ.

    Between two standard normal noises everything on the arc has the length of such a noise, as
    the straight line, which passes nearer to zero, has not: so it is what samplers start from.

    Reference: Shoemake 1985, Animating rotation with quaternion curves, section 3.3; Song et al.
    2021, Denoising diffusion implicit models, appendix D.5 (eq. 67).

    Args:
        first: ``(B, ...)``, floating point.
        last: of first's shape.
        share: s, a number or ``(B,)``; 0 is ``first``, 1 is ``last``.

    Returns:
        ``(B, ...)``; gradients flow to all three.

    Raises:
        ValueError: where the shapes differ, or two samples point in opposite directions, between
            which there are many arcs.
    """
    if first.shape != last.shape or first.ndim < 2:
        raise ValueError(
            f"both ends must be batches (B, ...) of one shape, not {tuple(first.shape)} and "
            f"{tuple(last.shape)}"
        )
    ones = [1] * (first.ndim - 1)
    dtype = torch.promote_types(first.dtype, torch.float32)  # in half a square sum overflows
    s = torch.as_tensor(share, dtype=dtype, device=first.device)
    if s.ndim > 1 or (s.ndim == 1 and s.shape != first.shape[:1]):
        raise ValueError(f"share must be a number or ({first.shape[0]},), not {tuple(s.shape)}")
    s = s.view(-1, *ones)  # (B or 1, 1, ..., 1)
    a, long_a = _direction(first.to(dtype))
    b, long_b = _direction(last.to(dtype))
    # 2 arctan2(|a − b|, |a + b|) keeps its digits at small angles, where arccos has none
    apart, together = _length(a - b), _length(a + b)
    theta = 2 * torch.atan2(apart, together)  # (B, 1, ..., 1)
    if bool((together < _PARALLEL).any()):
        raise ValueError(
            "the ends of an arc must not point in opposite directions: take another seed for one"
        )
    near = theta < _PARALLEL
    safe = torch.where(near, torch.ones_like(theta), theta)
    of_a = torch.where(near, 1 - s, torch.sin((1 - s) * safe) / torch.sin(safe))
    of_b = torch.where(near, s.expand_as(theta), torch.sin(s * safe) / torch.sin(safe))
    length = torch.lerp(long_a, long_b, s.expand_as(long_a))  # (B, 1, ..., 1)
    return (length * (of_a * a + of_b * b)).to(first.dtype)


def arc(first: Tensor, last: Tensor, frames: int | Sequence[float]) -> Tensor:
    """Points on the arc of :func:`slerp`.

    Args:
        first: ``(B, ...)``.
        last: of first's shape.
        frames: how many, equally far apart and both ends among them; or the shares themselves.

    Returns:
        ``(frames, B, ...)``.

    Raises:
        ValueError: where there are fewer than 2 frames, or as for :func:`slerp`.
    """
    if isinstance(frames, int):
        if frames < 2:
            raise ValueError(f"frames must be at least 2, the ends, not {frames}")
        frames = [index / (frames - 1) for index in range(frames)]
    return torch.stack([slerp(first, last, share) for share in frames])


def _length(x: Tensor) -> Tensor:
    """The Euclidean length of each sample, ``(B, 1, ..., 1)``; of 0 with derivative 0."""
    square = x.square().flatten(1).sum(1).view(-1, *[1] * (x.ndim - 1))
    zero = square == 0
    return torch.where(zero, torch.zeros_like(square), torch.where(zero, 1.0, square).sqrt())


def _direction(x: Tensor) -> tuple[Tensor, Tensor]:
    """x/|x| and |x|; a sample of zeros has no direction, and is 0."""
    length = _length(x)
    return x / torch.where(length == 0, torch.ones_like(length), length), length
