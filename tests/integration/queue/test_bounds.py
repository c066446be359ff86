"""What grows with a backlog is the native list, and nothing of ours."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.commands import BIN
from tests.conftest import Dispatcher, Worker, wait_until

MIB = 2**20
FIFTY_THOUSAND = """
for i = 1, 50000 do
  local id = ARGV[1] .. '-' .. i
  redis.call('HSET', 'rhai_task_details:' .. id, 'script', 'sleep(0.002)')
  redis.call('RPUSH', KEYS[1], id)
end
"""


def dramatiq_bytes(client: Any) -> int:
    """Sum what the server uses for the keys of our own."""
    return sum(client.memory_usage(key) or 0 for key in client.scan_iter("rhai_dramatiq:*", count=10_000))


def resident(worker: Worker) -> int:
    """Sum the resident bytes of a tree."""
    return sum(process.memory_info().rss for process in [psutil.Process(worker.process.pid), *worker.children()])


def test_a_backlog_of_a_million_tasks_leaves_our_memory_as_it_is(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    worker = start_worker("circle", "--buffer", "64", "--threads", "4")
    for number in range(2000):  # warm
        dispatcher.submit("circle", f"t{number}", "1")
    wait_until(lambda: client.llen("rhai_tasks:circle") == 0)
    before = resident(worker)

    for number in range(20):
        client.eval(FIFTY_THOUSAND, 1, "rhai_tasks:circle", number)
    most = buffered = 0
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        most, buffered = max(most, dramatiq_bytes(client)), max(buffered, client.llen("rhai_dramatiq:rhai-circle"))

    assert client.llen("rhai_tasks:circle") > 900_000
    assert 0 < buffered <= 64
    assert most < MIB
    assert resident(worker) < before + 48 * MIB


def test_scripts_of_five_mebibytes_do_not_pile_up(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    """A script lies in its details hash, and is copied for as long as it runs; messages only name it."""
    worker = start_worker("circle", "--threads", "2")
    tasks = [
        dispatcher.submit("circle", f"t{number}", f"// {number} {'x' * 5 * MIB}\nsleep(0.02); {number}")
        for number in range(40)
    ]

    most = ours = 0
    while client.llen("rhai_tasks:circle"):
        most, ours = max(most, resident(worker)), max(ours, dramatiq_bytes(client))

    assert [dispatcher.result(task)["output"] for task in tasks] == [str(n) for n in range(40)]
    assert ours < MIB
    assert most < 256 * MIB  # 200 MiB of scripts passed through a tree of 100


def test_a_log_that_cannot_be_written_stops_nothing(dispatcher: Dispatcher, server_url: str) -> None:
    with Path("/dev/full").open("w") as full:
        command = [str(BIN / "rhai-worker"), "--redis-url", server_url, "--circle-public-key", "circle"]
        worker = subprocess.Popen(command, stdout=full, stderr=full)
    try:
        assert dispatcher.run("circle", 'print("into the log"); 1')["status"] == "completed"
        worker.terminate()
        assert worker.wait(60) == 0
    finally:
        worker.kill()
