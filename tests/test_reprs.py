"""What stands on the screen where a cell, a model, a diffusion or a configuration is shown."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc

import torch
from torch import Tensor, nn

from liquid_ode import (
    CfCCell,
    CosineSchedule,
    GaussianDiffusion,
    LiquidCell,
    LiquidRNN,
    TrainConfig,
    Wiring,
    create_model,
    model_names,
)
from liquid_ode.cells import RecurrentCell


class Own(RecurrentCell):
    def flow(self, x: Tensor, h0: Tensor | None, duration: float | Tensor) -> Tensor:
        raise NotImplementedError


def test_a_cell_is_a_line() -> None:
    assert repr(LiquidCell(3, 8)) == "LiquidCell(3, 8, solver=Euler(steps=5))"
    assert repr(CfCCell(3, 8)) == "CfCCell(3, 8, form=GatedForm())"
    assert repr(Own(3, 8)) == "Own(3, 8)"
    wiring = Wiring.full(8)
    assert repr(Own(3, 8, wiring)) == f"Own(3, 8, wiring={wiring})"


def test_a_network_has_a_line_for_each_cell() -> None:
    assert repr(LiquidRNN(3, 8, num_layers=2)).splitlines() == [
        "LiquidRNN(",
        "  3, 8, num_layers=2",
        "  (cells): ModuleList(",
        "    (0): LiquidCell(3, 8, solver=Euler(steps=5))",
        "    (1): LiquidCell(8, 8, solver=Euler(steps=5))",
        "  )",
        ")",
    ]


def test_a_model_says_how_large_it_is() -> None:
    assert repr(create_model("improved")) == "ImprovedLiquid(87,674 parameters)"
    for name in model_names():
        assert repr(create_model(name, num_classes=10)).endswith("parameters, num_classes=10)")


def test_a_diffusion_has_a_line_for_each_part() -> None:
    shown = repr(GaussianDiffusion(create_model("improved"), CosineSchedule(10)))
    assert shown.splitlines() == [
        "GaussianDiffusion(",
        "  model=ImprovedLiquid(87,674 parameters),",
        f"  schedule={CosineSchedule(10)!r},",
        "  prediction=Epsilon(),",
        "  weighting=MinSNR(gamma=5.0),",
        ")",
    ]
    own = nn.Sequential(nn.Linear(2, 2), nn.SiLU())
    assert "model=Sequential(6 parameters)," in repr(GaussianDiffusion(own))
    assert "model=Linear(" in repr(GaussianDiffusion(own[0]))


def test_a_configuration_shows_what_is_not_the_default() -> None:
    assert repr(TrainConfig()) == "TrainConfig()"
    config = TrainConfig(model="unet", lr=1e-3, model_options={"blocks": 2})
    assert repr(config) == "TrainConfig(model='unet', model_options={'blocks': 2}, lr=0.001)"
    assert eval(repr(config)) == config


def test_the_help_of_the_configuration_documents_every_field() -> None:
    text = " ".join(pydoc.render_doc(TrainConfig, renderer=pydoc.plaintext).split())
    assert len((inspect.getdoc(TrainConfig) or "").splitlines()) > 60
    for field in dataclasses.fields(TrainConfig):
        described = " ".join(f"{field.name}: {field.metadata['help']} (default: ".split())
        assert described in text.replace("| ", ""), field.name


def test_types_do_not_change_the_call() -> None:
    """The signatures are for type checkers: a module's own call, with its hooks, stays."""
    for kind in (LiquidCell, LiquidRNN, GaussianDiffusion, type(create_model("unet"))):
        assert kind.__call__ is nn.Module.__call__
    assert LiquidCell(3, 8)(torch.zeros(2, 3)).shape == (2, 8)
