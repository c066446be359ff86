"""Scripts at a terminal: from a file, and line by line."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rhai_tasks.cli import main
from rhai_tasks.cli.shell import Session, complete, is_incomplete
from rhai_tasks.engine import Engine
from rhai_tasks.errors import RhaiSyntaxError


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.rhai"


def test_run_prints_what_the_script_prints_and_then_its_output(script: Path) -> None:
    script.write_text('print("working"); `${CALLER_ID} in ${CONTEXT_ID}`')

    done = run("run", str(script), "--caller-id", "me", "--context-id", "here")

    assert (done.output, done.exit_code) == ("working\nme in here\n", 0)


def test_run_takes_a_script_from_stdin() -> None:
    assert run("run", "-", stdin="40 + 2").output == "42\n"


def test_a_failure_shows_the_line_and_the_place(script: Path) -> None:
    script.write_text("let x = 1;\nx + nope")

    done = run("run", str(script))

    assert done.exit_code == 1
    assert done.stderr == ("Error: Variable not found: nope (line 2, position 5)\n  x + nope\n      ^\n")


def test_a_line_ends_where_rhai_ends_it(script: Path) -> None:
    script.write_text("let x = `\u2028`;\r\nx + nope", newline="")

    assert run("run", str(script)).stderr.endswith("\n  x + nope\n      ^\n")


def test_an_error_in_a_module_shows_the_line_that_led_there(tmp_path: Path) -> None:
    (tmp_path / "tools.rhai").write_text("fn f() { 1 + nope }")

    done = run("run", "-", "--modules", str(tmp_path), stdin='import "tools" as t;\nt::f()')

    assert done.stderr.endswith("\n  t::f()\n     ^\n")


@pytest.mark.parametrize(("option", "value"), [("--timeout", "nan"), ("--timeout", "inf"), ("--max-memory", "2000000")])
def test_a_limit_that_the_engine_refuses_is_an_error_of_usage(option: str, value: str) -> None:
    done = run("run", "-", option, value, stdin="1")

    assert done.exit_code == 2
    assert option[2:].replace("-", "_") in done.stderr.replace("-", "_")


def test_limits_hold_at_the_terminal(script: Path) -> None:
    script.write_text("loop {}")

    assert "time limit of 0.1 s" in run("run", str(script), "--timeout", "0.1").stderr
    assert "Too many operations" in run("run", str(script), "--max-operations", "1000").stderr


def test_modules_come_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "tools.rhai").write_text("fn double(x) { x * 2 }")

    done = run("run", "-", "--modules", str(tmp_path), stdin='import "tools" as t; t::double(4)')

    assert done.output == "8\n"


def test_an_engine_of_ones_own_has_its_functions() -> None:
    done = run("run", "-", "--engine", "tests.engine_for_tests:make_engine", stdin="nap(0.0)")

    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["let x = 4;", "x * 2"], "8"),
        (["fn double(n) { n * 2 }", "double(4)"], "8"),
        (["fn f() { 1 }", "fn f() { 2 }", "f()"], "2"),
        (["fn f() { 1 } fn g() { f() }", "fn f() { 2 }", "g()"], "2"),
        (['fn f() { "}" } let x = f();', "f() + x"], "}}"),
        (["fn f() { 1 }", "fn g() { f() + 1 }", "f() + g()"], "3"),
        (["fn f() { throw 1 } f()", "f()"], "in call to function 'f' (line 1, position 1)\n  f()\n  ^"),
        (["let double = |x| x * 2;", "double.call(4)"], "8"),
        (["fn f(x) {", "  x + nope", "}", "1 + f(2)"], "(line 1, position 5)\n  1 + f(2)\n      ^"),
        (["fn f() { nope } f()"], "(line 1, position 17)\n  fn f() { nope } f()\n           ^"),
        (["fn f(x) {", "  x + 1", "}", "f(1)"], "2"),
        (["let s = `a", "b`; s.len()"], "3"),
        (['print("seen");', "1"], "seen\n1"),
        (["let x = 1;", ":reset", "x"], "Variable not found: x (line 1, position 1)\n  x\n  ^"),
        (["let x = [1, 2];", ":variables"], "x = [1, 2]"),
        ([":functions to_upper"], "to_upper(string: ImmutableString) -> ImmutableString"),
        ([":nonsense"], "There is no :nonsense; :help lists the commands."),
        (["1 + ;", "5"], "Syntax error: Unexpected ';' (line 1, position 5)\n  1 + ;\n      ^\n5"),
        (
            ["let x = 1; throw x", "x"],
            "Runtime error: 1 (line 1, position 12)\n  let x = 1; throw x\n             ^\n1",
        ),
        (['let s = #"say "fn ""#;', "s"], 'say "fn "'),
        (['let s = #"say "fn f( { } ""#;', "s.len()"], "16"),
        (["/* /* */ fn */ let x = 4;", "x"], "4"),
        ([":quit", "1"], ""),
        (["let quit = 7; #{ a", ":quit }"], '#{"a": 7}'),
        (["let s = `a", ":help is text`; s.len()"], "15"),
    ],
)
def test_lines_share_variables_and_functions(lines: list[str], shown: str) -> None:
    done = run("repl", stdin="\n".join(lines) + "\n")

    assert done.exit_code == 0
    assert shown in done.output
    if not shown:
        assert not done.output


@pytest.mark.parametrize("source", ["1 +", "fn f(x) {", "[1, 2", "#{a: 1", "if true {", "f(", "`open", "switch 1 {"])
def test_what_more_lines_could_complete_is_waited_for(source: str) -> None:
    with pytest.raises(RhaiSyntaxError) as caught:
        Engine().compile(source)

    assert is_incomplete(caught.value, source)


@pytest.mark.parametrize("source", ["1 + ;", "1 1", '"open', "}"])
def test_what_no_line_could_mend_is_an_error_at_once(source: str) -> None:
    with pytest.raises(RhaiSyntaxError) as caught:
        Engine().compile(source)

    assert not is_incomplete(caught.value, source)


def test_definitions_are_written_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "definitions"
    done = run("definitions", "--engine", "tests.engine_for_tests:make_engine", str(folder))

    assert done.output.split() == [
        str(folder / name) for name in ("__builtin__.d.rhai", "__static__.d.rhai", "functions.md")
    ]
    assert "fn note(path: String, line: String) -> ();" in (folder / "__static__.d.rhai").read_text()
    assert "Append a line to a file." in (folder / "functions.md").read_text()


def test_definitions_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("definitions", "--engine", "tests.engine_for_tests:make_engine", str(tmp_path / "file" / "folder"))

    assert done.exit_code == 1
    assert "Not a directory" in done.output


def test_a_command_ends_a_script_that_is_not_complete() -> None:
    done = run("repl", stdin="let x = 5;\nx.\n:variables\n[1,\n2]\n")

    assert "x = 5" in done.stdout
    assert "[1, 2]" in done.stdout
    assert "Expecting name of a property" in done.stderr


def test_names_are_completed() -> None:
    engine = Engine()
    session = Session(engine, {})
    session.evaluate("let length_of_all = 1;")

    assert complete(session, engine, "len") == ["len", "length_of_all", None]
    assert complete(session, engine, ":v") == [":variables", None]
    assert complete(session, engine, "nothing begins so") == [None]


@pytest.mark.parametrize(
    ("before", "start", "found"),
    [
        ("list.", "pu", ["push"]),
        ("text.", "pu", []),
        ("1 + text.", "to_u", ["to_upper"]),
        ("text.", "len", ["len"]),
        ("order.", "pric", ["price"]),
        ("order.", "key", ["keys"]),
        ("cart.", "t", ["tag", "take", "to_debug", "to_string", "total"]),
        ("cart.", "_", []),
        ("[1, 2].", "pu", ["push"]),
        ("order.text.", "to_u", ["to_upper"]),
        ("unknown.", "to_up", ["to_upper"]),
        ("list.", "lis", []),
        ("list.", ":", []),
    ],
)
def test_behind_a_dot_methods_and_properties_are_completed(before: str, start: str, found: list[str]) -> None:
    class Cart:
        def total(self) -> float:
            return 0.0

    engine = Engine()
    engine.register_type(Cart)
    session = Session(engine, {})
    session.evaluate('let list = [1]; let text = "x"; let order = #{price: 1, text: ""}; let cart = Cart();')

    assert complete(session, engine, start, before) == [*found, None]
