"""Measuring a run while it is trained, and keeping the best of its averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from liquid_ode.data import ImageSet, load_cifar10
from liquid_ode.diffusion import Sampler, classes_in_turn
from liquid_ode.evaluation import read_measurements
from liquid_ode.training.build import build_sampler, shape_now
from liquid_ode.training.config import TrainConfig
from liquid_ode.training.errors import TrainingError
from liquid_ode.training.reporting import Moment, Reporter
from liquid_ode.training.run_directory import MetricsLog, RunDirectory, save_bytes

if TYPE_CHECKING:
    from liquid_ode.evaluation import Scores, Yardstick


class EpochEvaluation(Reporter):
    """Measures the averaged weights after epochs: a callback of :func:`train`.

    Each time the same seeds are drawn. A line of ``metrics.jsonl`` gets ``fd_cnn``, ``kid``,
    ``evaluated`` (how many images) and ``fd_cnn_real`` (of as many real ones); and where the
    distance is the smallest of the run so far, its averaged weights are kept as
    ``ema-best.safetensors``, which ``load_run(run, weights="best")`` loads. The smallest of
    several noisy values flatters: measure the best anew, with other seeds.

        train(config, callbacks=[EpochEvaluation(lambda: Yardstick(held_out, images))])

    Args:
        yardstick: makes the yardstick when it is first needed.
        every: epochs between two measurements; after the last there is always one.
        n: images to draw, more than the yardstick has features.
        sampler: draws them; by default what draws the sample grids.
        batch_size: images at a time.
        note: is told of each measurement, in a line.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self,
        yardstick: Callable[[], Yardstick],
        *,
        every: int = 1,
        n: int = 2000,
        sampler: Sampler | None = None,
        batch_size: int = 250,
        note: Callable[[str], None] | None = None,
    ) -> None:
        if min(every, n, batch_size) < 1:
            raise ValueError(
                f"every, n and batch_size must be at least 1, got {every}, {n} and {batch_size}"
            )
        self._make, self._yardstick = yardstick, None
        self._every, self._n, self._batch_size = every, n, batch_size
        self._sampler, self._note = sampler, note

    _yardstick: Yardstick | None

    def epoch(self, moment: Moment) -> None:
        run, last = RunDirectory(moment.run_dir), moment.step == moment.total_steps
        before = {line["step"]: line["fd_cnn"] for line in read_measurements(run.metrics)}
        if moment.step in before or not (last or moment.epoch % self._every == 0):
            return
        if shape_now(moment.config, moment.averaged.model) != moment.config.image_shape:
            return  # a progressive run that still draws small images
        scores = self._measure(moment)
        best = scores.images.fd < min(before.values(), default=math.inf)
        if best:  # before the line that says so: a kill between the two repeats both
            save_bytes(run.weights("best"), run.weights("ema").read_bytes())
        MetricsLog(run.metrics).append(
            {
                "step": moment.step,
                "epoch": moment.epoch,
                "fd_cnn": scores.images.fd,
                "kid": scores.images.kid,
                "evaluated": scores.images.n,
                "fd_cnn_real": None if scores.real is None else scores.real.fd,
            }
        )
        if self._note is not None:
            self._note(f"epoch {moment.epoch}: {scores}{', the best so far' if best else ''}")

    def _measure(self, moment: Moment) -> Scores:
        config, diffusion = moment.config, moment.averaged
        if self._yardstick is None:
            self._yardstick = self._make()
        images = (self._sampler or build_sampler(config)).sample(
            diffusion,
            self._n,
            seeds=config.seed,
            class_labels=classes_in_turn(self._n, diffusion.num_classes),
            guidance_scale=config.sample_guidance,
            batch_size=self._batch_size,
            image_shape=config.image_shape,
        )
        try:
            return self._yardstick.measure(images)
        except ValueError as error:
            raise TrainingError(f"epoch {moment.epoch} could not be measured: {error}") from error


def cifar10_evaluation(
    config: TrainConfig,
    training: ImageSet,
    device: torch.device,
    note: Callable[[str], None],
) -> EpochEvaluation:
    """The evaluation that ``config`` asks for, against CIFAR-10's test images."""

    def yardstick() -> Yardstick:
        from liquid_ode.evaluation import Yardstick

        held_out = load_cifar10(config.data_root, split="test")
        return Yardstick(held_out, training, device=device)

    return EpochEvaluation(
        yardstick, every=config.evaluate_every or 1, n=config.evaluate_samples, note=note
    )
