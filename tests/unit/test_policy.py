"""The file of `--policy`: what it allows, and what is wrong with it."""

from hashlib import sha256
from pathlib import Path

import pytest

from rhai_tasks import Engine, TaskRequest
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.policy import Policy, PolicyFile
from rhai_tasks.protocol import NO_TERMS

REPORT = "40 + 2"
POLICY = f"""
[[allow]]
callers = ["02alice"]

[[allow]]
callers = ["03*", "robot-*-[x]"]
circles = ["team-*"]
scripts = ["sha256:{sha256(REPORT.encode()).hexdigest()}"]
limits = {{ timeout = 2.5, max_operations = 1000, max_memory = 16 }}

[[allow]]
circles = ["open"]
limits.timeout = 1
"""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    (tmp_path / "policy.toml").write_text(POLICY)
    return Policy.read(tmp_path / "policy.toml")


def request(caller: str = "", circle: str = "circle", script: str = REPORT) -> TaskRequest:
    return TaskRequest("t", circle, caller, True, None, script)


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        (request("02alice"), 1),
        (request("02alice", "open", "loop {}"), 1),
        (request("02alice2"), None),
        (request("02ALICE"), None),
        (request("03bob", "team-a"), 2),
        (request("03", "team-"), 2),
        (request("03a\nb", "team-\n"), 2),
        (request("robot-7-[x]", "team-a"), 2),
        (request("robot-7-x", "team-a"), None),
        (request("03bob", "other"), None),
        (request("03bob", "team-a", "loop {}"), None),
        (request("03bob", "team-a", REPORT + " "), None),
        (request("", "open", "loop {}"), 3),
        (request("", "open2"), None),
    ],
    ids=str,
)
def test_the_first_rule_that_allows_a_task_decides(policy: Policy, asked: TaskRequest, number: int | None) -> None:
    rule = policy.rule_for(asked)

    assert (rule.number if rule else None) == number


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("*", "", True),
        ("**", "a", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "a.b.b.c.c", True),
        ("a*b*c", "acb", False),
        ("*b*b", "b", False),
        ("*ab*ab*", "abab", True),
        ("*ab*ab*", "abb", False),
        ("a*a", "a", False),
        ("?", "x", False),
        ("*a" * 20 + "*b", "a" * 1_000_000, False),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else value,
)
def test_an_asterisk_stands_for_any_text_and_costs_little(tmp_path: Path, pattern: str, text: str, fits: bool) -> None:
    (tmp_path / "policy.toml").write_text(f'[[allow]]\ncallers = ["{pattern}"]\n')

    assert Policy.read(tmp_path / "policy.toml").rules[0].fits(text, "circle") == fits


def test_a_refusal_names_the_caller_and_says_whether_another_script_would_do(policy: Policy) -> None:
    assert policy.refusal_of(request("04", "x")) == "the worker's policy allows caller '04' nothing here"
    other = policy.refusal_of(request("03", "team-a", "1"))
    assert other.startswith("the worker's policy allows caller '03' other scripts here, not sha256:6b86b273ff34")


def test_limits_lower_those_of_the_task_and_raise_none(policy: Policy) -> None:
    rule = policy.rules[1]

    assert rule.lower(NO_TERMS) == NO_TERMS._replace(timeout=2.5, max_operations=1000, max_memory=16 * 1024 * 1024)
    own = NO_TERMS._replace(timeout=1.0, max_operations=9999, json=True)
    lowered = own._replace(max_operations=1000, max_memory=16 * 1024 * 1024)
    assert rule.lower(own) == lowered


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"expected at least one \[\[allow\]\] table"),
        ("allow = []", r"expected at least one \[\[allow\]\] table"),
        ("allow = 1", r"expected at least one \[\[allow\]\] table"),
        ("allow = [1]", r"\[\[allow\]\] number 1: expected a table, not 1"),
        ("[[deny]]", "'deny' is unknown: expected allow"),
        ("[[allow]]\n[[allow]]\ncaller = ['02']", r"\[\[allow\]\] number 2: 'caller' is unknown"),
        ("[[allow]]\ncallers = '02'", "callers = '02': expected a non-empty list of strings"),
        ("[[allow]]\ncallers = []", "callers = .*: expected a non-empty list of strings"),
        ("[[allow]]\ncircles = [1]", "circles = .*: expected a non-empty list of strings"),
        ("[[allow]]\nscripts = ['abc']", "'abc' is not a hash of a script"),
        ("[[allow]]\nlimits = 1", "limits = 1: expected a table"),
        ("[[allow]]\nlimits.stack = 1", "'stack' is unknown: expected max_memory, max_operations, timeout"),
        ("[[allow]]\nlimits.timeout = 0", "timeout=0: expected a number of seconds"),
        ("[[allow]]\nlimits.timeout = nan", "timeout=nan: expected a number of seconds"),
        ("[[allow]]\nlimits.timeout = '1'", "limits.timeout = '1': expected a number"),
        ("[[allow]]\nlimits.timeout = true", "limits.timeout = True: expected a number"),
        ("[[allow]]\nlimits.max_operations = 1.5", "max_operations=1.5: expected a whole number"),
        ("[[allow]]\nlimits.max_memory = -1", "max_memory=-1048576: expected a whole number"),
        ("[[allow]\n", r"is not TOML: .*line 1"),
        ("a = '\xff'", "is not TOML: .*utf-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_place_and_reason(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigurationError, match=rf"^the policy '.*policy.toml'.*{reason}"):
        Policy.read(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="^the policy '.*none' cannot be read: No such file or directory"):
        Policy.read(tmp_path / "none")


def test_a_broken_file_leaves_the_policy_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    kept = PolicyFile(Path("policy.toml"))
    monkeypatch.chdir("/")
    file.write_text("[[allow]]\ncaller = 1")

    assert not kept.reload()
    assert len(kept.policy.rules) == 3
    assert "Kept the policy: the policy " in caplog.text

    file.write_text("[[allow]]")
    assert kept.reload()
    assert kept.policy.rule_for(request("anybody"))


# --- Engine.authorize


def test_all_functions_of_an_engine_must_allow_a_task() -> None:
    engine = Engine()
    asked: list[TaskRequest] = []
    assert engine.refusal_of(request()) is None

    @engine.authorize
    def only_verified(task: TaskRequest) -> bool:
        asked.append(task)
        return task.verified

    engine.authorize(lambda task: True if task.script_hash == sha256(b"1").hexdigest() else "another script")

    assert engine.refusal_of(request(script="1")) is None
    assert engine.refusal_of(request(script="2")) == "another script"
    assert engine.refusal_of(request(script="1")._replace(verified=False)) == "the worker's engine refuses it"
    assert asked[0] == request(script="1")
    assert only_verified(request())


@pytest.mark.parametrize("answer", [None, 1, 0, [], object])
def test_an_answer_that_is_none_of_the_three_is_an_error(answer: object) -> None:
    engine = Engine()
    engine.authorize(lambda _: answer)  # type: ignore[type-var]

    with pytest.raises(TypeError, match="expected True, False or a text"):
        engine.refusal_of(request())


def test_a_coroutine_function_cannot_authorize() -> None:
    async def later(_: TaskRequest) -> bool:
        return True

    with pytest.raises(TypeError, match="the thread waits for the answer"):
        Engine().authorize(later)  # type: ignore[type-var]
