"""What a URL says, and that no message shows a password, whatever else is wrong with the URL."""

import string
import traceback
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks import Client
from rhai_tasks.connection.connect import connect, connect_async
from rhai_tasks.connection.urls import connection_options, read_broker_url, read_server_url, redact
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.options import _without_passwords
from rhai_tasks.queue.rabbitmq import connect_rabbitmq
from rhai_tasks.settings import Settings

CORE = "hunter2!"  # part of each password; no host, port or database can be read from it
SPECIAL = "/#?@:;%&=[]. \t\n\x00\x7f\\'\"<>éß\udcff"
around = st.text(st.sampled_from(SPECIAL + string.ascii_letters + string.digits), max_size=6)
passwords = st.builds(lambda before, after: f"{before}{CORE}{after}", around, around)

FORMS = [
    "redis://user:{}@host:6379/0",
    "redis://:{}@host",
    "rediss://user:{}@host/0?ssl_cert_reqs=none",
    "unix://user:{}@/run/server.sock?db=0",
    "redis+sentinel://user:{}@a:1,b:2/service/0?sentinel_password=x",
    "redis+sentinel://a,b/service?sentinel_password={}",
    "redis://host/0?password={}",
    "redis://host/0?db=1&password={}&client_name=x",
    "unix:///run/server.sock?password={}&username=x",
    "rediss://host/0?ssl_password={}",
    "rediss+sentinel://a/m?sentinel_ssl_password={}",
    "amqp://user:{}@host:5672/vhost",
    "amqps://user:{}@host/?heartbeat=5",
    "amqp://user:x@a;amqp://user:{}@b",
    "amqp://user:{}@a;amqp://user:x@b?heartbeat=nonsense",
]
WRONGS: dict[str, Callable[[str], str]] = {
    "nothing": lambda url: url,
    "no scheme": lambda url: url.partition("://")[2],
    "no slashes": lambda url: url.replace("://", ":", 1),
    "another scheme": lambda url: f"http{url[url.index('://') :]}",
    "a typing error in the scheme": lambda url: f"r{url}",
    "no @": lambda url: url.replace("@", "", 1),
    "no host": lambda url: url.rpartition("@")[0] or url,
    "an end too early": lambda url: url[: url.index(CORE) + len(CORE)],
    "a wrong port": lambda url: url.replace("@host", "@host:port"),
    "an unknown parameter": lambda url: f"{url}{'&' if '?' in url else '?'}nonsense=1",
    "a wrong value": lambda url: f"{url}{'&' if '?' in url else '?'}db=x",
    "a fragment": lambda url: f"{url}#x",
    "a blank": lambda url: f" {url}",
    "a newline": lambda url: f"{url}\n",
}


def raised(call: Callable[[], object]) -> str:
    """Return what a traceback of the call would print; nothing if it raises none."""
    try:
        call()
    except ConfigurationError as error:
        return "".join(traceback.format_exception(error))
    return ""


@given(passwords, st.sampled_from(FORMS), st.sampled_from(sorted(WRONGS)), st.booleans())
def test_no_message_shows_a_password(password: str, form: str, wrong: str, encoded: bool) -> None:
    url = form.format(quote(password, safe="!", errors="surrogateescape") if encoded else password)
    if CORE in url:
        url = WRONGS[wrong](url)

    shown = redact(url)
    title = " ".join(_without_passwords(["rhai-worker", "--redis-url", url, f"--broker-url={url}", "--redis-url"]))
    messages = [
        raised(lambda: Settings(redis_url=url)),
        raised(lambda: Settings(broker_url=url)),
        raised(lambda: connect(url)),
        raised(lambda: connect_async(url)),
        raised(lambda: Client(url)),
        raised(lambda: connect_rabbitmq(url)),
    ]

    assert CORE not in shown
    assert CORE not in title
    assert not [message for message in messages if CORE in message]


