"""From an image to the noise that a deterministic sampler makes it from.

Both ways are the probability-flow ODE of ``probability_flow``, from little noise to much: by
DDIM's own steps, or by any solver. What comes out is x_T of unit scale, so that

    noise = inversion.invert(diffusion, images)
    images = inversion.sampler.sample(diffusion, len(noise), initial_noise=noise)

up to an error that falls with the number of steps, at the order of the method.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.ddim import DDIM
from liquid_ode.diffusion.gaussian import Denoised, GaussianDiffusion
from liquid_ode.diffusion.given_images import Callback, Labels, given_batches
from liquid_ode.diffusion.guidance import Guidance, as_guidance
from liquid_ode.diffusion.probability_flow import LogSNRPath, ProbabilityFlow
from liquid_ode.diffusion.sampling import GuidedDenoiser, Sampler, SamplingError
from solvers import Euler, SemilinearField, SemilinearMethod, Solver, VectorField


class Inversion(ABC):
    """Turns images into the noise that they are sampled from."""

    @property
    @abstractmethod
    def sampler(self) -> Sampler:
        """The sampler that it inverts: it turns the noise back into the images."""

    @abstractmethod
    def _invert_batch(self, denoise: GuidedDenoiser, images: Tensor) -> Tensor:
        """x_T, of unit scale, of images ``(B, C, H, W)``."""

    @torch.no_grad()
    def invert(
        self,
        diffusion: GaussianDiffusion,
        images: Tensor,
        *,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
        batch_size: int | None = None,
        callback: Callback = None,
    ) -> Tensor:
        """The noise of images, to be given to :attr:`sampler` as ``initial_noise``.

        Caution: with a guidance scale above 1 the flow is steep, and small errors grow on the
        way up and down: invert without guidance, or take many steps.

        Args:
            diffusion: the trained model; it is in evaluation mode meanwhile.
            images: ``(N, C, H, W)`` in [-1, 1].
            class_labels: one label for all, or N labels in [0, num_classes]; None for no class.
            guidance_scale: strength of classifier-free guidance; 1 is none.
            guidance: any :class:`Guidance`; None is as ``guidance_scale`` says.
            batch_size: how many images at a time; None for all at once.
            callback: called with a :class:`Progress` after each evaluation of the denoiser.

        Returns:
            float32 ``(N, C, H, W)`` on the model's device, close to standard normal where the
            images are like the model's.

        Raises:
            ValueError: where an argument is not as described.
            SamplingError: where the noise is NaN or infinite.
            solvers.SolverError: where a solve fails.
        """
        with given_batches(
            diffusion,
            images,
            class_labels=class_labels,
            guidance=as_guidance(guidance_scale, guidance),
            batch_size=batch_size,
            callback=callback,
        ) as batches:
            noise = torch.cat([self._invert_batch(each.denoise, each.images) for each in batches])
        if not bool(torch.isfinite(noise).all()):
            raise SamplingError(
                "the noise of the images holds NaN or infinity: look for NaN in the model's "
                "weights, take fewer iterations, or set clip_sample=True on the diffusion"
            )
        return noise

    def reconstruct(
        self,
        diffusion: GaussianDiffusion,
        images: Tensor,
        *,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """The images inverted and sampled again, with the arguments of :meth:`invert`.

        How far they are from the images says how exact the inversion is.
        """
        noise = self.invert(
            diffusion,
            images,
            class_labels=class_labels,
            guidance_scale=guidance_scale,
            guidance=guidance,
            batch_size=batch_size,
        )
        return self.sampler.sample(
            diffusion,
            len(noise),
            class_labels=class_labels,
            guidance_scale=guidance_scale,
            guidance=guidance,
            batch_size=batch_size,
            initial_noise=noise,
        )


@dataclass(frozen=True)
class DDIMInversion(Inversion):
    """DDIM's steps backwards: with x̄ = x/√ᾱ, from σ to the next larger σ′ of its list,

        x̄′ = x̄ + (σ′ − σ) ε̂(x′, t′).

    That is the step DDIM makes from σ′ to σ, solved for where it started. The unknown x′ on the
    right is first taken to be x, and then ``iterations`` − 1 times what the step gave. One
    iteration is the usual inversion, of first order; more converge to the exact inverse of DDIM
    with the same steps where x̂0 changes slowly with x, at ``iterations`` times the evaluations.

    Caution: with ε prediction x̂0 at the last step of the cosine schedule, σ = 20,291, is the
    model's error times 20,000, which no inversion undoes: give the sampler a grid with a
    ``sigma_max``.

    Reference: Song et al. 2021, Denoising diffusion implicit models, section 4.3; Pan et al.
    2023, Effective real image editing with accelerated iterative diffusion inversion, eq. 9.

    Args:
        sampler: the DDIM sampler to invert, with eta = 0.
        iterations: evaluations for each step.

    Raises:
        ValueError: where iterations is below 1 or the sampler is not deterministic.
    """

    sampler: DDIM = DDIM()
    iterations: int = 1

    def __post_init__(self) -> None:
        check_count("iterations", self.iterations)
        if not isinstance(self.sampler, DDIM) or self.sampler.eta != 0:
            raise ValueError(
                f"only DDIM with eta=0 gives the same image each time, and so can be inverted; "
                f"not {self.sampler!r}"
            )

    def _invert_batch(self, denoise: GuidedDenoiser, images: Tensor) -> Tensor:
        x, sigma = images, 0.0
        for level in reversed(self.sampler.grid.levels(denoise.schedule)):
            after = level.sigma
            start = x * math.sqrt(1 + sigma**2)  # x̄, (B, C, H, W)
            for _ in range(self.iterations):
                epsilon = denoise.at(x, level).epsilon  # (B, C, H, W)
                x = (start + (after - sigma) * epsilon) / math.sqrt(1 + after**2)
            sigma = after
        return x


@dataclass(frozen=True)
class FlowInversion(Inversion):
    """The probability-flow ODE upwards by any solver, in u = log σ from the first σ to σ_max.

    The state is x = x̄/√(1+σ²), whose field is small at both ends:

        dx/du = (x − √(1+σ²) x̂0)/(1+σ²).

    Methods for semilinear fields (exponential and semi-implicit ones) solve for x̄/σ instead,
    d(x̄/σ)/du = ε̂ − x̄/σ: exponential Euler is then DDIM's explicit inverse on equal steps of u.

    Before that, one evaluation undoes the clean step at the sampler's end, x̄ = x0 + σ ε̂(x0). So
    the denoiser is evaluated once more than the solver reports, and as often as in the sampler.

    Reference: Song et al. 2021, Score-based generative modeling through stochastic differential
    equations, section 4.3 and appendix D.1.

    Args:
        solver: any solver of the ``solvers`` package.
        path: where the flow ends, in its ``sigma_max``.

    Raises:
        ValueError: where the solver or the path is not one.
    """

    solver: Solver = Euler(steps=50)
    path: LogSNRPath = LogSNRPath()

    def __post_init__(self) -> None:
        ProbabilityFlow(self.solver, self.path)  # which checks both
        if not isinstance(self.path, LogSNRPath):
            raise ValueError(f"path must be a LogSNRPath, not {self.path!r}")

    @property
    def sampler(self) -> ProbabilityFlow:
        return ProbabilityFlow(self.solver, self.path)

    def _invert_batch(self, denoise: GuidedDenoiser, images: Tensor) -> Tensor:
        last, first = self.path.sigma_range(denoise.schedule)
        sigma = torch.tensor(first, device=images.device)
        x = (images + sigma * at_sigma(denoise, images, sigma).epsilon) / math.hypot(1, first)
        return flow_up(denoise, self.solver, x, first, last)


def at_sigma(denoise: GuidedDenoiser, x: Tensor, sigma: Tensor) -> Denoised:
    """x̂0 and ε̂ for x ``(B, C, H, W)`` of unit scale at σ ``()`` or ``(B, 1, 1, 1)``."""
    of_each = sigma.reshape(-1).expand(len(x))  # (B,)
    return denoise(x, denoise.schedule.time_of_sigma(of_each), of_each)


def field_up(denoise: GuidedDenoiser) -> Callable[[Tensor, Tensor], Tensor]:
    """dx/du = (x − √(1+σ²) x̂0)/(1+σ²), u = log σ, for x ``(B, C, H, W)`` of unit scale."""

    def field(u: Tensor, x: Tensor) -> Tensor:
        sigma = torch.exp(u)  # () or (B, 1, 1, 1)
        square = 1 + sigma.square()
        return (x - square.sqrt() * at_sigma(denoise, x, sigma).x0) / square

    return field


def flow_up(
    denoise: GuidedDenoiser, solver: Solver, x: Tensor, first: float, last: float
) -> Tensor:
    """Where x of unit scale at σ = ``first`` is at σ = ``last`` > first."""
    if first == last:
        return x
    span = (math.log(first), math.log(last))
    field: VectorField = field_up(denoise)
    if not isinstance(getattr(solver, "method", None), SemilinearMethod):
        return solver.solve(field, x, t_span=span).y

    def epsilon(u: Tensor, scaled: Tensor) -> Tensor:
        sigma = torch.exp(u)
        unit = sigma / (1 + sigma.square()).sqrt() * scaled
        return at_sigma(denoise, unit, sigma).epsilon

    start = x * (math.hypot(1, first) / first)  # x̄/σ
    end = solver.solve(SemilinearField(epsilon, tau=1.0), start, t_span=span).y
    return end * (last / math.hypot(1, last))
