"""Names the repository in a package, before it is built: on PyPI, links of the README would lead nowhere.

python3 docs/published.py URL REVISION
"""

import re
import sys
from pathlib import Path

_LINK = re.compile(r"(!?)(\[[^]]*\]\()(?!\w+:|#)([^)]+)\)")


def absolute(text: str, url: str, revision: str) -> str:
    """Make links of a text in the folder of the repository absolute.

    Args:
        text: Markdown.
        url: Of the repository, on a forge with GitHub's paths.
        revision: A tag or commit.
    """
    kinds = {"": "blob", "!": "raw"}
    return _LINK.sub(lambda link: f"{link[1]}{link[2]}{url}/{kinds[link[1]]}/{revision}/{link[3]})", text)


def urls(url: str, revision: str) -> str:
    """Return the part of pyproject.toml that names the pages of the project."""
    pages = {
        "Homepage": url,
        "Documentation": f"{url}/blob/{revision}/README.md#read-more",
        "Source": url,
        "Issues": f"{url}/issues",
        "Changelog": f"{url}/blob/{revision}/CHANGELOG.md",
    }
    return "\n[project.urls]\n" + "".join(f'{name} = "{page}"\n' for name, page in pages.items())


def main(folder: Path, url: str, revision: str) -> None:
    """Change README.md and pyproject.toml in a folder."""
    readme, project = folder / "README.md", folder / "pyproject.toml"
    readme.write_text(absolute(readme.read_text(), url, revision))
    project.write_text(project.read_text() + urls(url, revision))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python3 docs/published.py URL REVISION")
    main(Path(__file__).parent.parent, *sys.argv[1:])
