"""What arguments of other packages are called here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_OF_CFC = "it is an argument of CfCCell: cell=functools.partial(CfCCell, {}=...)"

NAMES = {
    # torch.nn.GRU, LSTM and their cells
    "input": "it is x here",
    "hx": "it is h0 here, of a network with the axes (layers * directions, B, H)",
    "bias": "every cell here has its biases",
    "proj_size": "it is projection here, a linear map of the outputs",
    "nonlinearity": "it is the choice of the cell here, such as cell=LTCCell",
    # ncps
    "inputs": "it is x here",
    "states": "it is h0 here",
    "timespans": "it is durations here, and duration in a call of a single cell",
    "ts": "it is duration here",
    "elapsed_time": "it is duration here",
    "units": "it is hidden_size here; a wiring is wiring=, with hidden_size=wiring.units",
    "in_features": "it is input_size here",
    "return_sequences": "LiquidRNN gives all outputs, and its method last(x) the last one alone",
    "mode": "it is form of CfCCell: cell=functools.partial(CfCCell, form=PureForm())",
    "activation": _OF_CFC.format("activation"),
    "backbone_activation": "it is activation of CfCCell, a class such as nn.SiLU",
    "backbone_units": _OF_CFC.format("backbone_units"),
    "backbone_layers": _OF_CFC.format("backbone_layers"),
    "backbone_dropout": _OF_CFC.format("backbone_dropout"),
    "sparsity_mask": "it is wiring here, such as Wiring.from_mask(recurrent, inputs)",
    "ode_unfolds": "it is solver here: solver=solvers.SemiImplicitEuler(steps=6)",
    "input_mapping": "an LTCCell has an affine one, which starts as none",
    "output_mapping": "it is projection here: projection=MotorReadout(wiring, affine=True)",
    "epsilon": "it is fixed here, at 1e-8",
    "mixed_memory": "it is a cell here: cell=functools.partial(MixedMemoryCell, cell=LTCCell)",
    "implicit_param_constraints": "parameters here are always positive where they have to be",
}
"""Names that users of torch.nn.GRU and of ncps write, with what serves here."""


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose TypeError for an argument of another package says what serves here."""
    own = frozenset(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name in NAMES and name not in own:
                raise TypeError(
                    f"{function.__qualname__}() got an unexpected keyword argument {name!r}: "
                    f"{NAMES[name]}"
                )
        return function(*args, **kwargs)

    return checked
