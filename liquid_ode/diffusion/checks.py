"""What the diffusion package checks of its arguments."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_count(name: str, value: object) -> None:
    """Raise ValueError where a value is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_times(t: object, num_steps: int) -> None:
    """Check that ``t`` is a tensor of whole time steps in [0, num_steps − 1].

    Raises:
        ValueError: where it is not an integer tensor or has an entry outside the schedule.
    """
    if not isinstance(t, Tensor) or t.is_floating_point() or t.dtype == torch.bool:
        got = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(f"t must be a tensor of whole time steps (torch.long), not {got}")
    if t.numel():
        low, high = (int(value) for value in torch.aminmax(t))
        if low < 0 or high >= num_steps:
            raise ValueError(
                f"t must lie in [0, {num_steps - 1}], the time steps of the schedule; "
                f"got values from {low} to {high}"
            )


def check_level(x: Tensor, t: Tensor, noise: Tensor, num_steps: int) -> None:
    """Check a time step for each image, and noise of the images' shape.

    Raises:
        ValueError: where the shapes differ or a time step lies outside the schedule.
    """
    check_times(t, num_steps)
    if t.shape != x.shape[:1] or noise.shape != x.shape:
        raise ValueError(
            f"t must have shape {tuple(x.shape[:1])} and the noise {tuple(x.shape)}, as the "
            f"images have; got {tuple(t.shape)} and {tuple(noise.shape)}"
        )


IMAGE_LIMIT = 10.0
"""The largest |x0| that may be meant for an image in [-1, 1]. Images that overshoot after resizing
stay below 2, standardised ones below 4 and normal noise below 7, while a batch of images in
[0, 255] is beyond it unless every pixel is nearly black."""


def check_data(
    x0: Tensor, labels: Tensor | None, num_classes: int | None, limit: float = math.inf
) -> None:
    """Check a batch of training data, waiting for its device once.

    Raises:
        ValueError: where the images are not floating point, or hold NaN, infinity or a value
            beyond ±limit, or the labels are not ``(B,)`` whole numbers in [0, num_classes].
    """
    if not x0.is_floating_point():
        raise ValueError(
            f"x0 must be floating-point images in [-1, 1], not {x0.dtype}: "
            "convert with x.float() / 127.5 - 1"
        )
    if x0.ndim < 2 or x0.numel() == 0:
        raise ValueError(f"x0 must be a batch of images (B, 3, H, W), not {tuple(x0.shape)}")
    largest = x0.float().detach().abs().amax()  # NaN where there is one
    sound = (largest <= limit) & (largest < math.inf)
    in_range = torch.ones_like(sound)
    if labels is not None:
        in_range = _labels_in_range(labels, num_classes, x0.shape[0])
    if bool(sound & in_range):  # the only wait for the device
        return
    if labels is not None:
        _raise_where_false(in_range, labels, num_classes)
    bad = (~torch.isfinite(x0)).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"x0 must be finite, but {len(bad)} of {x0.shape[0]} images hold NaN or infinity "
            f"(at positions {bad[:8]} of the batch): look for broken files or a division by zero "
            "in the data pipeline"
        )
    low, high = (float(value) for value in torch.aminmax(x0))
    raise ValueError(
        f"x0 must be images in [-1, 1], but they reach from {low:g} to {high:g}: for images in "
        "[0, 255] convert with x / 127.5 - 1; for other data than images set clip_sample=False "
        "on the diffusion"
    )


def check_labels(labels: Tensor | None, num_classes: int | None, batch: int) -> None:
    """Check the class labels of a batch to denoise.

    Raises:
        ValueError: where the model has no classes, or the labels are not ``(batch,)`` whole
            numbers in [0, num_classes].
    """
    if labels is not None:
        _raise_where_false(_labels_in_range(labels, num_classes, batch), labels, num_classes)


def _labels_in_range(labels: Tensor, num_classes: int | None, batch: int) -> Tensor:
    if num_classes is None:
        raise ValueError(
            "class_labels were given, but the model has no classes: create it with "
            "num_classes, or leave class_labels out"
        )
    whole = isinstance(labels, Tensor) and labels.dtype in (torch.int32, torch.int64)
    if not whole or labels.shape != (batch,):
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else labels
        raise ValueError(
            f"class_labels must be a tensor of whole numbers (torch.long), one for each of "
            f"the {batch} images; got {got}"
        )
    return ((labels >= 0) & (labels <= num_classes)).all()


def _raise_where_false(in_range: Tensor, labels: Tensor, num_classes: int | None) -> None:
    if not bool(in_range):
        low, high = (int(value) for value in torch.aminmax(labels))
        raise ValueError(
            f"class_labels must lie in [0, {num_classes}], where {num_classes} means "
            f"no class; got values from {low} to {high}"
        )
