"""The settings of runs, side by side: which differ, and what that means for a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liquid_ode.report import elements
from liquid_ode.report.gather import Run
from liquid_ode.training import TrainConfig
from liquid_ode.training.config import FREE

# Settings that change what the training loss measures.
_OF_THE_LOSS = ("schedule", "diffusion_steps", "weighting", "gamma")


def settings_tables(runs: Sequence[Run]) -> str:
    """What differs between the runs (or from the defaults, where there is one), and all others.

    Settings that only change what is shown and kept are among the others.
    """
    settings = [run.config.to_dict() for run in runs]
    head: list[object] = ["setting", *(run.name for run in runs)]
    nothing = "No setting that the weights depend on differs."
    if len(runs) == 1:
        settings.append(TrainConfig().to_dict())
        head, nothing = ["setting", "here", "by default"], "All settings are the defaults."
    names = [name for name in settings[0] if name != "output"]
    differ = [
        name
        for name in names
        if name not in FREE and any(s[name] != settings[0][name] for s in settings)
    ]

    def rows(chosen: Sequence[str]) -> list[list[object]]:
        return [[name, *(_shown(s[name]) for s in settings)] for name in chosen]

    told = f'<p class="note">{nothing}</p>'
    if differ:
        told = elements.table(head, rows(differ), numbers=False)
    others = [name for name in names if name not in differ]
    folded = elements.table(head, rows(others), numbers=False)
    return told + elements.details(f"{len(others)} other settings", folded)


def warnings(runs: Sequence[Run]) -> str:
    """What makes figures of these runs no comparison."""
    said = []
    data = {str(run.record["data"].get("crc32")): _data(run) for run in runs}
    if len(data) > 1:
        said.append(
            f"The runs were trained on different images ({'; '.join(data.values())}): their losses "
            "do not compare."
        )
    differ = [name for name in _OF_THE_LOSS if len({getattr(run.config, name) for run in runs}) > 1]
    if not all(run.config.weighting == "min-snr" for run in runs):
        differ += ["prediction"] if len({run.config.prediction for run in runs}) > 1 else []
    if differ:
        said.append(
            f"The training losses weigh the noise levels differently ({', '.join(differ)}): "
            "compare the held-out losses and the distances, not the training losses."
        )
    seen = {images_seen(run) for run in runs if run.metrics}
    if len(seen) > 1:
        counts = ", ".join(f"{count:,}" for count in sorted(seen))
        said.append(f"The runs have seen different numbers of images: {counts}.")
    sizes = [int(run.record["parameters"]) for run in runs]
    if max(sizes) > 1.1 * min(sizes):
        said.append(f"The models differ in size: from {min(sizes):,} to {max(sizes):,} parameters.")
    return "".join(elements.warning(text) for text in said)


def facts_table(runs: Sequence[Run]) -> str:
    """What the records say besides the settings."""
    rows: list[list[object]] = [
        ["parameters", *(f"{run.record['parameters']:,}" for run in runs)],
        ["data", *(_data(run) for run in runs)],
        ["images seen", *(images_shown(run) for run in runs)],
        ["processes", *(run.record["processes"] for run in runs)],
        ["training time", *(_duration(run) for run in runs)],
        *(
            [f"version of {name}", *(run.record.get("versions", {}).get(name, "?") for run in runs)]
            for name in ("liquid_ode", "torch")
        ),
        ["directory", *(run.path for run in runs)],
    ]
    return elements.table(["", *(run.name for run in runs)], rows, numbers=False)


def images_seen(run: Run) -> int:
    """How many images the run has been trained on, each as often as it came."""
    return int(run.metrics[-1]["step"]) * run.images_per_step if run.metrics else 0


def images_shown(run: Run) -> str:
    """``images_seen``, and of how many where the training was not run to its end."""
    seen, steps = images_seen(run), run.record["data"]["images"] // run.images_per_step
    steps *= run.config.epochs
    if run.config.max_steps is not None:
        steps = min(steps, run.config.max_steps)
    planned = steps * run.images_per_step
    return f"{seen:,} of {planned:,}" if seen < planned else f"{seen:,}"


def _data(run: Run) -> str:
    data = run.record["data"]
    shape = "x".join(map(str, run.config.image_shape[1:]))
    return f"{data['name']}, {data['images']:,} images of {shape}"


def _duration(run: Run) -> str:
    seconds = float(run.metrics[-1].get("seconds", 0.0)) if run.metrics else 0.0
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min" if minutes else "< 1 min"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{key}={entry}" for key, entry in value.items()) or "none"
    return str(value)
