"""Guidance: away from a weaker estimate, by as much again as the model is better than it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from liquid_ode.diffusion.predictions import Prediction
from liquid_ode.diffusion.schedules import Schedule


class OutputModel(Protocol):
    """What guidance asks of a model; :class:`GaussianDiffusion` is one."""

    prediction: Prediction
    schedule: Schedule

    @property
    def num_classes(self) -> int | None: ...

    def output(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        """The prediction at noisy images ``(B, C, H, W)`` and times ``(B,)``, float32."""
        ...


@dataclass(frozen=True)
class Guidance:
    """D + (w − 1)(D − D_weak) = D_weak + w (D − D_weak), D the model's prediction.

    What D_weak is, is the kind of guidance:

    - without ``weak``: the same model given no class, that is classifier-free guidance. It needs
      class labels, and costs one evaluation of twice the batch.
    - ``weak=another``: any diffusion that was trained for the same, only worse: a smaller model, an
      earlier state of it, or the model with its cells stopped early ("autoguidance"). It needs no
      classes. It has the same labels as the model, or none if it knows no classes.

    Both hold in x0, ε and v alike, since the weights add up to 1. Where the diffusion has
    ``clip_sample`` set, x̂0 is clipped after the guidance.

    Reference: Ho & Salimans 2022, Classifier-free diffusion guidance, eq. 6 with w there counted
    from 0: w = 1 + w_paper. Karras et al. 2024, Guiding a diffusion model with a bad version of
    itself, eq. 3. Rescaling: Lin et al. 2024, Common diffusion noise schedules and sample steps are
    flawed, eqs. 14-16. Interval: Kynkäänniemi et al. 2024, Applying guidance in a limited interval
    improves sample and distribution quality in diffusion models, eq. 5.

    Args:
        scale: w; 1 is no guidance, and costs nothing.
        weak: the weaker model; None for the same without a class.
        rescale: φ in [0, 1]: how far the standard deviation of each image's guided prediction is
            taken back to that of D, φ std(D)/std + (1 − φ); it keeps strong guidance from
            over-exposed pictures. 0.7 is usual for latents.
        interval: (low, high): guide where low < σ ≤ high alone, with σ the noise-to-signal ratio.
            Elsewhere no weaker estimate is asked for.

    Raises:
        ValueError: where an option is out of range.
    """

    scale: float = 1.0
    weak: OutputModel | None = field(default=None, repr=False)
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"guidance_scale must be a finite number, not {self.scale!r}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"the guidance's rescale must lie in [0, 1], not {self.rescale!r}")
        if len(self.interval) != 2 or not 0 <= self.interval[0] < self.interval[1]:
            raise ValueError(
                "the guidance's interval must be (low, high) with 0 <= low < high, noise-to-signal "
                f"ratios; not {self.interval!r}"
            )
        object.__setattr__(self, "interval", tuple(self.interval))  # a list is no value
        if self.weak is not None and not callable(getattr(self.weak, "output", None)):
            raise ValueError(f"weak must be a GaussianDiffusion, not {type(self.weak).__name__}")

    @property
    def doubles_the_batch_at_times(self) -> bool:
        """Whether the model is evaluated on twice the images at some noise levels, not at all."""
        always = self.interval[0] == 0 and self.interval[1] == math.inf
        return self.weak is None and self.scale != 1 and not always

    def check(self, labels: Tensor | None, num_classes: int | None) -> None:
        """Raise ValueError where a model with so many classes cannot be guided at these labels."""
        if self.scale == 1:
            return
        if self.weak is None:
            if num_classes is None:
                raise ValueError(
                    f"guidance_scale={self.scale} guides towards a class, and the model has no "
                    "classes: leave it at 1.0, or guide by a weaker model"
                )
            if labels is None:
                raise ValueError(
                    f"guidance_scale={self.scale} needs class_labels to guide towards; "
                    "pass them, or leave guidance_scale at 1.0"
                )
        elif self.weak.num_classes not in (None, num_classes):
            raise ValueError(
                f"the weaker model must know the model's classes, {num_classes}, or none; "
                f"it has {self.weak.num_classes}"
            )

    def output(
        self, strong: OutputModel, x_t: Tensor, t: Tensor, sigma: Tensor, labels: Tensor | None
    ) -> Tensor:
        """The guided prediction of ``strong``, float32 of x_t's shape.

        Args:
            strong: the model that is guided.
            x_t: noisy images, float32 ``(B, C, H, W)``.
            t: times ``(B,)`` that it is given.
            sigma: noise-to-signal ratios there, ``(B, 1, 1, 1)``.
            labels: ``(B,)``, or None for no class.
        """
        active = self._active(sigma)
        if active is False:
            return strong.output(x_t, t, labels)
        if self.weak is not None:
            plain = strong.output(x_t, t, labels)
            weak = _as_said_by(strong, self.weak, x_t, t, sigma, labels)
        elif labels is not None:
            null = torch.full_like(labels, strong.num_classes or 0)
            both = strong.output(torch.cat([x_t, x_t]), t.repeat(2), torch.cat([labels, null]))
            plain, weak = both.chunk(2)  # (B, C, H, W) each
        else:
            return strong.output(x_t, t, labels)
        guided = weak + self.scale * (plain - weak)
        if self.rescale > 0:
            wanted, is_now = (_spread(each) for each in (plain, guided))  # (B, 1, 1, 1) each
            guided = guided * (1 - self.rescale + self.rescale * wanted / is_now)
        return guided if active is True else torch.where(active, guided, plain)

    def _active(self, sigma: Tensor) -> Tensor | bool:
        """Where there is guidance: everywhere, nowhere, or at some images ``(B, 1, 1, 1)``."""
        low, high = self.interval
        if self.scale == 1:
            return False
        if low == 0 and high == math.inf:
            return True  # without a look at the values, which would wait for CUDA
        active = (sigma > low) & (sigma <= high)
        if bool(active.all()):
            return True
        return active if bool(active.any()) else False


def as_guidance(guidance_scale: float, guidance: Guidance | None) -> Guidance:
    """The guidance, where a scale alone stands for classifier-free guidance.

    Raises:
        ValueError: where both are given.
    """
    if guidance is None:
        return Guidance(guidance_scale)
    if guidance_scale != 1:
        raise ValueError(
            f"guidance_scale={guidance_scale} and guidance exclude each other: "
            f"write Guidance({guidance_scale}, ...)"
        )
    return guidance


def _spread(output: Tensor) -> Tensor:
    """The standard deviation of each image's output, above 0: ``(B, 1, …, 1)``."""
    spread = output.flatten(1).std(1).clamp_min(torch.finfo(output.dtype).tiny)  # (B,)
    return spread.view(-1, *[1] * (output.ndim - 1))


def _as_said_by(
    strong: OutputModel,
    weak: OutputModel,
    x_t: Tensor,
    t: Tensor,
    sigma: Tensor,
    labels: Tensor | None,
) -> Tensor:
    """The output of ``weak``, which may have another schedule and predict something else."""
    if weak.schedule != strong.schedule:
        t = weak.schedule.time_of_sigma(sigma.flatten())  # (B,)
    output = weak.output(x_t, t, None if weak.num_classes is None else labels)
    if weak.prediction == strong.prediction:
        return output
    x0 = weak.prediction.x0(output, x_t, sigma)
    return strong.prediction.target(x0, weak.prediction.epsilon(output, x_t, sigma), sigma)
