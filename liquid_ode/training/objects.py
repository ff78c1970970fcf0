"""What is given to ``train`` from Python in place of a name: images, a model, a solver."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

import solvers
from liquid_ode.training.config import OBJECT, TrainConfig, is_object


@dataclass(frozen=True)
class Objects:
    """Objects that ``config.json`` cannot hold: it says ``python:NAME`` in their place.

    Raises:
        ValueError: one is of another kind.
    """

    dataset: Any = None
    model: nn.Module | None = None
    solver: solvers.Solver | None = None

    def __post_init__(self) -> None:
        if self.model is not None and not isinstance(self.model, nn.Module):
            raise ValueError(
                "model must be a torch.nn.Module, called as model(x, t) or model(x, t, "
                f"class_labels), not {self.model!r}; a model by name belongs to TrainConfig(model=)"
            )
        if self.solver is not None and not isinstance(self.solver, solvers.Solver):
            raise ValueError(
                f"solver must be a solver such as solvers.Heun(), not {self.solver!r}; a solver by "
                "name belongs to TrainConfig(solver=)"
            )

    def named(self, config: TrainConfig) -> TrainConfig:
        """``config`` with a name in the place of every object that is given.

        Raises:
            ValueError: options are given for an object, or a run was made with an object that is
                not given now.
        """
        fields = {"data": self.dataset, "model": self.model, "solver": self.solver}
        names: dict[str, Any] = {}
        for field, value in fields.items():
            if value is not None:
                names[field] = f"{OBJECT}:{type(value).__qualname__}"
            elif is_object(getattr(config, field)):
                keyword = "dataset" if field == "data" else field
                raise ValueError(
                    f"the settings say {field} {getattr(config, field)!r}, an object of Python "
                    f"that config.json cannot hold: give it again, {keyword}=..."
                )
        if self.model is not None and self.solver is not None:
            raise ValueError(
                "solver has no effect on a model that is given itself: give the model its solver "
                "when it is made"
            )
        for field, options in (("model", "model_options"), ("solver", "solver_options")):
            given = getattr(config, options)
            if field in names and given:
                raise ValueError(
                    f"{options} {given} have no effect where the {field} is an object: give them "
                    "to it when it is made"
                )
        return dataclasses.replace(config, **names)

    def record(self) -> dict[str, str]:
        """What ``config.json`` can say of them."""
        said = {
            "dataset": None if self.dataset is None else _kind(self.dataset),
            "model": None if self.model is None else _kind(self.model),
            "solver": None if self.solver is None else repr(self.solver),
        }
        return {name: text for name, text in said.items() if text is not None}


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
