"""The HTTP API, over real connections."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from rhai_tasks import Client
from rhai_tasks.operate.rules import Rules
from rhai_tasks.web.api.keys import SCOPES, ApiKeys
from rhai_tasks.web.security import MOST_FAILURES
from tests import web_page
from tests.conftest import Worker, free_port, wait_until
from tests.http_api import SUBMISSION, Api, Serve, ask, problem

# --- what it does


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("40 + 2", {"status": "completed", "output": "42"}),
        ("throw 1", {"status": "error", "error": "Runtime error: 1 (line 1, position 1)", "errorKind": "Runtime"}),
    ],
)
def test_a_submission_that_waits_is_answered_with_the_outcome(
    http: httpx2.Client, start_worker: Callable[..., Worker], script: str, outcome: dict[str, str]
) -> None:
    start_worker()

    answer = http.post("/tasks?wait=60", json={**SUBMISSION, "script": script, "callerId": "me", "taskId": "mine"})

    assert (answer.status_code, answer.headers["location"]) == (200, "/v1/tasks/mine")
    told = answer.json()
    assert {told.pop("createdAt"), told.pop("updatedAt")} > set()
    assert told == {"taskId": "mine", "circle": "circle", "callerId": "me", **outcome}
    assert http.get("/tasks/mine").json()["status"] == outcome["status"]
    assert http.get("/tasks/mine/result").json().items() >= outcome.items()


def test_a_task_goes_through_its_states(http: httpx2.Client, start_worker: Callable[..., Worker]) -> None:
    submitted = http.post("/tasks", json={**SUBMISSION, "resultFormat": "json", "stats": True})
    path = submitted.headers["location"].removeprefix("/v1")
    assert (submitted.status_code, submitted.json()["status"]) == (202, "pending")
    assert http.get(f"{path}/result").status_code == 202
    assert http.get(f"{path}/result?wait=0.01").status_code == 202

    start_worker()

    ended = http.get(f"{path}/result?wait=60").json()
    assert (ended["output"], ended["result"], ended["stats"]["deliveries"]) == ("42", 42, 1)
    assert http.post(f"{path}/cancel").json() == {"taskId": submitted.json()["taskId"], "cancelled": False}


def test_a_cancelled_task_ends(http: httpx2.Client) -> None:
    http.post("/tasks", json={**SUBMISSION, "taskId": "one"})

    assert http.post("/tasks/one/cancel").json() == {"taskId": "one", "cancelled": True}
    assert http.get("/tasks/one/result?wait=60").json()["error"] == "cancelled"


def test_every_field_of_a_submission_reaches_the_task(http: httpx2.Client, client: Any) -> None:
    asked: dict[str, Any] = {**SUBMISSION, "callerId": "me", "contextId": "context", "timeout": 1.5, "maxOperations": 7}
    asked |= {"maxMemory": 8, "startBefore": "2030-01-01T00:00:00Z", "resultFormat": "json", "keepPrints": 9}
    asked["args"] = {"a": [1, 2.5, None]}

    http.post("/tasks", json={**asked, "taskId": "one", "stats": True, "delay": 1000, "via": "dramatiq"})

    details = client.hgetall("rhai_task_details:one")
    written = {name: details[name] for name in asked}
    assert json.loads(written.pop("args")) == asked.pop("args")
    assert written.pop("startBefore").startswith("2030-01-01T00:00:00")
    del asked["startBefore"]
    assert written == {name: str(value) for name, value in asked.items()}
    assert client.zrange("rhai_dramatiq:rhai-circle.delayed_messages", 0, -1) == ["one"]
    schema = http.get("/openapi.json").json()["components"]["schemas"]["Submission"]["properties"]
    others = {"taskId", "scriptRef", "stats", "delay", "via", "args", "startBefore"}
    assert schema.keys() - asked.keys() == {*others, "signed"}  # test_signed.py sends that


def test_a_batch_is_answered_in_its_order(http: httpx2.Client, start_worker: Callable[..., Worker]) -> None:
    start_worker()

    answer = http.post("/batches", json={"tasks": [{**SUBMISSION, "script": str(number)} for number in range(500)]})

    assert answer.status_code == 202
    for number, task in list(enumerate(answer.json()["tasks"]))[::100]:
        assert http.get(f"/tasks/{task['taskId']}/result?wait=60").json()["output"] == str(number)


@pytest.mark.parametrize("path", ["/tasks", "/batches"])
def test_a_request_that_is_repeated_has_its_effect_once(http: httpx2.Client, client: Any, path: str) -> None:
    body = {"tasks": [SUBMISSION] * 3} if path == "/batches" else SUBMISSION
    headers = {"Idempotency-Key": "first"}

    def ids(answer: httpx2.Response) -> list[str]:
        assert answer.status_code == 202, answer.text
        told = answer.json()
        return [task["taskId"] for task in told.get("tasks", [told])]

    first = ids(http.post(path, json=body, headers=headers))
    client.delete(f"rhai_task_details:{first[-1]}")  # as if the first request had stopped before it
    client.lrem("rhai_tasks:circle", 0, first[-1])

    assert ids(http.post(path, json=body, headers=headers)) == first
    assert sorted(client.lrange("rhai_tasks:circle", 0, -1)) == sorted(first)
    assert not {*ids(http.post(path, json=body, headers={"Idempotency-Key": "second"}))} & {*first}
    other = {"tasks": [{**SUBMISSION, "script": "other"}]} if path == "/batches" else {**SUBMISSION, "script": "other"}
    assert problem(http.post(path, json=other, headers=headers)) == (422, "idempotency-key-reused")


def test_a_repeated_request_may_name_its_task(http: httpx2.Client, client: Any) -> None:
    body, headers = {**SUBMISSION, "taskId": "one"}, {"Idempotency-Key": "key"}

    assert [http.post("/tasks", json=body, headers=headers).status_code for _ in range(2)] == [202, 202]
    assert client.llen("rhai_tasks:circle") == 1
    assert problem(http.post("/tasks", json=body)) == (409, "task-exists")
    assert problem(http.post("/tasks", json=body, headers={"Idempotency-Key": "new"})) == (409, "task-exists")


def test_events_are_the_states_the_prints_and_the_outcome(
    http: httpx2.Client, start_worker: Callable[..., Worker]
) -> None:
    script = 'print("<one>\x1b[31m"); sleep(0.7); print("two"); 42'
    http.post("/tasks", json={**SUBMISSION, "script": script, "keepPrints": 1000, "taskId": "one"})
    start_worker()

    events = [(event, data) for event, data in follow(http, "one") if data != {"status": "pending"}]

    assert [data["text"] for event, data in events if event == "print"] == ["<one>\x1b[31m", "two"]
    assert [data["status"] for event, data in events if event == "state"] == ["processing", "completed"]
    assert [(event, data["output"]) for event, data in events[-1:]] == [("end", "42")]
    assert sorted(event for event, _ in follow(http, "one")) == ["end", "print", "print", "state"]  # it has ended


def follow(http: httpx2.Client, task_id: str) -> list[tuple[str, Any]]:
    """Follow a task to the end of its stream."""
    with http.stream("GET", f"/tasks/{task_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = "".join(stream.iter_text())
    return [(event, json.loads(data)) for event, data in re.findall(r"event: (\w+)\ndata: (.*)\n", text)]


def test_queues_are_counted(http: httpx2.Client, server_url: str) -> None:
    with Client(server_url, circle="circle") as app:
        app.submit_many(["1"] * 3)

    def counted() -> Any:
        (queue,) = http.get("/queues", params={"circle": "circle"}).json()["queues"]
        return queue["waiting"] == 3 and queue

    queue = wait_until(counted)
    assert (queue["circle"], queue["workers"], queue["paused"]) == ("circle", 0, False)
    assert queue["oldest"] >= 0
    (other,) = http.get("/queues", params={"circle": "other"}).json()["queues"]
    assert (other["circle"], other["waiting"], other["workers"]) == ("other", 0, 0)


# --- who may do what


def test_every_operation_needs_a_key(serve: Serve, keys: ApiKeys) -> None:
    api = serve()
    assert len(api.operations()) == 7
    deleted = keys.make("deleted", SCOPES)
    keys.delete(keys.list()[0].id)
    for number, key in enumerate([None, "rhai_x_y", "x" * 10_000, deleted[:-1] + "!", deleted]):
        for method, path in api.operations() if number == 0 else api.operations()[:1]:
            answer = ask(api.client(key), method, path)
            assert (problem(answer), answer.headers["www-authenticate"]) == ((401, "unauthorized"), "Bearer"), path


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_does_what_its_scopes_say(api: Api, keys: ApiKeys, scope: str) -> None:
    needed = {
        ("post", "/tasks"): "submit",
        ("post", "/batches"): "submit",
        ("post", "/tasks/{task_id}/cancel"): "operate",
    }
    http = api.client(keys.make("one", [scope]))

    for method, path in api.operations():
        status = ask(http, method, path).status_code
        assert (status != 403) == (needed.get((method, path), "read") == scope), (path, status)


def test_what_a_key_to_operate_changes_is_logged_with_its_name(
    api: Api, keys: ApiKeys, http: httpx2.Client, client: Any
) -> None:
    log = Rules(client, "rhai_dramatiq")
    other = api.client(keys.make("other", ["submit", "read"]))
    operations = [one for one in api.operations() if ask(other, *one).status_code == 403]
    assert operations

    for method, path in operations:
        http.post("/tasks", json={**SUBMISSION, "taskId": "t"})
        before = len(log.changes())
        assert ask(http, method, path, "t").status_code == 200
        (change,) = log.changes()[: len(log.changes()) - before]
        (key_id,) = (key.id for key in keys.list() if key.name == "all")
        assert (change.by, change.circle, change.what) == (f"API key all ({key_id})", "circle", "cancel 1 task(s): t")
        client.hset("rhai_task_details:t", mapping={"status": "completed", "output": "1"})
        assert ask(http, method, path, "t").json()["cancelled"] is False
        assert len(log.changes()) == before + 1


@pytest.mark.parametrize("bound", [{"circles": ["mine"]}, {"callers": ["me"]}], ids=["circle", "caller"])
def test_a_bound_key_sees_and_submits_only_its_own(
    api: Api, keys: ApiKeys, http: httpx2.Client, client: Any, bound: dict[str, Any]
) -> None:
    own = api.client(keys.make("bound", SCOPES, **bound))
    for task_id, circle, caller in [("theirs", "other", "other"), ("ours", "mine", "me")]:
        http.post("/tasks", json={**SUBMISSION, "circle": circle, "callerId": caller, "taskId": task_id})
    client.hset("rhai_task_details:nobodys", mapping={"script": "1", "status": "pending"})

    with_id = [operation for operation in api.operations() if "{task_id}" in operation[1]]
    assert len(with_id) == 4
    for method, path in with_id:
        hidden = [ask(own, method, path, task_id) for task_id in ("theirs", "nobodys", "missing")]
        assert {(answer.status_code, answer.text) for answer in hidden} == {(404, hidden[0].text)}
    assert own.get("/tasks/ours").status_code == 200
    assert client.hget("rhai_task_details:theirs", "status") == "pending"
    wanted = {"circle": "circle" in str(bound), "callerId": "callers" in bound}
    assert problem(own.post("/tasks", json={**SUBMISSION, "circle": "other", "callerId": "other"}))[0] == 403
    sent = own.post("/tasks", json={"script": "1", **({"circle": "mine"} if "callers" in bound else {})}).json()
    assert (sent["circle"], sent["callerId"]) == ("mine", "me" if wanted["callerId"] else "")
    if "circles" in bound:
        own.get("/queues?circle=other")
        wait_until(lambda: [queue["circle"] for queue in own.get("/queues").json()["queues"]] == ["mine"])


def test_names_of_circles_that_are_asked_for_are_not_kept(server_url: str, client: Any, keys: ApiKeys) -> None:
    client.lpush("rhai_tasks:mine", "t")
    headers = {"Authorization": f"Bearer {keys.make('one', ['read'])}"}
    with web_page.serve(server_url, has_api=True) as site:

        def ask_for(query: str) -> list[tuple[str, int]]:
            answer = site.get(f"/v1/queues{query}", headers=headers).json()
            return [(queue["circle"], queue["waiting"]) for queue in answer["queues"]]

        assert ask_for("?circle=mine&circle=none") == [("mine", 1), ("none", 0)]
        wait_until(lambda: ask_for("") == [("mine", 1)])
        app: Any = site.app
        assert app.state.site.sampler._circles.known == {"mine"}


def test_a_task_of_anybody_is_never_replaced(http: httpx2.Client, server_url: str, client: Any) -> None:
    with Client(server_url, circle="circle") as app:
        app.submit("1", task_id="theirs")

    assert problem(http.post("/tasks", json={**SUBMISSION, "taskId": "theirs"})) == (409, "task-exists")
    assert problem(http.post("/batches", json={"tasks": [{**SUBMISSION, "taskId": "theirs"}]}))[0] == 409
    assert client.hget("rhai_task_details:theirs", "script") == "1"


def test_a_deleted_key_is_refused_soon(serve: Serve, keys: ApiKeys) -> None:
    api = serve()
    http = api.client(keys.make("one", SCOPES))
    assert http.get("/queues").status_code == 200

    keys.delete(keys.list()[0].id)

    wait_until(lambda: http.get("/queues").status_code == 401)


def test_a_stream_ends_soon_after_its_key_was_deleted(serve: Serve, keys: ApiKeys) -> None:
    http = serve().client(keys.make("one", SCOPES))
    task_id = http.post("/tasks", json=SUBMISSION).json()["taskId"]  # which no worker takes

    with http.stream("GET", f"/tasks/{task_id}/events") as stream:
        keys.delete(keys.list()[0].id)
        text = "".join(stream.iter_text())

    assert re.findall(r"event: (\w+)", text) == ["state", "problem"]
    assert '"code": "unauthorized"' in text


def test_the_server_has_no_key_that_could_be_sent(keys: ApiKeys, client: Any) -> None:
    key = keys.make("one", SCOPES)

    stored = json.dumps(client.hgetall("rhai_dramatiq:__api_keys__"))

    secret = key.split("_", 2)[2]
    assert secret not in stored
    assert keys.find(key) == keys.list()[0]
    assert keys.find(key[:-1] + ("A" if key[-1] != "A" else "B")) is None
    for record in (b"", b"[]", b"{}", b'{"digest": 1}', b"\xff", b"[" * 100_000):
        client.hset("rhai_dramatiq:__api_keys__", keys.list()[0].id if keys.list() else key[5:17], record)
        assert keys.find(key) is None
        assert keys.list() == []


def test_a_key_has_a_rate(api: Api, keys: ApiKeys) -> None:
    slow, other = api.client(keys.make("slow", SCOPES, rate=1)), api.client(keys.make("other", SCOPES))

    answers = [slow.get("/queues") for _ in range(20)]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200
    assert {(problem(answer), answer.headers["retry-after"]) for answer in refused} == {
        ((429, "too-many-requests"), "1")
    }
    assert other.get("/queues").status_code == 200
    wait_until(lambda: slow.get("/queues").status_code == 200)


def test_who_guesses_keys_is_refused_and_nobody_else(serve: Serve, keys: ApiKeys, client: Any) -> None:
    api = serve()
    http = api.client(keys.make("one", SCOPES))
    assert http.get("/queues").status_code == 200
    guess = keys.make("gone", SCOPES)
    keys.delete(keys.list()[-1].id)

    codes = [problem(api.client(guess).get("/queues"))[1] for _ in range(MOST_FAILURES + 1)]

    assert codes == ["unauthorized"] * MOST_FAILURES + ["too-many-wrong-keys"]
    assert http.get("/queues").status_code == 200


def test_the_page_and_the_api_do_not_open_each_other(serve: Serve, keys: ApiKeys) -> None:
    api = serve("--token", "secret")
    http = api.client(keys.make("one", SCOPES))

    assert http.get("/queues").status_code == 200
    assert httpx2.get(api.url, headers=http.headers).status_code == 303
    assert problem(httpx2.get(f"{api.url}/v1/queues", headers={"Authorization": "Bearer secret"}))[0] == 401


def test_read_only_refuses_what_changes(serve: Serve, keys: ApiKeys, client: Any) -> None:
    api = serve("--read-only")
    http = api.client(keys.make("one", SCOPES))

    codes = {path: ask(http, method, path).json().get("code") for method, path in api.operations() if method == "post"}

    assert codes == dict.fromkeys(["/tasks", "/batches", "/tasks/{task_id}/cancel"], "read-only")
    assert client.keys("rhai_task*") == []


def test_without_the_option_there_is_no_api(spawn: Callable[..., Worker]) -> None:
    port = free_port()
    spawn("rhai-tasks", "web", "--port", str(port))

    def answer() -> int:
        with suppress(httpx2.ConnectError):
            return httpx2.get(f"http://127.0.0.1:{port}/v1/health").status_code
        return 0

    assert wait_until(answer) == 404
