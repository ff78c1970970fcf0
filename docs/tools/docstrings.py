"""What mkdocstrings shows of a docstring: roles become links, and prompts become code.

The docstrings are written to be read in an editor, where :class:`Event` and a prompt are plain.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|obj|exc):`~?\.?([\w.]+)`")
TOGETHER = re.compile(r"^( {4,})(\w+)((?:, \w+)+): (.*(?:\n\1 +.*)*)", flags=re.MULTILINE)
PROMPT = re.compile(r"^>>> .*(?:\n(?!\n).+)*", flags=re.MULTILINE)

# Functions that have the name of their module, which would be shown in their place.
ELSEWHERE = {"from_ncps": "liquid_ode.cells.from_ncps.from_ncps"}


class Docstrings(griffe.Extension):
    """Rewrites every docstring of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        shown = {path.rpartition(".")[2]: path for path in _public(pkg)} | ELSEWHERE
        members = {
            f"{shown[thing.name]}.{name}"
            for thing in _objects(pkg)
            if isinstance(thing, griffe.Class) and thing.name in shown
            for name, member in thing.members.items()
            if not member.is_alias and member.docstring is not None
        }
        for thing in _objects(pkg):
            _tell_setting(thing)
            if thing.docstring is not None:
                thing.docstring.value = _written(thing.docstring.value, thing, shown, members)


def _tell_setting(thing: griffe.Object) -> None:
    """Show a field that is made by ``setting(default, help, ...)`` as its default and its help."""
    if isinstance(thing, griffe.Function):
        for parameter in thing.parameters:
            if (parts := _setting(parameter.default)) is not None:
                parameter.default = parts[0]
    elif isinstance(thing, griffe.Attribute) and (parts := _setting(thing.value)) is not None:
        thing.value = parts[0]
        thing.docstring = griffe.Docstring(ast.literal_eval(str(parts[1])), parent=thing)


def _setting(value: Any) -> list[Any] | None:
    """The arguments of a call of ``setting``."""
    called = isinstance(value, griffe.ExprCall) and str(value.function) == "setting"
    return list(value.arguments) if called else None


def _public(pkg: griffe.Module) -> Iterator[str]:
    """The paths under which the names of ``__all__`` are shown: the shortest of each."""
    yield from sorted(
        (f"{module.path}.{name}" for module in _modules(pkg) for name in module.exports or ()),
        key=lambda path: (-path.count("."), path),
    )


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from _modules(inner)


def _objects(thing: griffe.Object) -> Iterator[griffe.Object]:
    yield thing
    for member in thing.members.values():
        if isinstance(member, griffe.Object):  # no alias, which is shown where it leads
            yield from _objects(member)


def _written(text: str, thing: griffe.Object, shown: dict[str, str], members: set[str]) -> str:
    def link(found: re.Match[str]) -> str:
        name = found[1]
        target = _target(name, thing, shown, members)
        return f"[`{name}`][{target}]" if target else f"`{name}`"

    text = ROLE.sub(link, TOGETHER.sub(_apart, text))
    return PROMPT.sub(lambda block: f"```pycon\n{block[0]}\n```", text)


def _apart(entry: re.Match[str]) -> str:
    """Arguments that are described together, as ``rtol, atol: ...``, each by itself."""
    indent, first, names, description = entry.groups()
    others = (f"{indent}{name}: see `{first}`." for name in names.removeprefix(", ").split(", "))
    return "\n".join((f"{indent}{first}: {description}", *others))


def _target(
    name: str, thing: griffe.Object, shown: dict[str, str], members: set[str]
) -> str | None:
    """Where what a role names is shown, or None where that is no public name."""
    if re.fullmatch(r"solvers\.[A-Z]\w+", name):  # from the other package too
        return name
    first, *rest = name.removeprefix("liquid_ode.").removeprefix("solvers.").split(".")
    while rest and first not in shown and first.islower():  # a subpackage in between
        first, *rest = rest
    if first in shown:
        member = ".".join((shown[first], *rest))
        return member if not rest or member in members else shown[first]
    owner = thing if isinstance(thing, griffe.Class) else thing.parent
    of_owner = f"{shown.get(owner.name)}.{name}" if owner is not None else ""
    return of_owner if of_owner in members else None
