"""Every field of the settings with values that cannot work: refused at once, whoever makes them."""

from collections.abc import Callable
from dataclasses import fields
from itertools import permutations

import pytest

from bridge import Args
from rhai_tasks import AsyncClient, Client
from rhai_tasks.client import ScriptActor
from rhai_tasks.client.requests import Requests
from rhai_tasks.engine import Limits
from rhai_tasks.errors import ConfigurationError, RhaiTasksError
from rhai_tasks.protocol import Prefixes
from rhai_tasks.settings import BOUNDS, Settings, option_of

NAN, INF = float("nan"), float("inf")
NO_NUMBERS: list[object] = [
    NAN,
    INF,
    -INF,
    1e16,
    1e308,
    10**30,
    -(10**30),
    -1,
    -1e-9,
    "",
    " ",
    "x",
    "8",
    b"8",
    None,
    True,
    [],
    {},
]
NO_TEXTS: list[object] = ["", " ", "\0", "a\nb", "\x1b[31m", "\udcff", None, b"x", 1, NAN, True, []]
FIELDS = {field.name for field in fields(Settings)}
NUMBERS = set(BOUNDS)
FLAGS = {"fair", "reply_lists", "delete_finished", "traces"}
WORDS = {"dialect", "error_format", "log_format", "order", "signatures"}


def test_every_field_is_one_that_these_tests_know() -> None:
    assert (
        NUMBERS
        | FLAGS
        | WORDS
        | {*["redis_url", "broker_url", "prefixes", "namespace", "limits", "engine", "metrics_address", "policy"]}
        == FIELDS
    )


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_number_that_cannot_work_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option_of(name)} .*: expected .* from .* to [0-9,]+$"):
        Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_number_at_its_bounds_is_taken_and_one_beyond_is_not(name: str) -> None:
    bounds = BOUNDS[name]
    step = 1 if bounds.whole else 1e-6
    Settings(**{name: bounds.low})  # type: ignore[arg-type]
    Settings(**{name: bounds.high})  # type: ignore[arg-type]

    for value in (bounds.high + 1, bounds.low - step):
        if value or not bounds.or_zero:
            with pytest.raises(ConfigurationError, match=option_of(name)):
                Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["processes", "threads", "buffer", "max_deliveries"])
def test_there_is_no_less_than_one(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option_of(name)} 0: expected a whole number from 1 to"):
        Settings(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["memory_limit", "reply_expiry", "expire_finished", "shutdown_timeout"])
def test_zero_means_none(name: str) -> None:
    Settings(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["yes", 1, 0, None, NAN], ids=repr)
@pytest.mark.parametrize("name", sorted(FLAGS))
def test_a_flag_is_true_or_false(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option_of(name)} .*: expected True or False$"):
        Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", NO_TEXTS, ids=repr)
@pytest.mark.parametrize("name", sorted(WORDS))
def test_a_word_is_one_of_those_that_there_are(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option_of(name)} .*: expected one of "):
        Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [*NO_TEXTS, "module", ":", "m:", ":f", "m:f:g", "m.:f", ".m:f", "m f:g", "m:f()"])
def test_an_engine_is_a_module_and_a_function(value: object) -> None:
    if value is not None:
        with pytest.raises(ConfigurationError, match="^--engine .*: expected module:function$"):
            Settings(engine=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [*NO_TEXTS, "h", "h:", "h:x", "h:-1", "h:65536", "h:1e3", "h:٣", "h:nan", "a b:1", ":"]
)
def test_an_address_has_a_port(value: object) -> None:
    if value is not None:
        with pytest.raises(
            ConfigurationError, match="^--metrics-address .*: expected HOST:PORT, with a port from 0 to 65535$"
        ):
            Settings(metrics_address=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [*NO_TEXTS, "policy.toml"], ids=repr)
def test_a_policy_is_a_path(value: object) -> None:
    if value is not None:
        with pytest.raises(ConfigurationError, match="^--policy .*: expected a pathlib.Path$"):
            Settings(policy=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", NO_TEXTS, ids=repr)
def test_a_url_is_a_text(value: object) -> None:
    with pytest.raises(ConfigurationError, match="^--redis-url "):
        Settings(redis_url=value)  # type: ignore[arg-type]
    if value is not None:
        with pytest.raises(ConfigurationError, match="^--broker-url "):
            Settings(broker_url=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 1, "x", Prefixes(), {}], ids=repr)
def test_limits_are_limits(value: object) -> None:
    with pytest.raises(ConfigurationError, match="limits"):
        Settings(limits=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [1e-9, 1e16])
