"""Compare recurrent networks on sequences that are sampled irregularly, at equal parameters.

python examples/studies/fit_sequence.py
python examples/studies/fit_sequence.py --task pendulum --models liquid gru --solver heun
python examples/studies/fit_sequence.py --seeds 1 --rates 0.02 --epochs 4

Two tasks: the angle of a damped pendulum at the time of the next observation, from noisy angles at
irregular times; and scikit-learn's handwritten digits, read row by row with rows missing. Every
model is told how long each observation holds: the liquid cells let their state flow for that time,
nn.GRU gets it as one more input, as is usual. A model marked "no times" is given the mean instead,
which shows what the times are worth. All have the same number of parameters, optimiser, batches and
epochs; each has the learning rate of a short list that is best on the validation set for the first
seed. The errors are those on the test set, which nothing is chosen by.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import solvers
from liquid_ode.cells import CfCCell, LiquidRNN, LTCCell
from liquid_ode.training.cli import run_reporting_errors
from solvers.storage import write_atomically

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples/, where studies is
from liquid_ode.measuring.machine import environment
from studies.equal_parameters import Size, equal_sizes
from studies.sequence_tasks import TASKS, Reader, Task
from studies.sequences import Sequences

BATCH = 64


class TimedGRU(nn.Module):
    """nn.GRU with the duration of each input as one more feature of it."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size + 1, hidden_size, batch_first=True)

    def forward(self, x: Tensor, durations: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(torch.cat([x, durations.unsqueeze(-1)], dim=-1))


@dataclass(frozen=True)
class Model:
    """A model of the comparison: a network made by ``make(input_size, hidden_size, solver)``."""

    title: str
    make: Callable[[int, int, solvers.Solver], nn.Module]
    timed: bool = True


def liquid(inputs: int, hidden: int, solver: solvers.Solver) -> nn.Module:
    return LiquidRNN(inputs, hidden, solver=solver)


def ltc(inputs: int, hidden: int, solver: solvers.Solver) -> nn.Module:
    return LiquidRNN(inputs, hidden, cell=LTCCell)


def cfc(inputs: int, hidden: int, solver: solvers.Solver) -> nn.Module:
    # As wide a backbone as the state: the default of 128 units would leave no room for a state.
    return LiquidRNN(inputs, hidden, cell=partial(CfCCell, backbone_units=hidden))


def gru(inputs: int, hidden: int, solver: solvers.Solver) -> nn.Module:
    return TimedGRU(inputs, hidden)


MODELS = {
    "liquid": Model("LiquidCell", liquid),
    "ltc": Model("LTCCell", ltc),
    "cfc": Model("CfCCell", cfc),
    "gru": Model("nn.GRU", gru),
    "liquid-no-times": Model("LiquidCell, no times", liquid, timed=False),
    "gru-no-times": Model("nn.GRU, no times", gru, timed=False),
}
DEFAULT_MODELS = [name for name in MODELS if name != "liquid-no-times"]  # it takes its time


def build(model: Model, task: Task, solver: solvers.Solver, hidden: int) -> Reader:
    train = task.data.train
    same = None
    if not model.timed:
        same = float(train.durations.sum() / train.lengths.sum())
    network = model.make(train.inputs.shape[-1], hidden, solver)
    return Reader(network, hidden, task.outputs, same)


@dataclass(frozen=True, eq=False)
class Fit:
    """A trained model, its errors, and the seconds of every epoch."""

    reader: Reader
    validation: float
    test: float
    seconds: list[float]


def fit(
    reader: Reader, task: Task, *, rate: float, seed: int, epochs: int, progress: tqdm[Any]
) -> Fit:
    """Train with Adam at a cosine learning rate, gradients clipped to 1."""
    train = task.data.train
    optimizer = torch.optim.Adam(reader.parameters(), lr=rate)
    steps = epochs * math.ceil(len(train) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    shuffle, seconds = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        began = time.perf_counter()
        for rows in torch.randperm(len(train), generator=shuffle).split(BATCH):
            batch = train.select(rows)
            optimizer.zero_grad()
            task.loss(reader(batch.inputs, batch.durations), batch).backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        seconds.append(time.perf_counter() - began)
        progress.update()
    validation, test = (
        error_of(reader, task, part) for part in (task.data.validation, task.data.test)
    )
    return Fit(reader, validation, test, seconds)


@torch.no_grad()
def error_of(reader: Reader, task: Task, data: Sequences) -> float:
    return task.error(reader(data.inputs, data.durations), data)


@dataclass(frozen=True)
class Row:
    """What came of a model: errors of each seed, on the test and on the validation set."""

    model: str
    hidden: int
    parameters: int
    rate: float
    test: list[float]
    validation: list[float]
    seconds_per_epoch: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.test)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds, if there is more than one."""
        return statistics.stdev(self.test) if len(self.test) > 1 else None

    @property
    def shown(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.spread is None else f" ± {self.spread:.3f}")


def train_model(
    model: Model,
    size: Size,
    task: Task,
    options: argparse.Namespace,
    progress: tqdm[Any],
) -> tuple[Row, Reader]:
    """Choose the learning rate with the first seed, train with the others, too.

    Returns the row of the table, and the model of the first seed.
    """

    def of(rate: float, seed: int) -> Fit:
        progress.set_description(f"{task.name}, {model.title}, seed {seed}", refresh=False)
        torch.manual_seed(seed)
        reader = build(model, task, options.solver, size.hidden)
        epochs = options.epochs or task.epochs
        return fit(reader, task, rate=rate, seed=seed, epochs=epochs, progress=progress)

    trials = {rate: of(rate, 0) for rate in options.rates}
    rate = min(
        trials, key=lambda rate: (math.isnan(trials[rate].validation), trials[rate].validation)
    )
    fits = [trials[rate], *(of(rate, seed) for seed in range(1, options.seeds))]
    seconds = [one for trial in (*trials.values(), *fits[1:]) for one in trial.seconds]
    row = Row(
        model.title, *size, rate, [one.test for one in fits], [one.validation for one in fits],
        statistics.median(seconds),
    )  # fmt: skip
    return row, fits[0].reader


def compare(task: Task, options: argparse.Namespace) -> list[Row]:
    """Train every model on a task; print the table as it grows, and draw the pictures."""
    models = {name: MODELS[name] for name in options.models}
    # Of all models, so that those left out do not change the sizes of the others.
    makers = {name: partial(build, model, task, options.solver) for name, model in MODELS.items()}
    chosen = equal_sizes(makers, options.parameters)
    epochs = (len(options.rates) + options.seeds - 1) * (options.epochs or task.epochs)
    print(f"\n{task.name}: {task.about}")
    print(
        f"{len(task.data.train):,} sequences to train on, {len(task.data.validation):,} to choose "
        f"by, {len(task.data.test):,} to test on; {task.reference}"
    )
    width = max(len(model.title) for model in models.values())
    print(f"{'':{width}}  hidden  parameters  rate   {task.measure:^17}  s/epoch")
    rows, readers = [], {}
    with tqdm(
        total=len(models) * epochs, unit="epoch", disable=not sys.stderr.isatty(), leave=False
    ) as progress:
        for name, model in models.items():
            row, readers[model.title] = train_model(model, chosen[name], task, options, progress)
            rows.append(row)
            progress.write(
                f"{row.model:{width}}  {row.hidden:6}  {row.parameters:10,}  {row.rate:<5g}  "
                f"{row.shown:^17}  {row.seconds_per_epoch:7.2f}"
            )
    for path in task.draw(readers, options.output):
        print(f"picture  {path}")
    return rows


def make_parser() -> argparse.ArgumentParser:
    described = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(description=f"{described[0]} {described[-1]}")
    add = parser.add_argument
    add("--task", choices=[*TASKS, "all"], default="all", help="(default: all)")
    add(
        "--models", nargs="+", choices=MODELS, default=DEFAULT_MODELS, metavar="NAME",
        help=f"of {', '.join(MODELS)} (default: all but liquid-no-times)",
    )  # fmt: skip
    add(
        "--solver", default="euler", metavar="NAME",
        help=f"of LiquidCell: {', '.join(solvers.names())}, torchdiffeq:METHOD, learned:PATH, "
        "MODULE:CLASS; "
        "LTCCell keeps its own, and CfCCell has none (default: euler)",
    )  # fmt: skip
    add("--solver-steps", type=int, metavar="N", help="steps of that solver (default: its own)")
    add(
        "--parameters", type=int, default=4000, metavar="N",
        help="of each model, about; all agree to 2%% (default: 4000)",
    )  # fmt: skip
    add("--epochs", type=int, metavar="N", help=f"(default: {default_epochs()})")
    add("--seeds", type=int, default=3, metavar="N", help="of weights and batches (default: 3)")
    add(
        "--rates", type=float, nargs="+", default=[0.02, 0.06], metavar="X",
        help="learning rates to choose from (default: 0.02 0.06)",
    )  # fmt: skip
    add("--size", type=int, metavar="N", help="sequences to train on (default: all)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add(
        "-o", "--output", type=Path, default=Path("runs/fit-sequence"), metavar="DIR",
        help="where to write (default: runs/fit-sequence)",
    )  # fmt: skip
    return parser


def default_epochs() -> str:
    return ", ".join(f"{task.epochs} for the {name}" for name, task in TASKS.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare as the arguments say; returns the exit status."""
    options = make_parser().parse_args(arguments)
    return run_reporting_errors(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    check(options)
    settings = {**vars(options), "output": str(options.output)}
    given = {} if options.solver_steps is None else {"steps": options.solver_steps}
    options.solver = solvers.get(options.solver, **given)
    torch.set_num_threads(options.threads)
    names = list(TASKS) if options.task == "all" else [options.task]
    tasks = [TASKS[name](options.size) for name in names]
    path = options.output / "results.json"
    record: dict[str, Any] = {"environment": environment(), "settings": settings, "tasks": {}}
    try:  # found out before the training
        options.output.mkdir(parents=True, exist_ok=True)
        save(path, record)
    except OSError as error:
        raise ValueError(
            f"output {options.output} cannot be written ({error.strerror or error}): "
            "choose another directory with --output"
        ) from error
    print(", ".join(f"{key} {value}" for key, value in record["environment"].items()))
    for task in tasks:
        rows = compare(task, options)
        record["tasks"][task.name] = {
            "about": task.about, "error": task.measure, "reference": task.reference,
            "rows": [{**asdict(row), "mean": row.mean, "spread": row.spread} for row in rows],
        }  # fmt: skip
        save(path, record)
    print(f"\nwritten  {path}")


def check(options: argparse.Namespace) -> None:
    """Raise ValueError where a number is out of range."""
    for name in ("parameters", "epochs", "seeds", "size", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    for rate in options.rates:
        if not 0 < rate < math.inf:
            raise ValueError(f"--rates must be positive and finite, not {rate}")


def save(path: Path, record: Mapping[str, Any]) -> None:
    write_atomically(path, f"{json.dumps(record, indent=2)}\n".encode())


if __name__ == "__main__":
    raise SystemExit(main())
