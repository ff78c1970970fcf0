"""What all samplers share: seeds, labels, batches, the model's mode, and the denoiser they call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liquid_ode.diffusion.checks import check_count, check_labels
from liquid_ode.diffusion.gaussian import Denoised, GaussianDiffusion
from liquid_ode.diffusion.grids import Level
from liquid_ode.diffusion.guidance import Guidance, as_guidance
from liquid_ode.diffusion.noise import SeededNoise, resolve_seeds
from liquid_ode.diffusion.schedules import Schedule

DEFAULT_IMAGE_SIZE = 32, 32


class Progress(NamedTuple):
    """Where a sampler stands; given to its callback after each evaluation of the denoiser."""

    first_image: int
    """index of the first image of the present batch"""
    evaluations: int
    """evaluations of the denoiser so far, in this batch"""
    x0: Tensor
    """the present estimate of the batch's clean images ``(B, 3, H, W)``"""


class Sampled(NamedTuple):
    """Images, and what they cost."""

    images: Tensor
    """float32 ``(n, C, H, W)``, in [-1, 1] where the diffusion has ``clip_sample`` set"""
    evaluations: Tensor
    """how often the denoiser was evaluated for each image, long ``(n,)`` on the CPU; guidance
    makes one evaluation of the denoiser two of a network"""


class GuidedDenoiser:
    """The denoiser of one batch: its labels and guidance are fixed, its evaluations reported."""

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        labels: Tensor | None,
        guidance: Guidance,
        report: Callable[[int, Tensor], None],
    ) -> None:
        self._diffusion = diffusion
        self._labels = labels
        self._guidance = guidance
        self._report = report
        self._evaluations = 0

    @property
    def schedule(self) -> Schedule:
        """The noise schedule that the model was trained on."""
        return self._diffusion.schedule

    @property
    def clips(self) -> bool:
        """Whether x̂0 is clipped to [-1, 1]."""
        return self._diffusion.clip_sample

    @property
    def evaluations(self) -> int:
        """How often it was called."""
        return self._evaluations

    def __call__(self, x_t: Tensor, t: Tensor, sigma: Tensor) -> Denoised:
        """x̂0 and ε̂ for noisy images ``(B, 3, H, W)`` at times and noise levels ``(B,)``."""
        found = self._diffusion.denoise_unchecked(x_t, t, sigma, self._labels, self._guidance)
        self._evaluations += 1
        self._report(self._evaluations, found.x0)
        return found

    def at(self, x_t: Tensor, level: Level) -> Denoised:
        """x̂0 and ε̂ for noisy images ``(B, 3, H, W)`` that are all at one level of a grid."""
        batch, device = x_t.shape[:1], x_t.device
        dtype = torch.long if isinstance(level.t, int) else torch.float32
        t = torch.full(batch, level.t, dtype=dtype, device=device)  # (B,)
        return self(x_t, t, torch.full(batch, level.sigma, device=device))


