"""A worker process that an operator keeps from taking tasks."""

import os
import signal
from collections.abc import Callable
from typing import Any

import redis

from rhai_tasks import Client
from rhai_tasks.observe.recorder import Report
from rhai_tasks.operate.workers import read_workers, set_quiet
from tests.conftest import Dispatcher, Worker, wait_until

NAMESPACE = "rhai_dramatiq"


def reports(client: Any) -> dict[str, Report]:
    where = client.connection_pool.connection_kwargs
    with redis.Redis(host=where["host"], port=where["port"]) as plain:
        return {report.process: report for report in read_workers(plain, NAMESPACE)}


def the_worker(client: Any) -> str:
    wait_until(lambda: len(reports(client)) == 1, what="one worker to report")
    return next(iter(reports(client)))


def test_a_quiet_worker_takes_nothing_and_ends_what_runs(
    client: Any, app: Client, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle", "--threads", "1")
    dispatcher.submit("circle", "running", "let n = 0; while n < 300 { sleep(0.02); n += 1; } `done`")
    wait_until(lambda: dispatcher.status("running") == "processing")
    for number in range(20):
        dispatcher.submit("circle", f"next-{number}", "1")
    name = the_worker(client)

    set_quiet(client, NAMESPACE, name, quiet=True)

    wait_until(lambda: reports(client)[name].quiet, what="the worker to be quiet")
    assert dispatcher.result("running")["output"] == "done"
    held = f"rhai_dramatiq:__acks__.{name}.rhai-circle"
    wait_until(lambda: not client.scard(held), what="what was prefetched to be released")
    at = reports(client)[name].at
    wait_until(lambda: reports(client)[name].at > at + 3, what="some more heartbeats")
    assert {dispatcher.status(f"next-{number}") for number in range(20)} == {"pending"}
    assert client.zscore("rhai_dramatiq:rhai-circle.leases", name) > at * 1000

    set_quiet(client, NAMESPACE, name, quiet=False)

    assert [dispatcher.result(f"next-{number}")["output"] for number in range(20)] == ["1"] * 20


def test_another_worker_takes_the_tasks_of_a_quiet_one(
    client: Any, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle", "--threads", "1")
    quiet = the_worker(client)
    set_quiet(client, NAMESPACE, quiet, quiet=True)
    wait_until(lambda: reports(client)[quiet].quiet)
    start_worker("circle", "--threads", "1")

    for number in range(10):
        dispatcher.submit("circle", f"t{number}", "1", stats="1")

    assert {dispatcher.result(f"t{number}")["status"] for number in range(10)} == {"completed"}
    assert quiet not in {client.hget(f"rhai_task_details:t{number}", "workerId") for number in range(10)}


def test_a_process_that_takes_the_place_of_a_quiet_one_is_quiet_and_a_new_one_is_not(
    client: Any, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle", "--threads", "1")
    name = the_worker(client)
    set_quiet(client, NAMESPACE, name, quiet=True)
    wait_until(lambda: reports(client)[name].quiet)
    before = reports(client)[name].pid

    os.kill(before, signal.SIGKILL)

    wait_until(lambda: (report := reports(client).get(name)) and report.pid != before and report.quiet)
    worker.stop()
    assert not client.hexists("rhai_dramatiq:__workers__", f"quiet {name}")
    start_worker("circle", "--threads", "1")
    assert dispatcher.run("circle", "40 + 2")["output"] == "42"


def test_an_order_for_a_process_that_is_gone_is_removed_by_others(
    client: Any, start_worker: Callable[..., Worker]
) -> None:
    client.hset("rhai_dramatiq:__workers__", "quiet gone", '{"at":1000,"quiet":true}')
    start_worker("circle", "--threads", "1")

    wait_until(lambda: not client.hexists("rhai_dramatiq:__workers__", "quiet gone"))
