"""Words of strangers and newer versions, on channels, in heartbeats, reports and hashes: passed over, never fatal."""

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rhai_tasks import AsyncClient, Client, Settings
from rhai_tasks.client.requests import Requests
from rhai_tasks.errors import RhaiTasksError, ScriptError
from rhai_tasks.observe.exposition import Exposition
from rhai_tasks.observe.metrics import FINISHED, METRICS
from rhai_tasks.observe.recorder import Recorder, RunningTask, State, read_report
from rhai_tasks.observe.reports import Reports
from rhai_tasks.operate.doctor import examine
from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import Outcome, Status, completed
from tests.commands import BIN
from tests.conftest import Worker, wait_until
from tests.web_page import serve

ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    10**400,
    1.5,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "text",
    "9" * 5000,
    "\ud800",
    "\x1b[31m<script>",
    [],
    [None],
    [[]],
    [[1, 2, 3]],
    {},
    {"a": None},
    {"\ud800": [1, 1]},
    {"a": [2**70, 1]},
    {"1000000": 1},
    {"1": 2**70},
]
ODD_BYTES = [
    b"",
    b" ",
    b"\x00",
    b"\xff\xfe",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"text"',
    b"NaN",
    b"1e999",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"x" * 2_000_000,
]
WORDS = [
    *ODD_BYTES,
    b"paused",
    b"paused with words",
    b"\xff text",
    b"COMPLETED x",
    b"completed\tx",
    b"completed\n",
    b"pending text",
    b"processing text",
    b"completed",  # final, and without a text: that is looked for
    b"error",
]
NAMESPACE = "rhai_dramatiq"


