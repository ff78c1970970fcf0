"""Learned solvers: recording what a model solves, and training on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import solvers
from liquid_ode import LiquidCell
from liquid_ode.training import Reporter, TrainConfig, load_run, train
from solvers import LearnedMethod, LearnedSolver, Problem, Recorder, suite
from tests.runs import draw_images, load_script, small_config
from tests.solvers.fields import liquid_field


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the arrays are small
    yield
    torch.set_num_threads(threads)


def method(kind: str = "exponential", evaluations: int = 3, seed: int = 0) -> LearnedMethod:
    """Coefficients as training might leave them."""
    made = LearnedMethod.of(kind, evaluations)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for table in made.parameters():
            table.add_(torch.randn(table.shape, generator=generator), alpha=0.2)
    return made


def learned(*numbers: int, kind: str = "exponential") -> LearnedSolver:
    return LearnedSolver([method(kind, number) for number in numbers or (3, 5)])


def liquid(seed: int, *, zero: bool = False) -> Problem:
    """A random liquid field of the suite that the contracts speak of."""
    field = liquid_field(seed=seed, tau=(0.1, 5.0))
    generator = torch.Generator().manual_seed(seed)
    y0 = 2 * torch.rand(64, 32, generator=generator, dtype=torch.float64) - 1
    return Problem(field, 0 * y0 if zero else y0)


# ---- Recording -----------------------------------------------------------------------------------


def test_a_recorder_keeps_what_a_cell_solves() -> None:
    torch.manual_seed(0)
    recorder = Recorder(solvers.Heun(steps=4))
    cell = LiquidCell(6, 8, solver=recorder.with_steps(3))
    x = torch.randn(2, 5, 6)
    h1 = cell(x, duration=0.5)
    (problem,) = recorder.problems
    assert (problem.y0.shape, problem.t_span) == ((10, 8), (0.0, 0.5))
    h1.sum().backward()  # recording does not cut the gradient of the solve
    assert cell.inputs.weight.grad is not None
    with torch.no_grad():
        cell.recurrent.zero_()  # a later change of the model is not a change of what it solved
    y = solvers.Heun(steps=3).solve(problem.field, problem.y0, problem.t_span).y
    assert not y.requires_grad
    assert torch.equal(y.view_as(h1), h1)


def test_a_recorder_keeps_a_few_rows() -> None:
    field = liquid_field(seed=0, tau=(0.5, 2.0))
    y0 = torch.arange(64.0, dtype=torch.float64)[:, None].expand(64, 32) / 64
    kept = []
    for seed in (0, 0, 1):
        recorder = Recorder(solvers.Heun(), rows=10, seed=seed)
        whole = recorder.solve(field, y0).y
        (problem,) = recorder.problems
        rows = (problem.y0[:, 0] * 64).long()
        assert len(set(rows.tolist())) == 10
        part = solvers.Heun().solve(problem.field, problem.y0).y
        torch.testing.assert_close(part, whole[rows])
        kept.append(rows.tolist())
    assert kept[0] == kept[1] != kept[2]
    plain = Recorder(solvers.Heun(), rows=10)
    plain.solve(lambda t, y: -y, y0)  # whose rows nobody knows
    assert plain.problems[0].y0.shape == y0.shape
    with pytest.raises(ValueError, match="rows must be a whole number"):
        Recorder(solvers.Heun(), rows=0)
    with pytest.raises(ValueError, match="needs a solver"):
        Recorder("heun")  # type: ignore[arg-type]


def test_nothing_is_recorded_of_what_a_transform_traces() -> None:
    recorder = Recorder(solvers.Heun())
    torch.func.vmap(LiquidCell(3, 4, solver=recorder))(torch.randn(2, 5, 3))
    assert recorder.problems == []


# ---- Training ------------------------------------------------------------------------------------


def test_three_evaluations_beat_eulers_three_on_fields_never_seen() -> None:
    training = [liquid(seed, zero=seed % 2 == 0) for seed in range(8)]
    held_out = [liquid(seed) for seed in range(100, 103)]
    solver = solvers.train_solver(training, (3, 4), held_out=held_out)
    assert solver.kind == "exponential"
    three, four = solver.errors[3], solver.errors[4]
    assert three["held_out"] < 0.4 * three["euler"]
    assert three["held_out"] < 0.02 * three["uniform_euler"]
    assert three["held_out"] < 1.3 * three["training"]
    others = {
        "exponential": solvers.ExponentialEuler(steps=4),
        "etdrk2": solvers.ETDRK2(steps=2),
        "learned": solver.with_steps(4),
    }
    errors = solvers.relative_errors(others, held_out)
    assert errors["learned"] == pytest.approx(four["held_out"])
    assert errors["learned"] < 0.5 * min(errors["exponential"], errors["etdrk2"])
    for found in (three, four):
        assert found["held_out"] < found["untrained"]


def test_training_repeats_and_splits() -> None:
    problems = [liquid(0), liquid(1)]
    solver = solvers.train_solver(problems, [2], iterations=3, seed=5)
    again = solvers.train_solver(problems, [2], iterations=3, seed=5)
    for name, value in solver.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert {value.dtype for value in solver.state_dict().values()} == {torch.float32}
    # Measured on every fourth sample of each.
    aside = [problem.select(torch.arange(0, 64, 4)) for problem in problems]
    (error,) = solvers.relative_errors({"learned": solver}, aside).values()
    assert error == pytest.approx(solver.errors[2]["held_out"])


def test_plain_fields_get_an_explicit_method() -> None:
    problems = [suite.problem("pendulum", seed=seed) for seed in range(4)]
    problems = [*problems, suite.problem("pendulum", seed=9, dtype=torch.float64)]
    recorded = [Problem(p.field, p.y0, (0.0, 2.0)) for p in problems]
    solver = solvers.train_solver(recorded[:4], [6], held_out=recorded[4:])
    assert solver.kind == "explicit"
    assert solver.errors[6]["held_out"] < 0.1 * solver.errors[6]["untrained"]
    (eight,) = solvers.relative_errors({"rk4": solvers.ClassicRK4(steps=2)}, recorded[4:]).values()
    assert solver.errors[6]["held_out"] < 0.7 * eight


def test_a_semilinear_field_that_keeps_its_type_is_trained_in_it() -> None:
    problem = suite.problem("forced", dtype=torch.float32)
    train_on = Problem(problem.field, problem.y0, problem.span)
    solver = solvers.train_solver([train_on], [4], held_out=[train_on])
    assert solver.kind == "exponential"
    assert solver.errors[4]["held_out"] < 0.2 * solver.errors[4]["untrained"]


def test_training_says_what_it_cannot_do() -> None:
    problem = Problem(lambda t, y: -y, torch.ones(2, 1))
    with pytest.raises(ValueError, match="1 problems to train on and 0 held out"):
        solvers.train_solver([problem])
    with pytest.raises(ValueError, match="0 problems to train on"):
        solvers.train_solver([])
    with pytest.raises(ValueError, match="evaluations must name at least one"):
        solvers.train_solver([problem], [], held_out=[problem])
    with pytest.raises(ValueError, match="at least 2 evaluations"):
        solvers.train_solver([problem], [1], held_out=[problem])
    with pytest.raises(ValueError, match="starts must be a whole number"):
        solvers.train_solver([problem], starts=0, held_out=[problem])
    with pytest.raises(ValueError, match="need at least one problem"):
        solvers.relative_errors({}, [])
    wild = Problem(lambda t, y: -(y**3), torch.full((2, 1), 100.0))
    with pytest.raises(ValueError, match="4 evaluations are too few for these problems"):
        solvers.train_solver([wild], [4], held_out=[wild])
    assert solvers.relative_errors({"heun": solvers.Heun(3)}, [wild]) == {"heun": math.inf}


# ---- The command line ----------------------------------------------------------------------------


def test_the_command_trains_on_a_run_and_the_run_takes_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_images(tmp_path / "images", 8)
    config = small_config(images, tmp_path / "run", batch_size=4, samples=0)
    run = train(config, reporter=Reporter())
    script = load_script("train_solver")
    path = tmp_path / "solver.safetensors"
    options = ["--evaluations", "2", "--rows", "40", "--device", "cpu", "-o", str(path)]
    assert script.main([str(run), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "training on 240 states of 6 cells" in out
    assert f"--solver learned:{path}" in out

    name = f"learned:{path}"
    diffusion = load_run(run, solver=name, device="cpu")
    noisy, t = torch.zeros(1, 3, 8, 8), torch.tensor([1])
    expected = diffusion.denoise(noisy, t).epsilon
    again = train(
        TrainConfig.from_json(
            json.dumps(config.to_dict() | {"solver": name, "output": str(tmp_path / "second")})
        ),
        reporter=Reporter(),
    )
    state = load_run(again, device="cpu").state_dict()
    trained = {key: value for key, value in state.items() if ".solver." in key}
    kept = LearnedSolver.load(path).state_dict()
    assert trained
    for key, value in trained.items():  # neither the optimizer nor the average changes them
        assert torch.equal(value, kept[key.partition(".solver.")[2]])
    assert expected.isfinite().all()
