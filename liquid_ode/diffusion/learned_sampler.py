"""A sampler of few evaluations whose noise levels and weights are trained on one model.

:func:`liquid_ode.diffusion.train_sampler` makes it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from liquid_ode.diffusion.checks import check_count
from liquid_ode.diffusion.gaussian import GaussianDiffusion
from liquid_ode.diffusion.noise import SeededNoise
from liquid_ode.diffusion.sampling import GuidedDenoiser, Sampled, Sampler
from liquid_ode.diffusion.schedules import Schedule
from solvers.storage import StorageError, read_tensors, write_tensors

_FILE = "learned sampler", 1  # the kind of its files, and the version of that


class LearnedSampler(nn.Module, Sampler):
    r"""N evaluations x̂0_0 … x̂0_{N−1} of the denoiser, each at a weighted sum of those before.

    With z = x̄_0/σ_0 the noise that an image starts from,

        x̄_i = σ_i z + Σ_{j<i} b_ij x̂0_j,        x̂0_i = x̂0(x̄_i, s_i),   i = 0 … N − 1
        image = Σ_j b_Nj x̂0_j.

    Learned are the noise levels σ_i, the levels s_i that the model is told, and the weights b:
    N(N + 3)/2 numbers. Each row of b sums to 1 − σ_i/σ_0 (the last to 1), so that where x̂0 does
    not change it is the result exactly. DDIM, and every linear multistep method for
    dx̄/dσ = (x̄ − x̂0)/σ, is of this form: untrained, it is DPM-Solver++(2M) on Karras' levels.

    It is meant for the model that it was trained on, also with another solver in its cells; on a
    diffusion of another kind it is refused. Like a learned solver it is an ``nn.Module``, whose
    parameters ask for no gradient.

    References: Shaul et al. 2024, Bespoke non-stationary solvers for fast sampling of diffusion
    and flow models, eq. 12 to 14, for the form and its training; Shaul et al. 2023, Bespoke
    solvers for generative flow models; Lu et al. 2022, DPM-Solver++, algorithm 2.

    Args:
        sigmas: the levels to begin with, decreasing: N of them, at least 2.
        description: what it was trained on; see :func:`describe`. None fits every diffusion.
        errors: what training measured.

    Raises:
        ValueError: where the levels are not as described.

    Attributes:
        start: log σ_0, ``()``.
        gaps: ``(N − 1,)``, log of log σ_{i−1}/σ_i.
        shifts: ``(N,)``, log s_i/σ_i.
        weights: ``(N, N)``, row i − 1 has b_ij for j < i − 1; the rest follows or is 0.
    """

    def __init__(
        self,
        sigmas: Sequence[float],
        *,
        description: Mapping[str, Any] | None = None,
        errors: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if len(sigmas) < 2 or not all(a > b > 0 for a, b in pairwise(sigmas)):
            raise ValueError(
                "a learned sampler needs at least 2 noise levels, positive and decreasing, not "
                f"{list(sigmas)}"
            )
        logs = torch.tensor(sigmas, dtype=torch.float64).log()
        tables = {
            "start": logs[0],
            "gaps": (-logs.diff()).log(),
            "shifts": torch.zeros(len(sigmas)),
            "weights": _multistep(sigmas).tril(-1),
        }
        for name, table in tables.items():
            setattr(self, name, nn.Parameter(table.float(), requires_grad=False))
        self.description = None if description is None else dict(description)
        self.errors = dict(errors or {})

    start: nn.Parameter
    gaps: nn.Parameter
    shifts: nn.Parameter
    weights: nn.Parameter

    @property
    def evaluations(self) -> int:
        """N, how often the denoiser is evaluated."""
        return len(self.shifts)

    def levels(self) -> Tensor:
        """σ_0 … σ_{N−1}, float32 ``(N,)``."""
        gaps = torch.cat([-self.start.view(1), self.gaps.exp()])
        return (-gaps.cumsum(0)).exp()

    def table(self) -> Tensor:
        """b with its rows complete, float32 ``(N, N)``: row i − 1 is of x̄_i."""
        sigmas = self.levels()
        totals = 1 - torch.cat([sigmas[1:], sigmas.new_zeros(1)]) / sigmas[0]  # (N,)
        free = self.weights.tril(-1)
        return free + torch.diag(totals - free.sum(1))

    def first_sigma(self, schedule: Schedule) -> float:
        return float(self.levels()[0])

    def draw(self, diffusion: GaussianDiffusion, n: int, **options: Any) -> Sampled:
        self.check(diffusion)
        return super().draw(diffusion, n, **options)

    def _sample_batch(self, denoise: GuidedDenoiser, x: Tensor, noise: SeededNoise) -> Tensor:
        images = self.images(denoise, x)
        return images.clamp(-1, 1) if denoise.clips else images

    def images(self, denoise: GuidedDenoiser, x: Tensor) -> Tensor:
        """What it makes of x_T ``(B, C, H, W)`` of unit scale, before it is clipped.

        Gradients flow to the parameters that ask for one.
        """
        sigmas, table = self.levels().to(x.device), self.table().to(x.device)
        told = sigmas * self.shifts.to(x.device).exp()  # (N,)
        times = denoise.schedule.time_of_sigma(told)  # (N,)
        z = x * ((1 + sigmas[0].square()).sqrt() / sigmas[0])
        state, estimates = torch.zeros_like(x), []
        for i in range(self.evaluations):
            unit = (state + sigmas[i] * z) / (1 + told[i].square()).sqrt()
            estimates.append(denoise(unit, times[i].expand(len(x)), told[i].expand(len(x))).x0)
            state = sum(b * x0 for b, x0 in zip(table[i], estimates, strict=False))
        return state

    def check(self, diffusion: GaussianDiffusion) -> None:
        """Raise ValueError where it was trained on another kind of diffusion."""
        if self.description is None:
            return
        found = describe(diffusion)
        misfits = [
            f"{name} {value!r}, not {found.get(name)!r}"
            for name, value in self.description.items()
            if found.get(name) != value
        ]
        if misfits:
            raise ValueError(
                f"the learned sampler was trained on another diffusion: {'; '.join(misfits)}. "
                "Train one on this: liquid-ode train-sampler"
            )

    def save(self, path: str | Path) -> Path:
        """Write what was learned, and on what, as one safetensors file.

        Raises:
            OSError: it could not be written; a file that was there is kept.
        """
        header = {
            "evaluations": self.evaluations,
            "diffusion": self.description,
            "errors": self.errors,
        }
        path = Path(path)
        write_tensors(path, *_FILE, header, self.state_dict())
        return path

    @staticmethod
    def load(path: str | Path, diffusion: GaussianDiffusion | None = None) -> LearnedSampler:
        """The sampler that :meth:`save` wrote.

        Args:
            path: the file.
            diffusion: what it is to sample from, to be checked at once; otherwise it is checked
                when it samples.

        Raises:
            ValueError: there is no such file, it is broken or none of a learned sampler, or the
                sampler was trained on another kind of diffusion.
        """
        try:
            header, tensors = read_tensors(Path(path), *_FILE)
        except StorageError as error:
            raise ValueError(
                f"{error}. Give a file that LearnedSampler.save wrote, or train a sampler with "
                "liquid-ode train-sampler"
            ) from error
        try:
            check_count("evaluations", header["evaluations"])
            sampler = LearnedSampler(
                [2.0**-i for i in range(header["evaluations"])],
                description=header["diffusion"],
                errors=header["errors"],
            )
            sampler.load_state_dict(tensors)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path} holds no learned sampler that this version knows: {error}"
            ) from error
        if diffusion is not None:
            sampler.check(diffusion)
        return sampler

    @property
    def digest(self) -> str:
        """A checksum of its numbers: two samplers of one digest make the same images."""
        numbers = nn.utils.parameters_to_vector(self.parameters()).detach().cpu().float()
        return f"{zlib.crc32(numbers.numpy().tobytes()):08x}"

    def __repr__(self) -> str:
        first, last = (float(self.levels()[i]) for i in (0, -1))
        return (
            f"LearnedSampler({self.evaluations} evaluations, sigma {first:.3g} to {last:.3g}, "
            f"{self.digest})"
        )

    __eq__ = object.__eq__  # its numbers are tensors
    __hash__ = object.__hash__


def describe(diffusion: GaussianDiffusion) -> dict[str, Any]:
    """What a learned sampler keeps of the diffusion it was trained on: all that must agree.

    The solver of the model's cells and its parameters are no part of it.
    """
    return {
        "model": type(diffusion.model).__name__,
        "parameters": sum(
            parameter.numel()
            for name, parameter in diffusion.model.named_parameters()
            if "solver" not in name.split(".")
        ),
        "num_classes": diffusion.num_classes,
        "prediction": diffusion.prediction.name,
        "schedule": repr(diffusion.schedule),
        "clip_sample": diffusion.clip_sample,
    }


def _multistep(sigmas: Sequence[float]) -> Tensor:
    """The rows b of DPM-Solver++(2M) on these levels, float64 ``(N, N)``.

    With λ = −log σ, h its steps and r = h_before/h: from the level σ to σ′

        y′ = (σ′/σ) y + (1 − σ′/σ) ((1 + 1/(2r)) x̂0 − 1/(2r) x̂0_before),  y = x̄ − σ z,

    and of first order at the first step and at the last, which is to the clean image.
    """
    count = len(sigmas)
    table = torch.zeros(count, count, dtype=torch.float64)
    before = 0.0
    for i in range(count - 1):
        ratio, step = sigmas[i + 1] / sigmas[i], math.log(sigmas[i] / sigmas[i + 1])
        extra = 0.0 if i == 0 else step / (2 * before)  # 1/(2r)
        if i:
            table[i] = ratio * table[i - 1]
            table[i, i - 1] -= (1 - ratio) * extra
        table[i, i] += (1 - ratio) * (1 + extra)
        before = step
    table[-1, -1] = 1
    return table
