"""Train a small CIFAR-10 classifier, as torchvision's ResNets are built, of liquid blocks.

python examples/studies/vision_block.py
python examples/studies/vision_block.py --block residual
python examples/studies/vision_block.py --solver exponential_euler --epochs 10

A stem, then three stages of 16, 8 and 4 pixels a side. The block of a stage is relu(x + norm(h)):
h is the state of a ConvLiquidCell that has flowed from rest, for one unit of time, under x; or, to
compare with, the two convolutions of a residual block, which have as many parameters. Of each run
the directory gets NAME.json and NAME.safetensors, after every epoch, NAME-tau.png, the time
constants of the liquid blocks on test images, and accuracy.png, with all runs that are there.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import solvers
from liquid_ode.data import ImageSet, load_cifar10, to_model_range
from liquid_ode.training import TrainingError
from liquid_ode.training.batches import Batches
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import (
    DEVICES,
    autocast,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from solvers.storage import write_atomically

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring.machine import environment
from studies import vision_plots as plots
from studies.vision_model import Classifier, LiquidBlock, ResidualBlock, time_constants

MARGIN = 4  # pixels by which an image is shifted at most
STEPS = 3


class Run(NamedTuple):
    """What is known of a run, and written to its record."""

    name: str
    settings: dict[str, Any]
    parameters: int
    environment: dict[str, Any]
    epochs: list[dict[str, float]]


def make_parser() -> argparse.ArgumentParser:
    described = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(description=f"{described[0]} {described[-1]}")
    add = parser.add_argument
    add("--block", choices=["liquid", "residual"], default="liquid", help="(default: liquid)")
    add(
        "--solver", metavar="NAME",
        help=f"of the liquid blocks: {', '.join(solvers.names())}, torchdiffeq:METHOD, "
        "learned:PATH, MODULE:CLASS (default: euler)",
    )  # fmt: skip
    add("--solver-steps", type=int, metavar="N",
        help=f"its steps (default: {STEPS}, where it takes a number of steps)")  # fmt: skip
    for name, default, text in (
        ("epochs", 5, "passes over the training images"),
        ("batch-size", 128, "images a step"),
        ("channels", 32, "channels of the first stage; the next have two and four times as many"),
    ):
        told = f"{text} (default: {default})"
        add(f"--{name}", type=int, default=default, metavar="N", help=told)
    add("--lr", type=float, default=4e-3, metavar="X", help="highest learning rate (default: 4e-3)")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add("--data-root", metavar="DIR", help="where CIFAR-10 is cached")
    add("-o", "--output", type=Path, default=Path("runs/vision-block"), metavar="DIR",
        help="where to write (default: runs/vision-block)")  # fmt: skip
    add("--device", choices=DEVICES, help="(default: the best)")
    add(
        "--precision", choices=["auto", "no", "bf16"], default="auto",
        help="mixed precision (default: auto, bf16 on a GPU); bf16 is faster on a CPU with AMX",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit status."""
    options = make_parser().parse_args(arguments)
    return run_reporting_errors(lambda: train(options))


def train(options: argparse.Namespace) -> None:
    for name in ("epochs", "batch_size", "channels"):
        if getattr(options, name) < 1:
            told = f"--{name.replace('_', '-')}"
            raise ValueError(f"{told} must be at least 1, not {getattr(options, name)}")
    if not (math.isfinite(options.lr) and options.lr > 0):
        raise ValueError(f"--lr must be a positive number, not {options.lr}")
    device = resolve_device(options.device)
    options.precision = resolve_precision(options.precision, device)
    block, name = choose_block(options)
    torch.manual_seed(options.seed)
    model = Classifier(block, options.channels, 10)
    model.to(device).to(memory_format=torch.channels_last)  # a CPU convolves it faster
    parameters = sum(p.numel() for p in model.parameters())
    baseline = sum(p.numel() for p in Classifier(ResidualBlock, options.channels, 10).parameters())
    more = f" ({parameters / baseline - 1:+.1%} against residual)" if block != ResidualBlock else ""
    precise = "float32" if options.precision == "no" else options.precision
    print(f"{name}: {parameters:,} parameters{more}, {device}, {precise}")
    prepare(options.output)
    training, test = (load_cifar10(options.data_root, split=part) for part in ("train", "test"))
    batches = Batches(
        training, batch_size=options.batch_size, seed=options.seed, flip=True, labelled=True,
        device=device, channels_last=True,
    )  # fmt: skip
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(options).items()
    }
    run = Run(name, settings, parameters, environment(device), [])
    if device.type == "cpu":
        keep_freed_memory()
    try:
        fit(model, batches, test, run, options, device)
    except KeyboardInterrupt:
        done = len(run.epochs)
        kept = "is" if done == 1 else "are"
        print(f"\n{done} of {options.epochs} epochs {kept} kept in {options.output}")
        raise


