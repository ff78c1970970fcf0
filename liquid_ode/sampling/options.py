"""The command line's options as a sampler, a guidance, labels, and the name of what they make."""

from __future__ import annotations

import argparse
import math
import re
import zlib
from collections.abc import Sequence
from typing import Any

import solvers
from liquid_ode.arguments import did_you_mean
from liquid_ode.diffusion import (
    DDIM,
    DDPM,
    DDIMPath,
    DPMSolver,
    GaussianDiffusion,
    Guidance,
    KarrasGrid,
    KarrasHeun,
    LearnedSampler,
    LogSNRGrid,
    LogSNRPath,
    ProbabilityFlow,
    Sampler,
    SigmaList,
    TimeGrid,
    TimeList,
    TrailingGrid,
)

# The options that one sampler alone has a use for.
OWN_OPTIONS = {
    "ddim": ["eta"],
    "ddpm": ["variance"],
    "probability-flow": [
        "sampler_solver", "sampler_solver_option", "sampler_rtol", "sampler_atol",
    ],
    "dpm-solver++": [],
    "heun": ["churn"],
}  # fmt: skip
SAMPLERS = list(OWN_OPTIONS)
LEARNED = "learned:"  # before the path of a file that liquid-ode train-sampler wrote
GRIDS = ["trailing", "karras", "log-snr"]
_USUAL = {"ddim": "trailing", "ddpm": "trailing", "dpm-solver++": "trailing", "heun": "karras"}
_STEPS = {"ddim": 50, "dpm-solver++": 20, "heun": 18, "probability-flow": 50}
_LISTS = ("times", "sigmas")

# What a default name says, in this order, each where it was given: option, word before the value.
_NAMED = {
    "sampler": "", "steps": "steps", "grid": "", "rho": "rho", "sigma_max": "sigma",
    "times": "times", "sigmas": "sigmas", "eta": "eta", "variance": "variance", "churn": "churn",
    "sampler_solver": "by", "sampler_solver_option": "", "sampler_rtol": "rtol",
    "sampler_atol": "atol", "class_label": "class", "guidance_scale": "guidance",
    "depth_guidance": "depth", "early_steps": "early", "guidance_rescale": "rescale",
    "guidance_interval": "within", "solver": "cells", "solver_option": "", "solver_steps": "inner",
    "rtol": "cells-rtol", "atol": "cells-atol", "warm_start": "warm", "precision": "",
}  # fmt: skip


def flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def given(options: argparse.Namespace, *names: str) -> list[str]:
    """Those of the options that were given."""
    return [name for name in names if getattr(options, name) not in (None, [])]


