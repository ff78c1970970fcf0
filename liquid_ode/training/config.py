"""``TrainConfig``: every setting of a training run, validated, as JSON and back; presets of it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from dataclasses import dataclass, fields
from typing import Any

import solvers
from liquid_ode.models import model_names, model_options
from liquid_ode.training.machine import DEVICES, PRECISIONS

SCHEDULES = ("cosine", "linear")
PREDICTIONS = ("epsilon", "v", "x0")
WEIGHTINGS = ("min-snr", "min-snr-batch", "uniform")

# Named sets of settings: what each changes from the defaults of TrainConfig.
PRESETS: typing.Mapping[str, typing.Mapping[str, object]] = {
    # The specification's main system: the defaults of TrainConfig are this preset.
    "improved": {},
    # The specification's pure liquid system: 400 linear steps and the plain mean squared error.
    "original": {
        "model": "original",
        "schedule": "linear",
        "diffusion_steps": 400,
        "weighting": "uniform",
        "batch_size": 8,
        "epochs": 3,
    },
    # The same model, trained better than the specification says: the v prediction does not amplify
    # errors at high noise, and so small a model takes five times the learning rate.
    "recommended": {"prediction": "v", "lr": 1e-3},
    # The two references of the same size, trained exactly as `improved` is.
    "inspired": {"model": "inspired"},
    "unet": {"model": "unet"},
}


def _setting(default: Any, text: str, *, section: str, **bounds: Any) -> Any:
    """A field with its help text, its section of ``--help``, and its bounds or choices."""
    metadata = {"help": text, "section": section, **bounds}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training run; the defaults are the specification's ``improved`` system.

    Each field's meaning is in its ``metadata["help"]``, which is what ``--help`` prints.

    Raises:
        ValueError: a value has the wrong type, is out of range, or is not a known name; the
            message names the field and what is accepted.
    """

    model: str = _setting("improved", "the model", section="model", choices=model_names)
    model_options: dict[str, Any] = _setting(
        {}, "an option of the model, as KEY=VALUE; repeat it for more", section="model"
    )
    solver: str = _setting(
        "euler", "the ODE solver of the model's liquid cells", section="model", solver=True
    )
    solver_options: dict[str, Any] = _setting(
        {}, "an option of the solver, as KEY=VALUE; repeat it for more", section="model"
    )

    data: str = _setting("cifar10", "cifar10, or folder:PATH for your own images", section="data")
    data_root: str | None = _setting(
        None, "where the data set is cached", section="data", unset="the library's cache"
    )
    image_size: int = _setting(32, "side of the images, in pixels", section="data", low=1)
    limit: int | None = _setting(
        None, "train on the first N images only", section="data", low=1, unset="all"
    )
    flip: bool = _setting(False, "mirror images left to right at random", section="data")
    class_conditional: bool = _setting(
        False, "give the model the class labels, for guided sampling", section="data"
    )

    epochs: int = _setting(5, "passes over the data", section="optimisation", low=1)
    max_steps: int | None = _setting(
        None, "end after N optimizer steps, if sooner", section="optimisation", low=1,
        unset="no limit",
    )  # fmt: skip
    batch_size: int = _setting(16, "images per process and pass", section="optimisation", low=1)
    gradient_accumulation: int = _setting(
        1, "passes whose gradients make one optimizer step", section="optimisation", low=1
    )
    lr: float = _setting(
        2e-4, "peak learning rate; falls to 0 over the run as a cosine", section="optimisation",
        above=0.0,
    )  # fmt: skip
    weight_decay: float = _setting(0.01, "AdamW's weight decay", section="optimisation", low=0.0)
    gradient_clip: float | None = _setting(
        1.0, "largest norm of the gradient; 'none' for no clipping", section="optimisation",
        above=0.0, unset="no clipping",
    )  # fmt: skip
    ema_decay: float = _setting(
        0.999, "decay of the average of the weights, warmed up", section="optimisation",
        low=0.0, below=1.0,
    )  # fmt: skip

    schedule: str = _setting("cosine", "noise schedule", section="diffusion", choices=SCHEDULES)
    diffusion_steps: int = _setting(1000, "steps of noise", section="diffusion", low=2)
    prediction: str = _setting(
        "epsilon", "what the model predicts", section="diffusion", choices=PREDICTIONS
    )
    weighting: str = _setting(
        "min-snr", "weighting of the loss over noise levels (min-snr-batch: divided by its mean "
        "over the batch; uniform: plain mean squared error)",
        section="diffusion", choices=WEIGHTINGS,
    )  # fmt: skip
    gamma: float = _setting(5.0, "gamma of the min-snr weightings", section="diffusion", above=0.0)

    samples: int = _setting(64, "images in a sample grid (0: no grids)", section="samples", low=0)
    sample_steps: int = _setting(50, "DDIM steps of a sample grid", section="samples", low=1)
    sample_every: int = _setting(
        1, "epochs between sample grids; the last epoch always has one", section="samples", low=1
    )

    precision: str = _setting(
        "auto", "mixed precision (auto: bf16 where the device gains from it)", section="run",
        choices=PRECISIONS,
    )  # fmt: skip
    channels_last: bool = _setting(True, "keep images and weights channels-last", section="run")
    device: str | None = _setting(
        None, "where to run", section="run", choices=DEVICES, unset="the best there is"
    )
    threads: int | None = _setting(
        None, "CPU threads", section="run", low=1, unset="torch's choice"
    )
    seed: int = _setting(0, "seed of everything random", section="run", low=0, below=2**62)
    deterministic: bool = _setting(
        True, "use only deterministic algorithms: the same seed, the same bits", section="run"
    )
    checkpoint_every: int = _setting(
        500, "optimizer steps between checkpoints", section="run", low=1
    )
    log_every: int = _setting(50, "optimizer steps between lines of metrics", section="run", low=1)
    output: str | None = _setting(
        None, "the run directory", section="run", unset="runs/MODEL-SOLVER-seedN"
    )

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            value = _of_type(field.name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            if value is not None:
                _check_bounds(field.name, value, field.metadata)
        if self.sample_steps > self.diffusion_steps:
            raise ValueError(
                f"sample_steps must be at most diffusion_steps ({self.diffusion_steps}), "
                f"got {self.sample_steps}"
            )
        if self.data != "cifar10" and not re.fullmatch(r"folder:.+", self.data):
            raise ValueError(f"data must be 'cifar10' or 'folder:PATH', got {self.data!r}")
        unknown = [name for name in self.model_options if name not in model_options(self.model)]
        if unknown:
            raise ValueError(
                f"model {self.model!r} takes no option {', '.join(map(repr, unknown))}; "
                f"it takes {', '.join(model_options(self.model))}"
            )
        solvers.get(self.solver, **self.solver_options)  # a bad name or option raises ValueError
        self.refuse_steps(self.solver_options)

    @classmethod
    def from_preset(cls, name: str, **settings: Any) -> TrainConfig:
        """The preset's settings, with any of them replaced.

        Raises:
            ValueError: there is no such preset, or a setting is unknown or not valid.
        """
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls.from_dict({**PRESETS[name], **settings})

    @classmethod
    def from_dict(cls, settings: typing.Mapping[str, Any]) -> TrainConfig:
        """Settings by name; those left out have their defaults.

        Raises:
            ValueError: a setting is unknown or not valid.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in settings if name not in known]
        if unknown:
            raise ValueError(
                f"unknown training settings: {', '.join(map(repr, unknown))}; "
                f"the settings are {', '.join(known)}"
            )
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The inverse of ``to_json``.

        Raises:
            ValueError: not JSON, not an object, or a setting that is unknown or not valid.
        """
        try:
            settings = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"training settings must be JSON: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"training settings must be a JSON object, got {settings!r}")
        return cls.from_dict(settings)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def refuse_steps(self, solver_options: typing.Mapping[str, Any]) -> None:
        """Raise ValueError where ``steps`` is among a solver's options: each scale has its own."""
        if self.has_cells and "steps" in solver_options:
            raise ValueError(
                f"model {self.model!r} gives each of its scales a number of solver steps, so the "
                "solver's own would have no effect: use --solver-steps (the model option 'steps') "
                "instead of the solver option 'steps'"
            )

    @property
    def run_name(self) -> str:
        """The name of the run directory where ``output`` is not set."""
        parts = [self.model, *([self.solver] if self.has_cells else []), f"seed{self.seed}"]
        return re.sub(r"[^\w.-]+", "-", "-".join(parts))

    @property
    def has_cells(self) -> bool:
        """Whether the model has liquid cells, and so a use for the solver."""
        return "steps" in model_options(self.model)


def _of_type(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the field's type: whole numbers serve as floats, tuples as JSON's lists."""
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [typing.get_origin(kind) or kind for kind in accepted]
    if value is None and types.NoneType in kinds:
        return None
    kind = kinds[0]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        unset = " or None" if types.NoneType in kinds else ""
        raise ValueError(f"{name} must be of type {kind.__name__}{unset}, got {value!r}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if kind is dict:
        return _as_json(name, value)
    return value


def _as_json(name: str, value: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold only what JSON can: {error}") from error


def _check_bounds(name: str, value: Any, bounds: typing.Mapping[str, Any]) -> None:
    choices = bounds.get("choices")
    if callable(choices):
        choices = choices()
    if choices is not None and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if "low" in bounds and value < bounds["low"]:
        raise ValueError(f"{name} must be at least {bounds['low']}, got {value!r}")
    if "above" in bounds and value <= bounds["above"]:
        raise ValueError(f"{name} must be greater than {bounds['above']}, got {value!r}")
    if "below" in bounds and value >= bounds["below"]:
        raise ValueError(f"{name} must be less than {bounds['below']}, got {value!r}")
