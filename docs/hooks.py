"""Adds to the site: files from outside of `docs`.

MkDocs calls the functions named `on_...`.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bench/README.md": "bench.md",
    "examples": "examples.md",
}
ICON = ROOT / "rhai_tasks/web/static/icon.svg"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add pages for texts outside of `docs`, and the icon."""
    for source, page in PAGES.items():
        path = ROOT / source
        text = _examples(path) if path.is_dir() else path.read_text()
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "images/icon.svg", abs_src_path=str(ICON)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to texts outside of `docs` into links to their pages."""
    source = page.file.src_uri
    at = next((ROOT / outside for outside, inside in PAGES.items() if inside == source), DOCS / source).parent
    return re.sub(
        r"\]\((?!\w+:|#)([^)#]+)", lambda link: f"]({_inside(at / link[1], (DOCS / source).parent)}", markdown
    )


def _inside(target: Path, page_folder: Path) -> str:
    """Return the link from a page to a file, within the site."""
    path = os.path.normpath(target)
    outside = os.path.relpath(path, ROOT)
    if outside in PAGES:
        path = str(DOCS / PAGES[outside])
    elif outside.startswith("examples/") and outside.endswith(".py"):
        path = f"{DOCS / PAGES['examples']}#{Path(outside).stem}"
    return os.path.relpath(path, page_folder)


def _examples(folder: Path) -> str:
    programs = [path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return "# Examples\n\nWhole programs, each run by a test.\n" + "".join(
        f"\n## {path.stem}\n\n```python\n{path.read_text()}```\n" for path in programs
    )
