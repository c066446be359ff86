"""`rhai-tasks`, as people and programs call it."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from rhai_tasks import Client, Settings
from rhai_tasks.operate.doctor import examine
from tests.commands import BIN
from tests.conftest import PATIENCE, Dispatcher, Worker, make_server, wait_until
from tests.integration.conftest import Run


@pytest.fixture
def worker(start_worker: Callable[..., Worker], run: Run) -> Worker:
    return start_worker("circle")


def ok(ended: "subprocess.CompletedProcess[str]") -> str:
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_help_names_every_command(run: Run) -> None:
    text = ok(run("--help"))

    for command in (
        "submit",
        "status",
        "wait",
        "cancel",
        "result",
        "queues",
        "tail",
        "dead",
        "return",
        "purge",
        "doctor",
    ):
        assert f"\n  {command} " in text
    assert "rhai-tasks, version" in ok(run("--version"))


# --- tasks


def test_a_script_is_submitted_and_followed(run: Run, worker: Worker) -> None:
    task_id = ok(run("submit", "40 + 2")).strip()

    assert ok(run("wait", task_id, "--timeout", "10")) == "42\n"
    assert ok(run("result", task_id)) == "42\n"
    assert "completed" in ok(run("status", task_id))
    (details,) = json.loads(ok(run("status", task_id, "--json")))
    assert (details["taskId"], details["status"], details["output"]) == (task_id, "completed", "42")


def test_a_script_comes_from_stdin_or_a_file(run: Run, worker: Worker, tmp_path: Path) -> None:
    file = tmp_path / "script.rhai"
    file.write_text("40 +\n3")

    assert ok(run("submit", "--wait", stdin="40 +\n2")) == "42\n"
    assert ok(run("submit", "--wait", "--file", "-", stdin="41")) == "41\n"
    assert ok(run("submit", "--wait", "--file", str(file))) == "43\n"


def test_a_failed_script_is_status_1_and_its_error_goes_to_stderr(run: Run, worker: Worker) -> None:
    ended = run("submit", "--wait", "throw 1")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "Runtime error: 1 (line 1, position 1)\n"
    (outcome,) = json.loads(run("submit", "--wait", "throw 1", "--json").stdout)
    assert (outcome["status"], outcome["error"]) == ("error", "Runtime error: 1 (line 1, position 1)")


def test_options_of_a_task_are_options_of_submit(run: Run, app: Client) -> None:
    arguments = ["--caller-id=me", "--context-id=here", "--task-id=t", "--unique", "--circle=other"]

    assert ok(run("submit", "1", *arguments, "--json")) == '{"taskId": "t"}\n'
    again = run("submit", "1", *arguments)

    details = app.task("t").details()
    assert (details["callerId"], details["contextId"]) == ("me", "here")
    assert (again.returncode, again.stderr) == (1, "Error: task 't' exists already\n")


def test_what_has_not_ended_is_status_4(run: Run, app: Client) -> None:
    task = app.submit("1")

    assert run("result", task.id).returncode == 4
    ended = run("wait", task.id, "--timeout", "0.1")
    assert ended.returncode == 4
    assert "not ended within 0.1 s" in ended.stderr


@pytest.mark.parametrize("command", ["status", "wait", "result", "cancel"])
def test_an_unknown_task_is_status_3(run: Run, command: str) -> None:
    ended = run(command, "nobody's")

    assert (ended.returncode, ended.stdout) == (3, "")
    assert "has no details" in ended.stderr


@pytest.fixture
def several(app: Client, client: Any) -> list[str]:
    """Ids of which some are unknown, failed, or no hash, before and behind one that is well."""
    client.hset("rhai_task_details:well", mapping={"status": "completed", "output": "5"})
    client.hset("rhai_task_details:failed", mapping={"status": "error", "error": "boom"})
    client.set("rhai_task_details:string", "text")
    return ["unknown", "well", "string", "failed", "unknown too", "well"]


def test_status_goes_through_all(run: Run, several: list[str]) -> None:
    ended = run("status", *several)
    as_json = run("status", "--json", *several)

    assert ended.returncode == as_json.returncode == 3
    assert "boom" in ended.stdout
    assert len(re.findall(r"^Error: ", ended.stderr, re.MULTILINE)) == 3
    told = json.loads(as_json.stdout)
    assert [row["taskId"] for row in told] == several
    assert [row["status"] for row in told] == ["unknown", "completed", "unknown", "error", "unknown", "completed"]


def test_wait_goes_through_all(run: Run, several: list[str]) -> None:
    ended = run("wait", *several)
    as_json = run("wait", "--json", *several)

    assert ended.returncode == as_json.returncode == 3
    assert ended.stdout == "5\n5\n"
    for words in ("unknown: task 'unknown' has no details", "failed: boom", "string: Task details are not a hash"):
        assert words in ended.stderr
    told = json.loads(as_json.stdout)
    assert [row["taskId"] for row in told] == several
    assert [row["status"] for row in told] == ["unknown", "completed", "error", "error", "unknown", "completed"]


def test_wait_tells_what_has_ended_when_others_have_not(run: Run, app: Client, several: list[str]) -> None:
    late = app.submit("1", task_id="late")

    ended = run("wait", "--timeout", "3", "unknown", late.id, "well")
    as_json = run("wait", "--timeout", "3", "--json", late.id, "well")

    assert ended.returncode == as_json.returncode == 4
    assert ended.stdout == "5\n"
    assert "late: task 'late' not ended within 3 s" in ended.stderr
    assert [row["status"] for row in json.loads(as_json.stdout)] == ["unknown", "completed"]


def test_cancel_goes_through_all(run: Run, app: Client, several: list[str]) -> None:
    app.submit("1", task_id="waits")

    ended = run("cancel", "unknown", "well", "string", "waits")
    app.submit("1", task_id="waits")
    as_json = run("cancel", "--json", "unknown", "well", "string", "waits")

    assert ended.returncode == as_json.returncode == 3
    assert ended.stdout == "well: had ended already\nwaits: cancelled\n"
    assert len(re.findall(r"^Error: ", ended.stderr, re.MULTILINE)) == 2
    assert json.loads(as_json.stdout) == {"unknown": None, "well": False, "string": None, "waits": True}


@pytest.mark.parametrize("command", ["status", "wait", "result", "cancel"])
def test_a_server_that_is_away_is_status_5_at_once(run: Run, command: str) -> None:
    ids = ["one"] if command == "result" else ["one", "two", "three"]
    ended = run(command, *ids, *(["--timeout", "1"] if command == "wait" else []), url="redis://127.0.0.1:1/")

    assert ended.returncode == 5, ended
    assert "does not answer" in ended.stderr


def test_tasks_are_cancelled(run: Run, app: Client, worker: Worker) -> None:
    ended, endless = app.submit("1"), app.submit("loop {}")
    ended.result(timeout=60)

    assert ok(run("cancel", endless.id)) == f"{endless.id}: cancelled\n"
    late = run("cancel", ended.id, "--json")

    assert (late.returncode, json.loads(late.stdout)) == (1, {ended.id: False})
    assert run("result", endless.id).stderr == f"task '{endless.id}' was cancelled\n"


def test_a_server_that_is_away_is_status_5(run: Run) -> None:
    ended = run("submit", "1", url="redis://127.0.0.1:1/")

    assert ended.returncode == 5
    assert ended.stderr.startswith("Error: Redis at redis://127.0.0.1:1/ does not answer")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["submit", "1", "--file", "-"], "not both"),
        (["wait"], "Missing argument"),
        (["dead", "retry"], "Name messages, or give --all"),
        (["dead", "delete", "x"], "No such dead letter: x"),
        (["--redis-url", "http://x", "queues"], "--redis-url"),
    ],
)
def test_wrong_use_is_status_2_and_one_line(run: Run, arguments: list[str], says: str) -> None:
    ended = run(*arguments)

    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_tail_shows_tasks_as_they_change(run: Run, server_url: str, app: Client, client: Any, worker: Worker) -> None:
    app.submit("1").result(timeout=60)
    tail = subprocess.Popen(
        [str(BIN / "rhai-tasks"), "--redis-url", server_url, "tail", "--count", "3", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: client.info("stats")["pubsub_patterns"])

    task = app.submit("sleep(0.1); `two\nlines`")

    lines, _ = tail.communicate(timeout=60)
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"taskId": task.id, "status": "pending", "text": ""},
        {"taskId": task.id, "status": "processing", "text": ""},
        {"taskId": task.id, "status": "completed", "text": "two\nlines"},
    ]


def test_tail_shows_the_tasks_of_one_circle(server_url: str, app: Client, client: Any) -> None:
    tail = subprocess.Popen(
        [str(BIN / "rhai-tasks"), "--redis-url", server_url, "tail", "--circle", "b c", "--count", "1", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RHAI_TASKS_CIRCLE": "a"},
    )
    wait_until(lambda: client.info("stats")["pubsub_patterns"])

    app.submit("1", circle="a")
    task = app.submit("1", circle="b c")

    lines, _ = tail.communicate(timeout=60)
    assert json.loads(lines) == {"taskId": task.id, "status": "pending", "text": ""}


# --- queues


def test_queues_counts_what_is_where(run: Run, app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", "--threads", "1", "--buffer", "2")
    running = app.submit("loop { sleep(0.1) }")
    wait_until(lambda: running.status() == "processing")
    app.submit("1", delay=60)
    app.submit_many(["1"] * 5)
    app.submit_many(["1"] * 3, progress=True)  # no terminal: no bar
    expected = {"circle": "circle", "waiting": 6, "buffered": 2, "parked": 0, "prefetched": 0}
    expected |= {"running": 1, "delayed": 1, "dead": 0, "workers": 1, "paused": False, "rules": 0, "due": False}

    def counted() -> dict[str, Any]:
        (queue,) = json.loads(ok(run("queues", "--json")))
        assert queue.pop("oldest") < PATIENCE
        return dict(queue)

    wait_until(lambda: counted() == expected)

    row = next(line for line in ok(run("queues")).splitlines() if "circle" in line and "6" in line)
    assert row.split()[:10] == ["circle", "6", "2", "0", "0", "1", "1", "0", "1", "0"]
    assert json.loads(ok(run("queues", "--circle", "other", "--json")))[0]["waiting"] == 0


def test_tasks_that_a_worker_has_fetched_and_not_begun_do_not_count_as_running_and_are_purged(
    run: Run, dispatcher: Dispatcher, spawn: Callable[..., Worker]
) -> None:
    spawn("rhai-bridge", "--circle", "busy", "--circle", "circle")
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "2")
    busy = [dispatcher.submit("busy", f"busy{number}", "loop { sleep(0.1) }") for number in range(2)]
    wait_until(lambda: all(dispatcher.status(task) == "processing" for task in busy), what="both threads to be busy")
    held = [dispatcher.submit("circle", f"held{number}", "1") for number in range(2)]

    def held_of(circle: str) -> tuple[int, int]:
        (queue,) = json.loads(ok(run("queues", "--circle", circle, "--json")))
        return queue["prefetched"], queue["running"]

    wait_until(lambda: held_of("circle") == (2, 0), what="the tasks to be fetched")
    wait_until(lambda: held_of("busy") == (0, 2), what="the heartbeat")

    assert ok(run("purge", "--yes")) == "2 task(s) cancelled\n"

    ok(run("cancel", *busy))
    assert dispatcher.run("circle", "2")["output"] == "2"
    assert [dispatcher.details(task)["error"] for task in held] == ["cancelled", "cancelled"]


def test_buffered_tasks_are_returned(run: Run, app: Client, client: Any) -> None:
    task = app.submit("1", via="dramatiq")

    assert ok(run("return")) == "1 task(s) given back\n"

    assert client.lrange("rhai_tasks:circle", 0, -1) == [task.id]


def test_purge_asks_first_and_tells_those_who_wait(run: Run, app: Client, client: Any) -> None:
    tasks = [*app.submit_many(["1"] * 700), app.submit("1", delay=60), app.submit("1", via="dramatiq")]
    client.hset("rhai_dramatiq:rhai-circle.msgs", "odd", "5")  # no message, and no reason to stop
    client.rpush("rhai_dramatiq:rhai-circle", "odd")

    refused = run("purge", stdin="n\n")
    assert refused.returncode == 1
    assert "Cancel 703 task(s) of circle circle that have not begun?" in refused.stdout
    assert client.llen("rhai_tasks:circle") == 700

    assert ok(run("purge", "--yes")) == "703 task(s) cancelled\n"

    assert {app.task(task.id).details()["error"] for task in tasks} == {"cancelled"}
    assert not client.keys("rhai_tasks:*")
    assert not client.keys("rhai_dramatiq:rhai-circle.msgs")


def test_dead_letters_are_listed_with_the_reason_and_retried_or_deleted(
    run: Run, app: Client, client: Any, worker: Worker
) -> None:
    for name in ("odd", "odder"):
        client.set(f"rhai_task_details:{name}", "text")
        client.lpush("rhai_tasks:circle", name)
    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-circle.XQ") == 2)

    letters = json.loads(ok(run("dead", "list", "--json")))
    assert {letter["taskId"] for letter in letters} == {"odd", "odder"}
    assert letters[0]["reason"].startswith("its details are not a hash: WRONGTYPE")
    assert "WRONGTYPE" in ok(run("dead", "list"))

    client.delete("rhai_task_details:odd")
    client.hset("rhai_task_details:odd", mapping={"script": "40 + 2"})
    by_task = {letter["taskId"]: letter["messageId"] for letter in letters}
    assert ok(run("dead", "retry", by_task["odd"])) == "1 dead letter(s) put back\n"
    assert app.task("odd").result(timeout=60) == "42"
    assert ok(run("dead", "delete", "--all", "--yes")) == "1 dead letter(s) deleted\n"
    assert not client.keys("rhai_dramatiq:rhai-circle.XQ*")


def findings(ended: "subprocess.CompletedProcess[str]") -> list[str]:
    """What the doctor says of circles and tasks; the tests' server keeps nothing on disk, as it says too."""
    return [found["what"] for found in json.loads(ended.stdout) if found["where"] != "server"]


