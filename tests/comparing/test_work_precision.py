"""Measuring solvers, and the tables and plots of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import solvers
from liquid_ode.comparing import plots, tables, work_precision
from liquid_ode.comparing.work_precision import Row
from solvers.suite import KnownProblem
from tests.runs import on_one_thread

one_thread = pytest.fixture(autouse=True, scope="module")(on_one_thread)


def decay(field: solvers.VectorField | None = None) -> KnownProblem:
    """dy/dt = -y over one unit of time: every method's result is known in closed form."""
    y0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    return KnownProblem(
        "decay", "y' = -y", field or (lambda t, y: -y), y0, (0.0, 1.0), y0 * math.exp(-1)
    )


def test_rows_hold_the_closed_form_errors() -> None:
    found = work_precision.fitting(decay(), ["uniform_euler", "heun"], steps=[1, 2])
    rows = work_precision.measure(decay(), found.candidates, repeats=2)
    assert [(row.solver, row.setting, row.evaluations) for row in rows] == [
        ("uniform_euler", "1 step", 1), ("uniform_euler", "2 steps", 2),
        ("heun", "1 step", 2), ("heun", "2 steps", 4),
    ]  # fmt: skip
    # Euler multiplies by 1 - h in a step, Heun by 1 - h + h²/2.
    gained = [0.0, 0.25, 0.5, (1 - 0.5 + 0.125) ** 2]
    errors = [abs(value - math.exp(-1)) / math.exp(-1) for value in gained]
    assert [row.error for row in rows] == pytest.approx(errors)
    assert all(row.milliseconds is not None and row.milliseconds > 0 for row in rows)


def test_evaluations_are_the_mean_over_samples() -> None:
    rates = torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    field = solvers.ParameterisedField(lambda t, y, rates: -rates * y, rates)
    entry = work_precision.candidates("tsit5", tolerances=[1e-3])[0]
    solution = entry.solver.solve(field, decay().y0)
    counts = solution.stats.nfe
    assert isinstance(counts, Tensor)
    assert counts[0] < counts[1]
    (row,) = work_precision.measure(decay(field), [entry], repeats=1)
    assert row.evaluations == float(counts.double().mean())


def test_a_solver_that_does_not_fit_is_left_out_and_one_that_fails_is_a_row() -> None:
    explosive = decay(lambda t, y: 100 * y**3)
    found = work_precision.fitting(explosive, ["etdrk2", "heun"], steps=[1, 9])
    assert list(found.left_out) == ["etdrk2"]
    assert "SemilinearField" in found.left_out["etdrk2"]
    rows = work_precision.measure(explosive, found.candidates, repeats=1)
    assert [row.failure is None for row in rows] == [True, False]
    assert rows[1].error is rows[1].evaluations is rows[1].milliseconds is None
    text = tables.problem_block(explosive, rows, found.left_out)
    assert "failed: 9 steps" in text
    assert "left out: etdrk2: needs a SemilinearField" in text
    assert "heun    9 steps  failed: 2 of 2 samples (0, 1) met a NaN" in "\n".join(
        tables.every_row(rows)
    )


def test_candidates_are_budgets_or_tolerances() -> None:
    budgets = work_precision.candidates("rk4", [2, 3])
    assert [entry.solver for entry in budgets] == [solvers.get("rk4", steps=n) for n in (2, 3)]
    controlled = work_precision.candidates("heun_euler", [2], [1e-2])
    assert [entry.setting for entry in controlled] == ["rtol 0.01"]
    assert controlled[0].solver == solvers.get("heun_euler", rtol=1e-2, atol=1e-3)
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        work_precision.candidates("heun", [0])
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        work_precision.measure(decay(), budgets, repeats=0)


ROWS = [
    Row("p", "good", "1 step", 4, 2.0, 5e-2),
    Row("p", "good", "2 steps", 8, 3.0, 5e-4),
    Row("p", "poor", "1 step", 2, 1.0, 9e-2),
    Row("p", "poor", "2 steps", 9, 8.0, 5e-3),
    Row("p", "lost", "1 step", None, None, None, "it blew up"),
]


def test_the_work_needed_and_its_table() -> None:
    work = work_precision.needed(ROWS)
    assert work["good"].evaluations == (4, 8, 8, None)
    assert work["good"].milliseconds == (2.0, 3.0, 3.0, None)
    assert work["poor"].evaluations == (2, 9, None, None)
    lines = tables.summary(ROWS).splitlines()
    # The one that comes to 1e-3 is first; the best of each column is marked.
    assert [line.split()[0] for line in lines[3:]] == ["good", "poor", "lost"]
    assert "4        8*       8*      --" in lines[3]
    assert "2*       9       --       --" in lines[4]
    assert lines[5].endswith("| --  failed: 1 step")
    assert len({line.index("|") for line in lines[:2] + lines[3:]}) == 1


def test_the_frontier_is_what_no_point_beats() -> None:
    points = [(4, 1e-2), (1, 1e-1), (2, 2e-1), (8, 1e-2), (5, 1e-3), (9, math.nan)]
    assert work_precision.frontier(points) == [(1, 1e-1), (4, 1e-2), (5, 1e-3)]


def test_names_are_shortened_where_they_are_paths() -> None:
    assert work_precision.short_name("etdrk2") == "etdrk2"
    assert work_precision.short_name("learned:/a/b/mine.safetensors") == "learned:mine"
    assert len(work_precision.short_name("learned:" + 50 * "a")) == 24


def test_looks_tell_solvers_apart() -> None:
    looks = {name: plots.style_of(name) for name in solvers.names()}
    assert len(set(looks.values())) == len(looks)
    assert looks["dopri5"].dashes == "--"
    assert looks["dormand_prince"].dashes == "-"
    assert looks["dormand_prince"].hollow
    assert not looks["heun"].hollow
    assert plots.style_of("torchdiffeq:midpoint").dashes == "--"
    assert plots.style_of("learned:a.safetensors").dashes == "-"


def test_plots_are_written(tmp_path: Path) -> None:
    for work in plots.LABELS:
        path = plots.plot_work_precision(ROWS, tmp_path / work / "a.png", work, {"p": "P"}, "H")
        with Image.open(path) as picture:
            assert picture.width > 400
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.plot_work_precision(ROWS[-1:], tmp_path / "b.png", "evaluations", {"p": "P"}, "H")


def test_rows_of_images_keep_their_pixels(tmp_path: Path) -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    path = plots.plot_image_rows([("a\nb", red), ("c", -red)], tmp_path / "a.png", "heading")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # Two rows of two images of 4x4, each pixel twice as wide and high.
    for colour in ((255, 0, 0), (0, 255, 255)):
        assert (pixels == colour).all(-1).sum() == 2 * 64
    with pytest.raises(ValueError, match="images of one size"):
        plots.plot_image_rows([("a", red), ("b", red[:, :, :2])], tmp_path / "b.png", "heading")