def choose_block(options: argparse.Namespace) -> tuple[Callable[[int], nn.Module], str]:
    """What makes a block of so many channels, and the name of the run."""
    if options.block == "residual":
        if options.solver is not None or options.solver_steps is not None:
            raise ValueError("residual blocks have no solver: leave out --solver, or --block")
        return ResidualBlock, f"residual-seed{options.seed}"
    options.solver = options.solver or "euler"
    known = solvers.options(options.solver)
    if options.solver_steps is None and known.get("steps") is not None:
        options.solver_steps = STEPS
    given = {} if options.solver_steps is None else {"steps": options.solver_steps}
    solver = solvers.get(options.solver, **given)
    name = re.sub(r"[^\w.-]+", "-", f"liquid-{options.solver}-seed{options.seed}")
    return lambda channels: LiquidBlock(channels, solver), name


def prepare(output: Path) -> None:
    """Make the directory before the training begins."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"output {output} cannot be made ({error.strerror or error}): choose another "
            "directory with --output"
        ) from error


def fit(
    model: nn.Module,
    batches: Batches,
    test: ImageSet,
    run: Run,
    options: argparse.Namespace,
    device: torch.device,
) -> None:
    """Train, and after each epoch measure and write."""
    steps = options.epochs * batches.steps_per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=steps)
    for epoch in range(options.epochs):
        began, losses = time.perf_counter(), 0.0
        model.train()
        bar = tqdm(
            range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch),
            f"epoch {epoch + 1}/{options.epochs}", leave=False, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        for step in bar:
            (batch,) = batches.step(step)
            assert batch.labels is not None  # they were asked for
            images = random_crop(batch.images, batch.generator)
            with autocast(device, options.precision):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item()
            bar.set_postfix_str(f"loss {loss.item():.3f}")
        losses /= batches.steps_per_epoch
        if not math.isfinite(losses):
            raise TrainingError(f"the loss became {losses} in epoch {epoch + 1}: lower --lr")
        seconds = time.perf_counter() - began
        right = accuracy(model, test, device, options.precision)
        run.epochs.append({"train_loss": losses, "test_accuracy": right, "seconds": seconds})
        print(
            f"epoch {epoch + 1:2d}/{options.epochs}  train loss {losses:.3f}  "
            f"test accuracy {right:.2%}  {seconds:.0f} s", flush=True,
        )  # fmt: skip
        save(model, run, options.output)
        draw(model, test, run, options.output, device)


def random_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to MARGIN pixels, zeros around it; the result is channels_last."""
    count, _, height, width = images.shape
    device = images.device
    shift = torch.randint(2 * MARGIN + 1, (2, count, 1), generator=generator, device=device)
    rows = shift[0] + torch.arange(height, device=device)  # (B, H)
    columns = shift[1] + torch.arange(width, device=device)  # (B, W)
    padded = F.pad(images, [MARGIN] * 4).permute(0, 2, 3, 1)
    sample = torch.arange(count, device=device).view(-1, 1, 1)
    return padded[sample, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(model: nn.Module, test: ImageSet, device: torch.device, precision: str) -> float:
    """The share of the images whose class is found."""
    assert test.labels is not None  # CIFAR-10 has them
    model.eval()
    right = 0
    for images, labels in zip(test.images.split(500), test.labels.split(500), strict=True):
        shown = to_model_range(images.to(device)).contiguous(memory_format=torch.channels_last)
        with autocast(device, precision):
            found = model(shown).argmax(1)
        right += int((found.cpu() == labels).sum())
    return right / len(test)


def save(model: nn.Module, run: Run, output: Path) -> None:
    from safetensors.torch import save as pack

    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    told = {"vision_block": json.dumps(run.settings)}
    write_atomically(output / f"{run.name}.safetensors", pack(tensors, told))
    write_atomically(
        output / f"{run.name}.json", f"{json.dumps(run._asdict(), indent=2)}\n".encode()
    )


def draw(model: nn.Module, test: ImageSet, run: Run, output: Path, device: torch.device) -> None:
    """The pictures of what has been trained so far."""
    curves = {
        f"{each.name}, {each.parameters / 1e3:.0f}K parameters": [
            (epoch["seconds"], epoch["test_accuracy"]) for epoch in each.epochs
        ]
        for each in read_runs(output)
    }
    plots.plot_accuracy(curves, output / "accuracy.png")
    assert test.labels is not None
    names = test.class_names or ()
    first = [test.labels.tolist().index(label) for label in range(len(names))]  # one of each class
    images = to_model_range(test.images[first])
    found = time_constants(model, images.to(device))
    if found:
        plots.plot_time_constants(images, names, found, output / f"{run.name}-tau.png")


def read_runs(output: Path) -> Iterator[Run]:
    """The records of this script that lie in a directory."""
    for path in sorted(output.glob("*.json")):
        try:
            yield Run(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            continue  # somebody else's


if __name__ == "__main__":
    raise SystemExit(main())
