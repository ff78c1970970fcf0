"""``TrainConfig``: every setting of a training run, validated, as JSON and back; presets of it."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
import typing
from dataclasses import dataclass, fields
from typing import Any

import solvers
from liquid_ode.arguments import did_you_mean
from liquid_ode.data import CHANNELS, parse_size, written_size
from liquid_ode.models import model_names, model_options
from liquid_ode.training.averages import LONGEST, length_of
from liquid_ode.training.machine import DEVICES, PRECISIONS
from liquid_ode.training.names import run_name
from liquid_ode.training.presets import PRESETS
from liquid_ode.training.rates import LR_SCHEDULES
from liquid_ode.training.settings import check_bounds, of_type, setting

SCHEDULES = ("cosine", "linear")
PREDICTIONS = ("epsilon", "v", "x0")
OBJECT = "python"  # python:NAME stands for an object that was given to train()
WEIGHTINGS = ("min-snr", "min-snr-batch", "uniform")


def is_object(name: Any) -> bool:
    """Whether a setting stands for an object that was given to ``train`` from Python."""
    return isinstance(name, str) and name.startswith(f"{OBJECT}:")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training run; the defaults are those of the preset ``improved``.

    Raises:
        ValueError: a value has the wrong type, is out of range, or is not a known name; the
            message names the field and what is accepted.
    """

    model: str = setting("improved", "the model", section="model", choices=model_names, object=True)
    model_options: dict[str, Any] = setting(
        {}, "options of the model; in a command one at a time, as KEY=VALUE", section="model"
    )
    solver: str = setting(
        "euler", "the ODE solver of the model's liquid cells", section="model", solver=True,
        change=True,
    )  # fmt: skip
    solver_options: dict[str, Any] = setting(
        {}, "options of the solver; in a command one at a time, as KEY=VALUE", section="model",
        change=True,
    )  # fmt: skip

    data: str = setting(
        "cifar10", "cifar10, or folder:PATH for your own images", section="data", place=True
    )
    data_root: str | None = setting(
        None, "where the data set is cached", section="data", unset="the library's cache",
        free=True,
    )  # fmt: skip
    image_size: int | str = setting(
        32, "side of the images in pixels, or HEIGHTxWIDTH", section="data", convert=written_size,
        metavar="SIZE",
    )  # fmt: skip
    image_channels: int = setting(
        3, "channels of the images: 1 (grey), 3 (RGB) or 4 (RGB and alpha)", section="data",
        choices=CHANNELS,
    )  # fmt: skip
    limit: int | None = setting(
        None, "train on the first N images only", section="data", low=1, unset="all"
    )
    flip: bool = setting(False, "mirror images left to right at random", section="data")
    class_conditional: bool = setting(
        False, "give the model the class labels, for guided sampling", section="data"
    )

    epochs: int = setting(5, "passes over the data", section="optimisation", low=1, change=True)
    max_steps: int | None = setting(
        None, "end after N optimizer steps, if sooner", section="optimisation", low=1,
        unset="no limit", change=True,
    )  # fmt: skip
    batch_size: int = setting(
        16, "images of a pass, which all processes share", section="optimisation", low=1
    )
    gradient_accumulation: int = setting(
        1, "passes whose gradients make one optimizer step", section="optimisation", low=1
    )
    lr: float = setting(2e-4, "peak learning rate", section="optimisation", above=0.0, change=True)
    lr_schedule: str = setting(
        "cosine", "the learning rate falls to 0 over the run as a cosine, or is constant",
        section="optimisation", choices=LR_SCHEDULES, change=True,
    )  # fmt: skip
    warmup: int = setting(
        0, "optimizer steps over which the learning rate first rises to its peak",
        section="optimisation", low=0, change=True,
    )  # fmt: skip
    weight_decay: float = setting(
        0.01, "AdamW's weight decay", section="optimisation", low=0.0, change=True
    )
    gradient_clip: float | None = setting(
        1.0, "largest norm of the gradient; none for no clipping", section="optimisation",
        above=0.0, unset="no clipping", change=True,
    )  # fmt: skip
    ema_decay: float = setting(
        0.999, "decay of the average of the weights, warmed up", section="optimisation",
        low=0.0, below=1.0, change=True,
    )  # fmt: skip
    ema_lengths: list[float] = setting(
        [], "lengths of more averages, in parts of the training (0.05 0.1); with snapshots "
        "any other length can be had of two of them afterwards", section="optimisation",
        above=0.0, below=LONGEST,
    )  # fmt: skip

    progressive: int = setting(
        0, "train first on images halved so many times, then on ones halved once less, and so on "
        "(the U-Nets)", section="optimisation", low=0,
    )  # fmt: skip
    progressive_share: float = setting(
        0.2, "share of the steps for each of the halved sizes", section="optimisation",
        above=0.0, below=1.0,
    )  # fmt: skip

    schedule: str = setting("cosine", "noise schedule", section="diffusion", choices=SCHEDULES)
    diffusion_steps: int = setting(1000, "steps of noise", section="diffusion", low=2)
    prediction: str = setting(
        "epsilon", "what the model predicts", section="diffusion", choices=PREDICTIONS
    )
    weighting: str = setting(
        "min-snr", "weighting of the loss over noise levels (min-snr-batch: divided by its mean "
        "over the batch; uniform: plain mean squared error)",
        section="diffusion", choices=WEIGHTINGS,
    )  # fmt: skip
    gamma: float = setting(5.0, "gamma of the min-snr weightings", section="diffusion", above=0.0)

    samples: int = setting(
        64, "images in a sample grid (0: no grids)", section="samples", low=0, free=True
    )
    sample_steps: int = setting(
        50, "DDIM steps of a sample grid", section="samples", low=1, free=True
    )
    sample_eta: float = setting(
        0.0, "noise of DDIM in a sample grid, 0 to 1", section="samples", low=0.0, free=True
    )
    sample_sigma_max: float | None = setting(
        None, "noise-to-signal ratio from which a sample grid starts, at most", section="samples",
        above=0.0, unset="40 where the noise is predicted, else the schedule's own", free=True,
    )  # fmt: skip
    sample_guidance: float = setting(
        1.0, "strength of classifier-free guidance in a sample grid (1: none)", section="samples",
        free=True,
    )  # fmt: skip
    sample_every: int = setting(
        1, "epochs between sample grids; the last epoch always has one", section="samples", low=1,
        free=True,
    )  # fmt: skip

    evaluate_every: int | None = setting(
        None, "epochs between measurements of FD-cnn, of which the best averaged weights are kept",
        section="samples", low=1, unset="none are made", free=True,
    )  # fmt: skip
    evaluate_samples: int = setting(
        2000, "images that are drawn for one, more than its 192 features", section="samples",
        low=193, free=True,
    )  # fmt: skip

    precision: str = setting(
        "auto", "mixed precision (auto: bf16 where the device gains from it)", section="run",
        choices=PRECISIONS, change=True,
    )  # fmt: skip
    compile: bool = setting(
        False, "compile the model (torch.compile), which takes a while and pays in long runs",
        section="run", change=True,
    )  # fmt: skip
    channels_last: bool = setting(True, "keep images and weights channels-last", section="run")
    device: str | None = setting(
        None, "where to run", section="run", choices=DEVICES, unset="the best there is",
        free=True,
    )  # fmt: skip
    threads: int | None = setting(
        None, "CPU threads", section="run", low=1, unset="torch's choice", free=True
    )
    seed: int = setting(0, "seed of everything random", section="run", low=0, below=2**62)
    deterministic: bool = setting(
        True, "use only deterministic algorithms: the same seed, the same bits", section="run"
    )
    checkpoint_every: int = setting(
        500, "optimizer steps between checkpoints", section="run", low=1, free=True
    )
    checkpoint_minutes: float | None = setting(
        None, "minutes between checkpoints, if sooner", section="run", above=0.0,
        unset="only by steps", free=True,
    )  # fmt: skip
    snapshot_every: int | None = setting(
        None, "optimizer steps between checkpoints that are kept, each under its number",
        section="run", low=1, unset="none is kept", free=True,
    )  # fmt: skip
    log_every: int = setting(
        50, "optimizer steps between lines of metrics", section="run", low=1, free=True
    )
    tensorboard: bool = setting(
        False, "also write the metrics for TensorBoard", section="run", free=True
    )
    init_from: str | None = setting(
        None, "start from the weights of another run: its directory, or pretrained:NAME",
        section="run",
        unset="new weights", place=True,
    )  # fmt: skip
    init_weights: str = setting(
        "ema",
        "which of its weights: ema, best (as measured in training), model (of its last step), "
        "or ema-LENGTH",
        section="run",
    )
    output: str | None = setting(
        None,
        "the run directory",
        section="run",
        unset="in runs/, named after the settings",
        free=True,
    )

    def __repr__(self) -> str:
        """The settings that are not the defaults."""
        shown = [
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != _default(field)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            if "convert" in field.metadata:
                value = field.metadata["convert"](value)
            value = of_type(field.name, value, hints[field.name])
            object.__setattr__(self, field.name, value)
            given = field.metadata.get("object") and is_object(value)
            if value is not None and not given:
                check_bounds(field.name, value, field.metadata)
        self._check_grids()
        if self.data != "cifar10" and not re.fullmatch(rf"(folder|{OBJECT}):.+", self.data):
            raise ValueError(f"data must be 'cifar10' or 'folder:PATH', got {self.data!r}")
        if self.evaluate_every is not None and self.data != "cifar10":
            raise ValueError(
                f"evaluate_every needs held-out images, and {self.data} has none: measure from "
                "Python, by train(config, callbacks=[EpochEvaluation(...)])"
            )
        if "image_channels" in self.model_options:
            raise ValueError(
                "image_channels belongs to the images: set it as --image-channels, in place of the "
                "model option"
            )
        known = {} if is_object(self.model) else model_options(self.model)
        unknown = [name for name in self.model_options if name not in known]
        if unknown:
            raise ValueError(
                f"model {self.model!r} takes no option {', '.join(map(repr, unknown))}; "
                f"it takes {', '.join(known) or 'none'}"
            )
        if is_object(self.solver) and self.solver_options:
            raise ValueError(f"solver {self.solver!r} has its options already")
        if not is_object(self.solver):
            solvers.get(self.solver, **self.solver_options)  # raises ValueError for a bad one
        if len(set(self.ema_lengths)) < len(self.ema_lengths):
            raise ValueError(f"ema_lengths must differ, got {self.ema_lengths}")
        if (
            self.init_weights not in ("ema", "best", "model")
            and length_of(self.init_weights) is None
        ):
            raise ValueError(
                "init_weights must be 'ema', 'best', 'model' or 'ema-LENGTH', like ema-0.05, got "
                f"{self.init_weights!r}"
            )
        if self.progressive:
            self._check_progressive(known)
        self.refuse_steps(self.solver_options)

    def _check_progressive(self, options: typing.Mapping[str, Any]) -> None:
        if "progressive" not in options:
            raise ValueError(
                f"progressive={self.progressive} needs a model that grows, 'unet' or "
                f"'liquid_unet', not {self.model!r}"
            )
        if self.progressive * self.progressive_share >= 1:
            raise ValueError(
                f"progressive={self.progressive} times progressive_share={self.progressive_share} "
                "must be less than 1, so that some steps are left for whole images"
            )
        if self.compile:
            raise ValueError("progressive and compile exclude each other: the model changes")

    def _check_grids(self) -> None:
        if self.sample_steps > self.diffusion_steps:
            raise ValueError(
                f"sample_steps must be at most diffusion_steps ({self.diffusion_steps}), "
                f"got {self.sample_steps}"
            )
        if self.sample_eta > 1:
            raise ValueError(f"sample_eta must be at most 1, got {self.sample_eta!r}")
        if self.sample_guidance != 1 and not self.class_conditional:
            raise ValueError(
                f"sample_guidance={self.sample_guidance} needs a model with classes to guide "
                "towards: set class_conditional, or leave it at 1"
            )

    @classmethod
    def from_preset(cls, name: str, **settings: Any) -> TrainConfig:
        """The preset's settings, with any of them replaced.

        Raises:
            ValueError: there is no such preset, or a setting is unknown or not valid.
        """
        if name not in PRESETS:
            raise ValueError(
                f"preset must be one of {', '.join(PRESETS)}, got {name!r}"
                f"{did_you_mean(name, PRESETS)}"
            )
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
                f"unknown training settings: {', '.join(map(repr, unknown))}"
                f"{did_you_mean(unknown[0], known)}; "
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
        """The name of the run directory where ``output`` is not set; see :func:`names.run_name`."""
        free = {field.name for field in fields(self) if field.metadata.get("free")}
        tied = {name: value for name, value in self.to_dict().items() if name not in free}
        defaults = {name: getattr(TrainConfig(), name) for name in tied}
        return run_name(tied, defaults, {"solver": self.solver} if self.has_cells else {})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.image_channels, *parse_size(self.image_size)

    @property
    def has_cells(self) -> bool:
        """Whether the model has liquid cells, and so a use for the solver."""
        return not is_object(self.model) and "steps" in model_options(self.model)


def _documented() -> str:
    """What ``help`` shows of the settings: the same words as ``liquid-ode train --help``."""
    lines, section = [], ""
    for field in fields(TrainConfig):
        if field.metadata["section"] != section:
            section = field.metadata["section"]
            lines.append(f"\n    {section.capitalize()}:")
        value = _default(field)
        shown = field.metadata["unset"] if value is None else repr(value)
        text = f"{field.name}: {field.metadata['help']} (default: {shown})"
        lines.append(textwrap.fill(text, 96, initial_indent=" " * 8, subsequent_indent=" " * 12))
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


TrainConfig.__doc__ = f"{(TrainConfig.__doc__ or '').rstrip()}\n{_documented()}\n"


def _marked(*marks: str) -> frozenset[str]:
    return frozenset(f.name for f in fields(TrainConfig) if any(map(f.metadata.get, marks)))


# Settings that change what is shown and kept, but not the weights; and where things lie.
FREE = _marked("free", "place")
# Settings that a run may go on with another value of, which its record then tells.
CHANGEABLE = _marked("change")
