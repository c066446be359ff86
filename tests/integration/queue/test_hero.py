"""The dialect `hero`: what the first one has not, with keys and fields as its documents spell them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import pipeline

from rhai_tasks import Client, ScriptActor, Settings
from rhai_tasks.errors import ConfigurationError, ScriptError, TaskCancelled, TaskMalformed
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.task_checks import find_orphans
from rhai_tasks.operate.tasks import Tasks
from rhai_tasks.operate.where import Where
from rhai_tasks.operate.why import explain
from rhai_tasks.protocol import HERO, Dialect
from tests.commands import run_command
from tests.conftest import Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")


@pytest.fixture
def dialect() -> Dialect:
    return HERO


@pytest.fixture
def submit(client: Any) -> Callable[..., str]:
    """Write a job and push its id, as its documents show it."""

    def submit(job: str, script: str, **fields: str) -> str:
        details = {"id": job, "caller_id": "ada", "context_id": "02abc", "worker_id": "w1", "script": script}
        client.hset(f"hero:job:{job}", mapping={**details, "status": "dispatched", **fields})
        client.lpush("hero:work_queue:w1", job)
        return job

    return submit


@pytest.fixture
def ended(client: Any) -> Callable[[str], dict[str, str]]:
    """Wait for the end of a job, and return its fields."""

    def ended(job: str) -> dict[str, str]:
        key = f"hero:job:{job}"
        wait_until(lambda: client.hget(key, "status") in {"finished", "error"}, what=job)
        found: dict[str, str] = client.hgetall(key)
        return found

    return ended


Submit = Callable[..., str]
Ended = Callable[[str], dict[str, str]]


def test_a_job_has_snake_case_fields_its_own_context_and_its_environment(
    submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
) -> None:
    start_worker("w1")

    script = "fn all() { [CALLER_ID, CONTEXT_ID, ENV.name, ENV == ARGS] } all()"

    job = ended(submit("j", script, env_vars='{"name": "x"}'))

    assert job["output"] == '["ada", "02abc", "x", true]'
    assert (job["status"], job["id"], job["worker_id"]) == ("finished", "j", "w1")
    assert set(job) == {"id", "caller_id", "context_id", "worker_id", "script", "env_vars", "status"} | {
        *("updated_at", "output")
    }
    failed = ended(submit("f", "throw 1"))
    assert (failed["status"], failed["error"], failed["error_kind"]) == (
        *("error", "Runtime error: 1 (line 1, position 1)"),
        "Runtime",
    )


def test_a_job_is_started_while_it_runs(submit: Submit, client: Any, start_worker: Callable[..., Worker]) -> None:
    start_worker("w1")
    submit("j", "sleep(1000)", timeout="60")

    wait_until(lambda: client.hget("hero:job:j", "status") == "started")


@pytest.mark.parametrize(
    "env_vars", ["[]", "{", '{"a": 9223372036854775808}', '{"a": "\\ud800"}', '{"a": NaN}', "[" * 10_000, "\x00", "1"]
)
def test_an_environment_that_cannot_be_read_ends_its_job_alone(
    submit: Submit, ended: Ended, start_worker: Callable[..., Worker], env_vars: str
) -> None:
    start_worker("w1")

    job = ended(submit("j", "ENV", env_vars=env_vars))

    assert (job["status"], job["error_kind"]) == ("error", "Malformed")
    assert job["error"].startswith("Field 'env_vars' of the task is ")
    assert ended(submit("k", "ENV"))["output"] == "#{}"


def test_own_fields_are_in_snake_case_too(submit: Submit, ended: Ended, start_worker: Callable[..., Worker]) -> None:
    start_worker("w1", "--reply-lists")

    job = ended(submit("j", "[1]", timeout="9", max_operations="1000", result_format="json", stats="1"))

    assert job["result"] == "[1]"
    assert set(job) >= {"started_at", "run_seconds", "operations", "peak_memory", "deliveries", "worker_process"}
    assert job["worker_id"] == "w1"


def test_a_reply_has_the_names_of_the_dialect(submit: Submit, client: Any, start_worker: Callable[..., Worker]) -> None:
    start_worker("w1", "--reply-lists")

    submit("j", "40 + 2")

    reply = json.loads(client.blpop("hero:reply:j", timeout=60)[1])
    assert reply.pop("updated_at")
    assert reply == {
        "id": "j",
        "script": "40 + 2",
        "status": "finished",
        "output": "42",
        "error": None,
        "caller_id": "ada",
        "context_id": "02abc",
        "created_at": None,
    }


def test_a_client_writes_a_job(client: Any, server_url: str) -> None:
    with Client(server_url, dialect="hero", circle="w1", caller_id="ada", context_id="02abc") as app:
        task = app.submit("ENV.n", args={"n": 1}, timeout=2.0, max_memory=2**20, task_id="j")

        job = client.hgetall("hero:job:j")
        assert job.keys() >= {"id", "script", "caller_id", "context_id", "worker_id", "created_at", "updated_at"}
        own = {"id": "j", "worker_id": "w1", "status": "dispatched", "env_vars": '{"n":1}', "timeout": "2.0"}
        assert job.items() >= (own | {"max_memory": "1048576"}).items()
        assert client.lrange("hero:work_queue:w1", 0, -1) == ["j"]
        assert task.details()["callerId"] == "ada"
        assert task.status() == "pending"
        for name in ("callerId", "caller_id", "id", "worker_id"):
            with pytest.raises(ValueError, match=f"the field '{name}' is the client's own"):
                app.submit("1", fields={name: "x"})


@pytest.mark.parametrize("word", ["processing", "completed", "Finished", "", "\x1b[31m"])
def test_a_word_of_another_dialect_is_no_status(client: Any, server_url: str, word: str) -> None:
    client.hset("hero:job:j", mapping={"script": "1", "status": word})

    with (
        Client(server_url, dialect="hero", circle="w1") as app,
        pytest.raises(TaskMalformed, match="has an unknown status"),
    ):
        app.task("j").status()


class TestAStopRequest:
    def test_it_ends_a_running_script(self, client: Any, server_url: str, start_worker: Callable[..., Worker]) -> None:
        start_worker("w1")
        with Client(server_url, dialect="hero", circle="w1") as app:
            task = app.submit("loop {}")
            wait_until(lambda: task.status() == "processing")

            client.lpush("hero:stop_queue:w1", task.id)

            with pytest.raises(TaskCancelled):
                task.result(60)
            assert app.submit("1").result(60) == "1"
            wait_until(lambda: not client.exists("hero:stop_queue:w1"))

    def test_it_ends_a_waiting_task(
        self, client: Any, submit: Submit, ended: Ended, spawn: Callable[..., Worker], tmp_path: Path
    ) -> None:
        spawn("rhai-bridge", "--circle", "w1")  # and no worker
        runs = tmp_path / "runs"
        submit("j", f'note("{runs}", "j")')

        client.lpush("hero:stop_queue:w1", "j")

        assert ended("j")["error"] == "cancelled"
        spawn("rhai-worker", "--circle", "w1", *ENGINE)
        assert ended(submit("k", "1"))["output"] == "1"
        assert not runs.exists()

    def test_it_ends_a_held_task(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        client.hset("hero:job:first", mapping={"script": "1", "status": "started"})
        submit("j", "1", prerequisites='["first"]')
        start_worker("w1")
        wait_until(lambda: client.zcard("rhai_dramatiq:rhai-w1.delayed_messages"))

        client.lpush("hero:stop_queue:w1", "j")

        assert ended("j")["error"] == "cancelled"

    def test_one_for_no_task_or_an_ended_one_has_no_effect(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        start_worker("w1")
        assert ended(submit("j", "1"))["output"] == "1"
        client.set("hero:job:text", "no hash")

        client.rpush("hero:stop_queue:w1", "j", "none", "text", "", "\x00\x1b[31m", b"\xff", '{"job_id": "j"}')

        wait_until(lambda: not client.exists("hero:stop_queue:w1"))
        assert ended("j")["output"] == "1"
        assert not client.exists("hero:job:none")

    def test_a_list_of_another_type_holds_up_no_other_circle(self, client: Any, spawn: Callable[..., Worker]) -> None:
        client.set("hero:stop_queue:a", "no list")
        for circle in ("a", "b"):
            client.hset(f"hero:job:{circle}", mapping={"script": "loop {}", "status": "dispatched"})
            client.lpush(f"hero:work_queue:{circle}", circle)
        spawn("rhai-bridge", "--circle", "a", "--circle", "b")

        client.lpush("hero:stop_queue:b", "b")

        wait_until(lambda: client.hget("hero:job:b", "error") == "cancelled")
        assert client.get("hero:stop_queue:a") == "no list"


class TestPrerequisites:
    def test_a_job_is_held_until_all_are_finished(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        for job in ("a", "b"):
            client.hset(f"hero:job:{job}", mapping={"script": f'"{job}"', "status": "dispatched"})
        submit("j", "1", prerequisites='["a", "b"]', timeout="60")
        start_worker("w1")
        wait_until(lambda: client.zcard("rhai_dramatiq:rhai-w1.delayed_messages"))
        assert client.hget("hero:job:j", "status") == "dispatched"

        client.lpush("hero:work_queue:w1", "a")
        assert ended("a")["output"] == "a"
        assert client.hget("hero:job:j", "status") == "dispatched"
        client.lpush("hero:work_queue:w1", "b")

        assert ended("j")["output"] == "1"
        assert client.hlen("rhai_dramatiq:rhai-w1.msgs") == 0

    def test_none_at_all_hold_nothing(self, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]) -> None:
        start_worker("w1")

        assert ended(submit("j", "1", prerequisites="[]"))["output"] == "1"

    def test_another_worker_may_finish_them(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        client.hset("hero:job:a", mapping={"script": "1", "status": "started"})
        submit("j", "1", prerequisites='["a"]')
        start_worker("w1")
        wait_until(lambda: client.zcard("rhai_dramatiq:rhai-w1.delayed_messages"))

        client.hset("hero:job:a", mapping={"status": "finished", "output": "by another program"})

        assert ended("j")["output"] == "1"

    def test_one_that_failed_ends_the_job_and_those_after_it(
        self, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        submit("last", "1", prerequisites='["middle"]')
        submit("middle", "1", prerequisites='["first"]')
        submit("first", "throw 1")
        start_worker("w1")

        assert ended("middle")["error"] == "prerequisite failed: first"
        assert ended("last")["error"] == "prerequisite failed: middle"
        assert ended("last")["error_kind"] == "Prerequisite"

    def test_one_without_a_hash_ends_the_job(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        client.set("hero:job:text", "no hash")
        start_worker("w1")

        assert ended(submit("j", "1", prerequisites='["none"]'))["error"] == "prerequisite does not exist: none"
        assert ended(submit("k", "1", prerequisites='["text"]'))["error"] == "prerequisite does not exist: text"

    def test_a_cycle_ends_all_its_jobs(self, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]) -> None:
        edges = {"a": ["b"], "b": ["c"], "c": ["x", "a"], "x": ["y"], "y": []}
        for job, ids in edges.items():
            submit(job, "1", prerequisites=json.dumps(ids))
        submit("self", "1", prerequisites='["self"]')
        start_worker("w1")

        assert ended("self")["error"] == "its prerequisites form a cycle: self, self"
        errors = {ended(job)["error"] for job in "abc"}
        assert any(error.startswith("its prerequisites form a cycle: ") for error in errors)
        assert {ended(job)["status"] for job in "xy"} == {"finished"}

    @pytest.mark.parametrize(
        "text", ["{}", "[1]", "a", '["\\ud800"]', "[" * 10_000, json.dumps(["a"] * 1001), '"a"', "null"]
    )
    def test_a_field_that_cannot_be_read_ends_its_job_alone(
        self, submit: Submit, ended: Ended, start_worker: Callable[..., Worker], text: str
    ) -> None:
        start_worker("w1")

        job = ended(submit("j", "1", prerequisites=text))

        assert job["error_kind"] == "Malformed"
        assert job["error"].startswith("Field 'prerequisites' of the task is ")
        assert job["error"].endswith("expected a JSON array of the ids of at most 1000 tasks")
        assert ended(submit("k", "1"))["output"] == "1"

    def test_a_held_job_survives_its_worker(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        client.hset("hero:job:a", mapping={"script": "1", "status": "started"})
        submit("j", "1", prerequisites='["a"]')
        killed = start_worker("w1")
        wait_until(lambda: client.zcard("rhai_dramatiq:rhai-w1.delayed_messages"))
        killed.kill()
        client.hset("hero:job:a", "status", "finished")

        start_worker("w1")

        assert ended("j")["output"] == "1"

    def test_a_held_job_expires(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        client.hset("hero:job:a", mapping={"script": "1", "status": "started"})
        start_worker("w1")

        submit("j", "1", prerequisites='["a"]', start_before=str(time.time() + 1))

        assert ended("j")["error"] == "expired before it began"

    def test_held_jobs_occupy_no_thread(
        self, client: Any, submit: Submit, ended: Ended, start_worker: Callable[..., Worker]
    ) -> None:
        client.hset("hero:job:a", mapping={"script": "1", "status": "started"})
        for number in range(50):
            submit(f"held{number}", "1", prerequisites='["a"]')
        start_worker("w1", "--threads", "1")
        wait_until(lambda: client.zcard("rhai_dramatiq:rhai-w1.delayed_messages"))

        assert ended(submit("j", "1"))["output"] == "1"
        assert client.hget("hero:job:held0", "status") == "dispatched"
        client.hset("hero:job:a", "status", "finished")
        assert {ended(f"held{number}")["output"] for number in range(50)} == {"1"}

    def test_why_names_them(
        self, client: Any, server_url: str, submit: Submit, start_worker: Callable[..., Worker]
    ) -> None:
        client.hset("hero:job:a", mapping={"script": "1", "status": "started"})
        submit("j", "1", prerequisites='["a"]')
        start_worker("w1")
        queues = Queues(Settings(redis_url=server_url, dialect="hero"))

        why = wait_until(lambda: (found := explain(queues, "j")).place == "delayed" and found)
        assert 'it waits for its prerequisites: ["a"]' in why.holds


def test_groups_of_a_script_actor_go_through_the_dialect(
    server_url: str, client: Any, ended: Ended, start_worker: Callable[..., Worker]
) -> None:
    start_worker("w1")
    actor = ScriptActor(server_url, dialect="hero", circle="w1")
    steps = [actor.message("ENV.n", args={"n": 20}), actor.message("parse_int(INPUT) + 22")]

    pipeline(steps, broker=actor.broker).run()

    assert wait_until(lambda: client.hget(f"hero:job:{steps[1].args[0]}", "output")) == "42"


def test_the_command_line_speaks_it(server_url: str, client: Any, start_worker: Callable[..., Worker]) -> None:
    start_worker("w1")
    env = {"RHAI_TASKS_REDIS_URL": server_url, "RHAI_TASKS_DIALECT": "hero", "RHAI_TASKS_CIRCLE": "w1"}

    def run(*arguments: str) -> str:
        ended = run_command("rhai-tasks", *arguments, env=env)
        assert ended.returncode == 0, ended
        return ended.stdout

    assert run("submit", "--wait", "--arg", "n=41", "ENV.n + 1") == "42\n"
    assert run("submit", "--task-id", "j", "loop {}") == "j\n"
    wait_until(lambda: client.hget("hero:job:j", "status") == "started")
    assert json.loads(run("status", "--json", "j"))[0]["status"] == "processing"
    run("cancel", "j")
    assert client.hget("hero:job:j", "error") == "cancelled"
    assert "w1" in run("queues")


def test_the_page_reads_and_finds_its_tasks(server_url: str, client: Any, submit: Submit) -> None:
    submit("j", "1", timeout="2")
    client.hset("hero:job:k", mapping={"status": "error", "error": "boom", "worker_id": "w1", "script": "1"})
    settings = Settings(redis_url=server_url, dialect="hero")
    tasks = Tasks(settings, Queues(settings))

    details = tasks.details("j")

    assert (details.status, details.caller, details.circle, details.text("timeout")) == ("pending", "ada", "w1", "2")
    assert [task.task_id for task in tasks.waiting("w1", 0)] == ["j"]
    assert [task.task_id for task in tasks.search("0", Where(status="pending", caller="ada")).tasks] == ["j"]
    assert [task.task_id for task in tasks.search("0", Where(circle="w1", contains="oo")).tasks] == ["k"]
    assert tasks.search("0", Where(status="completed")).tasks == []


def test_a_task_that_no_worker_holds_is_found_by_the_doctor_and_submitted_again(
    server_url: str, client: Any, ended: Ended, start_worker: Callable[..., Worker]
) -> None:
    client.hset("hero:job:j", mapping={"status": "started", "script": "7", "worker_id": "w1", "context_id": "c"})
    settings = Settings(redis_url=server_url, dialect="hero")
    start_worker("w1")
    queues = Queues(settings)
    wait_until(lambda: "w1" in queues.circles())

    (finding,) = find_orphans(queues, ["w1"], [], 60.0)
    assert finding.repair
    finding.repair()

    assert ended("j")["output"] == "7"


def test_a_dialect_that_there_is_not_is_refused(server_url: str) -> None:
    done = run_command("rhai-worker", "--dialect", "klingon", "--circle", "w1")
    assert (done.returncode, "'rhai', 'hero'" in done.stderr) == (2, True)
    with pytest.raises(ConfigurationError, match="--dialect 'klingon': expected one of rhai, hero"):
        Client(server_url, dialect="klingon")  # type: ignore[arg-type]


def test_the_two_dialects_share_a_server(server_url: str, client: redis.Redis, spawn: Callable[..., Worker]) -> None:
    spawn("rhai-worker", "--circle", "w1", env={"RHAI_TASKS_DIALECT": "rhai", "RHAI_TASKS_NAMESPACE": "first"})
    spawn("rhai-worker", "--circle", "w1")

    with (
        Client(server_url, circle="w1", namespace="first") as first,
        Client(server_url, dialect="hero", circle="w1") as hero,
    ):
        tasks = [app.submit("CONTEXT_ID", context_id="c") for app in (first, hero)]
        assert [task.result(60) for task in tasks] == ["w1", "c"]
        with pytest.raises(ScriptError, match="boom"):
            hero.submit('throw "boom"').result(60)
