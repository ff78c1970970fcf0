"""Write a copy of a run to hand on: weights and record, without state and folder names.

liquid-ode share runs/improved-euler-seed0 shared/improved
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from liquid_ode.arguments import Parser
from liquid_ode.training import share_run
from liquid_ode.training.cli import run_reporting_errors


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Share as the arguments say; returns the exit status."""
    parser = Parser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the directory of a run")
    parser.add_argument("to", type=Path, metavar="DIR", help="the copy, which is a run directory")
    parser.add_argument(
        "--weights", nargs="+", default=["ema"], metavar="NAME",
        help="ema, model, best or ema-LENGTH (default: ema)",
    )  # fmt: skip
    options = parser.parse(arguments)
    return run_reporting_errors(
        lambda: print(f"run      {share_run(options.run, options.to, weights=options.weights)}")
    )
