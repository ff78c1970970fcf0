"""What a mistyped command line is answered with."""

from __future__ import annotations

import pytest

from liquid_ode.arguments import Parser, did_you_mean, entry, options_of_each, options_shown


def refused(parser: Parser, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        parser.parse(arguments)
    assert done.value.code == 2
    return capsys.readouterr().err


def test_a_guess_is_made_where_a_name_is_alike() -> None:
    assert did_you_mean("eulr", ["euler", "heun"]) == " (did you mean 'euler'?)"
    assert did_you_mean("zzz", ["euler", "heun"]) == ""


def test_options_and_choices_are_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="liquid-ode x")
    parser.add_argument("--solver", choices=["euler", "heun"])
    assert parser.parse(["--solver", "heun"]).solver == "heun"
    err = refused(parser, capsys, "--slover=heun")
    assert err.startswith("liquid-ode x: error: unrecognized arguments: --slover=heun")
    assert err.endswith("\nliquid-ode x --help shows the options\n")
    assert "(did you mean '--solver'?)" in err
    err = refused(parser, capsys, "--solver", "heum")
    assert "invalid choice: 'heum' (did you mean 'heun'?); choose from euler, heun" in err
    assert "did you mean" not in refused(parser, capsys, "more")


def test_the_end_of_the_help_keeps_its_lines() -> None:
    each = options_of_each("of each", {"a": "x=1", "longer": "y=2"})
    assert each == "of each\n  a       x=1\n  longer  y=2"
    parser = Parser(epilog=each)
    assert parser.format_help().endswith(f"\n{each}\n")
    assert parser.epilog == each


def test_an_entry_of_a_list() -> None:
    assert options_shown({"steps": (1, 2), "rtol": None}) == "steps=(1,2), rtol"
    assert options_shown({}) == "none"
    assert entry("a", "What.\nMore.", "x=1") == "a\n  What.\n  More.\n  options: x=1\n"
    assert entry("a", "See :class:`~b.C` and ``d``.", "x=1").splitlines()[1] == "  See b.C and d."
