"""The elements of a page: text, tables, pictures in the page itself, and the page around them."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from liquid_ode.report.style import SCRIPT, STYLE


def text(value: object) -> str:
    """A value as text that cannot be taken for HTML."""
    return html.escape(str(value))


def section(title: str, *parts: str, note: str = "") -> str:
    """A titled part of the page; nothing where there is nothing to show. ``note`` is plain text."""
    body = "\n".join(part for part in parts if part)
    if not body:
        return ""
    said = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<section><h2>{text(title)}</h2>{said}\n{body}\n</section>"


def warning(message: str) -> str:
    """What a reader has to know before comparing."""
    return f'<p class="warning">{text(message)}</p>'


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: bool = True) -> str:
    """A table whose first column names the rows; wide ones scroll sideways.

    Args:
        head: the heads of the columns.
        rows: their cells, as text.
        numbers: whether the other columns are set as numbers, to the right.
    """
    kind = ' class="numbers"' if numbers else ""
    heads = "".join(f"<th>{text(cell)}</th>" for cell in head)
    lines = []
    for first, *cells in rows:
        line = "".join(f"<td>{text(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{text(first)}</th>{line}</tr>")
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def picture(png: bytes, alt: str, *, pixels: bool = True, width: int | None = None) -> str:
    """A PNG inside the page.

    Args:
        png: the file.
        alt: what it shows.
        pixels: enlarge it with sharp pixels; False for drawings.
        width: of the page's pixels; None for as wide as there is room.
    """
    style = f' style="width:{width}px"' if width is not None else ""
    kind = ' class="pixels"' if pixels else ""
    return f'<img{kind}{style} alt="{text(alt)}" src="{data_uri(png)}">'


def data_uri(png: bytes) -> str:
    """The address of a PNG that holds all of it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def figure(body: str, title: str, caption: str = "") -> str:
    """Something to look at, with its title above and a caption below, both plain text."""
    said = f"<p>{text(caption)}</p>" if caption else ""
    return f"<figure><figcaption><b>{text(title)}</b>{said}</figcaption>{body}</figure>"


def side_by_side(parts: Iterable[str], *, wide: bool = False) -> str:
    """Figures beside each other, as many as there is room for."""
    body = "\n".join(part for part in parts if part)
    return f'<div class="{"wide" if wide else "row"}">{body}</div>' if body else ""


def details(summary: str, body: str) -> str:
    """A part that is folded until it is asked for."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def film(png: bytes, labels: Sequence[str], width: int, height: int, alt: str) -> str:
    """Frames of equal size, one above the other in a PNG, shown one at a time.

    They play by themselves unless the reader's system asks for less motion, and a slider stops
    them at any.

    Args:
        png: all frames.
        labels: what to say of each.
        width: of a frame, in its own pixels.
        height: of a frame, in its own pixels.
        alt: what is shown.
    """
    last = len(labels) - 1
    return (
        f'<div class="film" data-labels="{text("|".join(labels))}">'
        f'<div class="frame" role="img" aria-label="{text(alt)}" '
        f"style=\"aspect-ratio:{width}/{height};background-image:url('{data_uri(png)}');"
        f'background-size:100% {100 * len(labels)}%;background-position:0 100%"></div>'
        f'<div class="controls"><button type="button" aria-label="play or pause">&#10074;&#10074;'
        f'</button><input type="range" min="0" max="{last}" value="{last}" aria-label="frame">'
        f"<output>{text(labels[-1])}</output></div></div>"
    )


def page(title: str, subtitle: str, *sections: str) -> str:
    """A whole page that needs no other file."""
    body = "\n".join(part for part in sections if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{text(title)}</h1><p>{text(subtitle)}</p></header>\n<main>\n{body}\n</main>\n"
        f"<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
