"""Files of weights and states: whole or not at all, and refused with the reason where unfit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from liquid_ode.training import CheckpointError, TrainingError
from liquid_ode.training.checkpoint import (
    copy_into,
    load_optimizer,
    optimizer_tensors,
    read_tensors,
    save_weights,
    write_tensors,
)
from liquid_ode.training.files import MetricsLog
from solvers.storage import write_atomically


def net(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 1))


def test_weights_come_back_with_their_description(tmp_path: Path) -> None:
    model = net().to(memory_format=torch.channels_last)
    path = tmp_path / "w.safetensors"
    save_weights(path, model, {"name": "net"})
    tensors, header = read_tensors(path, "weights")
    other = net().to(memory_format=torch.channels_last)
    copy_into(other, tensors, "w", "net")
    assert header["model"] == {"name": "net"}
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
    save_weights(tmp_path / "again.safetensors", other, {"name": "net"})
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_weights_that_share_memory_are_saved(tmp_path: Path) -> None:
    layer = nn.Linear(3, 3)
    save_weights(tmp_path / "w", nn.Sequential(layer, layer), {})
    assert set(read_tensors(tmp_path / "w", "weights")[0]) == {
        "0.weight", "0.bias", "1.weight", "1.bias",
    }  # fmt: skip


def test_an_unfit_model_is_refused_by_names(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save_weights(path, net(4), {})
    tensors, _ = read_tensors(path, "weights")
    with pytest.raises(CheckpointError) as caught:
        copy_into(net(8), tensors, "the file", "model net")
    assert str(caught.value).startswith(
        "the file does not fit model net: 3 of another shape: "
        "0.weight (expected (8, 3, 3, 3), found (4, 3, 3, 3)), 0.bias"
    )
    with pytest.raises(CheckpointError, match=r"4 missing: a\.0\.weight, .*, \.\.\.; 4 unexpected"):
        copy_into(nn.ModuleDict({"a": net()}), tensors, "the file", "the model")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w"
    save_weights(path, net(), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a whole safetensors file: truncated, damaged"):
        read_tensors(path, "weights")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_single_changed_byte_is_noticed(tmp_path: Path, place: float) -> None:
    path = tmp_path / "w"
    save_weights(path, net(), {"name": "net"})
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"damaged|not a whole safetensors file|not one of"):
        read_tensors(path, "weights")


def test_a_changed_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w"
    write_tensors(path, "checkpoint", {"a": torch.ones(2)}, {"progress": {"step": 12}})
    path.write_bytes(path.read_bytes().replace(b"12", b"13", 1))
    with pytest.raises(CheckpointError, match="is damaged: what it holds does not have the check"):
        read_tensors(path, "checkpoint")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with pytest.raises(CheckpointError, match="there is no file"):
        read_tensors(path, "weights")
    path.write_bytes(os.urandom(1000))
    with pytest.raises(CheckpointError, match="truncated, damaged or of another format"):
        read_tensors(path, "weights")
    torch.save(net().state_dict(), path)  # a pickle is not even looked into
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_tensors(path, "weights")
    save_file({"a": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not one of liquid_ode's.*found \['format'\]"):
        read_tensors(path, "weights")
    write_tensors(path, "checkpoint", {"a": torch.ones(2)}, {})
    with pytest.raises(CheckpointError, match=r"expected weights, .*found checkpoint"):
        read_tensors(path, "weights")


def test_the_optimizer_comes_back_with_its_memory_formats() -> None:
    def trained() -> tuple[nn.Module, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = net().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 3, 4, 4)).square().sum().backward()
        return model, optimizer

    model, optimizer = trained()
    optimizer.step()
    other, restored = trained()
    plain = {name: t.clone(memory_format=torch.contiguous_format)
             for name, t in optimizer_tensors(optimizer, model).items()}  # fmt: skip
    load_optimizer(restored, other, plain)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][key], restored.state[b][key])
            assert optimizer.state[a][key].stride() == restored.state[b][key].stride()


@pytest.mark.parametrize("broken", ["fsync", "replace", "open"])
def test_a_failure_while_saving_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "w"
    save_weights(path, net(), {})
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, broken, full)
    with pytest.raises(TrainingError, match=rf"{path}: No space left on device; the previous one"):
        save_weights(path, net(), {})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_left_over_temporary_file_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".w.tmp").write_bytes(b"left by a kill")
    write_atomically(tmp_path / "w", b"new")
    assert (tmp_path / "w").read_bytes() == b"new"
    assert not (tmp_path / ".w.tmp").exists()


def test_the_log_is_cut_to_a_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m")
    log.cut_after(3)
    assert not log.path.exists()
    for step in (1, 2, 3, 4):
        log.append({"step": step})
    with log.path.open("a") as file:
        file.write('{"step"')
    log.cut_after(2)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [1, 2]
