"""Files of weights and states: whole or not at all, and refused with the reason where unfit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
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
from liquid_ode.training.run_directory import MetricsLog


def net(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 1))


def test_weights_come_back_with_their_description(tmp_path: Path) -> None:
    model = net().to(memory_format=torch.channels_last)
    path = tmp_path / "w.safetensors"
    save_weights(path, model, {"name": "net"})
    header, tensors = read_tensors(path, "weights")
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
    assert set(read_tensors(tmp_path / "w", "weights")[1]) == {
        "0.weight", "0.bias", "1.weight", "1.bias",
    }  # fmt: skip


def test_an_unfit_model_is_refused_by_names(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save_weights(path, net(4), {})
    _, tensors = read_tensors(path, "weights")
    with pytest.raises(CheckpointError) as caught:
        copy_into(net(8), tensors, "the file", "model net")
    assert str(caught.value).startswith(
        "the file does not fit model net: 3 of another shape: "
        "0.weight (expected (8, 3, 3, 3), found (4, 3, 3, 3)), 0.bias"
    )
    with pytest.raises(CheckpointError, match=r"4 missing: a\.0\.weight, .*, \.\.\.; 4 unexpected"):
        copy_into(nn.ModuleDict({"a": net()}), tensors, "the file", "the model")


def test_a_file_that_is_unfit_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "w"
    remedy = r"\. Take a whole copy of it, or train again$"
    with pytest.raises(CheckpointError, match=f"there is no file {path}{remedy}"):
        read_tensors(path, "weights")
    save_weights(path, net(), {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"truncated, damaged or .*{remedy}"):
        read_tensors(path, "weights")
    write_tensors(path, "checkpoint", {}, {"a": torch.ones(2)})
    with pytest.raises(CheckpointError, match=f"expected weights, found checkpoint{remedy}"):
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


def test_the_log_is_cut_to_a_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m")
    log.cut_after(3)
    assert not log.path.exists()
    for step in (1, 2, 3, 4):
        log.append({"step": step, "loss": 0.5})
    damaged = log.path.read_bytes().replace(b"\n", b'\n{"step": 1\n\xff\x00\n[1]\n{"step": 2}\n', 1)
    log.path.write_bytes(damaged + b'{"step"')
    log.cut_after(2)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [1, 2]
