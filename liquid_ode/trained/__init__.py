"""Trained runs that come with the package: their averaged weights, settings, metrics and measures.

>>> import liquid_ode
>>> from liquid_ode.trained import trained_runs
>>> trained_runs()  # doctest: +ELLIPSIS
[...'unet-seed0'...]
>>> diffusion = liquid_ode.load_pretrained("unet")  # doctest: +SKIP

``liquid-ode pretrained`` lists them, each with its FD-cnn, the SHA-256 of its weights, and the
command that made it. Wherever a run directory is asked for, ``pretrained:NAME`` is one of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from liquid_ode.arguments import did_you_mean

PREFIX = "pretrained:"
# The runs of the presets; of the liquid U-Nets the one that measures best.
SHORT: Mapping[str, str] = {
    "improved": "improved-seed0",
    "original": "original-seed0",
    "unet": "unet-seed0",
    "liquid_unet": "tuned-seed0",
    "recommended": "recommended-seed0",
    "tuned": "tuned-seed0",
}
_HERE = Path(__file__).parent
_SUMS = _HERE / "SHA256SUMS"  # as sha256sum writes and checks it


def trained_runs() -> list[str]:
    """The names of the runs."""
    return sorted(record.parent.name for record in _HERE.glob("*/config.json"))


def trained_run(name: str) -> Path:
    """The directory of a run, for :func:`liquid_ode.load_run`.

    Args:
        name: of :func:`trained_runs`, or one of the short names: ``improved``, ``original``,
            ``unet``, ``liquid_unet``, ``recommended`` and ``tuned``.

    Raises:
        ValueError: there is no run of that name.
    """
    known = trained_runs()
    found = SHORT.get(name, name)
    if name in SHORT and found not in known:
        raise ValueError(
            f"the run {name!r} does not come with this version: make it by liquid-ode train "
            f"--preset {name}"
        )
    if found not in known:
        names = [short for short, run in SHORT.items() if run in known] + known
        raise ValueError(
            f"unknown run {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    return _HERE / found


def find(run_dir: str | Path) -> Path:
    """The directory that is meant: ``pretrained:NAME`` is that of a run of this package.

    Raises:
        ValueError: there is no run of that name.
    """
    text = str(run_dir)
    return trained_run(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else Path(run_dir)


def is_trained(run_dir: Path) -> bool:
    """Whether a directory is that of a run of this package."""
    return run_dir.resolve().parent == _HERE.resolve()


def checksum(name: str) -> str:
    """The SHA-256 that the averaged weights of a run have."""
    lines = [line.split(maxsplit=1) for line in _SUMS.read_text().splitlines()]
    return {file: found for found, file in lines}[f"{name}/ema.safetensors"]


def is_whole(run_dir: Path) -> bool:
    """Whether the averaged weights of a run of this package are those that were measured."""
    content = (run_dir / "ema.safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest() == checksum(run_dir.name)
