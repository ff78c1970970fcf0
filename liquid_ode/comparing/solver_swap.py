"""A trained diffusion model under other solvers: what its cells solve, its loss, its images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import solvers
from liquid_ode.comparing.work_precision import mean_evaluations
from liquid_ode.diffusion import DDIM, GaussianDiffusion, SamplingError, classes_in_turn
from liquid_ode.evaluation.noisy_images import NoisyImages
from liquid_ode.measuring.machine import synchronize
from solvers.fields.derivatives import knows_derivative
from solvers.learned.recording import cast_problem
from solvers.suite import KnownProblem, tight_solution

Span = tuple[float, float]


@dataclass(frozen=True)
class Counted(solvers.Solver):
    """A solver that keeps count: ``counts`` gets the samples and the evaluations of each solve."""

    inner: solvers.Solver
    counts: list[tuple[int, float]]

    def solve_problem(self, problem: solvers.Problem) -> solvers.Solution:
        solution = self.inner.solve_problem(problem)
        self.counts.append((len(problem.y0), mean_evaluations(solution)))
        return solution

    def with_steps(self, steps: int) -> Counted:
        return replace(self, inner=self.inner.with_steps(steps))

    @property
    def mean(self) -> float:
        """Evaluations of a sample so far."""
        return sum(size * nfe for size, nfe in self.counts) / sum(size for size, _ in self.counts)


def cell_solvers(model: nn.Module) -> dict[str, solvers.Solver]:
    """The solvers in a model, by the part that holds each."""
    return {
        name: part.solver
        for name, part in model.named_modules()
        if isinstance(getattr(part, "solver", None), solvers.Solver)
    }


@contextmanager
def standing_in(model: nn.Module, others: Mapping[str, solvers.Solver]) -> Iterator[None]:
    """Within the block the parts of a model that ``others`` names solve with those."""
    parts = {name: vars(model.get_submodule(name)) for name in others}
    held: dict[str, solvers.Solver | None]
    held = {name: part.get("solver") for name, part in parts.items()}
    try:
        for name, solver in others.items():
            # Also in front of a solver that is a module, which stays registered behind it.
            parts[name]["solver"] = solver
        yield
    finally:
        for name, before in held.items():
            if before is None:
                del parts[name]["solver"]
            else:
                parts[name]["solver"] = before


@torch.no_grad()
def met_problems(
    diffusion: GaussianDiffusion,
    images: NoisyImages,
    *,
    cells: int = 6,
    states: int = 1024,
    seed: int = 0,
) -> dict[str, KnownProblem]:
    """The initial value problems that the model's cells solve when it denoises, by part.

    Args:
        diffusion: the model, in evaluation mode, with its own solver.
        images: are denoised once; each cell's first solve is kept.
        cells: at most so many cells, evenly spread from the first to the last.
        states: at most so many samples of each, drawn at random.
        seed: of that draw.

    Returns:
        Problems in the dtype and on the device of the model. The reference is solved in float64
        for fields that can be made of other tensors (:class:`solvers.PullbackFunction`), else in
        the field's own type by 200 steps of the classic Runge-Kutta method.
    """
    parts = list(cell_solvers(diffusion).items())
    if len(parts) > cells:
        gap = (len(parts) - 1) / max(cells - 1, 1)
        parts = [parts[round(index * gap)] for index in range(cells)]
    recorders = {name: solvers.Recorder(solver, rows=states, seed=seed) for name, solver in parts}
    with standing_in(diffusion, recorders):
        images.part(slice(None), diffusion.device).error(diffusion)
    problems = {}
    for name, recorder in recorders.items():
        for met in recorder.problems[:1]:  # none where the model did not use that part
            short = name.removeprefix("model.").removesuffix(".cell")
            about = f"{len(met.y0)} states of {met.y0[0].numel()} units"
            reference = _reference(met)
            problems[name] = KnownProblem(short, about, met.field, met.y0, met.t_span, reference)
    return problems


def _reference(met: solvers.Problem) -> Tensor:
    if knows_derivative(met.field):
        exact = cast_problem(met, torch.float64, "cpu")
        return tight_solution(exact.field, exact.y0, exact.t_span)
    fine = solvers.get("classic_rk4", steps=200)
    return fine.solve(met.field, met.y0, met.t_span).y.cpu().double()


@dataclass(frozen=True)
class Swap:
    """What a model does with one solver in its cells.

    Attributes:
        solver: its name and setting.
        evaluations: of a cell's field in one denoising, mean over samples and cells.
        loss: ‖ε̂ − ε‖², mean over the images.
        loss_error: one standard error of that mean.
        change: of the loss from that with the run's own solver.
        change_error: one standard error of the change; the images and noise are the same, so it
            is far smaller than that of the loss.
        image_change: RMS difference of the sampled pixels from those with the run's own solver,
            in grey levels of 255.
        seconds: of the sampling.
        failure: why it failed, or None; all numbers are then None.
    """

    solver: str
    evaluations: float | None = None
    loss: float | None = None
    loss_error: float | None = None
    change: float | None = None
    change_error: float | None = None
    image_change: float | None = None
    seconds: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Swapped:
    """What :func:`swapped` measures: errors ``(N,)``, images ``(n, 3, H, W)`` and the work."""

    errors: Tensor
    images: Tensor
    evaluations: float
    seconds: float


@torch.no_grad()
def swapped(
    diffusion: GaussianDiffusion,
    images: NoisyImages,
    *,
    samples: int,
    image_shape: Sequence[int],
    sample_steps: int = 50,
    seed: int = 0,
    batch_size: int = 250,
) -> Swapped:
    """The denoising errors and the samples of a model, with the solver that is in it.

    Args:
        diffusion: the model.
        images: are denoised, without clipping: the prediction as it is, not as a sampler mends it.
        samples: how many images to draw by DDIM, of the classes in turn.
        image_shape: (C, H, W).
        sample_steps: DDIM steps.
        seed: of the first image; the next have seed + 1, seed + 2, ...
        batch_size: images denoised at a time.

    Raises:
        SolverError: the solver failed on a cell.
        SamplingError: the images came out as NaN or infinite.
    """
    counted = {name: Counted(held, []) for name, held in cell_solvers(diffusion).items()}
    with standing_in(diffusion, counted):
        errors = images.errors(diffusion, batch_size)
    labels = classes_in_turn(samples, diffusion.num_classes)
    synchronize(diffusion.device)
    began = time.perf_counter()
    drawn = DDIM(steps=sample_steps).sample(
        diffusion, samples, seeds=seed, class_labels=labels, image_shape=image_shape
    )
    synchronize(diffusion.device)
    seconds = time.perf_counter() - began
    means = [solver.mean for solver in counted.values() if solver.counts]
    return Swapped(errors, drawn.cpu(), sum(means) / max(len(means), 1), seconds)


def swap_all(
    entries: Iterable[tuple[str, Callable[[], GaussianDiffusion]]],
    images: NoisyImages,
    **settings: Any,
) -> list[tuple[Swap, Tensor | None]]:
    """Measure a model with one solver after another.

    Args:
        entries: a label and what loads the model with that solver; the run's own comes first.
        images: are denoised by all.
        settings: of :func:`swapped`, the same for all.

    Returns:
        A row of numbers and the samples ``(n, 3, H, W)`` for each entry; None where it failed,
        or cannot be used in the model.

    Raises:
        ValueError, SolverError, SamplingError: so with the run's own solver, which leaves
            nothing to compare with.
    """
    rows: list[tuple[Swap, Tensor | None]] = []
    own = None
    for label, load in entries:
        try:
            found = swapped(load(), images, **settings)
        except (ValueError, solvers.SolverError, SamplingError) as error:
            if own is None:
                raise
            rows.append((Swap(label, failure=str(error)), None))
            continue
        own = own or found
        rows.append((_compared(label, found, own), found.images))
    return rows


def _compared(solver: str, found: Swapped, own: Swapped) -> Swap:
    """The row of a solver's results beside those of the run's own."""
    change = found.errors - own.errors
    root = len(change) ** 0.5
    # Pixels in [-1, 1] span 255 grey levels.
    pixels = 127.5 * (found.images.clamp(-1, 1) - own.images.clamp(-1, 1))
    return Swap(
        solver,
        found.evaluations,
        float(found.errors.mean()),
        float(found.errors.std(correction=0)) / root,
        float(change.mean()),
        float(change.std(correction=0)) / root,
        float(pixels.square().mean().sqrt()),
        found.seconds,
    )
