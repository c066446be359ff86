"""Lua scripts are put together of files, each of which is checked for itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rhai_tasks.connection.scripts import script_source
from tests.lua import FILES, LIBRARIES, NEEDS, text_of

ROOT = Path(__file__).parents[3]
FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)


def test_a_script_has_the_functions_that_it_uses_in_front_and_no_others() -> None:
    names = FUNCTION.findall(text_of("mark"))

    assert names == ["is_error", "is_wrong_type", "read", "is_cancelled"]


def test_a_block_that_few_calls_enter_has_the_functions_that_only_it_uses() -> None:
    text = text_of("fetch")
    always, _, rarely = text.partition("local time = redis.call('TIME')")
    first, second = "local function keys_of_turns(", "local function read_turns("

    assert always.count(first) == rarely.count(second) == 1
    assert first not in rarely
    assert second not in always
    block = rarely[rarely.index("if count > 0 and there >") : rarely.index("elseif #elements > 0")]
    assert {"choose", "choose_by_turns", "settle", "line_of"} <= set(FUNCTION.findall(block))


def test_a_file_that_several_files_need_stands_in_a_script_once() -> None:
    assert {"common", "keys"} <= NEEDS["submission"] & NEEDS["submit"]
    names = FUNCTION.findall(text_of("submit"))

    assert sorted(names) == sorted(set(names))


def test_a_script_that_does_not_say_what_it_needs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silent/lua").mkdir(parents=True)
    (tmp_path / "silent/__init__.py").touch()
    (tmp_path / "silent/lua/odd.lua").write_text("-- Needs everything\nreturn 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ValueError, match="'odd' has no line '-- Needs'"):
        script_source("silent", "odd")


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_uses_each_file_that_it_needs(name: str) -> None:
    text = re.sub(r"--.*", "", FILES[name].read_text())
    for needed in NEEDS[name]:
        functions = FUNCTION.findall(FILES[needed].read_text())
        assert any(re.search(rf"\b{function}\(|, {function}\b|\({function},", text) for function in functions), needed


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_file_of_functions_does_nothing_by_itself(name: str) -> None:
    text = re.sub(r"--.*", "", FILES[name].read_text())

    assert re.sub(r"^local function .*?^end\n", "", text, flags=re.MULTILINE | re.DOTALL).strip() == ""


def test_no_two_functions_of_the_files_share_a_name() -> None:
    names = [name for library in LIBRARIES for name in FUNCTION.findall(FILES[library].read_text())]

    assert sorted(names) == sorted(set(names))


# --- luacheck

BROKEN = {
    "a name that no needed file defines": ("-- Needs  connection/common", "-- Needs  nothing"),
    "a name that is misspelt": ("is_cancelled(known", "is_canceled(known"),
    "a variable that is set and not declared": ("local known = read", "known = read"),
    "a variable that is not used": ("for i = 3", "local unused = 1\nfor i = 3"),
    "a file that is not Lua": ("end\n", "\n"),
}


def luacheck(folder: Path) -> subprocess.CompletedProcess[str]:
    command = shutil.which("luacheck")
    if not command:
        if os.environ.get("CI"):
            pytest.fail("CI has no luacheck")
        pytest.skip("luacheck is not installed: apt-get install lua-check")
    return subprocess.run(
        [command, "--no-color", "rhai_tasks", "bridge"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout with nothing but the Lua files, the words of dialects, and what luacheck is told."""
    for path in (*FILES.values(), ROOT / "rhai_tasks/protocol/native.py"):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    shutil.copy(ROOT / ".luacheckrc", tmp_path)
    return tmp_path


def test_each_lua_file_is_valid_for_itself(copy: Path) -> None:
    done = luacheck(copy)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"0 warnings / 0 errors in {len(FILES)} files" in done.stdout


@pytest.mark.parametrize("fault", BROKEN)
def test_luacheck_finds(copy: Path, fault: str) -> None:
    file = copy / FILES["mark"].relative_to(ROOT)
    text = file.read_text()
    old, new = BROKEN[fault]
    assert old in text
    file.write_text(text.replace(old, new, 1))

    assert luacheck(copy).returncode != 0


def test_luacheck_finds_a_field_that_no_dialect_has(copy: Path) -> None:
    file = copy / FILES["find"].relative_to(ROOT)
    file.write_text(file.read_text().replace("FIELD.callerId", "FIELD.calerId"))

    assert "accessing undefined field 'calerId' of global 'FIELD'" in luacheck(copy).stdout


def test_luacheck_finds_a_function_that_no_script_uses(copy: Path) -> None:
    file = copy / FILES["cancellation"].relative_to(ROOT)
    file.write_text(file.read_text() + "\nlocal function is_lonely()\n  return true\nend\n")

    done = luacheck(copy)

    assert done.returncode != 0
    assert "unused function 'is_lonely'" in done.stdout
