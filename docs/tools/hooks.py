"""What mkdocs calls while it builds the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mkdocs.structure.files import File, Files  # noqa: E402

from docs.tools import pages  # noqa: E402
from docs.tools.notebooks import notebook  # noqa: E402

_run: dict[str, str] = {}


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures of examples/, and of each page its figures and its notebook."""
    for picture in sorted((ROOT / "examples/pictures").glob("*.png")):
        path = f"pictures/{picture.name}"
        files.append(File(path, str(ROOT / "examples"), config.site_dir, config.use_directory_urls))
    for file in list(files.documentation_pages()):
        folder = file.src_uri.rpartition("/")[0]
        source = Path(str(file.abs_src_path))
        if not pages.is_run(source):
            continue
        page = pages.run(source)
        _run[file.src_uri] = page.markdown
        made: dict[str, str | bytes] = {f"{folder}/{name}": png for name, png in page.files.items()}
        if folder == pages.NOTEBOOKS:
            text = notebook(pages.filled(source.read_text()))
            made[file.src_uri.removesuffix(".md") + ".ipynb"] = text
        for path, content in made.items():
            files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its figures, and what its code prints."""
    return _run.get(page.file.src_uri) or pages.filled(markdown)
