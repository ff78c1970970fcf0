"""The loop of a run: steps, lines of metrics, checkpoints, sample grids."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from liquid_ode.data import ImageSet
from liquid_ode.evaluation import plot_metrics, save_grid
from liquid_ode.models.unet import UShape
from liquid_ode.training.averages import averaged, name_of, power_averaged
from liquid_ode.training.batches import Batch
from liquid_ode.training.build import (
    build_batches,
    build_diffusion,
    build_optimizer,
    build_sampler,
)
from liquid_ode.training.config import TrainConfig, is_object
from liquid_ode.training.errors import Interrupted, TrainingError
from liquid_ode.training.exchange import Exchange
from liquid_ode.training.grids import SamplingStopped, sample_grid
from liquid_ode.training.growth import growth_at, halved
from liquid_ode.training.rates import learning_rate
from liquid_ode.training.reporting import Moment, Reporter, duration
from liquid_ode.training.run_directory import MetricsLog, RunDirectory, save_bytes
from liquid_ode.training.state import Counters, Interval, RunState
from solvers import SolverError

if TYPE_CHECKING:
    from liquid_ode.training.machine import Accelerator


class Trainer:
    """One run of training, from its current step to its end.

    Args:
        config: the settings, with ``precision`` resolved.
        run: the run directory, which exists.
        model: the network, new.
        data: the images.
        accelerator: Accelerate's engine, made for this run.
        description: what the files of weights say of the model.
        reporter: who is told.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        *,
        model: nn.Module,
        data: ImageSet,
        accelerator: Accelerator,
        description: dict[str, Any],
        reporter: Reporter,
    ) -> None:
        self.config, self.run, self.reporter = config, run, reporter
        self.accelerator = accelerator
        self.sampler = build_sampler(config)
        self.batches = build_batches(config, data, accelerator)
        self.total = self.steps_of(config)
        if config.warmup >= self.total:
            raise ValueError(
                f"warmup must be less than the {self.total} steps of the run, got {config.warmup}"
            )
        self.model = model.to(accelerator.device)
        if config.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.averages = {"ema": averaged(self.model, config.ema_decay)}
        for length in config.ema_lengths:
            self.averages[name_of(length)] = power_averaged(self.model, length)
        self.averaged = build_diffusion(config, self.averages["ema"].module).eval()
        if config.compile:  # after the copies, which need none
            self.model.compile()
        self.optimizer = build_optimizer(config, self.model)
        self.plain = build_diffusion(config, self.model)
        self.diffusion, self.engine_optimizer = accelerator.prepare(self.plain, self.optimizer)
        self.parameters = list(self.model.parameters())
        self.state = RunState(
            self.model, self.averages, self.optimizer, accelerator.scaler, description
        )
        self.log = MetricsLog(run.metrics)
        self.exchange = Exchange(accelerator)
        self._running_loss = self._epoch_loss = math.nan
        self._began = self._saved = 0.0

    @property
    def progress(self) -> Counters:
        return self.state.progress

    @property
    def epoch(self) -> int:
        """The epoch of the last step made, counted from 1 (0 before the first step)."""
        return math.ceil(self.progress.step / self.batches.steps_per_epoch)

    @property
    def finished(self) -> bool:
        return self.progress.step >= self.total

    def steps_of(self, config: TrainConfig) -> int:
        """The optimizer steps of a whole run with these settings, on this data."""
        total = config.epochs * self.batches.steps_per_epoch
        return total if config.max_steps is None else min(total, config.max_steps)

    def learning_rate(self) -> float:
        """The rate of the next step."""
        config = self.config
        return learning_rate(
            config.lr, self.progress.step, self.total,
            schedule=config.lr_schedule, warmup=config.warmup,
        )  # fmt: skip

    def moment(self, loss: float) -> Moment:
        return Moment(
            config=self.config,
            run_dir=self.run.path,
            step=self.progress.step,
            total_steps=self.total,
            epoch=self.epoch,
            loss=loss,
            images_per_second=self.progress.interval.images_per_second(self.batches.step_images),
            diffusion=self.plain,
            averaged=self.averaged,
        )

    def train(self) -> None:
        """Make the steps that are left.

        Raises:
            TrainingError: the loss became NaN or infinite, or something could not be saved.
            Interrupted: SIGINT, SIGTERM or SIGHUP came; the state is saved.
        """
        self._saved = time.perf_counter()
        self._began = self._saved - self.progress.seconds
        self.model.train()
        first = self.config.init_from is not None or is_object(self.config.model)
        with self.exchange:
            if first and self.state.saved_step is None:  # what it begins with can be lost
                self.save()
            if self._at_epoch_end():  # resumed there: what follows an epoch may be missing
                self._end_epoch()
            while not self.finished:
                self._step()
                if self.progress.step % self.config.log_every == 0 or self._at_epoch_end():
                    self._log()
                if self._at_epoch_end():
                    self._report_epoch()
                    self.save()
                    self._end_epoch()
                elif self._save_due():
                    self.save()
                if self.exchange.stop:
                    self._leave()

    # One step ---------------------------------------------------------------------------------

    def _step(self) -> None:
        began = time.perf_counter()
        step = self.progress.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        level = self._grow()
        losses = []
        for batch in self.batches.step(step):
            with self.accelerator.accumulate(self.diffusion):
                loss = self._loss(halved(batch.images, level), batch)
                self.accelerator.backward(loss)
                losses.append(loss.detach())
        loss_value, norm_value = self.exchange.agree(torch.stack(losses).mean(), self._clip())
        self._check_finite(step, loss_value, norm_value)
        self.engine_optimizer.step()
        self.engine_optimizer.zero_grad()
        for average in self.averages.values():
            average.update_parameters(self.model)

        now = time.perf_counter()
        self.progress.step = step + 1
        self.progress.seconds = now - self._began
        for interval in (self.progress.interval, self.progress.epoch):
            interval.add(loss_value, norm_value, now - began)
        self._report_step(loss_value)

    def _grow(self) -> int:
        """Bring a progressive run's model to where it is to be in the coming step.

        Returns by how many halvings the images of that step are smaller.
        """
        model = self.model
        if not self.config.progressive or not isinstance(model, UShape):
            return 0
        if self.progress.step == 0:
            model.grow(self.config.progressive)
        growth = growth_at(
            self.progress.step, self.total,
            halvings=self.config.progressive, share=self.config.progressive_share,
        )  # fmt: skip
        level = int(math.log2(model.reduction))
        if growth.level > level:  # a run that was extended does not shrink
            return level
        model.grow(*growth)
        return growth.level

    def _loss(self, images: Tensor, batch: Batch) -> Tensor:
        try:
            loss: Tensor = self.diffusion(images, batch.labels, batch.generator, batch.rows)
        except (ValueError, SolverError) as error:
            raise TrainingError(
                f"step {self.progress.step + 1} of {self.total} failed: {error}. {self._kept()}"
            ) from error
        except RuntimeError as error:
            if not self.config.compile:
                raise
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(
                f"step {self.progress.step + 1} of {self.total} failed in the compiled model: "
                f"{reason}. {self._kept()}. --no-compile goes on without compiling"
            ) from error
        return loss

    def _clip(self) -> Tensor:
        """Clip the gradient; its norm before that."""
        self.accelerator.unscale_gradients()
        limit = self.config.gradient_clip
        return nn.utils.clip_grad_norm_(self.parameters, math.inf if limit is None else limit)

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        # With fp16 the scaler meets gradients that are not finite: it leaves the step out.
        scaled = self.accelerator.scaler is not None
        what = "loss" if not math.isfinite(loss) else "norm of the gradient"
        if math.isfinite(loss) and (scaled or math.isfinite(norm)):
            return
        raise TrainingError(
            f"the {what} became {loss if what == 'loss' else norm} in step {step + 1} of "
            f"{self.total}, so the run was stopped before that step changed the weights. "
            f"{self._kept()}. Go on from there with a lower rate (--resume "
            f"{shlex.quote(str(self.run.path))} --lr X), precision 'no' or another solver"
        )

    def _kept(self) -> str:
        if self.state.saved_step is None:
            return "No state had been saved yet"
        return (
            f"The last good state, of step {self.state.saved_step}, is kept in "
            f"{self.run.checkpoint}"
        )

    # What is told -----------------------------------------------------------------------------

    def _report_step(self, loss: float) -> None:
        started = not math.isnan(self._running_loss)
        self._running_loss = 0.98 * self._running_loss + 0.02 * loss if started else loss
        self.reporter.step(self.moment(self._running_loss))

    def _log(self) -> None:
        interval, self.progress.interval = self.progress.interval, Interval()
        if not self.accelerator.is_main_process:
            return
        record = {
            "step": self.progress.step,
            "epoch": self.epoch,
            "loss": interval.loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": interval.norm,
            "images_per_second": round(interval.images_per_second(self.batches.step_images), 1),
            "seconds": round(self.progress.seconds, 3),
        }
        self.log.append(record)
        self.reporter.metrics(record)

    def _report_epoch(self) -> None:
        interval, self.progress.epoch = self.progress.epoch, Interval()
        self._epoch_loss = interval.loss
        speed = interval.images_per_second(self.batches.step_images)
        self.reporter.note(
            f"epoch {self.epoch}/{self.config.epochs}: loss {interval.loss:.4f}, "
            f"{speed:.0f} images/s, {duration(self.progress.seconds)} in all"
        )

    # Saving and going on ----------------------------------------------------------------------

    def _save_due(self) -> bool:
        step, config = self.progress.step, self.config
        if step % config.checkpoint_every == 0 or self._snapshot_due():
            return True
        if self.exchange.save:
            return True
        minutes = (time.perf_counter() - self._saved) / 60
        return config.checkpoint_minutes is not None and minutes >= config.checkpoint_minutes

    def _snapshot_due(self) -> bool:
        every = self.config.snapshot_every
        step = self.progress.step
        return every is not None and step > 0 and step % every == 0

    def save(self) -> None:
        """Save the state and the weights, and keep the state for good where that is due.

        Raises:
            TrainingError: it could not be saved; the files that were there are kept.
        """
        if self.accelerator.is_main_process:
            self.state.save(self.run, self.config)
            if self._snapshot_due():
                save_bytes(self.run.snapshot(self.progress.step), self.run.checkpoint.read_bytes())
            if self.exchange.save:
                self.reporter.note(f"saved at step {self.progress.step:,} of {self.total:,}")
            self.reporter.checkpoint(self.moment(self._running_loss), self.run.checkpoint)
        self.state.saved_step = self.progress.step
        self._saved = time.perf_counter()
        self.exchange.saved()

    def restore(self, history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Go on from the run's checkpoint; without one, from the start.

        Args:
            history: how the settings of the run have changed, as ``config.json`` tells it.

        Raises:
            CheckpointError: the checkpoint is broken, or belongs to another model.
        """
        found = self.run.checkpoint.exists()
        if found:
            self.state.restore(self.run, self.config, history)
        if self.accelerator.is_main_process:
            if found:  # a kill may have come between the checkpoint and the weights
                self.state.save_weights(self.run)
            self.log.cut_after(self.progress.step)

    def _leave(self) -> None:
        """Save, say how to go on, and raise Interrupted."""
        if self.state.saved_step != self.progress.step:
            self.save()
        interruption = Interrupted(self.exchange.stop, self.run.path)
        self.reporter.note(
            f"saved at step {self.progress.step:,} of {self.total:,}; {interruption}"
        )
        raise interruption

    # After an epoch ---------------------------------------------------------------------------

    def _at_epoch_end(self) -> bool:
        step = self.progress.step
        return step > 0 and (step % self.batches.steps_per_epoch == 0 or self.finished)

    def _end_epoch(self) -> None:
        """Make the pictures of the epoch that are due and not there; the state is saved already."""
        if self.accelerator.is_main_process:
            self._pictures()
            if not self.exchange.stop_is_coming():
                self.reporter.epoch(self.moment(self._epoch_loss))
        self.exchange.wait()
        if self.exchange.stop:
            self._leave()

    def _pictures(self) -> None:
        due = self.finished or self.epoch % self.config.sample_every == 0
        path = self.run.sample(self.epoch)
        try:
            plot_metrics(self.run.metrics, self.run.loss_plot)
            if due and self.config.samples > 0 and not path.exists():
                with self.accelerator.autocast():
                    grid = sample_grid(
                        self.config, self.sampler, self.averaged, self.exchange.stop_is_coming
                    )
                save_grid(grid, path)
        except SamplingStopped:
            pass
        except (RuntimeError, ValueError) as error:  # no reason to lose the training
            self.reporter.note(f"no sample grid of epoch {self.epoch}: {error}")
        except OSError as error:
            raise TrainingError(
                f"could not save the pictures of epoch {self.epoch}: {error}. {self._kept()}"
            ) from error
