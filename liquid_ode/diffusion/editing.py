"""Images out of parts of images: inpainting, and another image from a noisy one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.ddim import DDIM, RenoisingSampler
from liquid_ode.diffusion.gaussian import GaussianDiffusion
from liquid_ode.diffusion.given_images import (
    Callback,
    GivenBatch,
    Labels,
    check_images,
    given_batches,
)
from liquid_ode.diffusion.grids import TrailingGrid
from liquid_ode.diffusion.guidance import Guidance, as_guidance
from liquid_ode.diffusion.noise import SeededNoise, resolve_seeds, seeded_noise
from liquid_ode.diffusion.sampling import Sampler, SamplingError


@dataclass(frozen=True)
class RePaint:
    """Fills in the unknown pixels of images, so that they agree with the known ones.

    At each step from σ to σ′ the unknown part is the sampler's, and the known part the image with
    new noise of σ′. So that both have time to agree, every ``jump`` steps the whole image gets
    back the noise of ``jump`` steps, x̄ + √(σ² − σ′²) z, and takes them anew, until it has taken
    them ``resamplings`` times. After the last step the known pixels are exactly the image's.

    Without resampling (``resamplings=1``) it is plain replacement, whose unknown part fits the
    known one less well, since the sampler never sees both agree.

    Reference: Lugmayr et al. 2022, RePaint: inpainting using denoising diffusion probabilistic
    models, algorithm 1 and appendix B.

    Args:
        sampler: DDIM or DDPM, whose steps are taken. Noise in them (eta = 1) is what lets the
            parts come to agree.
        jump: how many steps are taken anew at a time.
        resamplings: how often they are taken in all; the denoiser is evaluated nearly so many
            times as often as by the sampler.

    Raises:
        ValueError: where an option is not as described.
    """

    sampler: RenoisingSampler = DDIM(TrailingGrid(50, sigma_max=80.0), eta=1.0)
    jump: int = 5
    resamplings: int = 5

    def __post_init__(self) -> None:
        check_count("jump", self.jump)
        check_count("resamplings", self.resamplings)
        if not isinstance(self.sampler, RenoisingSampler):
            raise ValueError(f"sampler must be DDIM(...) or DDPM(...), not {self.sampler!r}")

    def visits(self, count: int) -> list[int]:
        """The levels that are visited, from 0, the most noise, to ``count``, the clean image."""
        left = dict.fromkeys(range(count, self.jump, -self.jump), self.resamplings - 1)
        visited = [0]
        while visited[-1] < count:
            visited.append(visited[-1] + 1)
            if left.get(visited[-1], 0):
                left[visited[-1]] -= 1
                visited.append(visited[-1] - self.jump)
        return visited

    @torch.no_grad()
    def inpaint(
        self,
        diffusion: GaussianDiffusion,
        images: Tensor,
        mask: Tensor,
        *,
        seeds: int | Sequence[int] | None = None,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
        batch_size: int | None = None,
        callback: Callback = None,
    ) -> Tensor:
        """The images with their unknown pixels filled in.

        Args:
            diffusion: the trained model; it is in evaluation mode meanwhile.
            images: ``(N, C, H, W)`` in [-1, 1]; what is unknown may hold any such value.
            mask: ``(N, 1, H, W)`` or ``(1, 1, H, W)``, of bool or of zeros and ones: 1 where a
                pixel is known, 0 where it is to be filled in.
            seeds: of each image; see :meth:`Sampler.sample`.
            class_labels: one label for all, or N labels in [0, num_classes]; None for no class.
            guidance_scale: strength of classifier-free guidance; 1 is none.
            guidance: any :class:`Guidance`; None is as ``guidance_scale`` says.
            batch_size: how many images at a time; None for all at once.
            callback: called with a :class:`Progress` after each evaluation of the denoiser.

        Returns:
            ``(N, C, H, W)``, float32 on the model's device; known pixels are those of ``images``,
            bit for bit in float32.

        Raises:
            ValueError: where an argument is not as described.
            SamplingError: where the model gives NaN or infinity.
        """
        check_images(images, diffusion)
        known = _known(mask, images).to(diffusion.device)  # (N, 1, H, W)
        results = []
        with given_batches(
            diffusion,
            images,
            class_labels=class_labels,
            guidance=as_guidance(guidance_scale, guidance),
            batch_size=batch_size,
            callback=callback,
        ) as batches:
            all_seeds = resolve_seeds(seeds, len(images))
            for batch in batches:
                noise = SeededNoise(all_seeds[batch.part], images.shape[1:], diffusion.device)
                results.append(self._inpaint_batch(batch, known[batch.part], noise))
        filled = torch.cat(results)  # (N, C, H, W)
        if not bool(torch.isfinite(filled).all()):
            raise SamplingError(
                "the images that were filled in hold NaN or infinity: look for NaN in the "
                "model's weights, or set clip_sample=True on the diffusion"
            )
        return filled

    def _inpaint_batch(self, batch: GivenBatch, known: Tensor, noise: SeededNoise) -> Tensor:
        levels = self.sampler.grid.levels(batch.denoise.schedule)
        sigmas = [*(level.sigma for level in levels), 0.0]

        def replaced(x: Tensor, sigma: float) -> Tensor:
            """x of unit scale at σ, with the image and new noise of σ where it is known."""
            image = batch.images
            if sigma > 0:
                image = (image + sigma * noise.draw()) / math.hypot(1, sigma)
            return torch.where(known, image, x)  # (B, C, H, W)

        x = replaced(noise.draw(), sigmas[0])
        visited = self.visits(len(levels))
        for here, there in itertools.pairwise(visited):
            sigma, after = sigmas[here], sigmas[there]
            if there < here:  # back to more noise
                x_bar = x * math.hypot(1, sigma) + math.sqrt(after**2 - sigma**2) * noise.draw()
                x = x_bar / math.hypot(1, after)
                continue
            x0, epsilon = batch.denoise.at(x, levels[here])  # (B, C, H, W) each
            signal, direction, spread = self.sampler.coefficients(sigma, after)
            x = signal * x0 + direction * epsilon
            if spread > 0:
                x = x + spread * noise.draw()
            x = replaced(x, after)
        return x


def _known(mask: Tensor, images: Tensor) -> Tensor:
    """The mask as bool ``(N, 1, H, W)``.

    Raises:
        ValueError: another shape, or other values than 0 and 1.
    """
    shape = (len(images), 1, *images.shape[2:])
    if not isinstance(mask, Tensor) or mask.shape not in (shape, (1, *shape[1:])):
        got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"mask must have shape {shape} or {(1, *shape[1:])}, 1 where a pixel is known; "
            f"got {got}"
        )
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(
            "mask must be of bool, or of zeros and ones: 1 where a pixel is known, 0 where it is "
            "to be filled in"
        )
    return mask.bool().expand(shape)


def image_to_image(
    sampler: Sampler,
    diffusion: GaussianDiffusion,
    images: Tensor,
    *,
    seeds: int | Sequence[int] | None = None,
    class_labels: Labels = None,
    guidance_scale: float = 1.0,
    guidance: Guidance | None = None,
    batch_size: int | None = None,
    callback: Callback = None,
) -> Tensor:
    """Other images like the given ones: x̄ = x0 + σ ε, sampled from that σ down.

    σ is where the sampler starts: ``DDIM(TrailingGrid(50, sigma_max=2.0))``, or
    ``ProbabilityFlow(solver, LogSNRPath(2.0))``. The larger it is, the less of the images is left:
    at σ = 0.3 texture changes, at 2 shapes do, and at 80 nothing of them is left.

    Reference: Meng et al. 2022, SDEdit: guided image synthesis and editing with stochastic
    differential equations, algorithm 1.

    Args:
        sampler: any sampler that says where it starts.
        diffusion: the trained model; it is in evaluation mode meanwhile.
        images: ``(N, C, H, W)`` in [-1, 1].
        seeds: of each image's noise; see :meth:`Sampler.sample`, which takes the other arguments.

    Returns:
        float32 ``(N, C, H, W)`` on the model's device.

    Raises:
        ValueError: where an argument is not as described.
        SamplingError: where the model gives NaN or infinity.
    """
    check_images(images, diffusion)
    all_seeds = resolve_seeds(seeds, len(images))
    sigma = sampler.first_sigma(diffusion.schedule)
    noise = seeded_noise(all_seeds, images.shape[1:])
    noisy = (images.detach().cpu().float() + sigma * noise) / math.hypot(1, sigma)
    return sampler.sample(
        diffusion,
        len(images),
        seeds=all_seeds,
        class_labels=class_labels,
        guidance_scale=guidance_scale,
        guidance=guidance,
        batch_size=batch_size,
        initial_noise=noisy,
        callback=callback,
    )
