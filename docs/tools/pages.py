"""Pages as the site shows them: figures filled in, and what their code prints and draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from docs.tools import results
from docs.tools.blocks import blocks, parts
from docs.tools.execute import execute

DOCS = results.ROOT / "docs"
NOTEBOOKS = "tutorials"  # the folder whose pages are notebooks too


@dataclass(frozen=True)
class Page:
    """Its Markdown, and files that lie beside it."""

    markdown: str
    files: Mapping[str, bytes]


def sources() -> list[Path]:
    """Every page's source."""
    return sorted(DOCS.rglob("*.md"))


def filled(markdown: str) -> str:
    """The page with its figures in the place of ``{{ ... }}``.

    Raises:
        Exception: where an expression names no figure.
    """
    return _environment().from_string(markdown).render()


def is_run(path: Path) -> bool:
    """Whether a page's code prints or draws something to be shown."""
    code = "".join(blocks(path.read_text(), "python"))
    return "print(" in code or "pyplot" in code


def run(path: Path) -> Page:
    """A page with what each of its blocks prints and draws, a tutorial with its notebook."""
    cut = parts(filled(path.read_text()))
    outputs = iter(execute([text for language, text in cut if language == "python"], path.name))
    files: dict[str, bytes] = {}

    def written() -> Iterator[str]:
        for language, text in cut:
            if language is None:
                yield text
                continue
            yield f"```{language}\n{text}```\n"
            shown = next(outputs) if language == "python" else None
            if shown is not None and shown.text:
                yield f"\n``` {{ .text .prints }}\n{shown.text}\n```\n"
            for figure in shown.figures if shown is not None else ():
                name = f"{path.stem}-{len(files) + 1}.png"
                files[name] = figure
                yield f"\n![figure {len(files)}]({name})\n"

    body = "".join(written())
    if path.parent.name != NOTEBOOKS:
        return Page(body, files)
    title, _, rest = body.partition("\n")
    link = f"[This page as a notebook]({path.stem}.ipynb){{ .notebook }}"
    return Page(f"{title}\n\n{link}\n{rest}", files)


@cache
def _environment() -> Environment:
    from liquid_ode import summary

    # Braces with a hash are ids of headings here, not comments of the template.
    made = Environment(undefined=StrictUndefined, comment_start_string="{%#", autoescape=False)
    made.globals.update(
        choices_table=results.choices_table,
        evaluation=results.evaluation,
        lower=results.lower,
        made=results.made,
        made_trained=results.made_trained,
        models_table=cache(summary.models_table),
        pivot=results.pivot,
        record=results.record,
        row=results.row,
        sequences_table=results.sequences_table,
        solvers_table=cache(summary.solvers_table),
        table=results.table,
        trained_table=results.trained_table,
    )
    return made
