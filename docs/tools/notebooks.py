"""A notebook of a tutorial: its prose and its Python blocks as cells."""

from __future__ import annotations

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from docs.tools.blocks import parts


def notebook(markdown: str) -> str:
    """The notebook's JSON, without outputs; the same page gives the same."""
    cells = []
    for place, (language, text) in enumerate(parts(markdown)):
        if language == "python":
            cell = new_code_cell(text.strip())
        elif language is None:
            cell = new_markdown_cell(text.strip())
        else:
            cell = new_markdown_cell(f"```{language}\n{text}```")
        cell.id = f"cell-{place}"
        cells.append(cell)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = new_notebook(cells=cells, metadata=kernel)
    nbformat.validate(made)
    return str(nbformat.writes(made)) + "\n"
