"""Gaussian diffusion around a denoising model: its training loss and its denoised estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from liquid_ode.diffusion.checks import IMAGE_LIMIT, check_data, check_labels, check_level
from liquid_ode.diffusion.guidance import Guidance, as_guidance
from liquid_ode.diffusion.predictions import (
    Prediction,
    as_prediction,
    diffuse,
    noise_between,
)
from liquid_ode.diffusion.schedules import CosineSchedule, Schedule
from liquid_ode.diffusion.weightings import MinSNR, Weighting


class Denoised(NamedTuple):
    """What a model makes of a noisy image: x_t = √ᾱ x0 + √(1−ᾱ) epsilon."""

    x0: Tensor
    epsilon: Tensor


class Losses(NamedTuple):
    """The losses of a batch, one a sample, float32 ``(B,)`` each."""

    t: Tensor
    """the time steps drawn (long)"""
    unweighted: Tensor
    """mean squared error of the prediction"""
    weighted: Tensor
    """the same times its weight; its mean is the training loss"""


def per_sample(sigma: Tensor, x: Tensor) -> Tensor:
    """Reshape ``(B,)`` to ``(B, 1, …, 1)``, which broadcasts against x ``(B, …)``."""
    return sigma.view(-1, *[1] * (x.ndim - 1))


class GaussianDiffusion(nn.Module):
    """A denoising diffusion model: x_t = √ᾱ_t x0 + √(1−ᾱ_t) ε, learned by regression.

    Args:
        model: the network, called as ``model(x, t)`` or ``model(x, t, class_labels)`` with x
            ``(B, 3, H, W)``, t ``(B,)`` long (float where a sampler asks between two time
            steps) and labels ``(B,)`` long; returns x's shape. A class-conditional model has an
            attribute ``num_classes`` and takes that number as one more label, "no class".
        schedule: the noise schedule.
        prediction: what the model predicts, "epsilon", "v" or "x0", or a :class:`Prediction`.
        weighting: weight of each sample's loss by its noise level.
        class_dropout: share of the labels that training replaces with "no class", so that the
            model also learns to denoise without one (Ho & Salimans 2022, algorithm 1).
        clip_sample: clip x̂0 to [-1, 1] when denoising, and derive ε̂ from it. Turn it off for
            data that are not images in [-1, 1]; the loss then takes data of any size.

    Raises:
        ValueError: where an option is not as described.

    Reference: Ho et al. 2020, Denoising diffusion probabilistic models, eq. 4 and 14.
    """

    sigmas: Tensor

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule = CosineSchedule(1000),
        prediction: str | Prediction = "epsilon",
        weighting: Weighting = MinSNR(5.0),
        *,
        class_dropout: float = 0.1,
        clip_sample: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise ValueError(
                f"schedule must be a Schedule such as CosineSchedule, not {schedule!r}"
            )
        if not 0 <= class_dropout <= 1:
            raise ValueError(f"class_dropout must lie in [0, 1], not {class_dropout!r}")
        self.model = model
        self.schedule = schedule
        self.prediction = as_prediction(prediction)
        self.weighting = weighting
        self.class_dropout = class_dropout
        self.clip_sample = clip_sample
        first = next(model.parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        self.register_buffer("sigmas", schedule.sigmas.to(device), persistent=False)  # (T,)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GaussianDiffusion:
        """As in nn.Module, but the schedule stays in float32 when the model changes its dtype."""
        super()._apply(fn, recurse)
        self.sigmas = self.schedule.sigmas.to(self.sigmas.device)
        return self

    def __repr__(self) -> str:
        """A line for each part; a model of many lines is named with its size alone."""
        model = repr(self.model)
        if "\n" in model:
            count = sum(parameter.numel() for parameter in self.model.parameters())
            model = f"{type(self.model).__name__}({count:,} parameters)"
        return (
            f"GaussianDiffusion(\n  model={model},\n  schedule={self.schedule!r},\n"
            f"  prediction={self.prediction!r},\n  weighting={self.weighting!r},\n)"
        )

    @property
    def num_classes(self) -> int | None:
        """How many classes the model knows; None for a model without classes."""
        return getattr(self.model, "num_classes", None)

    @property
    def _data_limit(self) -> float:
        return IMAGE_LIMIT if self.clip_sample else math.inf

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        first = next(self.model.parameters(), None)
        return self.sigmas.device if first is None else first.device

    if TYPE_CHECKING:  # a module's own call is of Any

        def __call__(
            self,
            x0: Tensor,
            class_labels: Tensor | None = None,
            generator: torch.Generator | None = None,
            rows: tuple[int, int] | None = None,
        ) -> Tensor: ...

    def forward(
        self,
        x0: Tensor,
        class_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: tuple[int, int] | None = None,
    ) -> Tensor:
        """The training loss: :meth:`loss`, where distributed wrappers look for it."""
        return self.loss(x0, class_labels, generator, rows)

    def loss(
        self,
        x0: Tensor,
        class_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: tuple[int, int] | None = None,
    ) -> Tensor:
        """The training loss: mean over the batch of weight(SNR_t) · ‖target − model(x_t, t)‖².

        t is uniform over the time steps, ε standard normal; ‖·‖² is the mean over the elements.
        In training mode a share ``class_dropout`` of the labels becomes "no class".

        Args:
            x0: clean images ``(B, 3, H, W)`` in [-1, 1].
            class_labels: ``(B,)`` whole numbers in [0, num_classes], or None.
            generator: where t, ε and the label dropout are drawn. They are drawn on its device
                and moved, so that a CPU generator gives the same loss on every device. None
                draws from the default generator of x0's device.
            rows: (first, total) where x0 holds rows first, first + 1, … of a batch of ``total``
                that several processes share: everything is drawn, and weighted, for all of that
                batch, so that a row has the same loss wherever it is computed. (With equal shares
                the mean of the processes' losses is the loss of the batch.)

        Returns:
            A float32 scalar; float32 also under autocast.

        Raises:
            ValueError: where x0 is not floating point, holds NaN or infinity or, with
                ``clip_sample`` set, a value beyond ±10, as images in [0, 255] do; or the labels
                are not as described.
        """
        return self.losses(x0, class_labels, generator, rows).weighted.mean()

    def losses(
        self,
        x0: Tensor,
        class_labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: tuple[int, int] | None = None,
    ) -> Losses:
        """The terms of :meth:`loss`, one a sample, with the same arguments."""
        check_data(x0, class_labels, self.num_classes, self._data_limit)
        source = x0.device if generator is None else generator.device
        first, total = rows or (0, len(x0))
        own = slice(first, first + len(x0))  # B of the N = total rows for which is drawn
        times = torch.randint(
            self.schedule.num_steps, (total,), generator=generator, device=source
        ).to(x0.device)  # (N,)
        shape = (total, *x0.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=torch.float32, device=source)
        t, noise = times[own], noise[own].to(x0.device)  # (B,), (B, C, H, W)
        if class_labels is not None and self.training and self.class_dropout > 0:
            chance = torch.rand(total, generator=generator, device=source)[own]  # (B,)
            dropped = chance.to(x0.device) < self.class_dropout  # (B,)
            class_labels = torch.where(dropped, self._no_class(class_labels), class_labels)
        unweighted = self._squared_error(x0, t, noise, class_labels)
        snr = self.sigmas.to(t.device)[times].pow(-2)  # (N,)
        weights = self.weighting(snr, self.prediction)[own]  # (B,)
        return Losses(t, unweighted, weights * unweighted)

    def per_sample_loss(
        self, x0: Tensor, t: Tensor, noise: Tensor, class_labels: Tensor | None = None
    ) -> Tensor:
        """‖target − model(x_t, t)‖² of each sample at a given time step and noise, unweighted.

        Args:
            x0: clean images ``(B, 3, H, W)`` in [-1, 1].
            t: time steps ``(B,)``, long.
            noise: ε, of x0's shape.
            class_labels: ``(B,)`` whole numbers in [0, num_classes], or None. None is dropped.

        Returns:
            float32 ``(B,)``, the mean over the elements of each sample.

        Raises:
            ValueError: where an argument is not as described.
        """
        check_data(x0, class_labels, self.num_classes, self._data_limit)
        check_level(x0, t, noise, self.schedule.num_steps)
        return self._squared_error(x0, t, noise, class_labels)

    def _squared_error(
        self, x0: Tensor, t: Tensor, noise: Tensor, class_labels: Tensor | None
    ) -> Tensor:
        x0, noise = x0.float(), noise.float()
        sigma = per_sample(self.sigmas.to(t.device)[t], x0)  # (B, 1, 1, 1)
        output = self.output(diffuse(x0, noise, sigma), t, class_labels)  # (B, C, H, W)
        target = self.prediction.target(x0, noise, sigma)  # (B, C, H, W)
        return (output - target).square().flatten(1).mean(1)  # (B,)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ_t x0 + √(1−ᾱ_t) ε, in float32 (Ho et al. 2020, eq. 4).

        Args:
            x0: clean images ``(B, 3, H, W)``.
            noise: ε, of x0's shape.
            t: time steps ``(B,)``, long.

        Raises:
            ValueError: where the shapes differ or t lies outside the schedule.
        """
        check_level(x0, t, noise, self.schedule.num_steps)
        return diffuse(x0.float(), noise.float(), per_sample(self.sigmas.to(t.device)[t], x0))

    def denoise(
        self,
        x_t: Tensor,
        t: Tensor,
        class_labels: Tensor | None = None,
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
    ) -> Denoised:
        """The estimates x̂0 and ε̂ of the clean image and of the noise in x_t.

        With guidance the prediction is the guided one. Where ``clip_sample`` is set x̂0 is then
        clipped to [-1, 1] and ε̂ derived from it, so that x_t = √ᾱ x̂0 + √(1−ᾱ) ε̂ always holds.

        Args:
            x_t: noisy images ``(B, 3, H, W)``.
            t: time steps ``(B,)``, long.
            class_labels: ``(B,)`` whole numbers in [0, num_classes], or None.
            guidance_scale: w of classifier-free guidance, short for ``Guidance(w)``; 1 is none.
            guidance: any :class:`Guidance`.

        Returns:
            (x0, epsilon), float32 of x_t's shape.

        Raises:
            ValueError: where an argument is not as described.
        """
        chosen = self._checked(x_t, class_labels, guidance_scale, guidance)
        check_level(x_t, t, x_t, self.schedule.num_steps)
        sigma = self.sigmas.to(t.device)[t]
        return self.denoise_unchecked(x_t.float(), t, sigma, class_labels, chosen)

    def denoise_at_sigma(
        self,
        x_t: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
    ) -> Denoised:
        """:meth:`denoise` at any noise-to-signal ratio, also between two time steps.

        Args:
            x_t: noisy images ``(B, 3, H, W)`` of unit scale, √ᾱ x0 + √(1−ᾱ) ε.
            sigma: σ = √((1−ᾱ)/ᾱ) ``(B,)``, positive. The model is given the time t(σ).
            class_labels: ``(B,)`` whole numbers in [0, num_classes], or None.
            guidance_scale: as for :meth:`denoise`.
            guidance: as for :meth:`denoise`.

        Raises:
            ValueError: where an argument is not as described.
        """
        chosen = self._checked(x_t, class_labels, guidance_scale, guidance)
        if sigma.shape != x_t.shape[:1] or not bool((sigma > 0).all()):
            raise ValueError(
                f"sigma must hold one positive number for each of the {x_t.shape[0]} images; "
                f"got shape {tuple(sigma.shape)}"
            )
        x_t, sigma = x_t.float(), sigma.float()
        t = self.schedule.time_of_sigma(sigma)  # (B,)
        return self.denoise_unchecked(x_t, t, sigma, class_labels, chosen)

    def _checked(
        self,
        x_t: Tensor,
        labels: Tensor | None,
        guidance_scale: float,
        guidance: Guidance | None,
    ) -> Guidance:
        chosen = as_guidance(guidance_scale, guidance)
        check_labels(labels, self.num_classes, x_t.shape[0])
        chosen.check(labels, self.num_classes)
        return chosen

    def denoise_unchecked(
        self,
        x_t: Tensor,
        t: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None,
        guidance: Guidance,
    ) -> Denoised:
        """:meth:`denoise` for a sampler's loop: no look at the values, which would wait for CUDA.

        (But for a guidance in an interval, which has to know where it stands.)

        Args:
            x_t: noisy images, float32 ``(B, 3, H, W)``.
            t: times ``(B,)`` that the model is given.
            sigma: the noise-to-signal ratios at t, float32 ``(B,)``.
            class_labels: ``(B,)`` or None.
            guidance: ``Guidance()`` is none.
        """
        sigma = per_sample(sigma, x_t)  # (B, 1, 1, 1)
        output = guidance.output(self, x_t, t, sigma, class_labels)  # (B, C, H, W)
        x0 = self.prediction.x0(output, x_t, sigma)
        if not self.clip_sample:
            return Denoised(x0, self.prediction.epsilon(output, x_t, sigma))
        x0 = x0.clamp(-1, 1)
        return Denoised(x0, noise_between(x_t, x0, sigma))

    def with_model(self, model: nn.Module) -> GaussianDiffusion:
        """The same diffusion around another model that was trained for it.

        ``diffusion.with_model(diffusion.model.stopped_early(2))`` is the weak model of guidance by
        integration depth.
        """
        return GaussianDiffusion(
            model,
            self.schedule,
            self.prediction,
            self.weighting,
            class_dropout=self.class_dropout,
            clip_sample=self.clip_sample,
        ).train(self.training)

    def output(self, x_t: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The model's prediction in float32: ``prediction`` says of what.

        A class-conditional model without labels is given "no class".

        Raises:
            ValueError: where the output has another shape than x_t.
        """
        if class_labels is None and self.num_classes is not None:
            class_labels = self._no_class(t)
        output = self.model(x_t, t) if class_labels is None else self.model(x_t, t, class_labels)
        if output.shape != x_t.shape:
            raise ValueError(
                f"the model must return the shape of its input, {tuple(x_t.shape)}; "
                f"it returned {tuple(output.shape)}"
            )
        return output.float()  # (B, C, H, W)

    def _no_class(self, like: Tensor) -> Tensor:
        return torch.full(like.shape, self.num_classes or 0, dtype=torch.long, device=like.device)
