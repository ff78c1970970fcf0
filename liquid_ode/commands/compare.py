"""Compare solvers: error against evaluations and time, on a suite of fields or a trained model.

liquid-ode compare
liquid-ode compare runs/improved-euler-seed0
liquid-ode compare --solvers heun etdrk2 --problems stiff_liquid --full

Without a run the fields are a built-in suite. With the directory of a trained run they are those
that the model's liquid cells meet on test images at random noise levels; then every solver takes
the place of the run's own, and the denoising loss and the samples are compared. (Runs are
compared with each other by liquid-ode report RUN RUN.)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import solvers
from liquid_ode.arguments import A_RUN, Parser, add_device, command_parser
from liquid_ode.comparing import plots, solver_swap, tables, work_precision
from liquid_ode.data import load_images, to_model_range
from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.measuring.machine import environment
from liquid_ode.training import TrainConfig, load_config, load_run
from liquid_ode.training.cli import run_reporting_errors
from liquid_ode.training.machine import resolve_device
from liquid_ode.training.run_directory import RunDirectory
from solvers import suite
from solvers.storage import write_atomically

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def make_parser(prog: str | None = None) -> Parser:
    parser = command_parser(prog, __doc__)
    add = parser.add_argument
    add(
        "run_dir", metavar="RUN_DIR", type=Path, nargs="?",
        help=f"{A_RUN} (default: the built-in suite of fields)",
    )  # fmt: skip
    add(
        "--solvers", nargs="+", metavar="NAME",
        help=f"compare these: {', '.join(solvers.names())}, torchdiffeq:METHOD, "
        "learned:PATH, MODULE:CLASS (default: all that fit each field)",
    )  # fmt: skip
    add(
        "--steps", type=int, nargs="+", default=work_precision.STEPS, metavar="N",
        help="steps of the solvers with a budget (default: 1 2 3 5 7 10 20 40)",
    )  # fmt: skip
    add(
        "--tolerances", type=float, nargs="+", default=work_precision.TOLERANCES, metavar="X",
        help="relative tolerances of the others; the absolute is a tenth of it "
        "(default: 1e-1 1e-2 1e-3 1e-4 1e-5)",
    )  # fmt: skip
    add_count(parser, "--repeats", 7, "timed repeats")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add_device(parser)
    add_count(parser, "--threads", None, "CPU threads; 1 is steadier on a busy machine")
    add("--full", action="store_true", help="print every solve, not only a summary")
    add(
        "-o", "--output", type=Path, metavar="DIR",
        help="where to write (default: runs/compare-solvers, or RUN_DIR/compare-solvers)",
    )  # fmt: skip
    fields = parser.add_argument_group("the built-in suite")
    fields.add_argument(
        "--problems", nargs="+", default=suite.names(), metavar="NAME",
        help=f"of {', '.join(suite.names())} (default: all)",
    )  # fmt: skip
    fields.add_argument("--dtype", choices=DTYPES, default="float32", help="(default: float32)")
    add_run_options(parser.add_argument_group("a trained run"))
    return parser


def add_run_options(group: Any) -> None:
    add_count(group, "--cells", 6, "measure solvers on so many of the model's cells, evenly spread")
    add_count(group, "--states", 1024, "states of each cell to measure solvers on")
    add_count(group, "--images", 500, "images for the denoising loss")
    add_count(group, "--samples", 10, "images to sample with each solver")
    add_count(group, "--sample-steps", 50, "DDIM steps")
    group.add_argument(
        "--own-steps", type=int, nargs="*", default=[1, 2, 20], metavar="N",
        help="also try the run's own solver with so many steps in every cell (default: 1 2 20)",
    )  # fmt: skip
    group.add_argument(
        "--swap-rtol", type=float, default=1e-3, metavar="X",
        help="relative tolerance of the solvers that are driven by one, in the cells; the absolute "
        "is a tenth of it (default: 1e-3)",
    )  # fmt: skip
    group.add_argument(
        "--weights", choices=["ema", "model"], default="ema",
        help="averaged weights, or those of the last step (default: ema)",
    )  # fmt: skip
    group.add_argument(
        "--data", metavar="DATA",
        help="the images: cifar10 for its test images, or folder:PATH (default: the run's)",
    )  # fmt: skip
    group.add_argument("--data-root", metavar="DIR", help="where CIFAR-10 is cached")


def add_count(group: Any, flag: str, default: int | None, text: str) -> None:
    """An option that is a number of at least 1; :func:`check` looks at it."""
    shown = "torch's own" if default is None else default
    group.add_argument(
        flag, type=int, default=default, metavar="N", help=f"{text} (default: {shown})"
    )


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Compare as the arguments say; returns the exit status."""
    options = make_parser(prog).parse(arguments)
    return run_reporting_errors(lambda: compare(options))


