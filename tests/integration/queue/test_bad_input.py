"""Bad input ends as a clear error, loses nothing, and the worker goes on."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.conftest import Dispatcher, Worker, wait_until


@pytest.fixture(autouse=True)
def worker(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> Worker:
    return start_worker("circle", "--task-timeout", "5", "--threads", "2")


@pytest.mark.parametrize("script", [None], ids=["no script"])
def test_a_hash_without_script_is_an_error(dispatcher: Dispatcher, script: None) -> None:
    assert dispatcher.run("circle", script)["error"] == "Script content not found in Redis hash"


def test_an_id_without_hash_is_an_error_in_a_new_hash(dispatcher: Dispatcher, client: Any) -> None:
    client.lpush("rhai_tasks:circle", "nothing")

    details = dispatcher.result("nothing")

    assert (details["status"], details["error"]) == ("error", "Script content not found in Redis hash")


def test_details_of_another_type_go_to_the_dead_letters(dispatcher: Dispatcher, client: Any) -> None:
    client.set("rhai_task_details:odd", "text")
    client.lpush("rhai_tasks:circle", "odd")

    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-circle.XQ") == 1)

    (body,) = client.hvals("rhai_dramatiq:rhai-circle.XQ.msgs")
    assert '"odd"' in body
    assert client.get("rhai_task_details:odd") == "text"
    assert dispatcher.run("circle", "1")["status"] == "completed"


@pytest.mark.parametrize("field", ["script", "callerId"])
def test_a_field_that_is_not_utf8_is_an_error(dispatcher: Dispatcher, client: Any, field: str) -> None:
    client.hset("rhai_task_details:t", mapping={"script": "1"} | {field: b"\xff"})
    client.lpush("rhai_tasks:circle", "t")

    wait_until(lambda: client.hget("rhai_task_details:t", "status") == "error")

    assert client.hget("rhai_task_details:t", "error") == (
        f"Field '{field}' of the task is not valid UTF-8: byte 0xff at position 0"
    )


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("loop {}", "Script terminated: time limit of 5 s exceeded (line 1, position 6)"),
        ("sleep(100)", "Script terminated: time limit of 5 s exceeded (line 1, position 1)"),
        ("fn f() { f() } f()", "Stack overflow (line 1, position "),
        ('let s = "x"; loop { s += s; }', "Script terminated: memory limit of 64 MiB exceeded (line 1, position "),
        (
            "let a = []; a.pad(1000000000000, 0)",
            "Script terminated: memory limit of 64 MiB exceeded (line 1, position ",
        ),
        ('let s = ""; s.pad(9, ""); throw "gone on"', "Runtime error: gone on (line 1, position 27)"),
        ("(" * 1000, "Syntax error: Expression exceeds maximum complexity"),
        ("throw", "Runtime error (line 1, position 1)"),
        ("throw [1, ()]", "Runtime error: [1, ()] (line 1, position 1)"),
        ('import "/etc/passwd" as p;', "Module not found: /etc/passwd (line 1, position 8)"),
    ],
)
def test_a_bad_script_is_an_error_in_words(dispatcher: Dispatcher, script: str, error: str) -> None:
    details = dispatcher.run("circle", script)

    assert details["status"] == "error"
    assert details["error"].startswith(error)
    assert dispatcher.run("circle", "1")["status"] == "completed"


CHAINS = [
    "let f = || 1; loop { let g = f; f = || g.call(); }",
    "let a = []; loop { a = [a]; }",
    "let m = #{}; loop { m = #{x: m}; }",
]


@pytest.mark.parametrize("script", CHAINS)
def test_deep_chains_do_not_end_the_process(dispatcher: Dispatcher, worker: Worker, script: str) -> None:
    dispatcher.run("circle", "1")
    before = [child.pid for child in worker.children()]

    assert dispatcher.run("circle", script)["status"] == "error"

    assert [child.pid for child in worker.children()] == before


def test_a_script_of_five_mebibytes_runs(dispatcher: Dispatcher) -> None:
    script = f"// {'x' * 5 * 1024 * 1024}\n42"

    assert dispatcher.run("circle", script)["output"] == "42"


def test_an_output_of_five_mebibytes_is_stored_whole(dispatcher: Dispatcher) -> None:
    details = dispatcher.run("circle", 'let s = ""; s.pad(5 * 1024 * 1024, "é"); s')

    assert details["output"] == "é" * 5 * 1024 * 1024


@pytest.mark.parametrize(
    "task_id",
    [
        b"x" * 10_240,
        b"with blank",
        b"with:colon",
        b"with\nnewline",
        b"with\0nul",
        b"\xff\xfe",
        b'"\\{}',
        "é".encode(),
        b"",
    ],
    ids=["10 kB", "blank", "colon", "newline", "nul", "not UTF-8", "quotes", "unicode", "empty"],
)
def test_an_id_may_be_any_bytes(server_url: str, client: Any, task_id: bytes) -> None:
    raw = redis.Redis.from_url(server_url)
    key = b"rhai_task_details:" + task_id
    raw.hset(key, mapping={b"script": b"40 + 2"})
    raw.lpush("rhai_tasks:circle", task_id)

    wait_until(lambda: raw.hget(key, "status") == b"completed")

    assert raw.hget(key, "output") == b"42"
    raw.close()


@pytest.mark.parametrize("circle", ["with blank", "a:b", "50%", "[*?]", "é😀", '"quoted"', "x.DQ", "-dash"])
def test_a_circle_may_have_any_printable_name(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], circle: str
) -> None:
    start_worker(circle) if not circle.startswith("-") else start_worker("unused", f"--circle-public-key={circle}")

    assert dispatcher.run(circle, "CONTEXT_ID")["output"] == circle


def test_an_id_pushed_twice_ends_well(dispatcher: Dispatcher, client: Any) -> None:
    client.hset("rhai_task_details:twice", mapping={"script": "1"})
    client.lpush("rhai_tasks:circle", "twice", "twice")

    assert dispatcher.result("twice")["status"] == "completed"
    wait_until(lambda: client.hlen("rhai_dramatiq:rhai-circle.msgs") == 0)


def test_a_hash_deleted_while_its_script_runs_comes_back_with_the_result(dispatcher: Dispatcher, client: Any) -> None:
    dispatcher.submit("circle", "t", "sleep(0.3); 5")
    wait_until(lambda: dispatcher.status("t") == "processing")

    client.delete("rhai_task_details:t")

    assert dispatcher.result("t")["output"] == "5"


def test_a_hash_replaced_while_its_script_runs_is_left_alone(dispatcher: Dispatcher, client: Any) -> None:
    dispatcher.submit("circle", "t", "sleep(0.3); 5")
    wait_until(lambda: dispatcher.status("t") == "processing")
    client.delete("rhai_task_details:t")
    client.set("rhai_task_details:t", "text")

    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-circle.XQ") == 1)

    assert client.get("rhai_task_details:t") == "text"


def test_a_native_key_of_another_type_is_waited_out(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    client.set("rhai_tasks:other", "text")
    worker = start_worker("other")
    wait_until(lambda: "WRONGTYPE" in worker.text())

    client.delete("rhai_tasks:other")

    assert dispatcher.run("other", "1")["status"] == "completed"
    assert worker.text().count("WRONGTYPE") == 1


def test_a_reply_list_of_another_type_does_not_stop_the_result(dispatcher: Dispatcher, client: Any) -> None:
    client.set("answers", "text")

    assert dispatcher.run("circle", "1", replyToQueue="answers")["status"] == "completed"


@pytest.mark.parametrize("seconds", ["inf", "1e300", "nan", "-1"])
def test_an_expiry_of_no_time_at_all_does_not_stop_the_end(dispatcher: Dispatcher, client: Any, seconds: str) -> None:
    client.hset("rhai_task_details:t", mapping={"script": "1", "expireFinished": seconds})
    client.lpush("rhai_tasks:circle", "t")

    assert dispatcher.result("t")["output"] == "1"
    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-circle.msgs"))


@pytest.mark.parametrize("queue", [None, {}, 5])
def test_a_pipeline_that_leads_nowhere_ends_after_its_step(
    dispatcher: Dispatcher, client: Any, worker: Worker, queue: object
) -> None:
    following = {"queue_name": queue, "actor_name": "a", "args": [], "kwargs": {}, "options": {}}
    send(client, "m", {"args": ["t"], "options": {"pipe_target": following}})

    assert dispatcher.result("t")["output"] == "1"
    worker.await_text("The pipeline ends here")
    assert dispatcher.run("circle", "2")["output"] == "2"


def test_a_message_of_another_queue_costs_no_thread(dispatcher: Dispatcher, client: Any) -> None:
    for number in range(2):  # as many as there are threads
        send(client, f"m{number}", {"queue_name": "other", "args": [f"t{number}"]}, f"t{number}")

    assert dispatcher.result("t0")["output"] == "1"
    assert dispatcher.result("t1")["output"] == "1"
    assert dispatcher.run("circle", "2")["output"] == "2"


def test_a_message_with_an_eta_is_due_since_it_is_in_the_queue(dispatcher: Dispatcher, client: Any) -> None:
    send(client, "m", {"args": ["t"], "options": {"eta": 10**15}})

    assert dispatcher.result("t")["output"] == "1"
    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-circle.msgs"))


def send(client: Any, message_id: str, fields: dict[str, Any], task_id: str = "t") -> None:
    """Put a message into dramatiq's queue as its own broker does, with the fields of whoever writes it."""
    message = {"queue_name": "rhai-circle", "actor_name": "run_script", "args": [], "kwargs": {}, "options": {}}
    client.hset(f"rhai_task_details:{task_id}", "script", "1")
    client.hset("rhai_dramatiq:rhai-circle.msgs", message_id, json.dumps(message | fields))
    client.rpush("rhai_dramatiq:rhai-circle", message_id)
