"""Weights and whole states of a run as files of tensors, and whether these fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from liquid_ode.training.errors import CheckpointError
from liquid_ode.training.run_directory import FORMAT_VERSION, saving
from solvers import storage

_SHOWN = 3  # names listed of each kind of misfit


def write_tensors(
    path: Path, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file of ``kind`` whole, or leave the one that was there.

    Raises:
        TrainingError: it could not be written.
    """
    with saving(path):
        storage.write_tensors(path, kind, FORMAT_VERSION, header, tensors)


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file of ``kind``.

    Raises:
        CheckpointError: the file is missing, broken, not one of this library's, or of another
            kind or version.
    """
    try:
        return storage.read_tensors(path, kind, FORMAT_VERSION)
    except storage.StorageError as error:
        raise CheckpointError(f"{error}. Take a whole copy of it, or train again") from error


def check_fit(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str, whose: str
) -> None:
    """Raise CheckpointError where names or shapes differ, showing the first of each kind."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    reshaped = [
        f"{name} (expected {tuple(tensor.shape)}, found {tuple(found[name].shape)})"
        for name, tensor in expected.items()
        if name in found and tensor.shape != found[name].shape
    ]
    misfits = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    if any(misfits.values()):
        parts = [
            f"{len(names)} {word}: {', '.join(names[:_SHOWN])}"
            + (", ..." if len(names) > _SHOWN else "")
            for word, names in misfits.items()
            if names
        ]
        raise CheckpointError(f"{what} does not fit {whose}: {'; '.join(parts)}")


def check_description(found: Any, expected: Mapping[str, Any], what: str, whose: str) -> None:
    """Raise CheckpointError where a file was saved for another model than the expected one."""
    found = found if isinstance(found, dict) else {}
    misfits = [
        f"{name} (expected {value!r}, found {found.get(name)!r})"
        for name, value in expected.items()
        if found.get(name) != value
    ]
    if misfits:
        raise CheckpointError(f"{what} does not fit {whose}: {'; '.join(misfits)}")


def copy_into(module: nn.Module, found: Mapping[str, Tensor], what: str, whose: str) -> None:
    """Copy tensors into a module that must have exactly their names and shapes.

    Raises:
        CheckpointError: it has others.
    """
    state = module.state_dict()
    check_fit(state, found, what, whose)
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(found[name])  # keeps the module's memory format


def save_weights(path: Path, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a model's weights, with ``description`` of the model (name, options, classes)."""
    write_tensors(path, "weights", {"model": description}, model.state_dict())


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's tensors as ``parameter/key``."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, found: Mapping[str, Tensor]
) -> None:
    """The inverse of ``optimizer_tensors``; each moment gets its parameter's memory format.

    (The file has no memory formats, and a moment in another one than its parameter is no longer
    the same computation.)
    """
    state: dict[int, dict[str, Tensor]] = {}
    for index, (name, parameter) in enumerate(model.named_parameters()):
        prefix = f"{name}/"
        entry = {
            key.removeprefix(prefix): value
            for key, value in found.items()
            if key.startswith(prefix)
        }
        for key, value in entry.items():
            if value.shape == parameter.shape and value.dim() > 0:
                entry[key] = torch.empty_like(parameter).copy_(value)
        if entry:
            state[index] = entry
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under ``prefix/``, by the rest of their names."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``part``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
