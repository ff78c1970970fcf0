"""Reports of runs, written as pages."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

import liquid_ode
from liquid_ode.report import elements, sections
from liquid_ode.report.gather import Run, draw, named_apart, read_run
from liquid_ode.report.settings import facts_table, settings_tables, warnings
from liquid_ode.training.run_directory import RunDirectory
from solvers.storage import write_atomically


def write_reports(
    runs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    n: int = 36,
    steps: int = 50,
    seed: int = 0,
    weights: str = "ema",
    device: str | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write a page for each run, and for several one that compares them.

    A page is one HTML file that needs no other: what the run's directory holds, and what its model
    draws now, with the same seeds in all runs.

    Args:
        runs: the run directories, or ``pretrained:NAME``.
        output: where to write the page of a single run, or the comparison; by default
            ``RUN/report.html`` and ``comparison.html``. The pages of several runs are always in
            their directories.
        n: images to draw of each run; 0 draws none, and needs no weights.
        steps: of DDIM.
        seed: of the first image; the next have seed + 1, seed + 2, ...
        weights: which weights draw: "ema", the averaged ones, or "model".
        device: where to draw; the best there is if None.
        progress: called after each step of sampling.

    Returns:
        The pages' paths; the comparison is the last.

    Raises:
        CheckpointError: there is no run in a directory, or it is broken.
        ValueError: there are no runs, one is named twice, or a number is out of range.
        OSError: a page could not be written.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    if n < 0 or steps < 1:
        raise ValueError(f"n must be at least 0 and steps at least 1, got {n} and {steps}")
    places = [RunDirectory(run).path.resolve() for run in runs]
    twice = [str(run) for run, place in zip(runs, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ValueError(f"a run is named twice: {', '.join(twice)}")
    found = named_apart([read_run(run) for run in runs])  # all, before the first is drawn
    if n:
        found = [
            draw(
                run, n=n, steps=steps, seed=seed, weights=weights, device=device, progress=progress
            )
            for run in found
        ]
    alone = len(found) == 1
    homes = [RunDirectory(run.path).outputs / "report.html" for run in found]
    pages = [
        _write(Path(output) if alone and output else home, run_page(run))
        for run, home in zip(found, homes, strict=True)
    ]
    if not alone:
        pages.append(_write(Path(output or "comparison.html"), comparison_page(found)))
    return pages


def run_page(run: Run) -> str:
    """The page of one run."""
    return elements.page(
        run.name,
        _subtitle(),
        sections.key_figures(run),
        sections.samples([run]),
        sections.training([run]),
        sections.evaluations([run]),
        sections.time_constants([run]),
        sections.epochs(run),
        elements.section("Settings", settings_tables([run])),
        elements.section("Record", facts_table([run])),
    )


def comparison_page(runs: Sequence[Run]) -> str:
    """The page that compares runs."""
    return elements.page(
        " · ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs compared",
        _subtitle(),
        warnings(runs),
        elements.section("Settings that differ", settings_tables(runs)),
        sections.samples(runs),
        sections.training(runs),
        sections.evaluations(runs),
        sections.time_constants(runs),
        elements.section("Records", facts_table(runs)),
    )


def _subtitle() -> str:
    today = datetime.date.today().isoformat()
    return f"Report of liquid_ode {liquid_ode.__version__}, {today}"


def _write(path: Path, page: str) -> Path:
    write_atomically(path, page.encode())
    return path
