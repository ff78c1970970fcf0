"""TrainConfig and the presets: what they accept, what they refuse, and JSON and back."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from liquid_ode.training import PRESETS, TrainConfig


def test_the_defaults_are_the_specification() -> None:
    config = TrainConfig()
    expected = {
        "model": "improved", "solver": "euler", "data": "cifar10", "epochs": 5, "batch_size": 16,
        "lr": 2e-4, "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.999,
        "schedule": "cosine", "diffusion_steps": 1000, "weighting": "min-snr", "gamma": 5.0,
        "prediction": "epsilon", "precision": "auto", "samples": 64, "sample_steps": 50,
        "deterministic": True, "flip": False,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_original_preset_is_the_specification() -> None:
    config = TrainConfig.from_preset("original")
    found = (config.model, config.schedule, config.diffusion_steps, config.batch_size)
    assert found == ("original", "linear", 400, 8)
    assert (config.epochs, config.weighting) == (3, "uniform")


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_valid_and_survives_json(name: str) -> None:
    config = TrainConfig.from_preset(name, epochs=2, solver="euler", solver_options={"cap": 4.0})
    assert config.epochs == 2
    assert TrainConfig.from_json(config.to_json()) == config


def test_tuples_become_the_lists_of_json() -> None:
    config = TrainConfig(model_options={"steps": (1, 2, 3)})
    assert TrainConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["model_options"] == {"steps": [1, 2, 3]}


def test_a_run_is_named_after_what_matters() -> None:
    assert TrainConfig(seed=3).run_name == "improved-euler-seed3"
    assert TrainConfig(solver="torchdiffeq:rk4").run_name == "improved-torchdiffeq-rk4-seed0"
    assert TrainConfig(model="unet").run_name == "unet-seed0"  # it has no cells to solve
    assert TrainConfig(samples=3, threads=1, data_root="x").run_name == TrainConfig().run_name


def test_runs_with_other_settings_have_other_names() -> None:
    names = [
        TrainConfig.from_preset(preset, **settings).run_name
        for preset in PRESETS
        for settings in (
            {}, {"lr": 3e-3}, {"epochs": 7}, {"data": "folder:/a/flowers"}, {"image_size": 64},
            {"model_options": {"conditioning": 48}}, {"flip": True}, {"channels_last": False},
            {"seed": 2}, {"weighting": "min-snr-batch"}, {"max_steps": 5},
        )
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert TrainConfig.from_preset("recommended").run_name == "recommended-euler-seed0"
    assert TrainConfig(data="folder:/a/flowers", image_size=64).run_name == (
        "improved-euler-flowers-64px-seed0"
    )
    long = TrainConfig(data="folder:/" + 300 * "x").run_name
    assert len(long) < 200
    assert long != TrainConfig(data="folder:/" + 299 * "x").run_name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": -3}, "batch_size must be at least 1"),
        ({"batch_size": 2.5}, "batch_size must be of type int, got 2.5"),
        ({"batch_size": True}, "batch_size must be of type int, got True"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"limit": "10"}, "limit must be of type int or None, got '10'"),
        ({"lr": 0.0}, "lr must be greater than 0"),
        ({"lr": float("nan")}, "lr must be finite"),
        ({"ema_decay": 1.0}, "ema_decay must be less than 1"),
        ({"flip": 1}, "flip must be of type bool"),
        ({"model": "big"}, "model must be one of improved, original"),
        ({"schedule": "square"}, "schedule must be one of cosine, linear, got 'square'"),
        ({"prediction": "noise"}, "prediction must be one of epsilon, v, x0"),
        ({"weighting": "snr"}, "weighting must be one of min-snr"),
        ({"precision": "fp32"}, "precision must be one of auto, no, bf16, fp16"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, mps"),
        ({"solver": "eular"}, r"unknown solver 'eular' \(did you mean 'euler'\?\)"),
        ({"solver_options": {"stpes": 3}}, "'euler' takes no option 'stpes'"),
        ({"data": "imagenet"}, "data must be 'cifar10' or 'folder:PATH'"),
        ({"sample_steps": 2000}, "sample_steps must be at most diffusion_steps"),
        ({"model": "unet", "model_options": {"steps": 3}}, "'unet' takes no option 'steps'"),
        ({"seed": 2**62}, "seed must be less than"),
        ({"model_options": {"a": object()}}, "model_options must hold only what JSON can"),
    ],
)
def test_a_bad_value_is_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)  # type: ignore[arg-type]


def test_unknown_settings_and_presets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'epoch' \(did you mean 'epochs'\?\); the settings are"):
        TrainConfig.from_json('{"epoch": 3}')
    with pytest.raises(ValueError, match="must be JSON"):
        TrainConfig.from_json("{")
    with pytest.raises(ValueError, match="must be a JSON object"):
        TrainConfig.from_json("[]")
    with pytest.raises(ValueError, match="preset must be one of improved, original"):
        TrainConfig.from_preset("fast-ish")


def test_a_whole_number_serves_as_a_float() -> None:
    assert isinstance(TrainConfig(lr=1).lr, float)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3  # type: ignore[misc]


def test_importing_training_stays_light() -> None:
    code = (
        "import sys, liquid_ode.training, liquid_ode.evaluation;"
        "print([m for m in ('torchvision', 'matplotlib', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
