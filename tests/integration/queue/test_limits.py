"""Limits of a circle and of its callers: never exceeded, and no caller's limit holds up another caller."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Client, Settings
from rhai_tasks.errors import QueueFull
from rhai_tasks.operate.doctor import examine
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import QueueKeys, Quota, Rule, queue_name
from rhai_tasks.queue.broker import TaskBroker
from tests.conftest import FINAL, Dispatcher, Worker, wait_until
from tests.runs import most_at_once, spans

CIRCLE = "circle"
KEYS = QueueKeys("rhai_dramatiq", queue_name(CIRCLE))
SLEEP = "sleep(0.1)"


@pytest.fixture
def rules(client: Any, server_url: str) -> Rules:
    return Queues(Settings(redis_url=server_url), "me").rules


def limit(rules: Rules, scope: Any = "caller", name: str = "", **figures: Any) -> None:
    rules.set(CIRCLE, Rule("limit", scope, name, quota=Quota(**figures)))


def submit(dispatcher: Dispatcher, caller: str, count: int, script: str = SLEEP) -> list[str]:
    return [
        dispatcher.submit(CIRCLE, f"{caller}-{number}", script, callerId=caller, stats="1") for number in range(count)
    ]


def await_all(dispatcher: Dispatcher, ids: list[str]) -> None:
    wait_until(lambda: all(dispatcher.status(task_id) in FINAL for task_id in ids), what="all to end")


def parked(client: Any, caller: str) -> int:
    return int(client.llen(KEYS.line(caller)))


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_caller_runs_no_more_at_once_than_its_limit_and_holds_nobody_up(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any, order: str
) -> None:
    limit(rules, "caller", "noisy", concurrency=2)
    for _ in range(2):
        start_worker(CIRCLE, "--processes", "2", "--threads", "3", "--order", order, "--buffer", "10")

    noisy = submit(dispatcher, "noisy", 60)
    wait_until(lambda: any(dispatcher.status(task_id) in FINAL for task_id in noisy))
    quiet = submit(dispatcher, "quiet", 20, "1")
    await_all(dispatcher, quiet)
    left = sum(dispatcher.status(task_id) not in FINAL for task_id in noisy)
    await_all(dispatcher, noisy)

    assert left > 20
    assert most_at_once(dispatcher, noisy) == 2
    wait_until(lambda: not client.exists(KEYS.lines), what="the lines to be gone")


def test_each_caller_has_a_limit_and_one_of_its_own_counts_more(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    limit(rules, "callers", concurrency=1)
    limit(rules, "caller", "large", concurrency=3)
    start_worker(CIRCLE, "--processes", "2", "--threads", "4")

    ids = {caller: submit(dispatcher, caller, 12) for caller in ("a", "b", "large", "")}
    for some in ids.values():
        await_all(dispatcher, some)

    assert {caller: most_at_once(dispatcher, some) for caller, some in ids.items()} == {
        "a": 1,
        "b": 1,
        "large": 3,
        "": 1,
    }


def test_a_circle_runs_no_more_at_once_than_its_limit(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    limit(rules, "circle", concurrency=3)
    start_worker(CIRCLE, "--processes", "2", "--threads", "4")

    ids = [task_id for caller in ("a", "b") for task_id in submit(dispatcher, caller, 15)]
    await_all(dispatcher, ids)

    assert most_at_once(dispatcher, ids) == 3


@pytest.mark.parametrize("options", [(), ("--fair",)], ids=["limit", "limit and turns"])
def test_a_limit_is_used_as_a_whole_while_tasks_wait(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, options: tuple[str, ...]
) -> None:
    limit(rules, "caller", "a", concurrency=4)
    start_worker(CIRCLE, "--threads", "8", *options)

    ids = submit(dispatcher, "a", 80, "sleep(0.05)")
    await_all(dispatcher, ids)

    runs = sorted(spans(dispatcher, ids))
    seconds = max(end for _, end in runs) - runs[0][0]
    assert sum(end - began for began, end in runs) / seconds > 0.75 * 4  # else the cap would switch on and off
    assert most_at_once(dispatcher, ids) == 4


def test_a_limit_counts_tasks_that_run_already_when_it_is_set(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    start_worker(CIRCLE, "--threads", "4")
    first = submit(dispatcher, "a", 3, "sleep(3.0)")
    wait_until(lambda: all(dispatcher.status(task_id) == "processing" for task_id in first))

    limit(rules, "caller", "a", concurrency=2)
    late = dispatcher.submit(CIRCLE, "late", SLEEP, callerId="a", stats="1")
    await_all(dispatcher, [*first, late])

    ended = sorted(end for _, end in spans(dispatcher, first))
    ((began, _),) = spans(dispatcher, [late])
    assert began >= ended[1] - 0.05  # clocks of one machine, read at different moments


def test_a_rate_is_kept_from_the_burst_on(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    limit(rules, "caller", "a", rate=10.0, burst=3)
    start_worker(CIRCLE, "--processes", "2", "--threads", "2")

    ids = submit(dispatcher, "a", 20, "1")
    await_all(dispatcher, ids)

    began = sorted(start for start, _ in spans(dispatcher, ids))
    assert began[-1] - began[0] > (20 - 3) / 10 - 0.2  # a token more would take a tenth of a second less


def test_a_rate_of_each_caller_holds_no_other_caller_up_and_its_buckets_do_not_pile_up(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any
) -> None:
    limit(rules, "callers", rate=2.0, burst=1)
    start_worker(CIRCLE, "--threads", "2")

    for part in range(4):
        ids = [task_id for number in range(500) for task_id in submit(dispatcher, f"{part} {number}", 2, "1")]
        await_all(dispatcher, ids)

    began = sorted(start for start, _ in spans(dispatcher, ids))
    assert began[-1] - began[0] > 0.5 - 0.1  # the second task of each caller waits for its token
    assert client.hlen(KEYS.buckets) < 1500
    assert client.pttl(KEYS.buckets) != -1  # the hash expires, or is gone


def test_killed_workers_slots_come_back_with_their_lease(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    limit(rules, "callers", concurrency=2)
    doomed = start_worker(CIRCLE, "--threads", "4")
    ids = submit(dispatcher, "a", 4, "sleep(1.0)")
    wait_until(lambda: sum(dispatcher.status(task_id) == "processing" for task_id in ids) == 2)

    doomed.kill()
    start_worker(CIRCLE, "--threads", "4")
    await_all(dispatcher, ids)

    assert most_at_once(dispatcher, ids) == 2


def test_on_stop_all_parked_tasks_are_in_the_native_list_in_their_order(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any, server_url: str
) -> None:
    for caller in ("a", "b"):
        rules.set(CIRCLE, Rule("pause", "caller", caller))
    for number in range(20):
        dispatcher.submit(CIRCLE, f"t{number}", "1", callerId="ab"[number % 2])
    before = client.lrange(f"rhai_tasks:{CIRCLE}", 0, -1)
    worker = start_worker(CIRCLE, "--threads", "2")
    wait_until(lambda: parked(client, "a") + parked(client, "b") == len(before), what="all to be parked")
    with Queues(Settings(redis_url=server_url)) as queues:
        assert queues.count([CIRCLE])[0].parked == len(before)

    assert worker.stop() == 0

    assert client.lrange(f"rhai_tasks:{CIRCLE}", 0, -1) == before
    assert not client.exists(KEYS.lines, KEYS.line("a"), KEYS.line("b"))


def test_a_paused_caller_goes_on_after_resume_and_others_never_stop(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    rules.set(CIRCLE, Rule("pause", "caller", "a", reason="why"))
    start_worker(CIRCLE)

    held = submit(dispatcher, "a", 30, "1")
    await_all(dispatcher, submit(dispatcher, "b", 30, "1"))

    assert Counter(dispatcher.status(task_id) for task_id in held) == {"pending": 30}
    rules.clear(CIRCLE, Rule("pause", "caller", "a"))
    await_all(dispatcher, held)


def test_a_task_that_is_submitted_anew_while_it_is_parked_runs_once(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, app: Any, client: Any
) -> None:
    rules.set(CIRCLE, Rule("pause", "caller", "caller"))
    start_worker(CIRCLE)
    app.submit("1", task_id="again")
    wait_until(lambda: parked(client, "caller") == 1)

    app.submit("2", task_id="again", circle="other")
    rules.clear(CIRCLE, Rule("pause", "caller", "caller"))
    wait_until(lambda: not client.exists(KEYS.lines), what="the line to be gone")

    assert dispatcher.status("again") == "pending"
    start_worker("other")
    assert dispatcher.result("again")["output"] == "2"


def test_an_idle_worker_takes_parked_tasks_of_a_tree_that_was_killed(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any
) -> None:
    rules.set(CIRCLE, Rule("pause", "caller", "a"))
    first = start_worker(CIRCLE)
    ids = submit(dispatcher, "a", 10, "1")
    wait_until(lambda: parked(client, "a") == 10)
    first.kill()

    rules.clear(CIRCLE, Rule("pause", "caller", "a"))
    start_worker(CIRCLE)

    await_all(dispatcher, ids)


def test_a_worker_with_parked_tasks_does_not_ask_without_pause(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any
) -> None:
    rules.set(CIRCLE, Rule("pause", "caller", "a"))
    start_worker(CIRCLE)
    submit(dispatcher, "a", 10, "1")
    wait_until(lambda: parked(client, "a") == 10)
    client.config_resetstat()

    time.sleep(2.0)

    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls < 40  # 8 by one worker process, renewals, and the bridge's


def test_the_doctor_and_dramatiqs_join_know_parked_tasks(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any, server_url: str
) -> None:
    doomed = start_worker(CIRCLE, "--threads", "1")
    dispatcher.submit(CIRCLE, "t", "sleep(60.0)", callerId="a")
    wait_until(lambda: dispatcher.status("t") == "processing")
    rules.set(CIRCLE, Rule("pause", "caller", "a"))
    doomed.kill()
    start_worker(CIRCLE)
    wait_until(lambda: parked(client, "a") == 1, what="the dead worker's task to be recovered, and parked")

    findings = [finding.what for finding in examine(Settings(redis_url=server_url), stale_seconds=0.0)]

    assert dispatcher.status("t") == "processing"
    assert not [what for what in findings if "no worker of this project holds it" in what]
    assert TaskBroker(Settings(redis_url=server_url)).do_qsize(queue_name(CIRCLE)) == 1


# --- how many may wait


def test_no_more_tasks_of_a_caller_wait_than_its_limit_and_others_can_submit(
    server_url: str, rules: Rules, client: Any
) -> None:
    limit(rules, "callers", waiting=3)
    with Client(server_url, circle=CIRCLE, caller_id="a") as app:
        for number in range(3):
            app.submit("1", task_id=f"t{number}")

        with pytest.raises(QueueFull, match="no more than 3 task.s. of caller 'a' may wait") as caught:
            app.submit("1", task_id="fourth")

        assert (caught.value.caller, caught.value.limit) == ("a", 3)
        assert not client.exists("rhai_task_details:fourth")
        with pytest.raises(QueueFull):
            app.submit_many(["1"] * 4)
        app.submit("1", caller_id="b")
        app.cancel("t0")
        app.submit("1", task_id="fourth")  # in the place of the one that was cancelled
        with pytest.raises(QueueFull):
            app.submit("1")
    assert client.llen(f"rhai_tasks:{CIRCLE}") == 5


def test_tasks_that_have_begun_wait_no_more(
    server_url: str, rules: Rules, client: Any, start_worker: Callable[..., Worker]
) -> None:
    limit(rules, "caller", "a", waiting=2)
    start_worker(CIRCLE)
    with Client(server_url, circle=CIRCLE, caller_id="a") as app:
        for _ in range(10):
            tasks = app.submit_many(["1", "1"])
            assert [task.result(timeout=60) for task in tasks] == ["1", "1"]
    assert client.scard(KEYS.waiting("a")) == 0


def test_no_more_tasks_of_a_circle_wait_than_its_limit_foreign_ones_included(
    server_url: str, rules: Rules, dispatcher: Dispatcher
) -> None:
    limit(rules, "circle", waiting=5)
    submit(dispatcher, "foreign", 4)
    with Client(server_url, circle=CIRCLE, caller_id="a") as app:
        app.submit("1")
        with pytest.raises(QueueFull, match="of the circle may wait") as caught:
            app.submit("1")
    assert caught.value.caller is None


def test_a_submission_asks_the_server_no_more_where_there_are_no_rules(app: Client, client: Any) -> None:
    app.submit("1")
    client.config_resetstat()

    app.submit("1")

    assert client.info("commandstats")["cmdstat_exists"]["calls"] == 1