class Sampler(ABC):
    """Turns noise into images with a trained diffusion model."""

    @abstractmethod
    def _sample_batch(self, denoise: GuidedDenoiser, x: Tensor, noise: SeededNoise) -> Tensor:
        """Images out of x_T = ``x``, standard normal float32 ``(B, 3, H, W)``.

        ``noise`` draws further noise for a sampler that is stochastic.
        """

    def first_sigma(self, schedule: Schedule) -> float:
        """The noise-to-signal ratio that sampling starts from, where x_T of unit scale is.

        Raises:
            ValueError: where the sampler does not say it.
        """
        raise ValueError(
            f"{type(self).__name__} does not say at which noise level it starts: define its "
            "first_sigma(schedule)"
        )

    def sample(
        self,
        diffusion: GaussianDiffusion,
        n: int,
        *,
        seeds: int | Sequence[int] | None = None,
        class_labels: Tensor | Sequence[int] | int | None = None,
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
        batch_size: int | None = None,
        image_shape: Sequence[int] | None = None,
        initial_noise: Tensor | None = None,
        warm_start: bool = False,
        callback: Callable[[Progress], None] | None = None,
    ) -> Tensor:
        """Sample n images. The model is in evaluation mode meanwhile, and no gradient is kept.

        An image depends on its own seed, label and the options, not on the batch it is sampled
        in (but for the rounding of matrix products, which may depend on the batch size).

        Args:
            diffusion: the trained model.
            n: how many images.
            seeds: a seed for each image: None for 0 … n − 1, a number s for s … s + n − 1, or n
                whole numbers in [0, 2⁶³).
            class_labels: one label for all, or n labels in [0, num_classes]; None for no class.
            guidance_scale: strength w of classifier-free guidance; 1 is none. Short for
                ``guidance=Guidance(w)``.
            guidance: any :class:`Guidance`; None is as ``guidance_scale`` says.
            batch_size: how many images to sample at a time; None for all at once.
            image_shape: (C, H, W); None takes ``model.image_shape``, or else 32x32 pixels of
                ``model.image_channels``, or else 3 channels.
            initial_noise: x_T ``(n, C, H, W)``, standard normal; None draws it from the seeds.
            warm_start: begin the model's cells from where they were at the evaluation before, of
                the same image. For a model with states to carry (``model.carrying_states``, as
                that of a liquid U-Net), trained for it.
            callback: called with a :class:`Progress` after each evaluation of the denoiser.

        Returns:
            float32 ``(n, C, H, W)`` on the model's device; in [-1, 1] where the diffusion has
            ``clip_sample`` set.

        Raises:
            ValueError: where an argument is not as described.
            SamplingError: where the model gives NaN or infinity.
        """
        return self.draw(
            diffusion,
            n,
            seeds=seeds,
            class_labels=class_labels,
            guidance_scale=guidance_scale,
            guidance=guidance,
            batch_size=batch_size,
            image_shape=image_shape,
            initial_noise=initial_noise,
            warm_start=warm_start,
            callback=callback,
        ).images

    @torch.no_grad()
    def draw(
        self,
        diffusion: GaussianDiffusion,
        n: int,
        *,
        seeds: int | Sequence[int] | None = None,
        class_labels: Tensor | Sequence[int] | int | None = None,
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
        batch_size: int | None = None,
        image_shape: Sequence[int] | None = None,
        initial_noise: Tensor | None = None,
        warm_start: bool = False,
        callback: Callable[[Progress], None] | None = None,
    ) -> Sampled:
        """:meth:`sample`, with the evaluations of the denoiser beside the images."""
        check_count("n", n)
        shape = resolve_image_shape(diffusion, n, image_shape, initial_noise)
        all_seeds = resolve_seeds(seeds, n)
        chosen = as_guidance(guidance_scale, guidance)
        if warm_start and chosen.doubles_the_batch_at_times:
            raise ValueError(
                "warm_start and classifier-free guidance in an interval exclude each other: where "
                "guidance begins and ends the batch is another, and the states would be lost"
            )

        images, evaluations = [], []
        with guided_batches(
            diffusion,
            n,
            class_labels=class_labels,
            guidance=chosen,
            batch_size=batch_size,
            callback=callback,
        ) as batches:
            for part, denoise in batches:
                noise = SeededNoise(all_seeds[part], shape, diffusion.device)
                # Drawn in any case: it is the first draw of each image's generator.
                x = noise.draw()  # (B, C, H, W)
                if initial_noise is not None:
                    x = initial_noise[part].to(diffusion.device, torch.float32)
                with carrying_states(diffusion.model) if warm_start else nullcontext():
                    images.append(self._sample_batch(denoise, x, noise))
                evaluations += [denoise.evaluations] * len(x)
        result = torch.cat(images)  # (n, C, H, W)
        if not bool(torch.isfinite(result).all()):
            raise SamplingError(
                "the sampled images hold NaN or infinity: look for NaN in the model's weights, "
                "or set clip_sample=True on the diffusion"
            )
        return Sampled(result, torch.tensor(evaluations))


