"""A package names its repository: on its page, every link leads somewhere."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from docs import published

ROOT = Path(__file__).parents[3]
URL, REVISION = "https://forge.example/us/rhai-tasks", "v1.2.3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    published.main(tmp_path, URL, REVISION)
    return tmp_path


def test_every_link_of_the_readme_is_absolute_and_leads_to_a_file(folder: Path) -> None:
    targets = re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", (folder / "README.md").read_text())
    own = [(mark, target) for mark, target in targets if target.startswith(URL)]

    assert [target for _, target in targets if not re.match(r"https?://", target)] == []
    assert len(own) > 20
    for mark, target in own:
        kind, revision, path = target.removeprefix(f"{URL}/").split("/", 2)
        assert (kind, revision) == ("raw" if mark else "blob", REVISION)
        assert (ROOT / path.partition("#")[0]).exists(), path


def test_the_project_names_its_pages_beside_all_else(folder: Path) -> None:
    before, after = (tomllib.loads((place / "pyproject.toml").read_text()) for place in (ROOT, folder))

    named = after["project"].pop("urls")

    assert after == before
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} == named.keys()
    assert all(page.startswith(URL) for page in named.values())


def test_each_build_of_a_release_does_so_first() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    built = {
        name: [str(step.get("run", step.get("uses", ""))) for step in job["steps"]]
        for name, job in jobs.items()
        if any("maturin-action" in str(step.get("uses")) for step in job["steps"])
    }

    assert built.keys() == {"sdist", "wheel"}
    for steps in built.values():
        (named,) = [place for place, step in enumerate(steps) if "docs/published.py" in step]
        (made,) = [place for place, step in enumerate(steps) if "maturin-action" in step]
        assert named < made
