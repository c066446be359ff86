"""Every row of the native protocol (docs/protocol.md), as a dispatcher sees it."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Dispatcher, Worker, wait_until

pytestmark = pytest.mark.each_dialect


@pytest.fixture
def worker(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> Worker:
    return start_worker("circle", "--engine", "tests.engine_for_tests:make_engine", "--threads", "2")


@pytest.mark.usefixtures("worker")
class TestAResult:
    def test_a_completed_task_has_its_output(self, dispatcher: Dispatcher) -> None:
        details = dispatcher.run("circle", "40 + 2")

        assert (details["status"], details["output"]) == ("completed", "42")
        assert "error" not in details

    @pytest.mark.parametrize(
        ("script", "output"),
        [
            ('"text"', "text"),
            ("()", ""),
            ("", ""),
            ('#{b: 1, a: [1.0, "x"]}', '#{"a": [1.0, "x"], "b": 1}'),
            ('"é😀"', "é😀"),
        ],
    )
    def test_the_output_is_rhais_text_of_the_value(self, dispatcher: Dispatcher, script: str, output: str) -> None:
        assert dispatcher.run("circle", script)["output"] == output

    @pytest.mark.parametrize(
        ("script", "error"),
        [
            ('throw "boom"', "Runtime error: boom (line 1, position 1)"),
            ("1 +", "Syntax error: Script is incomplete (line 1, position 4)"),
            ("nosuch()", "Function not found: nosuch () (line 1, position 1)"),
            ('fail("from Python")', "Runtime error: from Python (line 1, position 1)"),
            (
                'fn f() { throw "x" } f()',
                "Runtime error: x (line 1, position 10)\nin call to function 'f' (line 1, position 22)",
            ),
        ],
    )
    def test_an_error_is_rhais_text_with_its_position(self, dispatcher: Dispatcher, script: str, error: str) -> None:
        details = dispatcher.run("circle", script)

        assert (details["status"], details["error"]) == ("error", error)
        assert "output" not in details

    def test_a_thrown_error_leaves_the_worker_running(self, dispatcher: Dispatcher) -> None:
        dispatcher.run("circle", "throw 1")

        assert dispatcher.run("circle", "1")["status"] == "completed"

    @pytest.mark.first_dialect("the context is the circle")
    @pytest.mark.parametrize(
        ("fields", "caller"),
        [
            ({"callerId": "new"}, "new"),
            ({"callerId": "", "publicKey": "old"}, ""),
            ({"callerId": "a\"'\\{}"}, "a\"'\\{}"),
        ],
    )
    def test_scripts_see_who_asked_and_whose_worker_runs_them(
        self, dispatcher: Dispatcher, fields: dict[str, str], caller: str
    ) -> None:
        details = dispatcher.run("circle", "fn f() { CALLER_ID } [CONTEXT_ID, f()]", contextId="another", **fields)

        assert (
            details["output"] == str(["circle", caller]).replace("'", '"') if '"' not in caller else details["output"]
        )
        assert details["contextId"] == "another"

    def test_older_clients_name_the_caller_public_key(self, dispatcher: Dispatcher, client: Any) -> None:
        dispatcher.put("old", {"script": "CALLER_ID", "publicKey": "03old"})
        client.lpush(dispatcher.native_list("circle"), "old")

        assert dispatcher.result("old")["output"] == "03old"

    def test_without_a_caller_the_constant_is_the_empty_string(self, dispatcher: Dispatcher, client: Any) -> None:
        dispatcher.put("none", {"script": "CALLER_ID.len()"})
        client.lpush(dispatcher.native_list("circle"), "none")

        assert dispatcher.result("none")["output"] == "0"

    def test_updated_at_is_rfc_3339_and_nothing_else_is_added(self, dispatcher: Dispatcher) -> None:
        details = dispatcher.run("circle", "1", createdAt="1700000000", updatedAt="1700000000")

        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", details["updatedAt"])
        assert details["createdAt"] == "1700000000"
        assert set(details) == {"status", "script", "callerId", "createdAt", "updatedAt", "output"}

    def test_a_running_task_is_processing(self, dispatcher: Dispatcher) -> None:
        task_id = dispatcher.submit("circle", "slow", "nap(0.5)")

        wait_until(lambda: dispatcher.status(task_id) == "processing")
        assert dispatcher.result(task_id)["status"] == "completed"

    def test_a_finished_id_pushed_again_runs_again(self, dispatcher: Dispatcher, client: Any) -> None:
        dispatcher.submit("circle", "again", "throw 1")
        dispatcher.result("again")
        dispatcher.put("again", {"script": "7", "status": "pending"})

        client.lpush(dispatcher.native_list("circle"), "again")

        assert dispatcher.result("again") == dispatcher.details("again")
        assert dispatcher.details("again")["output"] == "7"
        assert "error" not in dispatcher.details("again")

    @pytest.mark.first_dialect("names of the reply")
    def test_a_reply_list_gets_the_details_as_json(self, dispatcher: Dispatcher, client: Any) -> None:
        dispatcher.submit("circle", "t", "6 * 7", replyToQueue="answers", createdAt="1700000000")

        _, reply = client.blpop("answers", timeout=60)

        details = json.loads(reply)
        assert details.pop("updatedAt") == dispatcher.details("t")["updatedAt"]
        assert details == {
            "taskId": "t",
            "script": "6 * 7",
            "status": "completed",
            "output": "42",
            "error": None,
            "callerId": "caller",
            "contextId": None,
            "createdAt": "1700000000",
        }

    def test_a_malformed_task_is_answered_too(self, dispatcher: Dispatcher, client: Any) -> None:
        dispatcher.submit("circle", "t", None, replyToQueue="answers")

        _, reply = client.blpop("answers", timeout=60)

        assert json.loads(reply)["error"] == "Script content not found in Redis hash"

    def test_nothing_is_left_behind_but_the_details(self, dispatcher: Dispatcher, client: Any) -> None:
        dispatcher.run("circle", "1")

        left = [key for key in client.keys("*") if "task_details" not in key]
        assert not [key for key in left if key.startswith("rhai_tasks")]
        assert client.hlen("rhai_dramatiq:rhai-circle.msgs") == 0
        assert not client.keys("rhai_dramatiq:__acks__*")


def test_the_newest_of_waiting_tasks_runs_first(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Any
) -> None:
    log = tmp_path / "order"
    for number in range(20):
        dispatcher.submit("circle", f"t{number}", f'note("{log}", "{number}")')

    start_worker("circle", "--engine", "tests.engine_for_tests:make_engine", "--threads", "1")

    dispatcher.result("t0")
    assert log.read_text().split() == [str(number) for number in reversed(range(20))]


@pytest.mark.first_dialect("the context is the circle")
def test_two_circles_never_run_each_others_tasks(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    start_worker("a b")
    start_worker("a.b")
    tasks = [
        dispatcher.submit(circle, f"{circle}{number}", "CONTEXT_ID")
        for circle in ("a b", "a.b")
        for number in range(30)
    ]

    assert [dispatcher.result(task)["output"] for task in tasks] == ["a b"] * 30 + ["a.b"] * 30


def test_two_workers_share_a_circle_and_run_each_task_once(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Any
) -> None:
    for _ in range(2):
        start_worker("circle", "--engine", "tests.engine_for_tests:make_engine", "--buffer", "4", "--threads", "2")
    log = tmp_path / "runs"

    tasks = [dispatcher.submit("circle", f"t{n}", f'note("{log}", `{n} ${{pid()}}`); nap(0.01)') for n in range(200)]

    assert {dispatcher.result(task)["status"] for task in tasks} == {"completed"}
    runs = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(number) for number, _ in runs) == list(range(200))
    assert len({process for _, process in runs}) == 2


@pytest.mark.first_dialect("its prefixes")
def test_other_prefixes_are_settings(start_worker: Callable[..., Worker], client: Any) -> None:
    start_worker(
        "c", "--queue-prefix=rhailib:q:", "--details-prefix=rhailib:d:", "--reply-prefix=rhailib:r:", "--reply-lists"
    )
    client.hset("rhailib:d:1", mapping={"script": "5"})
    client.lpush("rhailib:q:c", "1")

    _, reply = client.blpop("rhailib:r:1", timeout=60)

    assert json.loads(reply)["output"] == "5"
    assert client.hget("rhailib:d:1", "status") == "completed"


def test_reply_lists_of_the_worker_expire(
    start_worker: Callable[..., Worker], dispatcher: Dispatcher, client: Any
) -> None:
    start_worker("circle", "--reply-lists", "--reply-expiry", "100")
    dispatcher.run("circle", "1")

    (reply,) = client.keys(f"{dispatcher.dialect.prefixes.reply}*")
    assert 0 < client.ttl(reply) <= 100


def test_an_error_can_be_stored_in_rusts_debug_form(
    start_worker: Callable[..., Worker], dispatcher: Dispatcher
) -> None:
    start_worker("circle", "--error-format", "debug")

    assert dispatcher.run("circle", 'throw "boom"')["error"] == 'ErrorRuntime("boom", 1:1)'


def test_finished_details_can_be_deleted(
    start_worker: Callable[..., Worker], dispatcher: Dispatcher, client: Any
) -> None:
    start_worker("circle", "--delete-finished")
    dispatcher.submit("circle", "t", "1", replyToQueue="answers")

    client.blpop("answers", timeout=60)

    assert not client.exists(dispatcher.details_key("t"))


def test_an_original_worker_serves_the_circle_beside_ours(
    start_worker: Callable[..., Worker], dispatcher: Dispatcher, client: Any
) -> None:
    worker = start_worker("circle", "--engine", "tests.engine_for_tests:make_engine", "--threads", "1", "--buffer", "1")
    tasks = [dispatcher.submit("circle", f"t{number}", "nap(0.1)") for number in range(20)]

    taken = client.blpop(dispatcher.native_list("circle"), timeout=60)  # as the original takes it

    assert taken is not None
    dispatcher.put(taken[1], {"status": "completed", "output": "by the original"})
    assert {dispatcher.result(task)["status"] for task in tasks} == {"completed"}
    assert dispatcher.details(taken[1])["output"] == "by the original"
    assert worker.process.poll() is None


def test_a_worker_busy_with_slow_scripts_hoards_nothing(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle", "--engine", "tests.engine_for_tests:make_engine", "--threads", "2")
    tasks = [dispatcher.submit("circle", f"t{number}", "nap(1)") for number in range(8)]
    wait_until(lambda: sum(dispatcher.status(task) == "processing" for task in tasks) == 2)

    (acks,) = client.keys("rhai_dramatiq:__acks__*")
    assert client.scard(acks) == 2
    assert sum(dispatcher.status(task) == "processing" for task in tasks) == 2