def test_a_doctor_has_nothing_to_say_of_a_healthy_circle(run: Run, app: Client, client: Any, worker: Worker) -> None:
    client.config_set("save", "3600 1")
    app.submit("1").result(timeout=60)
    app.submit("loop { sleep(0.1) }")

    assert ok(run("doctor", "--stale", "0")) == "Nothing is wrong.\n"
    client.config_set("save", "")


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.01, "its memory is full, so that it takes no more tasks: maxmemory is "),
        (1.05, r"9\d% of maxmemory, .*, are used"),
    ],
    ids=["full", "nearly full"],
)
def test_a_doctor_says_when_the_server_has_no_room(run: Run, client: Any, share: float, told: str) -> None:
    client.setrange("ballast", 32 * 1024 * 1024, "x")  # beside which connections weigh nothing
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * share))
    try:
        found = json.loads(run("doctor", "--json").stdout)
    finally:
        client.config_set("maxmemory", 0)

    (memory,) = [one for one in found if "maxmemory" in one["what"]]
    assert re.search(told, memory["what"])
    assert memory["remedy"].startswith("raise maxmemory")


@pytest.mark.parametrize("may_read_options", [True, False])
def test_a_doctor_says_when_the_server_may_forget_tasks(
    run: Run, client: Any, server_url: str, may_read_options: bool
) -> None:
    client.acl_setuser(
        "doc", enabled=True, reset=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+@all"]
    )
    if not may_read_options:
        client.execute_command("ACL", "SETUSER", "doc", "-config")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        ended = run("doctor", url=server_url.replace("redis://", "redis://doc:pw@"))
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_deluser("doc")

    assert ended.returncode == 1
    assert "maxmemory-policy is allkeys-lru" in ended.stdout


