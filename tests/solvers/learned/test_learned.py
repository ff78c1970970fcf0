"""Learned solvers: the form of their steps, budgets and files."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import solvers
from liquid_ode import LiquidCell, create_model
from solvers import LearnedMethod, LearnedSolver, NativeSolver, Problem, testing
from tests.solvers.fields import liquid_field
from tests.versions import needs_compiler


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


# ---- The steps -----------------------------------------------------------------------------------

METHODS = [("exponential", 3), ("exponential", 7), ("explicit", 2), ("explicit", 7)]


@pytest.mark.parametrize(("kind", "evaluations"), METHODS)
def test_methods_conform_whatever_their_coefficients(kind: str, evaluations: int) -> None:
    made = method(kind, evaluations)
    assert made.stages == evaluations
    testing.check_order(made)
    testing.check_evaluations(made)
    testing.check_dtypes(made)
    testing.check_bad_input(made)
    testing.check_batch_independence(made)
    testing.check_statuses(made)
    testing.check_dense_output(made)
    testing.check_gradients(made)


@pytest.mark.parametrize("kind", ["exponential", "explicit"])
def test_a_solver_conforms(kind: str) -> None:
    testing.check_solver(learned(2, 4, kind=kind), order=2)


@pytest.mark.parametrize("evaluations", [2, 3, 6, 7, 12])
def test_a_constant_target_is_reached_exactly(evaluations: int) -> None:
    tau = torch.logspace(-6, 3, 10, dtype=torch.float64)
    field = solvers.SemilinearField(lambda t, y: torch.full_like(y, 0.7), tau)
    y0 = torch.linspace(-3, 3, 40, dtype=torch.float64).view(4, 10)
    y = learned(evaluations).solve(field, y0, (0.0, 2.0)).y
    expected = 0.7 + (y0 - 0.7) * torch.exp(-2.0 / tau)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("evaluations", "parts"), [(2, (2,)), (6, (6,)), (7, (2, 5)), (16, (6, 5, 5))]
)
def test_many_evaluations_are_split_into_steps(evaluations: int, parts: tuple[int, ...]) -> None:
    made = LearnedMethod.of("explicit", evaluations)
    assert made.parts == parts
    assert made.stages == evaluations


@pytest.mark.parametrize("kind", ["exponential", "explicit"])
def test_gradients_reach_the_coefficients(kind: str) -> None:
    made = method(kind, 7).double().requires_grad_()
    field, y0 = liquid_field(seed=1, batch=2, hidden=3, tau=(0.5, 2.0)), torch.ones(2, 3).double()
    solver = NativeSolver(1, method=made)

    def solve(*tables: Tensor) -> Tensor:
        # gradcheck changes the tables in place, which are the parameters themselves.
        return solver.solve(field, y0).y

    assert torch.autograd.gradcheck(solve, tuple(made.parameters()))


def test_coefficients_ask_for_no_gradient_and_move_with_the_model() -> None:
    solver = learned(2, 3, 5, 7)
    model = create_model("improved", solver=solver)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 87_674
    processor = model.double().blocks[0].liquid.processors[0]  # type: ignore[union-attr,index]
    assert {table.dtype for table in processor.cell.solver.parameters()} == {torch.float64}
    assert processor.cell.solver.evaluations == 3
    assert processor.cell.solver.with_steps(7).evaluations == 7

    cell = LiquidCell(3, 4, solver=learned(3))
    other, x = copy.deepcopy(cell), torch.randn(5, 3)
    assert torch.equal(other(x), cell(x))
    with torch.no_grad():
        for table in other.solver.parameters():  # type: ignore[union-attr]
            table.zero_()
    assert not torch.equal(other(x), cell(x))  # a copy has coefficients of its own


def test_half_precision_is_computed_in_float32() -> None:
    field = liquid_field(seed=3, tau=(0.5, 2.0))
    low = field.with_tensors(*(value.bfloat16() for value in field.tensors))
    y0 = torch.zeros(64, 32, dtype=torch.bfloat16)
    y = learned(7).solve(low, y0).y
    exact = learned(7).solve(field, y0.double()).y
    assert y.dtype == torch.bfloat16
    assert float((y.double() - exact).abs().max()) < 0.02


def test_it_maps() -> None:
    cell = LiquidCell(3, 8, solver=learned(3))
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(torch.func.vmap(cell)(x), cell(x))


@needs_compiler
def test_it_compiles() -> None:
    cell = LiquidCell(3, 8, solver=learned(3))
    x = torch.randn(4, 5, 3)
    compiled = torch.compile(cell, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), cell(x))


# ---- Numbers of evaluations ----------------------------------------------------------------------


def test_the_budget_is_met_by_the_largest_number_that_divides_it() -> None:
    solver = learned(2, 3, 6)
    assert solver.evaluations == 2
    assert solver.trained == (2, 3, 6)
    problem = liquid(0)
    for budget, steps in ((2, 1), (3, 1), (4, 2), (6, 1), (8, 4), (9, 3), (12, 2)):
        stats = solver.with_steps(budget).solve(problem.field, problem.y0).stats
        assert (stats.nfe, stats.accepted) == (budget, steps)
    assert solver.with_steps(9).with_steps(6).evaluations == 6
    with pytest.raises(ValueError, match=r"trained for 2, 3, 6 evaluations.*not 7\. Take one"):
        solver.with_steps(7)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        solver.with_steps(0)


def test_what_cannot_be_made_says_so() -> None:
    with pytest.raises(ValueError, match="at least 2 evaluations, not 1"):
        LearnedMethod.of("explicit", 1)
    with pytest.raises(ValueError, match="exponential or explicit"):
        LearnedMethod("implicit", [3])
    with pytest.raises(ValueError, match="at least one part"):
        LearnedMethod("explicit", [])
    with pytest.raises(ValueError, match="methods of one kind with different numbers"):
        LearnedSolver([method("explicit"), method("exponential", 5)])
    with pytest.raises(ValueError, match="different numbers"):
        LearnedSolver([method(), method()])
    with pytest.raises(ValueError, match="learned on semilinear fields needs a SemilinearField"):
        learned().solve(lambda t, y: -y, torch.ones(2, 3))


# ---- Files and names -----------------------------------------------------------------------------


def test_files_give_back_the_same_bits(tmp_path: Path) -> None:
    solver = LearnedSolver(
        [method(seed=1), method(evaluations=12, seed=2)], errors={12: {"held_out": 0.25}}
    )
    path = solver.save(tmp_path / "new" / "solver.safetensors")
    again = LearnedSolver.load(path, 12)
    assert repr(again) == "LearnedSolver(exponential, evaluations=12, trained=(3, 12))"
    assert again.errors == {12: {"held_out": 0.25}}
    state = again.state_dict()
    assert state.keys() == solver.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in solver.state_dict().items())
    problem = liquid(0)
    expected = solver.with_steps(12).solve(problem.field, problem.y0).y
    assert torch.equal(again.solve(problem.field, problem.y0).y, expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert again.save(tmp_path / "twice").read_bytes() == path.read_bytes()


def test_a_file_that_is_none_says_what_is_wrong(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = learned().save(tmp_path / "solver.safetensors")
    data = path.read_bytes()

    def refuses(words: str) -> None:
        with pytest.raises(ValueError, match=words):
            solvers.get(f"learned:{path}")

    path.write_bytes(data[:-5])
    refuses("not a whole safetensors file: truncated, damaged")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refuses("is damaged: what it holds does not have the checksum")
    path.write_bytes(data.replace(b'_version\\": 1', b'_version\\": 2'))
    refuses("has format version 2; this version .* reads 1.*train a solver with")
    path.write_bytes(b"")
    refuses("not a whole safetensors file")
    save_file({"x": torch.ones(1)}, path)
    refuses(r"not one of this library's: expected an entry 'liquid_ode'.*found none")
    path.unlink()
    refuses(r"there is no file .*solver\.safetensors\. Give a file that LearnedSolver\.save")


def test_a_failed_save_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = learned().save(tmp_path / "solver.safetensors")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        learned(7).save(path)
    assert path.read_bytes() == before


def test_solvers_by_name(tmp_path: Path) -> None:
    path = learned().save(tmp_path / "solver.safetensors")
    by_prefix = solvers.get(f"learned:{path}", steps=6, gradient="checkpointing")
    assert isinstance(by_prefix, LearnedSolver)
    assert by_prefix.evaluations == 6
    assert by_prefix.gradient == solvers.Checkpointing()
    assert isinstance(solvers.get("learned", path=str(path)), LearnedSolver)
    assert solvers.options(f"learned:{path}") == {"steps": None, "gradient": "backpropagation"}
    assert "learned" not in solvers.names()  # it needs a file
    for name in ("learned", "learned:"):
        with pytest.raises(ValueError, match="needs the file of its trained coefficients"):
            solvers.get(name)
    with pytest.raises(ValueError, match="takes no option 'rtol'; it takes steps"):
        solvers.get(f"learned:{path}", rtol=1e-3)
    with pytest.raises(ValueError, match="learned:<path>, or"):
        solvers.get("lerned")
