"""Arbitrary ids, hashes and scripts through a real server: always a final status or a dead letter, never a crash."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from rhai_tasks.errors import TaskMalformed
from rhai_tasks.protocol import DETAIL_FIELDS, MISSING_SCRIPT, Outcome, Status, parse_task, reply_json
from tests.conftest import Worker, wait_until

FINAL = (b"completed", b"error")
WORDS = """
let fn if else while loop for in do until return throw try catch break continue switch const import export as private
this true false Fn call curry eval print debug type_of is_shared exit sleep timestamp parse_json blob x y f a m 0 1 42
-1 9223372036854775807 1.5 1e300 'c' "s" `t${x}` ( ) [ ] { } #{ ; , . .. ..= :: = == != < > + - * / % ** << >> & | ^ !
&& || ?? ?. ?[ += -= |x| => _ // /* */
"""
# Programs that parse are rare among random words: some come from pieces that are whole.
PIECES = [
    "let x = 1;",
    "x += 1;",
    "let a = [1, 2, 3];",
    "a.push(a);",
    "a.map(|v| v + 1);",
    "let m = #{a: 1};",
    "m.a = m;",
    "fn f(n) { if n > 0 { f(n - 1) } }",
    "f(30);",
    "throw m;",
    "print(a);",
    "for i in 0..10 { a += a; }",
    "try { throw 1 } catch (e) { x = e; }",
    'let s = "é"; s *= 3;',
    'eval("x");',
    "a.sort(|p, q| q - p);",
    "loop { break; }",
    "CALLER_ID + CONTEXT_ID",
]
scripts = some.one_of(
    some.binary(max_size=200),
    some.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    some.lists(some.sampled_from(WORDS.split()), max_size=40).map(lambda words: " ".join(words).encode()),
    some.lists(some.sampled_from(PIECES), max_size=10).map(lambda pieces: " ".join(pieces).encode()),
)
values = some.one_of(some.binary(max_size=60), some.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
hashes = some.dictionaries(
    some.one_of(some.sampled_from([field.encode() for field in DETAIL_FIELDS]), some.binary(min_size=1, max_size=12)),
    values,
    max_size=6,
)
ids = some.one_of(some.binary(max_size=60), some.text(max_size=30).map(lambda text: text.encode("utf-8", "replace")))


@given(
    details=some.lists(some.none() | values, min_size=len(DETAIL_FIELDS), max_size=len(DETAIL_FIELDS)), text=some.text()
)
@settings(deadline=None)
def test_details_are_read_or_refused_in_words_and_what_is_read_can_be_answered(
    details: tuple[bytes | None, ...], text: str
) -> None:
    refusal, task = "", None
    try:
        task = parse_task("t", details)
    except TaskMalformed as error:
        refusal = str(error)

    if task is None:
        assert refusal == MISSING_SCRIPT or "is not valid UTF-8: byte 0x" in refusal
    else:
        reply = json.loads(reply_json(task, Outcome(Status.COMPLETED, text), "now", {}))
        assert (reply["script"], reply["output"]) == (task.script, text)


@pytest.fixture(scope="module")
def raw(server: Any) -> Iterator[Any]:
    with redis.Redis.from_url(server.connection_url) as client:
        yield client


def test_whatever_is_pushed_ends(start_worker: Callable[..., Worker], client: Any, raw: Any) -> None:
    worker = start_worker("fuzz", "--task-timeout", "1", "--max-memory", "16", env={"RUST_LOG": "error"})
    wait_until(lambda: len(worker.children()) == 2)
    before = [child.pid for child in worker.children()]
    number = 0

    @given(task_id=ids, details=hashes, script=some.none() | scripts)
    @settings(max_examples=1500, deadline=None, database=None, suppress_health_check=[*HealthCheck], derandomize=True)
    def push(task_id: bytes, details: dict[bytes, bytes], script: bytes | None) -> None:
        nonlocal number
        number += 1
        task_id += b"-%d" % number  # each its own
        details = dict(details)
        details.pop(b"status", None)
        reply_to = details.pop(b"replyToQueue", None)
        if reply_to:
            details[b"replyToQueue"] = b"replies:" + reply_to
        if script is not None:
            details[b"script"] = script
        key = b"rhai_task_details:" + task_id
        if details:
            raw.hset(key, mapping=details)
        raw.lpush("rhai_tasks:fuzz", task_id)
        keys.append(key)

    keys: list[bytes] = []
    push()

    def unfinished() -> list[bytes]:
        with raw.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hget(key, "status")
            return [key for key, status in zip(keys, pipeline.execute(), strict=True) if status not in FINAL]

    end = time.monotonic() + 60.0
    while (left := unfinished()) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []
    assert [child.pid for child in worker.children()] == before
    assert raw.hlen("rhai_dramatiq:rhai-fuzz.msgs") == 0
