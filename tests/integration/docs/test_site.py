"""The site: built without a warning, complete, and from nothing but this checkout."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rhai_tasks
from docs.reference import COMMANDS, known_variables

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return folder


def test_it_has_the_colours_of_the_web_page(site: Path) -> None:
    page, own = (ROOT / "rhai_tasks/web/static/style.css").read_text(), (site / "site.css").read_text()
    for names in (("paper", "default-bg-color"), ("ink", "default-fg-color"), ("accent", "typeset-a-color")):
        light, dark = re.findall(rf"--{names[0]}: (#\w+);", page)
        assert re.findall(rf"--md-{names[1]}: (#\w+);", own) == [light, dark]


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        ("priority", "questions/"),
        ("cron", "questions/"),
        ("retry", "questions/"),
        ("schedule", "questions/"),
        ("order", "delay/"),
        ("idempotency", "questions/"),
        ("circle", "glossary/"),
        ("dead letter", "glossary/"),
    ],
)
def test_a_search_for_a_word_of_other_queues_finds_an_answer(site: Path, sought: str, found: str) -> None:
    index = json.loads((site / "search/search_index.json").read_text())["docs"]

    matching = [one["location"] for one in index if sought in f"{one['title']} {one['text']}".lower()]

    assert any(location.startswith(found) for location in matching), matching


def text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert (
            re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^ >]+", page.read_text())
            == []
        )
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:@import |url\()[\"']?(?:https?:)?//[^)]+", style.read_text()) == []


def test_the_reference_is_made_of_docstrings_and_names_everything_public(site: Path) -> None:
    page = (site / "api/index.html").read_text()

    errors = {f"errors.{name}" for name, value in vars(rhai_tasks.errors).items() if isinstance(value, type)}
    engine = {f"engine.{name}" for name in rhai_tasks.engine.__all__ if name not in {"last_use", "stopped"}}
    public = {
        *rhai_tasks.__all__,
        *errors,
        *(name for name in engine if name.removeprefix("engine.") not in rhai_tasks.__all__),
    }
    assert [name for name in public if f'id="rhai_tasks.{name}"' not in page] == []
    assert "a request whose reply got lost is repeated, and has its effect once" in page


def test_the_reference_of_commands_is_made_of_the_commands(site: Path) -> None:
    page = text(site / "commands/index.html")

    for command, definition in COMMANDS.items():
        for name in getattr(definition, "commands", [""]):
            assert f"\n{command} {name}".rstrip() in page
    assert "--stale SECONDS" in page


def test_the_reference_of_variables_names_the_workers_all_with_their_defaults(site: Path) -> None:
    page = text(site / "options/index.html")

    for option in COMMANDS["rhai-worker"].params:
        assert option.name
        variable = f"RHAI_TASKS_{option.name.upper()}"
        if variable in known_variables() and option.name != "version":
            assert variable in page
    assert re.search(r"--shutdown-timeout SECONDS\s*RHAI_TASKS_SHUTDOWN_TIMEOUT\s*30\s", page)


def test_files_to_copy_are_shown_as_they_are(site: Path) -> None:
    page = text(site / "deploy/index.html")

    for file in (ROOT / "examples/deploy").rglob("*"):
        if file.is_file():
            assert file.read_text().strip() in page, file.name


def test_links_to_files_outside_of_the_documents_lead_to_pages(site: Path) -> None:
    assert 'href="../examples/#web_service"' in (site / "client/index.html").read_text()
    assert 'href="options/"' in (site / "index.html").read_text()
