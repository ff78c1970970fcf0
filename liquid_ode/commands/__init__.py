"""The command ``liquid-ode``: one module a command, imported when it is called.

Each has ``main(arguments, *, prog)``, which returns the exit status; the scripts of the repository
call the same. This module is light, so that the list of the commands, and what a mistyped one is
answered with, take no time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import liquid_ode
from liquid_ode.arguments import did_you_mean


class Command(NamedTuple):
    module: str
    says: str


COMMANDS = {
    "train": Command("liquid_ode.training.cli", "train an image diffusion model"),
    "sample": Command("liquid_ode.sampling.cli", "draw images from a run, with any solver"),
    "evaluate": Command("liquid_ode.commands.evaluate", "measure runs, or sets of images"),
    "compare": Command("liquid_ode.commands.compare", "compare solvers, on fields or in a run"),
    "report": Command("liquid_ode.commands.report", "write a page about a run, or about several"),
    "edit": Command("liquid_ode.commands.edit", "reconstruct, interpolate, vary, fill in images"),
    "likelihood": Command("liquid_ode.commands.likelihood", "bits per dimension under a run"),
    "train-sampler": Command(
        "liquid_ode.commands.train_sampler", "train a sampler of few evaluations for a run"
    ),
    "train-solver": Command(
        "liquid_ode.commands.train_solver", "train a solver's coefficients for a run's cells"
    ),
    "share": Command("liquid_ode.commands.share", "copy a run to hand on"),
    "models": Command("liquid_ode.commands.models", "list the models and their options"),
    "solvers": Command("liquid_ode.commands.solvers", "list the solvers and their options"),
    "pretrained": Command(
        "liquid_ode.commands.pretrained", "list the trained runs that come with the package"
    ),
}

_HELP = """\
usage: liquid-ode COMMAND ...

Liquid neural cells driven by ODE solvers, and image diffusion built from them.

commands:
{commands}

options:
  -h, --help       show this, or after a command its options
  --version        show the version

for example:
  liquid-ode sample pretrained:improved    images, with nothing trained
  liquid-ode train --solver euler          a model of your own, on CIFAR-10
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit status."""
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    if name == "--version":
        print(f"liquid-ode {liquid_ode.__version__}")
        return 0
    if name not in COMMANDS:
        known = [*COMMANDS, "--help", "--version"]
        print(
            f"error: unknown command {name!r}{did_you_mean(name, known)}; the commands are "
            f"{', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    status: int = import_module(COMMANDS[name].module).main(rest, prog=f"liquid-ode {name}")
    return status


def overview() -> str:
    """What ``liquid-ode --help`` prints."""
    lines = [f"  {name:<16} {command.says}" for name, command in COMMANDS.items()]
    return _HELP.format(commands="\n".join(lines))
