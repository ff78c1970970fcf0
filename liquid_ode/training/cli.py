"""The command line of training, made from the fields of ``TrainConfig``."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import logging
import os
import shlex
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import solvers
from liquid_ode.arguments import Parser, options_of_each, options_shown
from liquid_ode.data import DataError
from liquid_ode.diffusion import SamplingError
from liquid_ode.models import model_names, model_options
from liquid_ode.training.config import FREE, PRESETS, TrainConfig
from liquid_ode.training.errors import CheckpointError, TrainingError
from liquid_ode.training.machine import keep_freed_memory
from liquid_ode.training.names import nearest_preset
from liquid_ode.training.run import train
from liquid_ode.training.run_directory import RunDirectory

# Settings whose option has another name or form than --field-name VALUE.
_PAIRS = {"model_options": "--model-option", "solver_options": "--solver-option"}
TOLERANCES = {"rtol": "relative", "atol": "absolute"}
_UNSET = ("none", "None")


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Train as the arguments say; returns the exit status."""
    return run_reporting_errors(lambda: _train(arguments, prog))


def run_reporting_errors(command: Callable[[], None]) -> int:
    """Run ``command``; what a user can put right becomes one line on stderr and status 2."""
    try:
        with _messages_shown():
            command()
    except (
        ValueError,
        OSError,
        DataError,
        CheckpointError,
        TrainingError,
        SamplingError,
        solvers.SolverError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the first step, where there is nothing to save
        print("stopped", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _messages_shown() -> Iterator[None]:
    """Let the library's own messages, such as that data is being fetched, reach the terminal."""
    logger, handler = logging.getLogger("liquid_ode"), logging.StreamHandler(sys.stdout)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _train(arguments: Sequence[str] | None, prog: str | None) -> None:
    given = parse(arguments, prog)
    resume, preset = given.pop("resume", None), given.pop("preset", "improved")
    if resume is None:
        config = TrainConfig.from_preset(preset, **given)
    else:
        config = dataclasses.replace(RunDirectory(resume).read_record()[0], **given)
    keep_freed_memory()  # here, where the process is our own, and not in train()
    try:
        run_dir = train(config, resume=resume)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if int(os.environ.get("RANK", "0")) == 0:  # under a launcher, one process speaks
        print_results(run_dir)


def arguments_of(config: TrainConfig) -> list[str]:
    """What to call the command with for a run of these settings: a preset, and what differs.

    What the weights do not depend on is left out, and so is the precision, which a machine
    chooses.
    """
    tied = {name: value for name, value in config.to_dict().items() if name not in FREE}
    plain = TrainConfig().to_dict()
    # An option that a preset gives cannot be taken back, but only given another value.
    kept = [
        name
        for name, preset in PRESETS.items()
        if all(preset.get(pairs, {}).keys() <= tied[pairs].keys() for pairs in _PAIRS)
    ]
    preset, start = nearest_preset(tied, {name: plain[name] for name in tied}, kept)
    words = ["--preset", preset] if preset in PRESETS else ["--model", config.model]
    for name, value in tied.items():
        if name in ("model", "precision") or value == start[name]:
            continue
        if name in _PAIRS:
            new = {key: x for key, x in value.items() if start[name].get(key) != x}
            words += [word for key, x in new.items() for word in (_PAIRS[name], f"{key}={x}")]
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return [*words, *_places_of(config)]


def _places_of(config: TrainConfig) -> list[str]:
    data = [] if config.data == "cifar10" else ["--data", config.data]
    return data if config.init_from is None else [*data, "--init-from", config.init_from]


def print_results(run_dir: Path) -> None:
    """Say where the results are, and how to sample more."""
    run = RunDirectory(run_dir)
    grid = run.last_sample()
    if grid is not None:
        print(f"samples  {grid}")
    print(f"loss     {run.loss_plot}")
    print(f"weights  {run.weights('ema')} (averaged), {run.weights('model').name} (last step)")
    print(f"more     liquid-ode sample {shlex.quote(str(run_dir))}")


def parse(arguments: Sequence[str] | None, prog: str | None = None) -> dict[str, Any]:
    """The settings that were given, by field name, with ``preset`` and ``resume`` among them."""
    first = Parser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=list(PRESETS), default="improved")
    preset = first.parse_known_args(arguments)[0].preset
    parser = make_parser(preset, prog)
    given = vars(parser.parse(arguments))
    if "preset" in given and "resume" in given:
        parser.error("--preset and --resume exclude each other: the run has its settings")
    if "output" in given and "resume" in given:
        parser.error("--output and --resume exclude each other: a run goes on where it is")
    base = TrainConfig.from_preset(preset) if "resume" not in given else None
    for field in _PAIRS:
        pairs = dict(given.pop(field, []))
        if field == "model_options":
            pairs |= {"steps": steps} if (steps := given.pop("solver_steps", None)) else {}
        else:
            pairs |= {name: given.pop(name) for name in TOLERANCES if name in given}
        if pairs:
            start = getattr(base or RunDirectory(given["resume"]).read_record()[0], field)
            given[field] = {**start, **pairs}
    return given


def make_parser(preset: str = "improved", prog: str | None = None) -> Parser:
    """The parser, whose help shows the defaults of ``preset``."""
    parser = Parser(
        prog=prog,
        description="Train an image diffusion model. Without options: the model 'improved' on "
        f"CIFAR-10. The defaults shown are those of the preset '{preset}'.",
        argument_default=argparse.SUPPRESS,  # only what was given: a resumed run checks just that
        allow_abbrev=False,
    )
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        help="start from a named set of settings; --preset NAME --help shows them "
        "(default: improved)",
    )
    parser.add_argument(
        "--resume", metavar="RUN_DIR", help="go on with a run that was stopped (default: a new run)"
    )
    parser.epilog = "\n\n".join(
        [
            options_of_each(
                "options of each model, as --model-option KEY=VALUE (more: liquid-ode models NAME)",
                {name: options_shown(_own_options(name)) for name in model_names()},
            ),
            solver_options_shown(),
        ]
    )
    defaults = TrainConfig.from_preset(preset)
    hints = typing.get_type_hints(TrainConfig)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(TrainConfig):
        section = field.metadata["section"]
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        _add_option(groups[section], field, hints[field.name], getattr(defaults, field.name))
        if field.name == "model_options":
            add_solver_steps(groups[section], "the model's own")
        if field.name == "solver_options":
            add_tolerances(groups[section])
    return parser


