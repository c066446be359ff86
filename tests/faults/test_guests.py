"""Scripts are guests: whatever one does ends as its own error, beside neighbours that notice nothing."""

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dramatiq
import pytest

from rhai_tasks import Client, Engine, Settings
from rhai_tasks.protocol import QueueKeys
from rhai_tasks.worker import setup
from tests.conftest import FINAL, PATIENCE, Dispatcher, Worker, wait_until

TIME = "time limit of 8 s exceeded"
MEMORY = "memory limit of 64 MiB exceeded"
EITHER = f"{TIME}|{MEMORY}"  # slow growth: the machine's speed decides
DEPTH = "Stack overflow"
COMPLEX = "Expression exceeds maximum complexity"
FILLED = 'let s = "x"; s.pad(100000, "y"); let i = 0;'

ATTACKS = {
    # time
    "endless loop": ("loop {}", TIME),
    "endless while": ("while true { let x = 1; }", TIME),
    "endless do": ("do { let x = 1; } while true", TIME),
    "endless range": ("let x = 0; for i in 0..9223372036854775807 { x = i; }", TIME),
    "endless closures": ("let a = [1, 2, 3]; loop { a.map(|x| x + 1); }", TIME),
    "loop inside a closure, caught": ("try { [1].map(|x| { loop {} }) } catch { } 42", TIME),
    "loop inside a comparer": ("let a = [3, 1, 2]; a.sort(|x, y| { loop {} }); 77", TIME),
    "loop inside eval": ('eval("loop {}")', TIME),
    "loop after a caught one": ("loop { try { loop {} } catch { } }", TIME),
    "sleep": ("sleep(1000)", TIME),
    "sleep for ever": ("sleep(1e300)", TIME),
    "naps": ("loop { sleep(0.01); }", TIME),
    "flood of log lines": ('loop { print("flood"); sleep(0.001); }', TIME),
    # memory
    "doubled text": ('let s = "x"; loop { s += s; }', MEMORY),
    "doubled array": ("let a = [1]; loop { a += a; }", MEMORY),
    "padded array": ("let a = []; a.pad(1000000000000, 0)", MEMORY),
    "padded text": ('let s = ""; s.pad(1000000000000, "é")', MEMORY),
    "blob": ("blob(1000000000000)", MEMORY),
    "filled blob": ("blob(1000000000000, 7)", MEMORY),
    "replaced text": ('let s = "y"; s.pad(100000, "y"); let t = s; s.replace("y", t)', MEMORY),
    "map by index": ('let m = #{}; let i = 0; loop { m["k" + i] = i; i += 1; }', EITHER),
    "texts in a map": (f"{FILLED} let m = #{{}}; loop {{ m[`${{i}}`] = s + i; i += 1; }}", MEMORY),
    "texts in an array": (f"{FILLED} let a = []; loop {{ a.push(()); a[i] = s + i; i += 1; }}", MEMORY),
    "texts in closures": (f"{FILLED} let a = []; loop {{ let t = s + i; a.push(|| t); i += 1; }}", MEMORY),
    "chain of closures": ("let f = || 1; loop { let g = f; f = || g.call(); }", EITHER),
    "chain of arrays": ("let a = []; loop { a = [a]; }", EITHER),
    "chain of maps": ("let m = #{}; loop { m = #{x: m}; }", EITHER),
    "interpolated text": ('let s = "xxxxxxxx"; loop { s = `${s}${s}`; }', MEMORY),
    "split text": (f'{FILLED} let a = []; loop {{ a.push(s.split("")); }}', MEMORY),
    # depth
    "recursion": ("fn f() { f() } f()", DEPTH),
    "mutual recursion": ("fn f() { g() } fn g() { f() } f()", DEPTH),
    "recursion through closures": ("fn f() { [1].map(|x| f()) } f()", DEPTH),
    "recursion through eval": ('fn f() { eval("f()") } f()', DEPTH),
    "nested parentheses": ("(" * 10_000, COMPLEX),
    "nested blocks": ("{" * 10_000, COMPLEX),
    "nested arrays": ("[" * 10_000, COMPLEX),
    "nested negations": ("- " * 10_000 + "1", COMPLEX),
    "nested JSON": (f"parse_json(`{'[' * 10_000}`)", "recursion limit exceeded"),
    "nested array as result": ("let a = []; for i in 0..3000 { a = [a]; } a.to_string()", ""),
    # doors that are closed
    "import of a file": ('import "/etc/passwd" as p;', "Module not found"),
    "import of a neighbour": ('import "../x" as x;', "Module not found"),
    "import through eval": ('eval(`import "/etc/passwd" as p;`)', "Module not found"),
    "file": ('open("/etc/passwd")', "Function not found"),
    "file as in rhai-fs": ('open_file("/etc/passwd")', "Function not found"),
    "environment": ('env("HOME")', "Function not found"),
    "environment of others": ("envs()", "Function not found"),
    "process": ('system("id")', "Function not found"),
    "command": ('cmd("id")', "Function not found"),
    "network": ('http_get("http://127.0.0.1/")', "Function not found"),
    "Python": ('__import__("os")', "Function not found"),
    "pointer to a keyword": ('Fn("eval").call("1")', "'eval' is a reserved keyword"),
}
MAY_COMPLETE = {"nested array as result"}  # where it is not an attack any more, once it fits


