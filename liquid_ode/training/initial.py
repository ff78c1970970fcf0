"""A new run that begins with the weights of another: classes kept by name, the rest exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from liquid_ode.models.embedding import Conditioning
from liquid_ode.training.build import describe_model
from liquid_ode.training.checkpoint import check_description, copy_into
from liquid_ode.training.config import TrainConfig
from liquid_ode.training.run_directory import RunDirectory
from liquid_ode.training.weights import read_weights


@dataclass(frozen=True)
class Classes:
    """The classes of a model: how many, and their names where they have some."""

    count: int | None
    names: Sequence[str] | None = None

    def places_in(self, old: Classes) -> list[int | None]:
        """For each of these classes its number among the old ones: by name, or else by number."""
        before = old.count or 0
        if self.names is not None and old.names is not None:
            known = {name: place for place, name in enumerate(old.names)}
            return [known.get(name) for name in self.names]
        return [place if place < before else None for place in range(self.count or 0)]


def initialise(model: nn.Module, config: TrainConfig, classes: Classes) -> list[str]:
    """Give a new model the weights of the run ``config.init_from``.

    What the model predicts, and the noise that it is told of, must be the same there. The classes
    may be others: those that both have keep their embedding, "no class" keeps its own at its new
    place, and a new class begins as "no class". A model without classes takes what "no class" adds
    into the bias of its time embedding, so that it computes what the other one did without a label.

    Returns:
        What has been done, in lines for people.

    Raises:
        CheckpointError: there is no run, or its weights are broken or do not fit the model.
        ValueError: it has no such weights.
    """
    run = RunDirectory(config.init_from or "")
    _, record = run.read_record()
    header, tensors = read_weights(run, config.init_weights)
    what, whose = f"{config.init_weights} of {run.path}", f"model {config.model!r} of the new run"
    found = header.get("model")
    meaning = ("name", "schedule", "diffusion_steps", "prediction")
    expected = describe_model(config, classes.count)
    check_description(found, {name: expected[name] for name in meaning}, what, whose)
    lines = [f"begun with the weights {config.init_weights} of {run.path}"]
    data = record.get("data", {})
    old = Classes(found["num_classes"], data.get("class_names"))  # type: ignore[index]
    for name, module in model.named_modules():
        if isinstance(module, Conditioning):
            lines += _fit_classes(tensors, f"{name}." if name else "", module, classes, old)
    copy_into(model, tensors, what, whose)
    return lines


def _fit_classes(
    tensors: dict[str, Tensor], prefix: str, module: Conditioning, new: Classes, old: Classes
) -> list[str]:
    """Bring the embedding of the classes in ``tensors`` into the form that ``module`` has."""
    key, bias = f"{prefix}classes.weight", f"{prefix}mlp.{len(module.mlp) - 1}.bias"
    table = tensors.pop(key, None)  # (old classes + 1, width)
    if module.classes is None:
        if table is None:
            return []
        tensors[bias] = tensors[bias] + table[-1]
        return ["the classes are left out: every image counts as one of no class"]
    places = new.places_in(old)
    if table is None:  # zeros: whatever its class, an image is what it was without one
        tensors[key] = torch.zeros_like(module.classes.weight)
        return [f"the {len(places)} classes are new"]
    rows = [table[-1] if place is None else table[place] for place in places]
    tensors[key] = torch.stack([*rows, table[-1]])  # (new classes + 1, width)
    lines = []
    fresh = [number for number, place in enumerate(places) if place is None]
    if fresh:
        lines.append(f"new classes, which begin as no class: {_listed(fresh, new)}")
    left = sorted(set(range(len(table) - 1)) - {p for p in places if p is not None})
    if left:
        lines.append(f"classes left out: {_listed(left, old)}")
    return lines


def _listed(numbers: Sequence[int], classes: Classes) -> str:
    names = classes.names
    return ", ".join(str(n) if names is None else names[n] for n in numbers)


def describe(config: TrainConfig, lines: Sequence[str]) -> dict[str, Any]:
    """What ``config.json`` says of the beginning."""
    return {"initial": {"run": config.init_from, "weights": config.init_weights, "said": [*lines]}}
