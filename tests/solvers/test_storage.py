"""Files: whole or not at all, and tensors in them, refused with the reason where unfit."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from solvers.storage import StorageError, read_tensors, write_atomically, write_tensors

KIND = "weights", 1


def write(path: Path, **tensors: Tensor) -> bytes:
    """The bytes of a file with a header and these tensors, or some of their own."""
    write_tensors(path, *KIND, {"step": 12}, tensors or {"a": torch.ones(9), "b": torch.zeros(2)})
    return path.read_bytes()


def refuses(path: Path, words: str) -> None:
    with pytest.raises(StorageError, match=words):
        read_tensors(path, *KIND)


# Tensors ------------------------------------------------------------------------------------------


def test_header_and_tensors_come_back(tmp_path: Path) -> None:
    given = {
        "half": torch.randn(2, 3).bfloat16(),
        "scalar": torch.tensor(3),
        "none": torch.empty(0, 2),
        "transposed": torch.randn(3, 4).T,
        "grown": nn.Parameter(torch.ones(2)),
    }
    given["shared"] = given["transposed"]
    data = write(tmp_path / "new" / "w", **given)
    header, tensors = read_tensors(tmp_path / "new" / "w", *KIND)
    assert header == {"step": 12}
    assert tensors.keys() == given.keys()
    assert all(torch.equal(tensors[name], value) for name, value in given.items())
    assert all(tensors[name].dtype == value.dtype for name, value in given.items())
    assert write(tmp_path / "again", **tensors) == data


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w"
    path.write_bytes(write(path)[:keep])
    refuses(path, "not a whole safetensors file: truncated, damaged")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_single_changed_byte_is_noticed(tmp_path: Path, place: float) -> None:
    path = tmp_path / "w"
    data = bytearray(write(path))
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    refuses(path, "damaged|not a whole safetensors file|not one of")


def test_a_changed_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(write(path).replace(b"12", b"13", 1))
    refuses(path, "is damaged: what it holds does not have the checksum")


def test_what_is_none_or_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w"
    refuses(path, f"there is no file {path}")
    refuses(tmp_path, "there is no file")
    path.write_bytes(os.urandom(1000))
    refuses(path, "truncated, damaged or of another format")
    torch.save({"a": torch.ones(2)}, path)  # a pickle is not even looked into
    refuses(path, "not a whole safetensors file")
    save_file({"a": torch.ones(2)}, path)
    refuses(path, "not one of this library's.*'liquid_ode' in its metadata, found none")
    save_file({"a": torch.ones(2)}, path, metadata={"format": "pt", "liquid_ode": "[]"})
    refuses(path, "not one of this library's.*found format, liquid_ode")
    write_tensors(path, "checkpoint", 1, {}, {"a": torch.ones(2)})
    refuses(path, "expected weights, found checkpoint")
    write_tensors(path, "weights", 2, {}, {"a": torch.ones(2)})
    refuses(path, "has format version 2; this version of the library reads 1")


# Whole or not at all ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")])
def test_a_write_cut_short_leaves_the_previous_file_whole(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "file.bin"
    write_atomically(path, b"previous")
    lengths = []

    def cut(descriptor: int) -> None:
        lengths.append(os.fstat(descriptor).st_size)
        raise error

    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(type(error)):
        write_atomically(path, b"the new one")
    assert lengths == [11]  # the new bytes had been written, elsewhere
    assert path.read_bytes() == b"previous"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_kill_left_over_does_no_harm(tmp_path: Path) -> None:
    left = tmp_path / f".w.{'0' * 32}.tmp"
    left.write_bytes(b"half of an old")
    write_atomically(tmp_path / "w", b"new")
    assert (tmp_path / "w").read_bytes() == b"new"


def test_processes_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from solvers.storage import write_atomically\n"
        "for _ in range(50): write_atomically(Path(sys.argv[1]), sys.argv[2].encode() * 2**16)\n"
    )
    path = tmp_path / "w"
    write_atomically(path, b"a" * 2**16)
    other = subprocess.Popen([sys.executable, "-c", code, str(path), "b"], stderr=subprocess.PIPE)
    seen = set()
    while other.poll() is None:
        data = path.read_bytes()
        seen.add(data[:1])
        assert data == data[:1] * 2**16
        write_atomically(path, b"a" * 2**16)
    assert other.communicate()[1] == b""
    assert other.returncode == 0
    assert seen <= {b"a", b"b"}
    assert list(tmp_path.iterdir()) == [path]
