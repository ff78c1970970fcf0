"""Files that are written whole or not at all, and tensors in them: data, never pickled code.

A file of tensors is a safetensors file with one metadata entry, ``liquid_ode``: a JSON object with
the kind of the file, the version of that kind, what else its writer says of the tensors, and a
checksum of all that. (One entry, because safetensors keeps several in no fixed order, and equal
contents are to give equal bytes.)
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

_ENTRY = "liquid_ode"


class StorageError(ValueError):
    """A file of tensors is missing, broken, or another than was asked for.

    The text says which, without a full stop: what to do about it is for the caller to add.
    """


def write_tensors(
    path: Path, kind: str, version: int, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors, and a header of what JSON can hold, as a file of ``kind``.

    Raises:
        OSError: it could not be written; a file that was there is kept.
    """
    from safetensors.torch import save

    # Copies: tensors that share memory are refused.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    described = {**header, "kind": kind, "format_version": version}
    described["digest"] = _digest(described, plain)
    write_atomically(path, save(plain, metadata={_ENTRY: json.dumps(described, sort_keys=True)}))


def read_tensors(path: Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file that :func:`write_tensors` made.

    Raises:
        StorageError: the file is missing, truncated, damaged, none of this library's, or of
            another kind or version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StorageError(f"there is no file {path}")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(
            f"{path} is not a whole safetensors file: truncated, damaged or of another format "
            f"({error})"
        ) from error
    try:
        described = json.loads(metadata[_ENTRY])
        found, its_version = described["kind"], described["format_version"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise StorageError(
            f"{path} is a safetensors file, but not one of this library's: expected an entry "
            f"{_ENTRY!r} in its metadata, found {', '.join(sorted(metadata)) or 'none'}"
        ) from error
    if found != kind:
        raise StorageError(f"{path} holds another kind of data: expected {kind}, found {found}")
    if its_version != version:
        raise StorageError(
            f"{path} has format version {its_version}; this version of the library reads {version}"
        )
    if described.pop("digest", None) != _digest(described, tensors):
        raise StorageError(
            f"{path} is damaged: what it holds does not have the checksum that it was saved with"
        )
    del described["kind"], described["format_version"]
    return described, tensors


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A checksum of the header and of every tensor: safetensors has none of its own."""
    found = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace ``path`` by ``data`` as a whole, as :func:`atomic_file` does.

    Raises:
        OSError: it could not be written (a full disk, say); whatever was at ``path`` is untouched.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which is at ``path`` once the block has ended without an exception.

    The bytes are written under a name of their own in the same directory, which is made where it
    is missing, flushed to the disk, and renamed. Whoever reads, whoever else writes the same file,
    and whenever the process is killed: there is the old file or the new one, never a part or a
    mixture. (Only a kill that cannot be caught leaves ``.NAME.….tmp`` behind, which may be
    deleted.)

    Raises:
        OSError: it could not be written (a full disk, say). The temporary file is then gone, and
            whatever was at ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # the bytes reach the disk before the name does
        temporary.replace(path)
    except BaseException:  # also an interrupt
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the name is to last too; not every system can flush a directory
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