def compare(options: argparse.Namespace) -> None:
    check(options)
    device = resolve_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    given = options.solvers or solvers.names()
    for name in given:
        work_precision.candidates(name, options.steps, options.tolerances)  # or a clear error
    config = None
    if options.run_dir is not None:
        config = load_config(options.run_dir)
        if not config.has_cells:
            raise ValueError(
                f"{options.run_dir} is a run of model {config.model!r}, which has no liquid cells "
                "and so no solver to compare: take a run of 'improved' or 'original'"
            )
    home = Path("runs") if options.run_dir is None else RunDirectory(options.run_dir).outputs
    output = options.output or home / "compare-solvers"
    prepare(output)
    print(", ".join(f"{key} {value}" for key, value in environment(device).items()))
    if config is None:
        compare_on_suite(options, given, output, device)
    else:
        compare_on_run(options, config, given, output, device)


def check(options: argparse.Namespace) -> None:
    """Raise ValueError where a number is out of range."""
    for name in ("repeats", "threads", "cells", "states", "images", "samples", "sample_steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    for name in set(options.problems) - set(suite.names()):
        raise ValueError(f"the suite has no problem {name!r}; it has {', '.join(suite.names())}")


def prepare(output: Path) -> None:
    """Make the directory, and find out before the measuring whether it can be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise ValueError(
            f"output {output} cannot be written ({error.strerror or error}): "
            "choose another directory with --output"
        ) from error


def compare_on_suite(
    options: argparse.Namespace, given: Sequence[str], output: Path, device: torch.device
) -> None:
    rows, titles = [], {}
    for name in dict.fromkeys(options.problems):
        problem = suite.problem(name, dtype=DTYPES[options.dtype], device=device, seed=options.seed)
        rows += measure(problem, given, options)
        titles[name] = f"{name}\n{problem.about}"
    write_work_precision(rows, titles, output, f"Built-in suite, {options.dtype}", device)


def compare_on_run(
    options: argparse.Namespace,
    config: TrainConfig,
    given: Sequence[str],
    output: Path,
    device: torch.device,
) -> None:
    diffusion = load_run(options.run_dir, weights=options.weights, device=device)
    images = test_images(options, config, diffusion)
    print(
        f"{config.model} of {options.run_dir} ({options.weights} weights), its own solver "
        f"{config.solver}, on {len(images)} images of {options.data or config.data}"
    )
    few = images.part(slice(0, 64), torch.device("cpu"))
    problems = solver_swap.met_problems(
        diffusion, few, cells=options.cells, states=options.states, seed=options.seed
    )
    own = solver_swap.cell_solvers(diffusion)
    rows, titles = [], {}
    for part, problem in problems.items():
        mine = work_precision.Candidate(plots.OWN, config.solver, own[part])
        rows += measure(problem, given, options, mine)
        titles[problem.name] = f"{problem.name}\n{problem.about}"
    heading = f"Liquid cells of {RunDirectory(options.run_dir).path.resolve().name} on images"
    write_work_precision(rows, titles, output, heading, device)
    swap_solvers(options, config, given, output, device, images)


def test_images(
    options: argparse.Namespace, config: TrainConfig, diffusion: GaussianDiffusion
) -> solver_swap.NoisyImages:
    """Images with the time steps and the noise at which all solvers denoise them."""
    name = options.data or config.data
    data = load_images(
        name,
        options.data_root or config.data_root,
        split="test" if name == "cifar10" else "train",  # a folder has no split of its own
        image_size=config.image_size,
        image_channels=config.image_channels,
        limit=options.images,
    )
    labels = None
    if diffusion.num_classes is not None and data.labels is not None:
        labels = data.labels[: options.images].long()
    return solver_swap.NoisyImages.draw(
        to_model_range(data.images[: options.images]), config.diffusion_steps, options.seed, labels
    )


def measure(
    problem: suite.KnownProblem,
    given: Sequence[str],
    options: argparse.Namespace,
    *own: work_precision.Candidate,
) -> list[work_precision.Row]:
    """Measure one problem and print its table."""
    found = work_precision.fitting(problem, given, options.steps, options.tolerances)
    rows = work_precision.measure(problem, [*own, *found.candidates], options.repeats)
    print(f"\n{tables.problem_block(problem, rows, found.left_out)}")
    if options.full:
        print(*tables.every_row(rows), sep="\n")
    sys.stdout.flush()
    return rows


def write_work_precision(
    rows: Sequence[work_precision.Row],
    titles: dict[str, str],
    output: Path,
    heading: str,
    device: torch.device,
) -> None:
    record = {
        "error": work_precision.ERROR,
        "problems": {name: title.partition("\n")[2] for name, title in titles.items()},
        "rows": [vars(row) for row in rows],
    }
    save_json(output / "work_precision.json", record, device)
    works: list[tuple[plots.Work, str]] = [
        ("evaluations", "error_vs_evaluations"), ("milliseconds", "error_vs_time"),
    ]  # fmt: skip
    print()
    for work, name in works:
        path = output / f"{name}.png"
        print(f"plot     {plots.plot_work_precision(rows, path, work, titles, heading)}")


def swap_solvers(
    options: argparse.Namespace,
    config: TrainConfig,
    given: Sequence[str],
    output: Path,
    device: torch.device,
    images: solver_swap.NoisyImages,
) -> None:
    """Put each solver into the model, and compare its loss and its samples."""
    entries = [
        (
            label,
            partial(load_run, options.run_dir, weights=options.weights, device=device, **changes),
        )
        for label, changes in swaps(options, config, given)
    ]
    found = solver_swap.swap_all(
        tqdm(entries, unit="solver", disable=not sys.stderr.isatty()), images,
        samples=options.samples, sample_steps=options.sample_steps, seed=options.seed,
        image_shape=config.image_shape,
    )  # fmt: skip
    rows = [row for row, _ in found]
    print(
        f"\nsolvers of the cells swapped: denoising loss of {len(images)} images, mean squared "
        f"error of the noise; {options.samples} samples by {options.sample_steps} DDIM steps\n"
        "evaluations: of each cell's field, mean; pixels: RMS difference from own, of 255 levels; "
        "s: of the sampling"
    )
    print(tables.swap_table(rows))
    record = {"images": len(images), "rows": [vars(row) for row in rows]}
    save_json(output / "denoising_loss.json", record, device)
    name = RunDirectory(options.run_dir).path.resolve().name
    heading = (
        f"{name}: another solver in its cells; the same seeds in every "
        "row\nevaluations of each cell, denoising loss, RMS difference from the first row in grey "
        "levels of 255"
    )
    pictures = [
        (f"{row.solver}\n{row.evaluations:.1f} evaluations, loss {row.loss:.4f}, "
         f"differs by {row.image_change:.1f}", drawn)
        for row, drawn in found if drawn is not None
    ]  # fmt: skip
    path = output / "samples_by_solver.png"
    print(f"samples  {plots.plot_image_rows(pictures, path, heading)}")


def swaps(
    options: argparse.Namespace, config: TrainConfig, given: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is compared on a run: labels, and arguments of ``load_run``; the run's own first."""
    yield f"{config.solver} (own)", {}
    if "steps" in solvers.options(config.solver):
        for count in options.own_steps:
            label = f"{config.solver}, {work_precision.steps_text(count)}"
            yield label, {"solver_steps": count}
    for name in dict.fromkeys(given):
        # Of any budget: the model gives each cell its own.
        entry = work_precision.candidates(name, [5], [options.swap_rtol])[0]
        if entry.setting.startswith("rtol"):
            yield f"{work_precision.short_name(name)}, {entry.setting}", {"solver": entry.solver}
        elif name != config.solver or config.solver_options:
            yield work_precision.short_name(name), {"solver": entry.solver}


def save_json(path: Path, record: dict[str, Any], device: torch.device) -> None:
    record = {"environment": environment(device), **record}
    write_atomically(path, f"{json.dumps(record, indent=2)}\n".encode())
    print(f"written  {path}")