class SamplingError(RuntimeError):
    """The images came out as no images: NaN or infinite."""


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and each of its parts back in its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def carrying_states(model: nn.Module) -> AbstractContextManager[None]:
    """A context in which the model's cells begin from where the evaluation before has ended.

    Raises:
        ValueError: where the model has no such states.
    """
    enter = getattr(model, "carrying_states", None)
    if enter is None:
        raise ValueError(
            f"warm_start needs a model whose cells carry states, such as 'liquid_unet', not "
            f"{type(model).__name__}"
        )
    context: AbstractContextManager[None] = enter()
    return context


@contextmanager
def guided_batches(
    diffusion: GaussianDiffusion,
    n: int,
    *,
    class_labels: Tensor | Sequence[int] | int | None,
    guidance: Guidance,
    batch_size: int | None,
    callback: Callable[[Progress], None] | None,
) -> Iterator[Iterator[tuple[slice, GuidedDenoiser]]]:
    """Which of n images are in each batch, and the denoiser of these, with their labels.

    All models are in evaluation mode for as long as the context lasts.

    Args:
        diffusion: the trained model.
        n: how many images there are.
        class_labels: one label for all, or n labels; None for no class.
        guidance: of the denoiser.
        batch_size: how many at a time; None for all at once.
        callback: called after each evaluation of the denoiser.

    Raises:
        ValueError: where an argument is not as described.
    """
    if batch_size is not None:
        check_count("batch_size", batch_size)
    labels = resolve_labels(class_labels, n, diffusion.device)
    check_labels(labels, diffusion.num_classes, n)
    guidance.check(labels, diffusion.num_classes)

    def batches() -> Iterator[tuple[slice, GuidedDenoiser]]:
        for first in range(0, n, batch_size or n):
            part = slice(first, first + (batch_size or n))
            own = None if labels is None else labels[part]
            yield part, GuidedDenoiser(diffusion, own, guidance, _reporter(callback, first))

    with ExitStack() as modes:
        for model in (diffusion, guidance.weak):
            if isinstance(model, nn.Module):
                modes.enter_context(evaluation_mode(model))
        yield batches()


def _reporter(
    callback: Callable[[Progress], None] | None, first: int
) -> Callable[[int, Tensor], None]:
    """What a :class:`GuidedDenoiser` reports to, for a batch that starts at image ``first``."""

    def report(evaluations: int, x0: Tensor) -> None:
        if callback is not None:
            callback(Progress(first, evaluations, x0))

    return report


def resolve_image_shape(
    diffusion: GaussianDiffusion,
    n: int,
    image_shape: Sequence[int] | None,
    initial_noise: Tensor | None,
) -> tuple[int, ...]:
    """(C, H, W), checked against the initial noise."""
    if image_shape is not None:
        shape = tuple(image_shape)
    elif initial_noise is not None:
        shape = tuple(initial_noise.shape[1:])
    else:
        usual = getattr(diffusion.model, "image_channels", 3), *DEFAULT_IMAGE_SIZE
        shape = tuple(getattr(diffusion.model, "image_shape", usual))
    for size in shape:
        check_count("every entry of image_shape", size)
    if initial_noise is not None and tuple(initial_noise.shape) != (n, *shape):
        raise ValueError(
            f"initial_noise must have shape {(n, *shape)}, not {tuple(initial_noise.shape)}"
        )
    return shape


def classes_in_turn(n: int, num_classes: int | None) -> Tensor | None:
    """Labels ``(n,)`` 0, 1, …, 0, 1, … of n images; None for a model without classes."""
    return None if num_classes is None else torch.arange(n) % num_classes


def resolve_labels(
    class_labels: Tensor | Sequence[int] | int | None, n: int, device: torch.device
) -> Tensor | None:
    """The labels as a tensor ``(n,)``; one number stands for all."""
    if class_labels is None:
        return None
    labels = torch.as_tensor(class_labels, device=device)
    return labels.expand(n) if labels.ndim == 0 else labels
