"""List the solvers and their options, for --solver and --solver-option; or all about one.

liquid-ode solvers
liquid-ode solvers tsit5
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import solvers
from liquid_ode.arguments import Parser, entry, options_shown
from liquid_ode.training.cli import run_reporting_errors

# What a class that has several names does not tell.
SAID = {
    "uniform_euler": "Explicit Euler on equal steps: Euler(step_size=Uniform(5)).",
    "rk4": "torchdiffeq's rk4 (the 3/8 rule, order 4).",
    "dopri5": "torchdiffeq's dopri5: error control with one step for the whole batch.",
}
OTHERS = """\
torchdiffeq:METHOD    any other method of torchdiffeq
learned:PATH          trained coefficients, which liquid-ode train-solver makes
MODULE:CLASS          your own, from a module that can be imported or lies in this folder"""


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """List what the arguments ask for; returns the exit status."""
    parser = Parser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", metavar="NAME", help="(default: all)")
    options = parser.parse(arguments)
    return run_reporting_errors(lambda: show(options.name))


def show(name: str | None) -> None:
    """Print all solvers, or one with its whole documentation.

    Raises:
        ValueError: there is no solver of that name.
    """
    for each in solvers.names() if name is None else [name]:
        first, _, rest = (inspect.getdoc(type(solvers.get(each))) or "").partition("\n")
        first = SAID.get(each, first)
        says = first if name is None else f"{first}\n{rest}"
        print(entry(each, says, options_shown(solvers.options(each))))
    if name is None:
        print(OTHERS)