def write(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- state channels


@pytest.mark.parametrize("word", WORDS, ids=lambda word: repr(word[:20]))
def test_a_word_that_is_no_end_is_none(word: bytes) -> None:
    requests = Requests()

    parsed = requests.parse_state(requests.channel("t"), word)

    assert parsed is None or (parsed[0] == "t" and isinstance(parsed[1], Status))


def tell_all(client: Any, task_id: str) -> None:
    for word in WORDS:
        client.publish(f"{NAMESPACE}:__state__:rhai_task_details:{task_id}", word)


def test_a_wait_hears_odd_words_and_goes_on(app: Client, start_worker: Callable[..., Worker], client: Any) -> None:
    task, other = app.submit_many(["1", "2"])
    outputs: list[str] = []
    thread = threading.Thread(target=lambda: outputs.extend([task.result(timeout=60), other.result(timeout=60)]))
    thread.start()
    wait_until(lambda: int(client.info("stats")["pubsub_channels"]) >= 2)

    tell_all(client, task.id)
    subscribed = client.client_list(_type="pubsub")[0]["id"]
    start_worker("circle")
    thread.join(120)

    assert outputs == ["1", "2"]
    assert subscribed in {one["id"] for one in client.client_list(_type="pubsub")}  # beside the worker's
    began = time.monotonic()
    app.close()
    assert time.monotonic() - began < 20


def test_an_asyncio_wait_hears_odd_words_and_goes_on(
    server_url: str, start_worker: Callable[..., Worker], client: Any
) -> None:
    async def use() -> str:
        async with asyncio.timeout(40), AsyncClient(server_url, circle="circle") as app:
            task = await app.submit("1")
            waiting = asyncio.create_task(task.result())
            await asyncio.to_thread(
                wait_until, lambda: int(client.info("stats")["pubsub_channels"]) >= 2, what="a subscription"
            )
            await asyncio.to_thread(tell_all, client, task.id)
            await asyncio.to_thread(start_worker, "circle")
            return await waiting

    assert asyncio.run(use()) == "1"


def test_tail_hears_odd_words_and_goes_on(server_url: str, client: Any) -> None:
    process = subprocess.Popen(
        [str(BIN / "rhai-tasks"), "--redis-url", server_url, "tail", "--json", "--count", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: client.info("stats")["pubsub_patterns"] == 1)

    tell_all(client, "t")
    out, err = process.communicate(timeout=60)

    told = [json.loads(line)["status"] for line in out.splitlines()]
    assert (process.returncode, err) == (0, b"")
    assert told == ["pending", "processing", "completed", "error"], "what is known is told"


# --- the channel for cancels, and what workers are told of lists


def test_a_worker_hears_odd_cancels_and_goes_on(app: Client, start_worker: Callable[..., Worker], client: Any) -> None:
    worker = start_worker("circle")
    endless = app.submit("loop {}")
    wait_until(lambda: endless.status() is Status.PROCESSING)

    for word in WORDS:
        client.publish(f"{NAMESPACE}:__cancel__", word)
    endless.cancel()

    with pytest.raises(RhaiTasksError, match="was cancelled"):
        endless.result(timeout=60)
    assert app.submit("1").result(timeout=60) == "1"
    assert "Traceback" not in worker.text()


# --- reports of processes, on Redis and in files


@dataclass
class EndedTask:
    """A task that has ended, as a worker hands it to its recorder."""

    task_id: str = "ended"
    outcome: Outcome = field(default_factory=lambda: completed("1"))
    use: tuple[float, float, int, int] | None = (1_700_000_000.0, 0.1, 10, 1000)
    ended: float = 1_700_000_000.1
    crashes: int = 0
    created_at: bytes | None = b"1699999999.8"


def report() -> dict[str, Any]:
    running = [RunningTask("running", "circle", time.time(), 1)]
    recorder = Recorder(threads=2, state=lambda: State(["rhai-circle"], running, {"rhai_tasks_running": 1}))
    recorder.readiness.note("read of circle")
    recorder.record("circle", [EndedTask()])
    fields: dict[str, Any] = json.loads(recorder.report())
    return {**fields, "at": time.time() * 1000}


def report_of_the_version_before() -> dict[str, Any]:
    new = {"clock", "stopping", "succeeded", "gauges", "counts"}
    rest = {name: value for name, value in report().items() if name not in new}
    return {**rest, "ended": {"circle": [1, 0]}, "ran": {"-14": 1}, "waited": {"-10": 1}}


def odd_reports() -> Iterator[bytes]:
    yield from ODD_BYTES
    well = report()
    for name, value in [*well.items(), ("ended", {"circle": [1, 0]})]:
        yield write({key: one for key, one in well.items() if key != name})
        for odd in ODD_VALUES:
            yield write({**well, name: odd})
        for row in value if name in {"running", "recent"} else []:
            for place in range(len(row)):
                for odd in ODD_VALUES:
                    yield write({**well, name: [[*row[:place], odd, *row[place + 1 :]]]})
        for key in [*value, "of a newer version"] if isinstance(value, dict) else []:
            for odd in ODD_VALUES:
                yield write({**well, name: {**value, key: odd}})
                yield write({**well, name: {str(odd): value.get(key)}})
    for kind, metrics in well["counts"].items():
        for name in [*metrics, "of a newer version"]:
            for odd in ODD_VALUES:
                yield write({**well, "counts": {**well["counts"], kind: {**metrics, name: odd}}})
    for odd in ODD_VALUES:
        yield write({**report_of_the_version_before(), "ended": odd})
        yield write({**report_of_the_version_before(), "ended": {"circle": odd}})
        yield write({**report_of_the_version_before(), "ended": {"circle": [1, odd]}})
    yield write({**well, "of a newer version": [1]})


def test_an_odd_report_is_read_or_passed_over() -> None:
    read = [read_report("worker", text) for text in odd_reports()]

    assert read[-1] is not None, "what a newer version adds is not a reason"
    assert any(report is None for report in read)


PAGES = ["/", "/?circle=circle", "/tasks", "/tasks?place=running", "/task?id=running", "/task?id=ended", "/submit"]


def test_pages_show_what_can_be_read_beside_odd_reports(server_url: str, client: Any) -> None:
    odd = {f"odd-{number}": text for number, text in enumerate(odd_reports())}
    client.hset(f"{NAMESPACE}:__workers__", mapping={**odd, "well": write(report())})

    with serve(server_url) as site:
        assert_pages_are_shown(site)
        time.sleep(2.1)  # the next sample, which compares with the last
        client.hset(f"{NAMESPACE}:__workers__", mapping={**odd, "well": write(report())})
        assert_pages_are_shown(site)


def test_a_page_shows_workers_of_the_version_before(server_url: str, client: Any) -> None:
    before = report_of_the_version_before()
    client.hset(f"{NAMESPACE}:__workers__", "before", write(before))

    with serve(server_url) as site:
        assert_pages_are_shown(site)
        shown = site.get("/").text

    assert f'{before["host"]} <span class="quiet">{before["pid"]}</span>' in shown
    read = read_report("before", write(before))
    assert read
    assert read.counts.counters[FINISHED.name] == {("circle", "completed"): 1, ("circle", "error"): 0}


def assert_pages_are_shown(site: TestClient) -> None:
    for page in PAGES:
        answer = site.get(page)
        assert answer.status_code == 200, (page, answer.text[-500:])


# --- keys that hold something else


TYPES: dict[str, Callable[[Any, str], object]] = {
    "string": lambda client, key: client.set(key, "text"),
    "list": lambda client, key: client.rpush(key, "text"),
    "set": lambda client, key: client.sadd(key, "text"),
    "zset": lambda client, key: client.zadd(key, {"text": 1}),
    "hash": lambda client, key: client.hset(key, "text", "text"),
    "stream": lambda client, key: client.xadd(key, {"text": "text"}),
}
QUEUE = f"{NAMESPACE}:rhai-circle"
KEYS = {
    "rhai_tasks:circle": "list",
    f"{NAMESPACE}:__queues__": "set",
    f"{NAMESPACE}:__workers__": "hash",
    QUEUE: "list",
    f"{QUEUE}.msgs": "hash",
    f"{QUEUE}.XQ": "zset",
    f"{QUEUE}.XQ.msgs": "hash",
    f"{QUEUE}.XQ.reasons": "hash",
    f"{QUEUE}.sequence": "string",
    f"{QUEUE}.published": "zset",
    f"{QUEUE}.leases": "zset",
    f"{QUEUE}.deliveries": "hash",
    f"{QUEUE}.full": "string",
    f"{QUEUE}.room": "list",
    f"{QUEUE}.delayed": "zset",
    f"{QUEUE}.delayed_messages": "zset",
    f"{QUEUE}.wake": "list",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_another_type_hides_nothing_else_and_the_doctor_names_it(
    key: str, server_url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rhai_tasks.operate.doctor._RECHECK_SECONDS", 0.01)
    settings = Settings(redis_url=server_url)
    for kind, make in TYPES.items():
        if kind == KEYS[key]:
            continue
        client.flushall()
        client.rpush("rhai_tasks:other", "waits")
        client.sadd(f"{NAMESPACE}:__queues__", "rhai-circle")
        client.delete(key)
        make(client, key)

        with Queues(settings) as queues:
            counted = {queue.circle: queue.waiting for queue in queues.count(queues.circles())}
        assert counted["other"] == 1

        found = examine(settings)
        assert any(f"the key {key!r} holds no " in finding.what for finding in found), found
        assert any("have no details" in finding.what for finding in found), "what else is wrong is found, too"
        with serve(server_url) as site:
            assert_pages_are_shown(site)


def test_an_odd_name_in_the_registry_hides_nothing_else(server_url: str, client: Any) -> None:
    client.sadd(f"{NAMESPACE}:__queues__", b"\xff", b"", b"x" * 100_000, b"rhai-", b"rhai-.zz", "é", "rhai-circle")
    client.rpush("rhai_tasks:other", "waits")
    settings = Settings(redis_url=server_url)

    with Queues(settings) as queues:
        assert {"circle", "other"} <= {queue.circle for queue in queues.count(queues.circles())}
    assert any("have no details" in finding.what for finding in examine(settings))
    with serve(server_url) as site:
        assert_pages_are_shown(site)


@pytest.mark.parametrize("sequence", ["", "text", "-1", "1e5", "9" * 400, "nan"])
def test_the_doctor_reads_any_sequence(sequence: str, server_url: str, client: Any) -> None:
    client.rpush("rhai_tasks:circle", "waits")
    client.set(f"{QUEUE}.sequence", sequence)

    assert any("nobody takes them" in finding.what for finding in examine(Settings(redis_url=server_url)))


# --- reports of a tree's processes


def test_odd_reports_of_a_process_hide_no_other(tmp_path: Path) -> None:
    reports = Reports(tmp_path, ["worker 1"])
    (tmp_path / "directory.json").mkdir()
    exposition = Exposition(reports, tuple)
    well = report()
    gauges = 0

    for text in odd_reports():
        # An old report is of a process that hangs.
        (tmp_path / "well.json").write_bytes(write({**well, "clock": time.monotonic()}))
        (tmp_path / "worker 1.json").write_bytes(text)
        shown, _ = exposition.text("")
        gauges += b"rhai_tasks_running " in shown
        assert isinstance(reports.list_missing(), list)
        assert isinstance(reports.list_stuck(), list)
        for metric in METRICS:
            if metric.kind == "histogram":
                assert metric.name.encode() in shown

    assert gauges == len(list(odd_reports())), "the other process is shown beside each"


# --- details, as a client reads them


@pytest.mark.parametrize(
    "fields",
    [
        {"status": b""},
        {"status": b"\xff"},
        {"status": b"paused"},
        {"status": b"x" * 1_000_000},
        {"status": b'{"a":[]}'},
        {"status": b"NaN"},
        {"status": b"COMPLETED"},
        {"output": b"1"},
        {b"\xff": b"\xff"},
    ],
    ids=repr,
)
def test_an_odd_status_is_no_end_and_no_reason_to_stop_waiting(
    fields: dict[Any, bytes], app: Client, client: Any
) -> None:
    client.hset("rhai_task_details:odd", mapping=fields)
    client.hset("rhai_task_details:well", mapping={"status": "pending"})
    waiting = app.as_completed([app.task("odd"), app.task("well")], timeout=60)
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.extend(task.id for task in waiting))
    thread.start()
    wait_until(lambda: int(client.info("stats")["pubsub_channels"]) >= 3)

    client.hset("rhai_task_details:well", mapping={"status": "completed", "output": "1"})
    wait_until(lambda: ended == ["well"])
    client.hset("rhai_task_details:odd", mapping={"status": "completed", "output": "1"})
    thread.join(60)

    assert ended == ["well", "odd"]
    assert app.task("odd").details()["output"] == "1"


@pytest.mark.parametrize("status", ["completed", "error"])
@pytest.mark.parametrize("text", [None, b"", b"\xff\xfe", b"x" * 6_000_000], ids=["none", "empty", "no UTF-8", "huge"])
def test_an_end_may_have_any_text(app: Client, client: Any, status: str, text: bytes | None) -> None:
    client.hset("rhai_task_details:t", "status", status)
    if text is not None:
        client.hset("rhai_task_details:t", "output" if status == "completed" else "error", text)
    wanted = (text or b"").decode(errors="surrogateescape")

    if status == "completed":
        assert app.task("t").result(timeout=60) == wanted
    else:
        with pytest.raises(ScriptError) as caught:
            app.task("t").result(timeout=60)
        assert str(caught.value) == wanted


@pytest.mark.parametrize("kind", sorted(TYPES.keys() - {"hash"}))
def test_details_of_another_type_are_an_error_of_that_task(app: Client, client: Any, kind: str) -> None:
    TYPES[kind](client, "rhai_task_details:t")

    with pytest.raises(ScriptError, match="Task details are not a hash"):
        app.task("t").result(timeout=60)
    for ask in (app.task("t").details, app.task("t").cancel):
        with pytest.raises(RhaiTasksError, match="WRONGTYPE"):
            ask()


@pytest.mark.parametrize(
    "text",
    [
        "\n" + "in call to function '" * 20_000,
        "\n" + "in call to function ' @ '" * 20_000,
        "\n" + ("in call to function 'f' (line 1, position 1) " * 20_000),
        "(line 1, position " * 50_000,
        "\nin call to function 'f' (line 1, position 1)" * 50_000,
        "(line 999999999999, position 1)",
    ],
    ids=range(6),
)
def test_the_text_of_an_error_is_read_in_no_time(text: str) -> None:
    began = time.process_time()

    error = ScriptError("t", text)

    assert str(error) == text
    assert time.process_time() - began < 5