def test_a_representation_shows_no_password() -> None:
    settings = Settings(redis_url="redis://:hunter2@host", broker_url="amqp://user:hunter2@host")

    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "hosts", "options"),
    [
        ("redis://h", (("h", None),), {}),
        ("redis:///3", (("localhost", None),), {"db": 3}),
        ("redis://:7000/", (("localhost", 7000),), {}),
        ("redis://me:p%40s%2Fs@h:1/2/", (("h", 1),), {"username": "me", "password": "p@s/s", "db": 2}),
        ("redis://me@h", (("h", None),), {"username": "me"}),
        ("redis://[::1]:1/0", (("::1", 1),), {"db": 0}),
        ("redis://h/1?db=2", (("h", None),), {"db": 2}),
        ("redis://h?client_name=x&protocol=3", (("h", None),), {"client_name": "x", "protocol": 3}),
        ("redis://h?socket_keepalive=no", (("h", None),), {"socket_keepalive": False}),
        ("redis://h_1.my-net.é", (("h_1.my-net.é", None),), {}),
        ("unix://me:p@/run/a%20b.sock?db=1", (), {"username": "me", "password": "p", "db": 1}),
        ("redis://me:p@h?username=x&password=x", (("h", None),), {"username": "me", "password": "p"}),
        ("redis://h?username=me&password=a%2Bb+c", (("h", None),), {"username": "me", "password": "a+b c"}),
        ("rediss://h?ssl_check_hostname=false", (("h", None),), {"ssl_check_hostname": False}),
        ("rediss://h?ssl_cert_reqs=NONE", (("h", None),), {"ssl_cert_reqs": "none"}),
        ("rediss://h?ssl_min_version=772", (("h", None),), {"ssl_min_version": 772}),
    ],
)
def test_a_url_is_read_as_redis_py_reads_it(url: str, hosts: object, options: dict[str, object]) -> None:
    read = read_server_url(url)

    assert (read.hosts, connection_options(read)) == (hosts, options)


NUMBERS = ["nan", "inf", "-inf", "1e16", "1e308", "1" + "0" * 30, "-1", "1e-9", "", "%20", "x", "1_0", "+1", "٣", "%00"]
TEXTS = ["", "%00", "%1b[31m", "%ff"]


def urls_with(parameter: str, values: list[str], *urls: str) -> list[str]:
    return [f"{url}?{parameter}={value}" for url in urls for value in values]


@pytest.mark.parametrize(
    "url",
    [
        *["", " ", "host", "host:6379", "//host", "redis:host", "redis:/host", "REDIS://h", "http://h", "redis ://h"],
        *[f"redis://{host}" for host in ("a b", "a\tb", "a\nb", "a%00b", "a%20b", "..", ".", "a..b", "a!b", "\udcff")],
        *[f"redis://{host}" for host in ("%ff", "[::x]", "[::1", "::1", "a:1:2", "x" * 64, "a,b", "a\x7fb", "a|b")],
        *[f"redis://h:{port}" for port in (*NUMBERS, "0", "65536") if port],
        *[f"redis://h/{path}" for path in (*NUMBERS, "mydb", "1/2", "/1", "2147483648") if path],
        *urls_with("db", [*NUMBERS, "1.0"], "redis://h", "unix:///s"),
        *urls_with("protocol", [*NUMBERS, "0", "1", "4"], "redis://h"),
        *urls_with("client_name", [*TEXTS, "a%20b", "%C3%A9"], "redis://h"),
        *urls_with("socket_keepalive", [*NUMBERS, "nope"], "redis://h"),
        *urls_with("ssl_check_hostname", [*NUMBERS, "nope"], "rediss://h"),
        *urls_with("ssl_min_version", [*NUMBERS, "0", "TLSv1.2", "770"], "rediss://h"),
        *urls_with("ssl_cert_reqs", [*TEXTS, "CERT_NONE", "0", "True"], "rediss://h", "rediss+sentinel://h/m"),
        *urls_with("ssl_ca_certs", TEXTS, "rediss://h"),
        *urls_with("ssl_ca_certs", ["ca.pem"], "redis://h", "unix:///s", "redis+sentinel://h/m"),
        *urls_with("sentinel_password", ["x"], "redis://h"),
        *urls_with("sentinel_db", ["1"], "redis+sentinel://h/m"),
        *["redis://h?password=", "redis://h?db=1&db=1"],
        *["redis://u:%ff@h", "redis://%ff:p@h", "redis://h#x", "redis://h/0#"],
        *["unix://", "unix:///", "unix://run/s", "unix://h/run/s", "unix:///a%00b", "unix:///" + "x" * 107],
        *["redis+sentinel://", "redis+sentinel:///m", "redis+sentinel://h", "redis+sentinel://h,,i/m"],
        *["redis+sentinel://h/m/x", "redis+sentinel://h/m/1/2", "redis+sentinel://h:x/m", "redis+sentinel://h/%00"],
    ],
)
def test_what_cannot_work_is_refused_with_one_line(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(redis_url=url)

    line = str(caught.value)
    assert line.startswith("--redis-url ")
    assert line.isprintable()
    assert ": " in line.removeprefix(f"--redis-url {redact(url)!r}"), "what is wrong stands behind the URL"


REFUSED_PARAMETERS = [
    *["decode_responses", "encoding", "encoding_errors", "single_connection_client", "max_connections"],
    *["socket_timeout", "socket_connect_timeout", "timeout", "health_check_interval", "retry", "retry_on_timeout"],
    *[
        "retry_on_error",
        "socket_read_size",
        "legacy_responses",
        "lib_name",
        "lib_version",
        "parser_class",
        "socket_type",
    ],
    *["connection_class", "host", "port", "path", "ssl_validate_ocsp", "nonsense", "Db", "ssl_ca_cert"],
]


@pytest.mark.parametrize("parameter", REFUSED_PARAMETERS)
@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h", "unix:///s", "redis+sentinel://h/m", "rediss+sentinel://h/m"]
)
def test_a_parameter_that_is_not_taken_is_refused_with_those_that_are(url: str, parameter: str) -> None:
    with pytest.raises(ConfigurationError, match="is not allowed; .* URLs allow username, password, client_name, "):
        Settings(redis_url=f"{url}?{parameter}=1")


