"""List the models and their options, for --model and --model-option; or all about one.

liquid-ode models
liquid-ode models liquid_unet
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from liquid_ode import model_names
from liquid_ode.arguments import Parser, entry, options_shown
from liquid_ode.models import create_model, model_options


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """List what the arguments ask for; returns the exit status."""
    parser = Parser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", choices=model_names(), metavar="NAME", help="(all)")
    name = parser.parse(arguments).name
    for each in model_names() if name is None else [name]:
        model = create_model(each)
        said = inspect.getdoc(type(model)) or ""
        count = sum(parameter.numel() for parameter in model.parameters())
        says = f"{said.partition(chr(10))[0]} {count:,} parameters."
        print(entry(each, says if name is None else said, options_shown(model_options(each))))
    return 0
