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

_tutorials: dict[str, str] = {}


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures of examples/, and of each tutorial its figures and its notebook."""
    for picture in sorted((ROOT / "examples/pictures").glob("*.png")):
        path = f"pictures/{picture.name}"
        files.append(File(path, str(ROOT / "examples"), config.site_dir, config.use_directory_urls))
    for file in list(files.documentation_pages()):
        folder, _, name = file.src_uri.rpartition("/")
        if folder != pages.RUN or name == "index.md":
            continue
        source = Path(str(file.abs_src_path))
        page = pages.tutorial(source)
        _tutorials[file.src_uri] = page.markdown
        notebook_path = file.src_uri.removesuffix(".md") + ".ipynb"
        own = notebook(pages.filled(source.read_text()))
        files.append(File.generated(config, notebook_path, content=own))
        for figure, content in page.files.items():
            files.append(File.generated(config, f"{folder}/{figure}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its figures; a tutorial with what its code shows."""
    return _tutorials.get(page.file.src_uri) or pages.filled(markdown)