def refuse(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise ValueError where an option is given that would have no effect, and say why."""
    for name in given(options, *names):
        raise ValueError(f"{flag(name)} has no effect {why}: leave it out")


# The sampler -----------------------------------------------------------------------------------


def choose_sampler(options: argparse.Namespace) -> Sampler:
    """The sampler that the options name; ``options.steps`` becomes the number that it takes.

    Raises:
        ValueError: an option has a bad value, or no effect on this sampler.
    """
    name = options.sampler
    if name.startswith(LEARNED):
        own = [option for options_of_one in OWN_OPTIONS.values() for option in options_of_one]
        names = ["steps", "grid", "rho", "sigma_max", *_LISTS, *own]
        refuse(options, names, "with a learned sampler, whose steps are fixed")
        return LearnedSampler.load(name.removeprefix(LEARNED))
    if name not in SAMPLERS:
        raise ValueError(
            f"--sampler must be one of {', '.join(SAMPLERS)} or {LEARNED}PATH, not {name!r}"
            f"{did_you_mean(name, SAMPLERS)}"
        )
    for other, own in OWN_OPTIONS.items():
        if other != name:
            refuse(options, own, f"with --sampler {name}, but with --sampler {other}")
    if name == "probability-flow":
        return _probability_flow(options)
    if not given(options, "steps", *_LISTS):
        options.steps = _STEPS.get(name)  # DDPM takes every time step there is
    grid = _grid(options, _USUAL[name])
    if name == "ddim":
        return DDIM(grid, **_set(eta=options.eta))
    if name == "ddpm":
        return DDPM(grid, **_set(variance=options.variance))
    if name == "heun":
        return KarrasHeun(grid, **_set(churn=options.churn))
    return DPMSolver(grid)


def _set(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _grid(options: argparse.Namespace, usual: str) -> TimeGrid:
    for name in given(options, *_LISTS):
        rest = [other for other in ("steps", "grid", "rho", "sigma_max", *_LISTS) if other != name]
        refuse(options, rest, f"beside {flag(name)}, which names every step")
        return TimeList(options.times) if name == "times" else SigmaList(options.sigmas)
    kind = options.grid or usual
    if kind != "karras":
        refuse(options, ["rho"], f"on the grid {kind!r}, but with --grid karras")
    settings = _set(sigma_max=options.sigma_max)
    if kind == "trailing":
        if options.sampler not in ("ddim", "ddpm"):  # whose steps can be as long as from σ = 20,291
            settings.setdefault("sigma_max", 80.0)
        return TrailingGrid(options.steps, **settings)
    if options.steps is None:
        raise ValueError(f"the grid {kind!r} needs a number of steps: give --steps")
    if kind == "log-snr":
        return LogSNRGrid(options.steps, **settings)
    return KarrasGrid(options.steps, **settings, **_set(rho=options.rho))


def _probability_flow(options: argparse.Namespace) -> ProbabilityFlow:
    """One solve in log-SNR, or, with a grid, one step of the solver between each two levels."""
    name = options.sampler_solver or "euler"
    settings = dict(options.sampler_solver_option)
    if "steps" in settings:
        raise ValueError("use --steps in place of --sampler-solver-option steps=N")
    settings |= _set(rtol=options.sampler_rtol, atol=options.sampler_atol)
    on_grid = bool(given(options, "grid", *_LISTS))
    known = solvers.options(name)
    if on_grid:
        if not given(options, "steps", *_LISTS):
            options.steps = _STEPS["probability-flow"]
        solver = solvers.get(name, **settings)
        return ProbabilityFlow(solver, DDIMPath(_grid(options, "trailing")))
    refuse(options, ["rho"], "without --grid karras")
    by_tolerance = known.get("rtol") is not None or {*settings} & {"rtol", "atol"}
    if options.steps is None and known.get("steps") is not None and not by_tolerance:
        options.steps = _STEPS["probability-flow"]
    if "steps" not in known:
        why = f"on the solver {name!r}, which is driven by its tolerances (--sampler-rtol)"
        refuse(options, ["steps"], why)
    solver = solvers.get(name, **settings, **_set(steps=options.steps))
    path = LogSNRPath(**_set(sigma_max=options.sigma_max))
    return ProbabilityFlow(solver, path)


# The classes and the guidance ------------------------------------------------------------------


def choose_classes(
    words: Sequence[str] | None, num_classes: int | None, names: Sequence[str] | None
) -> list[int] | None:
    """The labels of classes that are given by number or name; all of them where none is.

    Args:
        words: numbers or names, which the images have in turn.
        num_classes: how many classes the model knows, None for one without classes.
        names: what they are called, in the order of their numbers, where that is known.

    Raises:
        ValueError: the model has no classes, or not that one.
    """
    if num_classes is None:
        if words:
            raise ValueError(
                "the model has no classes for --class-label to choose from: train one with "
                "--class-conditional"
            )
        return None
    if not words:
        return list(range(num_classes))
    return [_label(word, num_classes, list(names or ())) for word in words]


def _label(word: str, num_classes: int, names: list[str]) -> int:
    if word in names:
        return names.index(word)
    alike = [k for k, name in enumerate(names) if name.casefold() == word.casefold()]
    if len(alike) == 1:
        return alike[0]
    if re.fullmatch(r"[0-9]+", word) and int(word) < num_classes:
        return int(word)
    known = f"0 to {num_classes - 1}" + (f", or {', '.join(names)}" if names else "")
    guess = did_you_mean(word, names)
    raise ValueError(f"--class-label must be one of {known}; not {word!r}{guess}")


def choose_guidance(options: argparse.Namespace, diffusion: GaussianDiffusion) -> Guidance:
    """The guidance that the options name.

    Raises:
        ValueError: an option has a bad value, or no effect.
    """
    scales = [name for name in ("guidance_scale", "depth_guidance") if _guides(options, name)]
    if len(scales) == 2:
        raise ValueError("--guidance-scale and --depth-guidance exclude each other: choose one")
    if not scales:
        names = ["early_steps", "guidance_rescale", "guidance_interval"]
        refuse(options, names, "without --guidance-scale or --depth-guidance other than 1")
        return Guidance()
    settings = _set(rescale=options.guidance_rescale)
    if options.guidance_interval is not None:
        settings["interval"] = tuple(options.guidance_interval)
    if scales == ["guidance_scale"]:
        refuse(options, ["early_steps"], "without --depth-guidance")
        return Guidance(options.guidance_scale, **settings)
    return Guidance(options.depth_guidance, weak=_stopped_early(options, diffusion), **settings)


def _guides(options: argparse.Namespace, name: str) -> bool:
    return getattr(options, name) not in (None, 1.0)


def _stopped_early(options: argparse.Namespace, diffusion: GaussianDiffusion) -> GaussianDiffusion:
    """The same weights with their cells stopped after fewer steps: the weaker model."""
    if options.early_steps is None:
        raise ValueError("--depth-guidance needs --early-steps, where the weaker model stops")
    stopped_early = getattr(diffusion.model, "stopped_early", None)
    if not callable(stopped_early):
        raise ValueError(
            "--depth-guidance needs a model whose cells can be stopped early, and "
            f"{type(diffusion.model).__name__} cannot: use --guidance-scale on a model with classes"
        )
    steps = options.early_steps
    return diffusion.with_model(stopped_early(steps[0] if len(steps) == 1 else tuple(steps)))


# The name --------------------------------------------------------------------------------------


def name_of(options: argparse.Namespace) -> str:
    """A file name, without an ending, that says what made the images."""
    words = ["samples"]
    for name, word in _NAMED.items():
        value = getattr(options, name)
        if value not in (None, [], _UNSAID.get(name)):
            values = [] if value is True else _flat(value)  # of a switch the word alone
            words.append(word + "-".join(map(_text, values)))
    words += {"ema": [], "model": ["raw"]}.get(options.weights, [options.weights])
    words += [f"seed{options.seed}"]
    words += [f"n{options.n}"] if options.n != 64 else []
    text = re.sub(r"[^\w.+-]+", "-", "-".join(words))
    if len(text) > _LONGEST:  # what a list of times may come to; the checksum tells two apart
        text = f"{text[:_LONGEST]}-{zlib.crc32(text.encode()):08x}"
    return text


_UNSAID = {"guidance_scale": 1.0, "precision": "no"}
_LONGEST = 180


def _flat(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [each for entry in value for each in _flat(entry)]
    return [value]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "inf" if value == math.inf else f"{value:.6g}"
    return str(value)
