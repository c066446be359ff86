"""What operators do at a terminal is in the log that `rhai-tasks audit` shows."""

import time
from typing import Any

import pytest

from rhai_tasks import Client
from rhai_tasks.cli import main
from rhai_tasks.operate.rules import Rules
from tests.integration.conftest import Run

NOT_LOGGED = {
    *("submit", "scripts"),  # what any client does
    *(
        "queues",
        "tasks",
        "workers",
        "status",
        "result",
        "wait",
        "tail",
        "logs",
        "why",
        "drain",
        "health",
        "audit",
        "rules",
    ),
    *(
        "run",
        "repl",
        "check",
        "test",
        "definitions",
        "replay",
        "compare",
        "profile",
        "policy",
        "keys",
    ),  # change nothing there
    *("demo", "web"),
}


def dead_letter(client: Any) -> None:
    client.hset("rhai_dramatiq:rhai-circle.XQ.msgs", "m-1", '{"args": ["t"]}')
    client.zadd("rhai_dramatiq:rhai-circle.XQ", {"m-1": 1000})


ACTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cancel": (("cancel", "t1", "t2", "none"), "circle", "cancel 2 task(s): t1, t2"),
    "cancel of many": (("cancel", "--where", "circle=circle", "--yes"), "circle", "cancel 2 task(s) where"),
    "delete": (("delete", "--where", "caller=ended", "--yes"), "", "delete 1 task(s) where"),
    "resubmit": (("resubmit", "--where", "caller=ended", "--yes"), "", "resubmit 1 task(s) where"),
    "purge": (("purge", "--yes"), "circle", "purge 2 task(s)"),
    "return": (("return",), "circle", "return 0 task(s)"),
    "dead retry": (("dead", "retry", "m-1"), "circle", "retry 1 dead letter(s)"),
    "dead delete": (("dead", "delete", "m-1"), "circle", "delete 1 dead letter(s)"),
    "doctor": (("doctor", "--repair"), "", "repair "),
    "api-keys": (("api-keys", "new", "shop", "--scope", "read"), "", "make API key shop ("),
    "pause": (("pause",), "circle", "pause the circle"),
    "resume": (("resume",), "circle", "resume the circle"),
    "block": (("block", "--caller", "ada"), "circle", "block caller ada"),
    "unblock": (("unblock", "--caller", "ada"), "circle", "unblock caller ada"),
    "limits": (("limits", "set", "--concurrency", "1"), "circle", "limit the circle"),
}


def test_every_command_is_logged_or_need_not_be() -> None:
    assert set(main.commands) == {name.split()[0] for name in ACTS} | NOT_LOGGED


BEFORE = {"resume": "pause", "unblock": "block"}


@pytest.mark.parametrize("name", ACTS)
def test_an_act_is_logged_with_its_circle(run: Run, app: Client, client: Any, name: str) -> None:
    command, circle, what = ACTS[name]
    app.submit("1", task_id="t1")
    app.submit("2", task_id="t2")
    ended = {"script": "1", "callerId": "ended", "status": "completed", "circle": "circle"}
    client.hset("rhai_task_details:ended", mapping=ended)
    if name == "doctor":
        client.lpush("rhai_tasks:circle", "no-hash")
    dead_letter(client)
    if name in BEFORE:
        run(*ACTS[BEFORE[name]][0])
    began = time.time()

    run(*command)

    change, *others = Rules(client, "rhai_dramatiq").changes()
    assert (change.circle, change.what[: len(what)]) == (circle, what)
    assert "@" in change.by
    assert abs(change.at - began) < 60
    assert len(others) == (name in BEFORE)


def test_a_key_that_is_deleted_is_logged(run: Run, client: Any) -> None:
    key = run("api-keys", "new", "shop", "--scope", "read").stdout
    key_id = key.split("_")[1]

    run("api-keys", "delete", key_id)

    last, first = Rules(client, "rhai_dramatiq").changes()
    assert (last.what, first.what) == (f"delete API key shop ({key_id})", f"make API key shop ({key_id})")
    assert key.split("_")[2].strip() not in str(first)


def test_who_may_not_write_the_log_cancels_all_the_same(run: Run, app: Client, client: Any, server_url: str) -> None:
    app.submit("1", task_id="t")
    keys = ["rhai_tasks:*", "rhai_task_details:*", "rhai_dramatiq:rhai-*", "rhai_dramatiq:__[b-z]*"]
    client.acl_setuser("guest", enabled=True, passwords=["+guest"], keys=keys, channels=["*"], commands=["+@all"])

    try:
        ended = run("cancel", "t", url=server_url.replace("://", "://guest:guest@"))
    finally:
        client.acl_deluser("guest")

    assert (ended.returncode, ended.stdout) == (0, "t: cancelled\n")