def test_a_doctor_says_that_replicas_are_missing(run: Run, client: Any) -> None:
    client.config_set("min-replicas-to-write", "1")
    try:
        ended = run("doctor")
    finally:
        client.config_set("min-replicas-to-write", "0")

    assert ended.returncode == 1
    assert "0 of at least 1 replicas keep up: it refuses writes (NOREPLICAS)" in ended.stdout
    assert "lower min-replicas-to-write" in ended.stdout


def test_a_doctor_says_that_the_server_is_a_replica(run: Run, client: Any) -> None:
    client.replicaof("127.0.0.1", "1")
    try:
        ended = run("doctor")
    finally:
        client.replicaof("no", "one")

    assert ended.returncode == 1
    assert "it is a replica" in ended.stdout


def test_a_doctor_says_that_the_server_cannot_save(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with (
        make_server(data_dir=str(directory), persist=True) as server,
        redis.Redis.from_url(server.connection_url, decode_responses=True) as client,
    ):
        client.config_set("save", "3600 1")
        shutil.rmtree(directory)
        client.set("key", "value")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")

        ended = run("doctor", url=server.connection_url)

        client.config_set("save", "")

    assert ended.returncode == 1
    assert "its last snapshot failed: it refuses writes unless stop-writes-on-bgsave-error is no" in ended.stdout


def test_a_doctor_finds_a_circle_that_nobody_serves(run: Run, app: Client) -> None:
    app.submit("1")
    app.submit("1", circle="other", via="dramatiq")

    ended = run("doctor", "--json")

    assert ended.returncode == 1
    assert findings(ended) == [
        "1 task(s) wait and nobody takes them",
        "1 task(s) are ready and no worker process is alive",
    ]


def test_a_doctor_says_of_a_lease_that_cannot_be_that_the_clock_went_back(run: Run, client: Any) -> None:
    client.sadd("rhai_dramatiq:__queues__", "rhai-circle")
    client.zadd("rhai_dramatiq:rhai-circle.leases", {"dead": (client.time()[0] + 3600) * 1000})

    assert findings(run("doctor", "--json")) == ["1 lease(s) end too far ahead: the server's clock went back"]


def test_a_repair_that_comes_late_mends_only_what_is_still_so(
    dispatcher: Dispatcher, client: Any, server_url: str
) -> None:
    ended, again = (dispatcher.submit("circle", name, "1", contextId="circle") for name in ("ended", "again"))
    client.lrem("rhai_tasks:circle", 0, ended)
    details = client.hgetall(f"rhai_task_details:{again}")
    client.delete(f"rhai_task_details:{again}")
    client.hset(f"rhai_task_details:{ended}", mapping={"status": "processing", "updatedAt": "2020-01-01T00:00:00Z"})
    repairs = [finding.repair for finding in examine(Settings(redis_url=server_url)) if finding.repair]
    client.hset(f"rhai_task_details:{ended}", mapping={"status": "completed", "output": "1"})  # by an original worker
    client.hset(f"rhai_task_details:{again}", mapping=details)  # submitted anew

    for repair in repairs:
        repair()

    assert len(repairs) == 2
    assert dispatcher.status(ended) == "completed"
    assert client.lrange("rhai_tasks:circle", 0, -1) == [again]


def test_a_doctor_repairs_what_dead_processes_left(
    run: Run, app: Client, dispatcher: Dispatcher, client: Any, start_worker: Callable[..., Worker]
) -> None:
    held, orphan = (dispatcher.submit("circle", name, "1", contextId="circle") for name in ("h", "o"))
    client.delete("rhai_tasks:circle")
    client.sadd("rhai_dramatiq:__queues__", "rhai-circle")
    message = {"queue_name": "rhai-circle", "actor_name": "run_script", "args": [held], "kwargs": {}, "options": {}}
    body = json.dumps({**message, "message_id": "1", "message_timestamp": 1})
    client.set("rhai_dramatiq:rhai-circle.sequence", "1")
    client.hset("rhai_dramatiq:rhai-circle.msgs", "1", body)
    client.sadd("rhai_dramatiq:__acks__.dead.rhai-circle", "1")
    client.hset(f"rhai_task_details:{orphan}", mapping={"status": "processing", "updatedAt": "2020-01-01T00:00:00Z"})
    client.lpush("rhai_tasks:circle", "nothing")

    found = findings(run("doctor", "--json"))
    assert "1 task(s) are held by a worker process that died" in found
    assert f"task {orphan!r} is processing, and no worker of this project holds it" in found
    assert "1 id(s) in the native list have no details, as 'nothing'" in found

    assert "repaired" in run("doctor", "--repair").stdout

    start_worker("circle")
    assert {app.task(task).result(timeout=60) for task in (held, orphan)} == {"1"}
    assert not client.exists("rhai_task_details:nothing")


# --- terminals


def test_a_watch_is_live_and_leaves_a_clean_terminal(run: Run, app: Client, server_url: str) -> None:
    app.submit("1")
    master, slave = pty.openpty()
    watching = subprocess.Popen(
        [str(BIN / "rhai-tasks"), "--redis-url", server_url, "queues", "--watch", "0.1"],
        stdout=slave,
        stderr=slave,
        stdin=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(slave)
    shown = bytearray()

    def read_until(text: bytes) -> None:
        end = time.monotonic() + PATIENCE
        while text not in shown:
            assert time.monotonic() < end, shown
            shown.extend(os.read(master, 4096))

    try:
        read_until(b"waiting")
        app.submit("1")
        shown.clear()
        read_until(b" 2 ")
        watching.send_signal(signal.SIGINT)
        read_until(b"\x1b[?25h")  # the cursor is back
        assert b"\x1b[?1049l" in shown, "the screen is the one before"

        assert watching.wait(PATIENCE) == 0
    finally:
        watching.kill()  # else the next test fails, too, with a process that is still running
        watching.wait()
        os.close(master)


def test_what_a_script_prints_does_not_reach_the_terminal_as_commands(run: Run, client: Any) -> None:
    client.hset(b"rhai_task_details:\xff", mapping={"status": "completed", "output": "\x1b]0;title\x07 [bold]é[/]\n2"})

    shown = ok(run("status", b"\xff".decode("utf-8", "surrogateescape")))

    assert "\\x1b]0;title\\x07 [bold]é[/] 2" in shown
    assert "\\xff" in shown


def test_colours_are_left_out_where_they_are_not_wanted(run: Run, app: Client) -> None:
    task = app.submit("1")

    assert "\x1b" not in ok(run("status", task.id))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    ended = subprocess.run(
        [str(BIN / "rhai-tasks")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_RHAI_TASKS_COMPLETE": f"{shell}_source"},
    )

    assert "_RHAI_TASKS_COMPLETE" in ended.stdout
