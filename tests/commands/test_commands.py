"""``liquid-ode`` and ``python -m liquid_ode``: the list of the commands, and what each answers."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import liquid_ode
import solvers
from liquid_ode.commands import COMMANDS, main
from liquid_ode.models import model_names, model_options

ROOT = Path(__file__).parents[2]


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for call in ([], ["--help"], ["-h"]):
        assert main(call) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: liquid-ode COMMAND")
        for name, command in COMMANDS.items():
            assert f"  {name:<16} {command.says}\n" in out
    assert max(map(len, out.splitlines())) <= 80
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"liquid-ode {liquid_ode.__version__}\n"


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: unknown command 'trian' (did you mean 'train'?); the commands ")
    assert main(["--vers"]) == 2
    assert "(did you mean '--version'?)" in capsys.readouterr().err


def test_the_list_and_a_wrong_command_need_no_torch() -> None:
    code = (
        "import sys; from liquid_ode.commands import main; main(['--help']); main(['trian']); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["liquid_ode", "--version"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("liquid_ode", run_name="__main__")
    assert done.value.code == 0
    assert capsys.readouterr().out.startswith("liquid-ode ")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_and_guesses(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: liquid-ode {name} ")
    assert "examples/" not in out
    with pytest.raises(SystemExit) as done:
        main([name, *["x"] * (1 + (name == "share")), "--hlep"])
    assert done.value.code == 2
    assert f"liquid-ode {name}: error:" in capsys.readouterr().err


def test_the_help_of_train_names_the_options_of_models_and_solvers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    end = capsys.readouterr().out.partition("options of each model")[2]
    models, _, of_solvers = end.partition("options of each solver")
    for text, options in (
        (models, {name: model_options(name) for name in model_names()}),
        (of_solvers, {name: solvers.options(name) for name in solvers.names()}),
    ):
        words = text.replace(",", " ").split()
        for name, known in options.items():
            assert name in words
            for option in known.keys() - {"image_channels"}:
                assert any(word.partition("=")[0] == option for word in words), option


@pytest.mark.parametrize("name", ["sample", "evaluate"])
def test_the_help_of_what_draws_names_the_options_of_solvers(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    end = capsys.readouterr().out.partition("options of each solver")[2]
    assert all(f"\n  {solver} " in end for solver in solvers.names())


def test_models_and_solvers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}\n" in out for name in model_names())
    assert "87,674 parameters" in out
    assert main(["models", "liquid_unet"]) == 0
    assert "Args:" in capsys.readouterr().out
    assert main(["solvers"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}\n" in out for name in solvers.names())
    assert "MODULE:CLASS" in out
    assert "uniform_euler\n  Explicit Euler on equal steps" in out
    assert main(["solvers", "tsit5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tsit5\n")
    assert "rtol=1e-05" in out
    assert main(["solvers", "tsit6"]) == 2
    assert "did you mean 'tsit5'" in capsys.readouterr().err


def test_no_message_of_the_package_names_the_repository() -> None:
    """Comments and docstrings may; of what is printed or raised nothing does."""
    import ast

    for package in ("solvers", "liquid_ode"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            documented = {
                id(node.body[0].value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                and node.body
                and isinstance(node.body[0], ast.Expr)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    said = id(node) not in documented and "examples/" in node.value
                    assert not said, f"{path.relative_to(ROOT)}:{node.lineno}"