def test_every_attack_ends_as_an_error_that_says_why_and_neighbours_go_on(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle", "--task-timeout", "8", "--threads", "16", env={"RUST_LOG": "warn"})
    dispatcher.run("circle", "1")
    before = [child.pid for child in worker.children()]

    attacks = {name: dispatcher.submit("circle", name, script) for name, (script, _) in ATTACKS.items()}
    beside = 0
    deadline = time.monotonic() + 200.0
    while any(dispatcher.status(task) not in FINAL for task in attacks.values()) and time.monotonic() < deadline:
        neighbour = dispatcher.submit("circle", f"beside {beside}", f"{beside}")
        assert dispatcher.result(neighbour)["output"] == str(beside)
        beside += 1
    ends = {name: dispatcher.result(task) for name, task in attacks.items()}

    otherwise = {
        name: (end["status"], end.get("error", "")[:200])
        for name, end in ends.items()
        if not (end["status"] == "error" and re.search(ATTACKS[name][1], end["error"])) and name not in MAY_COMPLETE
    }
    assert otherwise == {}
    assert beside > 5
    assert [child.pid for child in worker.children()] == before


def make_importing_engine() -> Engine:
    """Make an engine with modules that import themselves, for `--engine`."""
    imports = {"itself": "itself", "ping": "pong", "pong": "ping"}
    return Engine(modules={name: f'import "{other}" as other;' for name, other in imports.items()})


def test_modules_that_import_themselves_end_as_errors_of_who_asks_for_them(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle", "--engine", f"{__name__}:make_importing_engine")
    dispatcher.run("circle", "1")
    before = [child.pid for child in worker.children()]

    for module in ("itself", "ping"):
        assert "imports itself" in dispatcher.run("circle", f'import "{module}" as m;')["error"]

    assert dispatcher.run("circle", "2")["output"] == "2"
    assert [child.pid for child in worker.children()] == before


def test_a_process_that_outgrows_its_limit_is_killed_and_only_the_task_that_did_it_ends_as_an_error(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    options = ("--engine", "tests.engine_for_tests:make_engine", "--threads", "4", "--memory-limit", "200")
    worker = start_worker("circle", *options)
    dispatcher.run("circle", "1")
    beside = [dispatcher.submit("circle", f"beside {number}", f"nap(0.5); {number}") for number in range(8)]
    hoarder = dispatcher.submit("circle", "hoarder", "hoard(500); nap(5)")

    assert dispatcher.result(hoarder)["error"].startswith("The worker process died 3 times")

    assert [dispatcher.result(task)["output"] for task in beside] == [str(number) for number in range(8)]
    worker.await_text("MiB, more than --memory-limit 200: killing it")


def test_a_neighbour_is_not_held_up_beyond_the_time_limit(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    """Even if attacks take every thread: each holds its own for as long as one script may run."""
    start_worker("circle", "--task-timeout", "1", "--threads", "2")
    dispatcher.run("circle", "1")
    for number, script in enumerate(
        ("loop {}", "sleep(1000)", "try { [1].map(|x| { loop {} }) } catch { }", "loop {}")
    ):
        dispatcher.submit("circle", f"attack {number}", script)
    wait_until(lambda: sum(dispatcher.status(f"attack {number}") == "processing" for number in range(4)) == 2)

    dispatcher.submit("circle", "neighbour", "1")  # newest first: it is next

    assert dispatcher.result("neighbour")["output"] == "1"


@pytest.mark.parametrize(
    "endless",
    [
        "nap(1000)",  # in Python
        # In the engine:
        'let s = ""; s.pad(2_000_000, "x"); let a = []; a.pad(1_000_000, s); eval("switch a { 1 => 2 }")',
    ],
)
def test_a_script_that_nothing_stops_ends_as_an_error_and_its_neighbours_complete_once(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Path, endless: str
) -> None:
    worker = start_worker("circle", "--engine", "tests.engine_for_tests:make_hasty_engine", "--threads", "3")
    dispatcher.run("circle", "1")
    bridge, before = (child.pid for child in worker.children())
    runs = tmp_path / "runs"

    started = time.monotonic()
    dispatcher.submit("circle", "endless", f'note("{runs}", "endless"); {endless}')
    neighbours: list[str] = []
    while dispatcher.status("endless") not in FINAL:
        assert time.monotonic() < started + PATIENCE
        number = len(neighbours)
        script = f'note("{runs}", "{number}"); nap(1.0); {number}'
        neighbours.append(dispatcher.submit("circle", f"beside {number}", script))
        time.sleep(0.5)  # the rate of submission

    assert dispatcher.details("endless")["error"] == (
        "Script terminated: time limit of 2 s exceeded; it did not stop within 5 s, and its process was ended"
    )
    outputs = [dispatcher.result(task)["output"] for task in neighbours]
    assert outputs == [str(number) for number in range(len(neighbours))]
    assert Counter(runs.read_text().split()) == {"endless": 1, **dict.fromkeys(outputs, 1)}
    assert dispatcher.run("circle", "pid()")["output"] != str(before)
    assert worker.children()[0].pid == bridge


def test_a_cancelled_script_that_does_not_stop_ends_its_process_and_others_go_back_unsuspected(
    dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    runs, begun = tmp_path / "runs", tmp_path / "begun"
    options = ("--engine", "tests.engine_for_tests:make_engine", "--threads", "2", "--shutdown-timeout", "0.5")
    start_worker("circle", *options)
    long = dispatcher.submit("circle", "long", f'note("{runs}", "run"); sleep(10); who()')
    endless = app.submit(f'note("{begun}", "begun"); nap(1000)')
    wait_until(lambda: begun.exists() and runs.exists())

    endless.cancel()

    assert dispatcher.details(endless.id)["error"] == "cancelled"
    assert dispatcher.result(long)["output"].endswith(" 1"), "the delivery"
    assert runs.read_text().split() == ["run", "run"]
    assert dispatcher.details(endless.id)["error"] == "cancelled"


def test_a_script_that_does_not_stop_after_its_message_was_lost_ends_its_process(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    worker = start_worker("circle", "--engine", "tests.engine_for_tests:make_engine", "--threads", "1")
    client, settings = dispatcher.client, Settings()
    keys = QueueKeys(settings.namespace, "rhai-circle")
    endless = dispatcher.submit("circle", "endless", f'note("{begun}", "begun"); nap(1000)')
    wait_until(begun.exists)
    _, before = worker.children()

    (broker_id,) = client.zrange(keys.leases, 0, -1)
    client.delete(keys.leases, keys.acks(broker_id), keys.bodies)  # as after a lease that lapsed
    client.hset("rhai_task_details:endless", mapping={"status": "completed", "output": "by another worker"})

    wait_until(lambda: not before.is_running(), what="the process to end")
    assert dispatcher.run("circle", "1")["output"] == "1"
    assert dispatcher.details(endless)["output"] == "by another worker"


class SlowHooks(dramatiq.Middleware):
    """A middleware of an application that takes its time."""

    def before_ack(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:  # noqa: ARG002
        time.sleep(0.5)


def setup_with_slow_hooks() -> None:
    """Set a worker up, for dramatiq's own command."""
    setup()
    dramatiq.get_broker().add_middleware(SlowHooks())


def test_a_process_ends_only_after_its_other_messages_were_released(
    dispatcher: Dispatcher, app: Client, spawn: Callable[..., Worker], tmp_path: Path
) -> None:
    begun = tmp_path / "begun"  # a script that is cancelled before it begins leaves nothing to end
    spawn("rhai-bridge", "--circle", "circle")
    env = {"RHAI_TASKS_ENGINE": "tests.engine_for_tests:make_engine", "RHAI_TASKS_SHUTDOWN_TIMEOUT": "0.5"}
    ending = spawn("dramatiq", f"{__name__}:setup_with_slow_hooks", "--processes", "1", "--threads", "2", env=env)
    endless = app.submit(f'note("{begun}", "begun"); nap(1000)')
    other = dispatcher.submit("circle", "other", "sleep(15); who()")
    wait_until(lambda: begun.exists() and dispatcher.status(other) == "processing")

    endless.cancel()

    ending.process.wait(PATIENCE)
    assert dispatcher.status(other) == "pending"
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "1", env=env)
    assert dispatcher.result(other)["output"].endswith(" 1"), "the delivery: nothing suspects it of a crash"


@pytest.mark.parametrize("options", [(), ("--shutdown-timeout", "0")], ids=str)
def test_a_process_that_is_about_to_end_begins_nothing_more(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A fetch that was waiting when the watchdog spoke brings a task: the next process runs it."""
    runs = tmp_path / "runs"
    engine = ("--engine", "tests.engine_for_tests:make_hasty_engine")
    worker = start_worker("circle", *engine, "--threads", "3", "--shutdown-timeout", "2", *options)
    doomed = dispatcher.run("circle", "pid()")["output"]
    dispatcher.submit("circle", "endless", "nap(1000)")
    dispatcher.submit("circle", "beside", "nap(3.5); nap(3.5); nap(3.5); 1")  # the process lives for a while yet
    wait_until(lambda: "this process fetches no more" in worker.text())

    tasks = []
    for number in range(6):
        script = f'note("{runs}", "{number}"); nap(1.5); `${{who()}} ${{pid()}}`'
        tasks.append(dispatcher.submit("circle", f"t{number}", script))
        time.sleep(0.1)  # so that several fetches bring them

    outputs = [dispatcher.result(task)["output"].split() for task in tasks]
    assert set(Counter(runs.read_text().split()).values()) == {1}
    assert {output[-1] for output in outputs}.isdisjoint({doomed})
    assert {output[-2] for output in outputs} == {"1"}, "the delivery"


@pytest.mark.parametrize(
    "script",
    [
        "loop {}",
        "let a = [1, 2, 3]; loop { a.map(|x| x + 1); }",
        "try { [1].map(|x| { loop {} }) } catch { } 42",
        "let a = [3, 1, 2]; a.sort(|x, y| { loop {} }); 77",
        "[1].filter(|x| { loop {} })",
        "[1].reduce(|x, y| { loop {} }, 0)",
        "#{a: 1}.filter(|k| { loop {} })",
    ],
)
def test_operations_are_counted_wherever_they_happen(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], script: str
) -> None:
    start_worker("circle", "--max-operations", "100000")

    assert dispatcher.run("circle", script)["error"].startswith("Too many operations (line 1")
