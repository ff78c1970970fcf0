"""Tables of what there is, made from the code: ``python -m liquid_ode.summary``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import solvers
from liquid_ode.cells import LiquidCell
from liquid_ode.models import create_model, model_names
from liquid_ode.models.conv_liquid import ConvLiquidDynamics

_CELLS = LiquidCell, ConvLiquidDynamics
_TORCHDIFFEQ = {"rk4": ("4", "4"), "dopri5": ("5", "6")}


def models_table() -> str:
    """The image models and their parameters, as Markdown."""
    rows = []
    for name in model_names():
        model = create_model(name)
        cells = [module for module in model.modules() if isinstance(module, _CELLS)]
        in_cells = sum(p.numel() for cell in cells for p in cell.parameters())
        count = sum(p.numel() for p in model.parameters())
        described = (type(model).__doc__ or "").partition("\n")[0]
        rows.append((f"`{name}`", described, f"{count:,}", str(len(cells)), f"{in_cells:,}"))
    return _markdown(("model", "what", "parameters", "liquid cells", "of it in cells"), rows)


def solvers_table() -> str:
    """The solvers by name, their order and their options, as Markdown."""
    rows = []
    for name in solvers.names():
        solver = solvers.get(name)
        described = (type(solver).__doc__ or "").partition("\n")[0]
        if isinstance(solver, solvers.NativeSolver):
            method = solver.method
            order, stages = str(method.order), str(method.stages - method.first_same_as_last)
            if isinstance(solver.step_size, solvers.GradientScaled):
                described = "Explicit Euler, steps scaled by the gradient. **The default.**"
        elif name in _TORCHDIFFEQ:
            order, stages = _TORCHDIFFEQ[name]
            described = f"torchdiffeq's `{name}`, through the adapter."
        else:  # one that was registered, and need not say
            order = stages = ""
        options = {key: x for key, x in solvers.options(name).items() if key != "gradient"}
        given = ", ".join(f"{key}={x}" for key, x in options.items() if x is not None)
        instead = ", ".join(key for key, x in options.items() if x is None)
        listed = f"{given}; or {instead}" if instead else given
        rows.append((f"`{name}`", described, order, stages, listed))
    return _markdown(("`--solver`", "what", "order", "evaluations a step", "options"), rows)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(models_table(), solvers_table(), sep="\n\n")
