"""Trained coefficients as safetensors files: data, never pickled code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solvers.storage import write_atomically

_KEY = "solvers.learned"
VERSION = 1


def write(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write header and tensors to ``path`` whole, or leave the file that was there.

    Raises:
        OSError: it could not be written.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    described = {**header, "version": VERSION, "digest": _digest(header, plain)}
    data = save(plain, metadata={_KEY: json.dumps(described)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    return path


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file that :func:`write` made.

    Raises:
        ValueError: there is no such file, or it is broken, of something else, or of another
            version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(
            f"there is no learned solver at {path}: give the path of a file that "
            "LearnedSolver.save wrote, or train one with examples/train_solver.py"
        )
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file: truncated, damaged or of another format "
            f"({error})"
        ) from error
    if _KEY not in metadata:
        raise ValueError(
            f"{path} is a safetensors file, but not of a learned solver: expected an entry "
            f"{_KEY!r} in its metadata, found {', '.join(metadata) or 'none'}"
        )
    header = json.loads(metadata[_KEY])
    version, digest = header.pop("version", None), header.pop("digest", None)
    if version != VERSION:
        raise ValueError(
            f"{path} has format version {version!r}; this version of solvers reads {VERSION}. "
            "Train the solver again"
        )
    if digest != _digest(header, tensors):
        raise ValueError(
            f"{path} is damaged: what it holds does not have the checksum that it was saved "
            "with. Take another copy of it"
        )
    return header, tensors


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A checksum of everything: safetensors has none of its own."""
    found = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