@pytest.mark.parametrize(
    "url",
    [
        *[
            "",
            "host",
            "redis://h",
            "amqp:h",
            "amqp://h:0",
            "amqp://h:x",
            "amqp://h:99999",
            "amqp://a b",
            "amqp://h/a/b",
        ],
        *["amqp://u@h", "amqp://u:p@h;", "amqp://u:p@h;x", "amqp://u:p@h,i", "amqp://u:%ff@h", "amqp://h#x"],
        *[f"amqp://h?heartbeat={value}" for value in (*NUMBERS, "0", "65536")],
        *[f"amqp://h?socket_timeout={value}" for value in ("nan", "inf", "0", "-1", "1e-9", "1e16", "", "x")],
        *[f"amqp://h?{name}=1" for name in ("retry_delay", "locale", "tcp_options", "ssl_options", "nonsense")],
    ],
)
def test_a_broker_url_that_cannot_work_is_refused_with_one_line(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(broker_url=url)

    assert str(caught.value).startswith("--broker-url ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("options", ["x", "1", "{'ca_certs':%20'/nothing'}", "__import__('os')"])
def test_tls_options_that_pika_cannot_use_are_refused_with_one_line(options: str) -> None:
    with pytest.raises(ConfigurationError, match="^--broker-url 'amqps://h\\?ssl_options=.*cannot be used: [^\n]*$"):
        connect_rabbitmq(f"amqps://h?ssl_options={options}")


@pytest.mark.parametrize("url", ["redis://u:p@h?nonsense=1", "redis://h:1/0?nonsense=1", "redis://h?nonsense=1"])
def test_a_parameter_is_named_where_it_is_no_part_of_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the parameter nonsense is not allowed"):
        Settings(redis_url=url)


@pytest.mark.parametrize("url", ["redis://u:1?nonsense=1@h", "redis://u:1?nonsense=1", "redis://h/0?nonsense"])
def test_a_parameter_is_not_named_where_it_may_be_one(url: str) -> None:
    with pytest.raises(ConfigurationError, match="a parameter after the \\? is not allowed") as caught:
        Settings(redis_url=url)
    assert "nonsense" not in str(caught.value)


def test_a_broker_url_may_name_several_nodes() -> None:
    first, second = read_broker_url("amqp://u:p@a/%2F?heartbeat=5;amqps://u:p@b:1/v")

    assert (first.hosts, second.hosts) == ((("a", None),), (("b", 1),))
