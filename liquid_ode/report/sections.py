"""The sections of a report: each from runs to a part of the page, empty where there is nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from liquid_ode.evaluation.pictures import smoothed
from liquid_ode.report import elements
from liquid_ode.report.charts import Axis, Line, line_chart
from liquid_ode.report.gather import Drawn, Run
from liquid_ode.report.pictures import (
    cell_label,
    film_picture,
    grid_picture,
    time_constant_table,
)
from liquid_ode.report.settings import images_shown

MOST_GRIDS = 6
_SIDE = 400  # of the page's pixels, of the largest older grid


def key_figures(run: Run) -> str:
    """What one wants to know first of a run."""
    config, last = run.config, run.metrics[-1] if run.metrics else None
    solver = config.solver if config.has_cells else "no cells"
    facts = [
        (config.model, solver),
        (f"{run.record['parameters']:,}", "parameters"),
        (images_shown(run), "images seen"),
    ]
    if last is not None:
        facts.append((f"{last['loss']:.4f}", "training loss, last interval"))
    for evaluation in reversed(run.evaluations):
        if "images" in evaluation:
            found = evaluation["images"]
            facts.append((f"{found['fd']:.2f}", f"{evaluation['title']}, n = {found['n']:,}"))
            break
    parts = "".join(
        f'<div class="fact"><b>{elements.text(value)}</b><span>{elements.text(what)}</span></div>'
        for value, what in facts
    )
    return f'<div class="facts">{parts}</div>'


def samples(runs: Sequence[Run]) -> str:
    """The images that the runs draw of the same seeds, and how they came about."""
    drawn = [(run, run.drawn) for run in runs if run.drawn is not None]
    grids = [
        elements.figure(grid_picture(found, f"samples of {run.name}"), run.name, _made(run, found))
        for run, found in drawn
    ]
    films = [
        elements.figure(
            film_picture(found.film, f"denoising by {run.name}"), f"Denoising, {run.name}"
        )
        for run, found in drawn
    ]
    if not drawn:
        return ""
    first, wide = drawn[0][1], len(drawn) < 3
    seeds = f"Seeds {first.seed} to {first.seed + len(first.images) - 1}, row by row"
    story = "the estimate of the clean image, x̂0, from the first step of sampling to the last."
    if len(drawn) == 1:
        return elements.section(
            "Samples",
            elements.side_by_side([*grids, *films], wide=True),
            note=f"{seeds}; and how the first come about: {story}",
        )
    return elements.section(
        "Samples",
        elements.side_by_side(grids, wide=wide),
        note=f"{seeds}; the same seed in the same place.",
    ) + elements.section(
        "Denoising",
        elements.side_by_side(films, wide=wide),
        note=f"How the first of them come about: {story}",
    )


def _made(run: Run, drawn: Drawn) -> str:
    """How the samples were made."""
    names = run.record["data"].get("class_names")
    if not run.config.class_conditional:
        return drawn.sampler
    return f"{drawn.sampler}, classes in turn" + (f": {', '.join(names)}" if names else "")


def training(runs: Sequence[Run]) -> str:
    """The curves of the training, over the images seen."""
    seen, curves = Axis("images seen", from_zero=True), []
    for name, title, log in (
        ("loss", "Training loss", True),
        ("grad_norm", "Norm of the gradient", True),
        ("lr", "Learning rate", False),
        ("images_per_second", "Images per second", False),
        ("fd_cnn", "FD-cnn", True),
    ):
        lines = [line for place, run in enumerate(runs) for line in _curve(run, name, place)]
        chart = line_chart(lines, seen, Axis(title.lower(), log, settled=0.04 if log else 0.0))
        if chart:
            caption = "thick: smoothed" if any(line.faint for line in lines) else ""
            curves.append(elements.figure(chart, title, caption))
    return elements.section("Training", elements.side_by_side(curves, wide=True))


def _curve(run: Run, name: str, colour: int) -> list[Line]:
    points = [
        (m["step"] * run.images_per_step, m[name])
        for m in (*run.metrics, *run.measurements)
        if _is_number(m, name)
    ]
    if not points:
        return []
    size = -(-len(points) // 400)  # a long run is averaged first
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    x = [sum(a for a, _ in group) / len(group) for group in groups]
    y = [sum(b for _, b in group) / len(group) for group in groups]
    if len(x) < 20 or name == "lr":
        return [Line(run.name, x, y, colour, dots=len(x) < 20)]
    return [Line("", x, y, colour, faint=True), Line(run.name, x, smoothed(y), colour)]


def _is_number(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get(name), int | float) and not isinstance(record[name], bool)


def evaluations(runs: Sequence[Run]) -> str:
    """What ``liquid-ode evaluate`` has found of the runs."""
    found = [(run, record) for run in runs for record in run.evaluations]
    distances = [[run.name, *_distances(rec)] for run, rec in found if "images" in rec]
    # The loss does not depend on how samples are drawn: the newest record of each of the weights.
    newest = {_weights(run, record): record["loss"] for run, record in found if "loss" in record}
    losses, levels = [], []
    for place, (label, loss) in enumerate(newest.items()):
        mean, error = f"{loss['mean']:.4f}", f"{loss['standard_error']:.4f}"
        losses.append([label, mean, error, f"{loss['images']:,}"])
        parts = [(k + 0.5) / len(loss["levels"]) for k in range(len(loss["levels"]))]
        levels.append(Line(label, parts, loss["levels"], place, dots=True))
    title = next((record["title"] for _, record in found if "title" in record), "distance")
    head = [
        "run", title, "of real images", "KID × 1000", "n", "pixel std", "saturated", "evaluations",
        "weights, sampler",
    ]  # fmt: skip
    chart = line_chart(levels, Axis("time step, as a part of all"), Axis("error of ε̂", log=True))
    table = elements.table(["held-out loss", "mean", "standard error", "images"], losses)
    return elements.section(
        "Evaluations",
        elements.table(head, distances) if distances else "",
        table if losses else "",
        elements.side_by_side(
            [
                elements.figure(chart, "Held-out loss by noise level") if chart else "",
                *(_neighbours(run, record) for run, record in found if "neighbours" in record),
            ],
            wide=True,
        ),
        note="Distances compare at equal n, and with that of as many real images.",
    )


def _weights(run: Run, record: Mapping[str, Any]) -> str:
    return f"{run.name}, {record['weights']}" if "weights" in record else run.name


def _distances(record: Mapping[str, Any]) -> list[str]:
    images, real, pixels = record["images"], record.get("real"), record.get("pixels", {})
    return [
        f"{images['fd']:.3f}",
        f"{real['fd']:.3f}" if real else "–",
        f"{1000 * images['kid']:.2f} ± {1000 * images['kid_std']:.2f}",
        f"{images['n']:,}",
        f"{pixels['std']:.3f}" if "std" in pixels else "–",
        f"{pixels['saturated']:.1%}" if "saturated" in pixels else "–",
        f"{record['evaluations']:g}" if "evaluations" in record else "–",
        ", ".join(str(record[name]) for name in ("weights", "sampler") if name in record),
    ]


def _neighbours(run: Run, record: Mapping[str, Any]) -> str:
    """The picture of samples beside their nearest training images, wherever the run lies now."""
    file = run.path / Path(str(record["neighbours"])).name
    found = _embedded(file)
    return elements.figure(found, f"Nearest training images, {run.name}") if found else ""


def time_constants(runs: Sequence[Run]) -> str:
    """τ of the liquid cells, over the noise and over the image."""
    parts = []
    for run in runs:
        tau = run.drawn.tau if run.drawn is not None else None
        if tau is None:
            continue
        lines = [
            Line(cell_label(name), tau.sigmas, means, place, dots=True)
            for place, (name, means) in enumerate(tau.means.items())
        ]
        chart = line_chart(lines, Axis("noise-to-signal ratio σ", log=True), Axis("mean τ"))
        title = f"Time constants by noise, {run.name}"
        parts.append(elements.side_by_side([elements.figure(chart, title)], wide=True))
        parts.append(
            elements.figure(
                time_constant_table(tau),
                f"Time constants over the image, {run.name}",
                "Of the first sample with noise added. Mean over the channels of the state; each "
                "cell has its own scale of colours, from dark (fast) to light (slow).",
            )
        )
    return elements.section(
        "Time constants of the liquid cells",
        *parts,
        note="τ says how fast a cell's state follows its input, in units of the time that it is "
        "given to flow.",
    )


def epochs(run: Run) -> str:
    """The sample grids that the training left, some of them where there are many."""
    numbers = sorted(run.grids)
    count = min(MOST_GRIDS, len(numbers))
    chosen = [numbers[round(k * (len(numbers) - 1) / max(1, count - 1))] for k in range(count)]
    figures = [
        elements.figure(found, f"Epoch {number}")
        for number in chosen
        if (found := _embedded(run.grids[number]))
    ]
    return elements.section("Samples after each epoch", elements.side_by_side(figures))


def _embedded(file: Path) -> str:
    """A picture's file inside the page, smaller where it is large; nothing if it is broken."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError):
        return ""
    if max(image.size) > 2 * _SIDE:
        image.thumbnail((2 * _SIDE, 2 * _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return elements.picture(buffer.getvalue(), file.stem, pixels=False)