def solver_options_shown() -> str:
    """For the end of a help: the options of each solver."""
    return options_of_each(
        "options of each solver, as --solver-option KEY=VALUE (more: liquid-ode solvers NAME);\n"
        "the steps of a model's cells are --solver-steps",
        {name: options_shown(solvers.options(name)) for name in solvers.names()},
    )


def _own_options(model: str) -> dict[str, Any]:
    """The options of a model; what belongs to the images has an option of its own."""
    return {key: x for key, x in model_options(model).items() if key != "image_channels"}


def _add_option(group: Any, field: dataclasses.Field[Any], hint: Any, default: Any) -> None:
    text = f"{field.metadata['help']} (default: {_shown(field, default)})"
    if field.name in _PAIRS:
        group.add_argument(
            _PAIRS[field.name], dest=field.name, action="append", type=key_value,
            metavar="KEY=VALUE", help=text,
        )  # fmt: skip
        return
    flag = "--" + field.name.replace("_", "-")
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if typing.get_origin(kinds[0]) is list:
        entry = typing.get_args(kinds[0])[0]
        group.add_argument(flag, type=entry, nargs="*", metavar=_METAVARS[entry], help=text)
        return
    if kinds[0] is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        return
    if "convert" in field.metadata:  # by the config, whose message says what is accepted
        group.add_argument(flag, metavar=field.metadata["metavar"], help=text)
        return
    choices = field.metadata.get("choices")
    if field.metadata.get("solver"):
        text = (
            f"{text[:-1]}; one of {', '.join(solvers.names())}, torchdiffeq:METHOD, learned:PATH, "
            "or your own as MODULE:CLASS)"
        )
    group.add_argument(
        flag,
        type=_optional(kinds[0]) if type(None) in kinds else kinds[0],
        choices=choices() if callable(choices) else choices,
        metavar=None if choices else _METAVARS.get(kinds[0], "TEXT"),
        help=text,
    )


_METAVARS = {int: "N", float: "X"}


def add_solver_steps(group: Any, default: str) -> None:
    """The option for the budget of the cells' solver, the same in all commands."""
    group.add_argument(
        "--solver-steps", type=int, nargs="+", action=_SolverSteps, metavar="N",
        help="solver steps of the cells: one number for all, or one for each scale (the global, "
        "the local and the detail processor) or resolution (of a U-Net, the largest first) "
        f"(default: {default})",
    )  # fmt: skip


class _SolverSteps(argparse.Action):
    """One number for all cells, or a list of which the model knows how long it is."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else list(values))


def add_tolerances(group: Any) -> None:
    """The options for the tolerances of the cells' solver, the same in all commands."""
    for name, text in TOLERANCES.items():
        group.add_argument(
            f"--{name}", type=float, metavar="X",
            help=f"{text} tolerance, for a solver that is driven by one (default: the solver's)",
        )  # fmt: skip


def key_value(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` with the value as Python writes it, else as text: rtol=1e-3, kind=fast."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _optional(kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        return None if text in _UNSET else kind(text)

    convert.__name__ = kind.__name__  # for argparse's message: "invalid int value"
    return convert


def _shown(field: dataclasses.Field[Any], value: Any) -> str:
    if value is None:
        return str(field.metadata["unset"])
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{key}={entry}" for key, entry in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)
