"""``liquid-ode compare`` and the swapping of solvers under it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import solvers
from liquid_ode.cells import LiquidRNN
from liquid_ode.commands import compare as compare_solvers
from liquid_ode.comparing import plots, solver_swap, tables
from liquid_ode.diffusion import GaussianDiffusion
from liquid_ode.training import Reporter, TrainConfig, load_run, train
from liquid_ode.training.run_directory import RunDirectory
from solvers.suite import KnownProblem
from tests.runs import draw_images, small_config


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Solves this small are slowed down by more, the more so where other programs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decay(field: solvers.VectorField | None = None) -> KnownProblem:
    """dy/dt = -y over one unit of time: every method's result is known in closed form."""
    y0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    return KnownProblem(
        "decay", "y' = -y", field or (lambda t, y: -y), y0, (0.0, 1.0), y0 * math.exp(-1)
    )


class Module(nn.Module, solvers.Solver):
    """A solver that is a module, as a learned one is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def solve_problem(self, problem: solvers.Problem) -> solvers.Solution:
        return solvers.get("heun").solve_problem(problem)

    def with_steps(self, steps: int) -> Module:
        return self


@pytest.mark.parametrize("solver", [Module(), solvers.get("heun")])
def test_a_stand_in_counts_and_leaves_the_model_as_it_was(solver: solvers.Solver) -> None:
    rnn = LiquidRNN(2, 3, solver=solver)
    x = torch.randn(4, 5, 2)
    before, names = rnn(x)[0], list(rnn.state_dict())
    ((part, held),) = solver_swap.cell_solvers(rnn).items()
    assert held is solver
    counted = solver_swap.Counted(solver, [])
    with solver_swap.standing_in(rnn, {part: counted}):
        assert torch.equal(rnn(x)[0], before)
        assert list(rnn.state_dict()) == names
    rnn(x)
    assert counted.counts == [(4, 10)] * 5
    assert counted.mean == 10
    assert solver_swap.cell_solvers(rnn)[part] is solver
    assert list(rnn.state_dict()) == names


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = draw_images(tmp_path_factory.mktemp("images"), 6)
    output = tmp_path_factory.mktemp("runs") / "run"
    config = small_config(images, output, lr=0.05, samples=1, sample_steps=2)
    return train(config, reporter=Reporter())


def noisy(diffusion: GaussianDiffusion) -> solver_swap.NoisyImages:
    x0 = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return solver_swap.NoisyImages.draw(x0, diffusion.schedule.num_steps, 0)


def test_the_problems_that_cells_meet(run: Path) -> None:
    diffusion = load_run(run, device="cpu")
    problems = solver_swap.met_problems(diffusion, noisy(diffusion), states=10)
    own = solver_swap.cell_solvers(diffusion)
    assert list(problems) == list(own)
    assert len(own) == 6
    for name, problem in problems.items():
        assert problem.y0.shape == (10, 4)
        solve = own[name].solve(problem.field, problem.y0, problem.span)
        assert 1e-4 < problem.error(solve.y) < 0.5
        tight = solvers.get("dormand_prince", rtol=1e-6, atol=1e-7)
        assert problem.error(tight.solve(problem.field, problem.y0, problem.span).y) < 1e-5
    few = solver_swap.met_problems(diffusion, noisy(diffusion), cells=3)
    assert list(few) == [list(own)[index] for index in (0, 2, 5)]
    (one,) = solver_swap.met_problems(diffusion, noisy(diffusion), cells=1)
    assert one == next(iter(own))


def test_a_field_that_is_not_known_inside_has_a_reference_too() -> None:
    problem = decay()
    field = solvers.SemilinearField(lambda t, y: torch.zeros_like(y), 1.0)
    met = solvers.Problem(field, problem.y0.float(), problem.span)
    found = solver_swap._reference(met)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, problem.reference, rtol=3e-6, atol=0)


def test_swapping_measures_the_change(run: Path) -> None:
    own = load_run(run, device="cpu")
    images = noisy(own)

    def impossible() -> GaussianDiffusion:
        raise ValueError("it does not fit")

    hard = solvers.get("dopri5", max_steps=1)
    found = solver_swap.swap_all(
        [
            ("own", lambda: own),
            ("same", lambda: load_run(run, device="cpu")),
            ("heun", lambda: load_run(run, device="cpu", solver="heun", solver_steps=4)),
            ("hard", lambda: load_run(run, device="cpu", solver=hard)),
            ("misfit", impossible),
        ],
        images, samples=3, image_shape=(3, 8, 8), sample_steps=2,
    )  # fmt: skip
    rows = [row for row, _ in found]
    assert [drawn is None for _, drawn in found] == [False, False, False, True, True]
    assert rows[0].evaluations == 2
    assert rows[0].change == rows[1].change == rows[1].image_change == 0
    assert rows[2].evaluations == 8
    assert rows[2].image_change
    # The loss by another way, one image at a time.
    own.clip_sample = False
    own.requires_grad_(False)
    each = torch.stack([
        (own.denoise(own.add_noise(x0, eps, t), t).epsilon - eps).square().mean()
        for x0, eps, t in zip(images.x0.split(1), images.noise.split(1), images.t.split(1),
                              strict=True)
    ])  # fmt: skip
    assert rows[0].loss == pytest.approx(each.mean().item(), rel=1e-5)
    assert rows[0].loss_error == pytest.approx(each.std(correction=0).item() / 5**0.5, rel=1e-4)
    assert rows[2].loss == pytest.approx((rows[0].loss or 0) + (rows[2].change or 0))
    text = tables.swap_table(rows).splitlines()
    assert "largest number of steps" in text[4]
    assert text[5] == "misfit  failed: it does not fit"
    with pytest.raises(ValueError, match="it does not fit"):
        solver_swap.swap_all([("own", impossible)], images, samples=1, image_shape=(3, 8, 8))


FEW = ["--steps", "1", "3", "--tolerances", "1e-2", "--repeats", "1", "--device", "cpu"]


def test_the_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--problems", "forced", "pendulum", *FEW, "-o", str(tmp_path / "out")]
    names = ["euler", "etdrk2", "dopri5"]
    assert compare_solvers.main([*arguments, "--solvers", *names, "--full"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "forced: dy/dt = (cos 3t - y) / tau" in out
    assert "left out: etdrk2: needs a SemilinearField" in out
    assert "relative error, RMS(y - reference) / RMS(reference)" in out
    record = json.loads((tmp_path / "out" / "work_precision.json").read_text())
    assert {"torch", "threads", "processor"} <= set(record["environment"])
    assert [row["solver"] for row in record["rows"] if row["problem"] == "forced"] == [
        "euler", "euler", "etdrk2", "etdrk2", "dopri5",
    ]  # fmt: skip
    for name in ("error_vs_evaluations.png", "error_vs_time.png"):
        assert str(tmp_path / "out" / name) in out
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.format == "PNG"


def test_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(run), *FEW, "--solvers", "euler", "heun_euler", "--images", "4", "--samples",
                 "2", "--sample-steps", "2", "--states", "8", "--own-steps", "1"]  # fmt: skip
    assert compare_solvers.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "blocks.0.liquid.processors.0: 8 states of 4 units" in out
    folder = run / "compare-solvers"
    losses = json.loads((folder / "denoising_loss.json").read_text())
    assert [row["solver"] for row in losses["rows"]] == [
        "euler (own)", "euler, 1 step", "heun_euler, rtol 0.001"
    ]  # fmt: skip
    assert [row["evaluations"] for row in losses["rows"][:2]] == [2, 1]
    assert all(math.isfinite(row["loss"]) for row in losses["rows"])
    rows = json.loads((folder / "work_precision.json").read_text())["rows"]
    own = [row for row in rows if row["solver"] == plots.OWN]
    assert [row["evaluations"] for row in own] == [2] * 6
    with Image.open(folder / "samples_by_solver.png") as picture:
        assert picture.height > 3 * 2 * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NOWHERE"], "is not a run directory"),
        (["--solvers", "magic"], "unknown solver 'magic'"),
        (["--problems", "magic"], "no problem 'magic'"),
        (["--steps", "0"], "must be at least 1, not 0"),
        (["--tolerances", "-1"], "rtol must be a positive"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["-o", "FILE"], "cannot be written"),
        (["UNET"], "has no liquid cells"),
        (["RUN", "--data", "magic"], "Unknown data 'magic'"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "file").write_text("")
    facts = {"data": {"num_classes": None}, "processes": 1}
    RunDirectory(tmp_path / "unet").write_record(TrainConfig(model="unet"), facts)
    places = {"NOWHERE": tmp_path / "no", "FILE": tmp_path / "file", "UNET": tmp_path / "unet",
              "RUN": run}  # fmt: skip
    words = [str(places.get(word, word)) for word in arguments]
    if "-o" not in words:
        words += ["-o", str(tmp_path / "out")]
    assert compare_solvers.main([*words, "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
