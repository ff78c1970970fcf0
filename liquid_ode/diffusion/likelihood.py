"""How probable a diffusion finds images: bits per dimension, with what they are uncertain by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.dequantisation import Dequantisation, GaussianDequantisation
from liquid_ode.diffusion.gaussian import GaussianDiffusion
from liquid_ode.diffusion.given_images import (
    GivenBatch,
    Labels,
    check_images,
    given_batches,
)
from liquid_ode.diffusion.guidance import Guidance
from liquid_ode.diffusion.inversion import at_sigma
from liquid_ode.diffusion.noise import SeededNoise, resolve_seeds
from liquid_ode.diffusion.probability_flow import LogSNRPath
from liquid_ode.diffusion.sampling import GuidedDenoiser
from solvers import ClassicRK4, Solver


@dataclass(frozen=True)
class LogDensity:
    """log p(x̄) of images by two solves, the second of twice the steps.

    Attributes:
        coarse: nats by N steps, float64 ``(images, probes)``.
        fine: nats by 2N steps, likewise, of the same probes.
        evaluations: of the denoiser in the two solves, each with a gradient for every probe.
    """

    coarse: Tensor
    fine: Tensor
    evaluations: tuple[int, int]


@dataclass(frozen=True)
class BitsPerDim:
    """Bits per dimension of images, an upper bound of their code length under the model.

    Attributes:
        value: mean over images and probes, by ``evaluations[1]`` evaluations.
        coarse: the same by ``evaluations[0]``.
        probe_error: standard error of the value that comes from the random probes alone.
        image_error: standard error of the value as an estimate for all images like these; NaN for
            one image.
        each: of every image, float64 ``(images,)``.
        evaluations: of the denoiser in the two solves.
    """

    value: float
    coarse: float
    probe_error: float
    image_error: float
    each: Tensor
    evaluations: tuple[int, int]

    @property
    def step_difference(self) -> float:
        """What twice the evaluations changed: the size of the error that steps leave, or more."""
        return self.value - self.coarse

    def __str__(self) -> str:
        low, high = self.evaluations
        return (
            f"{self.value:.4f} bits/dim at {high} evaluations, {self.coarse:.4f} at {low} "
            f"(difference {self.step_difference:+.4f}); standard error of the probes "
            f"{self.probe_error:.4f}, of the {len(self.each)} images {self.image_error:.4f}"
        )


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of images by the instantaneous change of variables.

    Along the probability flow in u = log σ, for x = x̄/√(1+σ²) of unit scale and d dimensions,

        dx/du = (x − √(1+σ²) x̂0)/(1+σ²)
        log p(x(u₀)) = log N(x(u₁); 0, I) + ∫ div du
        div = (d − √(1+σ²) eᵀ(∂x̂0/∂x) e)/(1+σ²),

    with a probe e of random signs, fixed along the way, whose expectation is the exact divergence
    (Hutchinson's estimate). u₀ is the schedule's first σ, the least noise that the model was
    trained on; u₁ is the path's ``sigma_max``, where the model's samples start: the value is that
    of the flow which :class:`ProbabilityFlow` samples with on the same path, and its start,
    x̄ ~ N(0, (1 + σ_max²) I), is no approximation. Where the diffusion clips x̂0 to [-1, 1] the
    flow is that of the clipped x̂0, as in sampling.

    Nothing is returned without its step convergence: each value is solved for by ``steps`` steps
    and by twice as many, with the same noise and probes.

    References: Song et al. 2021, Score-based generative modeling through stochastic differential
    equations, eq. 39 to 41; Grathwohl et al. 2019, FFJORD, eq. 7 and 8; Chen et al. 2018, Neural
    ordinary differential equations, theorem 1.

    Args:
        solver: any explicit solver with a number of steps.
        steps: N, of the first of the two solves.
        path: where the flow ends, in its ``sigma_max``.
        dequantisation: how pixels of 256 values become a density.
        probes: random sign vectors for each image, at least 2, to tell their standard error.

    Raises:
        ValueError: where an option is not as described.
    """

    solver: Solver = ClassicRK4(steps=16)
    steps: int = 16
    path: LogSNRPath = LogSNRPath()
    dequantisation: Dequantisation = GaussianDequantisation()
    probes: int = 2

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        if isinstance(self.probes, bool) or not isinstance(self.probes, int) or self.probes < 2:
            raise ValueError(
                "probes must be a whole number of at least 2, since one alone does not tell how "
                f"far it is off; not {self.probes!r}"
            )
        if not isinstance(self.solver, Solver):
            raise ValueError(f"solver must be a solver of `solvers`, not {self.solver!r}")
        if self.solver.with_steps(self.steps) is self.solver.with_steps(2 * self.steps):
            raise ValueError(
                "the convergence with steps needs a solver that has a number of them, such as "
                f"solvers.ClassicRK4(); {self.solver!r} is driven by a tolerance"
            )
        if not isinstance(self.path, LogSNRPath):
            raise ValueError(f"path must be a LogSNRPath, not {self.path!r}")
        if not isinstance(self.dequantisation, Dequantisation):
            raise ValueError(
                "dequantisation must be GaussianDequantisation() or UniformDequantisation(), not "
                f"{self.dequantisation!r}"
            )

    def bits_per_dim(
        self,
        diffusion: GaussianDiffusion,
        images: Tensor,
        *,
        seeds: int | Sequence[int] | None = None,
        class_labels: Labels = None,
        batch_size: int | None = None,
        callback: Callable[[int], None] | None = None,
    ) -> BitsPerDim:
        """Bits per dimension: (−log p(x̄) + correction)/(d log 2), the mean over the images.

        Args:
            diffusion: the trained model; it is in evaluation mode meanwhile.
            images: of 256 values, k/127.5 − 1, ``(N, C, H, W)``.
            seeds: of each image's noise and probes; see :meth:`Sampler.sample`.
            class_labels: one label for all, or N labels in [0, num_classes]; None for no class.
            batch_size: how many images at a time; None for all at once.
            callback: called with the number of images that are done, after each batch.

        Raises:
            ValueError: where an argument is not as described.
            solvers.SolverError: where a solve fails.
        """
        check_images(images, diffusion)
        steps = (images.detach().float() + 1) * 127.5
        if bool((steps - steps.round()).abs().max() > 0.01):
            raise ValueError(
                "bits per dimension are of images of 256 values, k/127.5 - 1; these have others "
                "between. log_density takes any"
            )

        def prepare(x: Tensor, sigma: float, noise: SeededNoise) -> tuple[Tensor, Tensor]:
            return self.dequantisation.draw(x, sigma, noise.draw())

        density, correction = self._solve(
            diffusion, images, prepare, seeds, class_labels, batch_size, callback
        )
        unit = math.log(2) * images[0].numel()
        fine, coarse = (
            (correction.unsqueeze(1) - nats) / unit for nats in (density.fine, density.coarse)
        )  # (images, probes)
        each, count = fine.mean(1), len(images)
        return BitsPerDim(
            value=float(each.mean()),
            coarse=float(coarse.mean()),
            probe_error=math.sqrt(float(fine.var(1).sum()) / self.probes) / count,
            image_error=float(each.std()) / math.sqrt(count) if count > 1 else math.nan,
            each=each,
            evaluations=density.evaluations,
        )

    def log_density(
        self,
        diffusion: GaussianDiffusion,
        x_bar: Tensor,
        *,
        seeds: int | Sequence[int] | None = None,
        class_labels: Labels = None,
        batch_size: int | None = None,
    ) -> LogDensity:
        """log p(x̄) in nats, the density of x̄ = x0 + σ ε at the schedule's first σ.

        Args:
            diffusion: the trained model; it is in evaluation mode meanwhile.
            x_bar: ``(N, C, H, W)``.
            seeds: of each image's probes.
            class_labels: as for :meth:`bits_per_dim`.
            batch_size: as for :meth:`bits_per_dim`.

        Raises:
            ValueError: where an argument is not as described.
            solvers.SolverError: where a solve fails.
        """

        def prepare(x: Tensor, sigma: float, noise: SeededNoise) -> tuple[Tensor, Tensor]:
            return x, torch.zeros(len(x))

        return self._solve(diffusion, x_bar, prepare, seeds, class_labels, batch_size)[0]

    def _solve(
        self,
        diffusion: GaussianDiffusion,
        images: Tensor,
        prepare: Callable[[Tensor, float, SeededNoise], tuple[Tensor, Tensor]],
        seeds: int | Sequence[int] | None,
        class_labels: Labels,
        batch_size: int | None,
        callback: Callable[[int], None] | None = None,
    ) -> tuple[LogDensity, Tensor]:
        """The density of what ``prepare`` makes of the images, and its second results."""
        given = given_batches(
            diffusion,
            images,
            class_labels=class_labels,
            guidance=Guidance(),
            batch_size=batch_size,
        )
        nats: list[list[Tensor]] = [[], []]
        corrections, evaluations = [], [0, 0]
        # The divergence needs gradients, also for a caller in inference mode.
        with torch.inference_mode(False), torch.no_grad(), given as batches:
            all_seeds = resolve_seeds(seeds, len(images))
            sigma = float(diffusion.schedule.sigmas[0])
            for batch in batches:
                noise = SeededNoise(all_seeds[batch.part], images.shape[1:], diffusion.device)
                x_bar, correction = prepare(batch.images, sigma, noise)
                corrections.append(correction.cpu())
                # Of random signs, (probes, B, C, H, W)
                signs = torch.stack([noise.draw() for _ in range(self.probes)]).sign()
                for index in (0, 1):
                    solver = self.solver.with_steps(self.steps * (index + 1))
                    found, evaluations[index] = self._log_density(solver, batch, x_bar, signs)
                    nats[index].append(found.cpu())
                if callback is not None:
                    callback(batch.part.start + len(batch.images))
        coarse, fine = (torch.cat(parts) for parts in nats)  # (N, probes)
        density = LogDensity(coarse, fine, (evaluations[0], evaluations[1]))
        return density, torch.cat(corrections)

    def _log_density(
        self, solver: Solver, batch: GivenBatch, x_bar: Tensor, probes: Tensor
    ) -> tuple[Tensor, int]:
        """log p(x̄) ``(B, probes)`` in float64, and the evaluations that it took."""
        last, first = self.path.sigma_range(batch.denoise.schedule)
        d, before = x_bar[0].numel(), batch.denoise.evaluations
        x = x_bar / math.hypot(1, first)  # of unit scale
        # The state: x, and the integral of the divergence by each probe, over d.
        state = torch.cat([x.flatten(1), x.new_zeros(len(x), len(probes))], 1)  # (B, d + probes)
        field = _with_divergence(batch.denoise, probes)
        if first < last:
            state = solver.solve(field, state, t_span=(math.log(first), math.log(last))).y
        end, integral = state[:, :d].double(), state[:, d:].double()
        prior = -0.5 * (end.square().sum(1) + d * math.log(2 * math.pi))  # (B,)
        scale = d * math.log(math.hypot(1, first))  # the density of x̄, not of x
        taken = batch.denoise.evaluations - before
        return (prior - scale).unsqueeze(1) + d * integral, taken


def _with_divergence(denoise: GuidedDenoiser, probes: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The flow of x together with its divergence over d, by each probe."""
    count, d = len(probes), probes[0, 0].numel()

    def field(u: Tensor, state: Tensor) -> Tensor:
        x = state[:, :d].detach().reshape(probes.shape[1:])  # (B, C, H, W)
        sigma = torch.exp(u).reshape(-1, *[1] * (x.ndim - 1))  # (1 or B, 1, 1, 1)
        square = 1 + sigma.square()
        traces = []
        with torch.enable_grad():
            x.requires_grad_()
            x0 = at_sigma(denoise, x, sigma).x0
            for index, probe in enumerate(probes):
                (pulled,) = torch.autograd.grad(x0, x, probe, retain_graph=index < count - 1)
                traces.append((pulled * probe).flatten(1).mean(1))  # eᵀJe/d, (B,)
        root, square = square.sqrt().flatten(1), square.flatten(1)  # (1 or B, 1)
        flow = (x.detach().flatten(1) - root * x0.detach().flatten(1)) / square  # (B, d)
        divergence = (1 - root * torch.stack(traces, 1)) / square  # (B, probes)
        return torch.cat([flow, divergence], 1)

    return field