def test_a_time_limit_is_one_that_a_script_can_keep(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="--task-timeout .*: expected a number of seconds from 0.001 to"):
        Settings(limits=Limits(timeout=timeout))


@pytest.mark.parametrize("value", [*NO_NUMBERS, "٣"], ids=repr)
@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_a_limit_that_cannot_work_is_refused(name: str, value: object) -> None:
    if name == "timeout" and (value is None or value == 1e16):
        return
    with pytest.raises(ValueError, match=f"^{name} (is|must be) "):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [value for value in (0.5, 1e300, 2**63) if value], ids=repr)
@pytest.mark.parametrize("name", [field.name for field in fields(Limits) if field.name != "timeout"])
def test_a_limit_that_counts_is_a_whole_number_that_the_engine_can_hold(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} is "):
        Limits(**{name: value})  # type: ignore[arg-type]


# --- names of keys

NAMES = ("queue", "details", "reply", "namespace")
SHORT, LONG = "a:", "a:b:"


def named(**names: str) -> tuple[Prefixes, str]:
    """Return prefixes and a namespace that do not overlap, but for these."""
    namespace = names.pop("namespace", "ours")
    return Prefixes(**names), namespace


MAKERS: dict[str, Callable[[Prefixes, str], object]] = {
    "Settings": lambda prefixes, namespace: Settings(prefixes=prefixes, namespace=namespace),
    "Client": lambda prefixes, namespace: Client(prefixes=prefixes, namespace=namespace),
    "AsyncClient": lambda prefixes, namespace: AsyncClient(prefixes=prefixes, namespace=namespace),
    "Requests": lambda prefixes, namespace: Requests(prefixes=prefixes, namespace=namespace),
    "ScriptActor": lambda prefixes, namespace: ScriptActor(circle="c", prefixes=prefixes, namespace=namespace),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in permutations(NAMES, 2) if {*pair} != {"queue", "details"}]
)
def test_no_name_may_be_the_start_of_another(make: Callable[[Prefixes, str], object], first: str, second: str) -> None:
    for start, whole in ((SHORT, LONG), (SHORT, SHORT)):
        names = {first: start, second: whole}
        if "namespace" in names:  # a colon follows it in keys
            names["namespace"] = names["namespace"].removesuffix(":")
        with pytest.raises(ConfigurationError, match=r"^--[a-z-]+ '.*' is the start of --[a-z-]+ '.*': a key could"):
            make(*named(**names))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("value", NO_TEXTS, ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_text_that_can_be_seen(make: Callable[[Prefixes, str], object], name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match="^--[a-z-]+ .*: expected one or more printable characters$"):
        make(*named(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"queue": "rhailib:q:", "details": "rhailib:d:", "reply": "rhailib:r:", "namespace": "rhailib"},
        {"queue": "a", "details": "b", "reply": "c", "namespace": "d"},
        {"namespace": "rhai_task"},
    ],
)
def test_names_apart_from_each_other_are_taken(names: dict[str, str]) -> None:
    if names.get("namespace") == "rhailib":
        with pytest.raises(ConfigurationError, match="--namespace 'rhailib:' is the start of --queue-prefix"):
            Settings(prefixes=named(**names)[0], namespace="rhailib")
    else:
        prefixes, namespace = named(**names)
        Settings(prefixes=prefixes, namespace=namespace)


# --- Python's faces


@pytest.mark.parametrize("circle", ["", "\udcff", None, 1, b"c"], ids=repr)
def test_a_circle_is_utf8_and_not_empty(circle: object) -> None:
    with pytest.raises(ConfigurationError, match="^circle .*: expected the public key of a circle"):
        Args(redis_url="redis://h", circle_public_key=circle)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="^circle "):
        ScriptActor(circle=circle)  # type: ignore[arg-type]
    if circle is not None:
        with pytest.raises(ConfigurationError, match="^circle "):
            Client(circle=circle)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["", "redis://h/mydb", "redis://h?nonsense=1", "http://h", None])
def test_every_face_refuses_a_url(url: str) -> None:
    makers: list[Callable[[], object]] = [
        lambda: Args(redis_url=url, circle_public_key="c"),
        lambda: Client(url),
        lambda: AsyncClient(url),
        lambda: ScriptActor(url, circle="c"),
    ]
    for make in makers:
        with pytest.raises(RhaiTasksError, match="^--redis-url "):
            make()


def test_args_show_no_password() -> None:
    assert "hunter2" not in repr(Args(redis_url="redis://:hunter2@h", circle_public_key="c"))
