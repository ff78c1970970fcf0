"""Command lines that help: what was mistyped is answered with what was probably meant.

Light: the list of the commands is shown before torch is imported.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

A_RUN = "the directory of a trained run, or pretrained:NAME"
WEIGHTS = "ema, best, model or ema-LENGTH, such as ema-0.1 (default: ema)"
WEIGHTS_EXPLAINED = (
    "ema, the averaged weights; best, those that were measured best in training; model, "
    "those of the last step; or ema-LENGTH (default: ema)"
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'NAME'?)`` with the name that is most alike, or nothing where none is."""
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


class Parser(argparse.ArgumentParser):
    """A parser that guesses what was meant, of an option and of the choices of one.

    The end of its help, ``epilog``, keeps its lines.
    """

    def format_help(self) -> str:
        epilog, self.epilog = self.epilog, None
        try:
            text = super().format_help()
        finally:
            self.epilog = epilog
        return text if epilog is None else f"{text}\n{epilog}\n"

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """As ``parse_args``: prints what is wrong, and ends the program with status 2."""
        options, rest = self.parse_known_args(arguments)
        if rest:
            word = next((word for word in rest if word.startswith("-")), rest[0])
            flags = [flag for action in self._actions for flag in action.option_strings]
            guess = did_you_mean(word.partition("=")[0], flags)
            self.error(f"unrecognized arguments: {' '.join(rest)}{guess}")
        return options

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the options are: those of some commands fill a screen."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help shows the options\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action,
                f"invalid choice: {value!r}{did_you_mean(str(value), choices)}; choose from "
                f"{', '.join(choices)}",
            )


def command_parser(prog: str | None, doc: str | None) -> Parser:
    """The parser of a command, described by the first and the last paragraph of its module."""
    described = (doc or "").split("\n\n")
    return Parser(prog=prog, description=f"{described[0]} {described[-1]}")


def add_run(parser: Parser) -> None:
    """The run that a command is about."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help=A_RUN)


def add_weights(parser: Parser, *, says: str = WEIGHTS) -> None:
    """Which weights of the run."""
    parser.add_argument("--weights", default="ema", metavar="NAME", help=says)


def add_device(group: Any) -> None:
    """The device."""
    group.add_argument("--device", choices=["cpu", "cuda", "mps"], help="(default: the best)")


def add_machine(group: Any) -> None:
    """The device, and how much of the CPU."""
    add_device(group)
    group.add_argument(
        "--threads", type=int, metavar="N",
        help="CPU threads; 1 beside another job, which else waits for the same cores (default: "
        "torch's choice)",
    )  # fmt: skip


def options_shown(options: Mapping[str, Any]) -> str:
    """Options with their defaults, as a command line takes them; a bare name has none."""
    shown = [key if value is None else f"{key}={value}" for key, value in options.items()]
    return ", ".join(word.replace(" ", "") for word in shown) or "none"


def entry(name: str, says: str, options: str) -> str:
    """A name, what it is, and its options; a docstring's markup is left out."""
    says = re.sub(r":\w+:`~?([^`]+)`", r"\1", says).replace("``", "")
    listed = textwrap.fill(
        f"options: {options}", 98, initial_indent="  ", subsequent_indent="    ",
        break_on_hyphens=False,
    )  # fmt: skip
    return f"{name}\n{textwrap.indent(says, '  ')}\n{listed}\n"


def options_of_each(title: str, options: Mapping[str, str]) -> str:
    """Lines for the end of a command's help: the options of each thing that has a name."""
    width = max(map(len, options)) + 4
    lines = [
        textwrap.fill(
            value, 98, initial_indent=f"  {name:<{width - 2}}", subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for name, value in options.items()
    ]  # fmt: skip
    return "\n".join([title, *lines])
