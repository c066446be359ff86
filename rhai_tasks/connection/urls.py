"""Reads URLs of servers, and redacts them for messages. The reference is docs/options.md, "URLs".

Pure: no connection, no file. Each part is read or refused. A password that is not percent-encoded can be in any part of
a URL. So no message quotes an unreadable URL or a part of one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from rhai_tasks.errors import ConfigurationError

from .parameters import DATABASE, FOREIGN, PARAMETERS, SENTINEL_PREFIX, UrlError

T = TypeVar("T")

HIDDEN = "***"

_SERVER = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_BROKER = ("amqp", "amqps")
_ENCODE = "a special character of a user name, password or path is written as %xx, as @ is %40"
_WANTED_BROKER = (
    "expected amqp://user:password@host:port/vhost, or amqps://, with special characters as %xx; several separated by ;"
)
_LONGEST_PATH = 107  # bytes of a Unix socket's, as the kernel has it; macOS has 103


@dataclass(frozen=True, slots=True)
class Url:
    """A URL of a server, read and checked; or one of several, for RabbitMQ."""

    scheme: str
    user: str
    password: str = field(repr=False)
    hosts: tuple[tuple[str, int | None], ...]
    path: str  # of a Unix socket; else empty
    service: str  # that Sentinels watch; else empty
    database: int | None  # of the path
    query: Mapping[str, Any] = field(repr=False)  # values have the types that redis-py takes
    shown: str  # for messages: without passwords


def read_server_url(url: object) -> Url:
    """Read the URL of a Redis server.

    Raises:
        UrlError: The URL cannot be read, or has a part that is not supported.
    """
    return _read(url, _SERVER)


def read_broker_url(url: object) -> list[Url]:
    """Read the URL of a RabbitMQ server; several, of the nodes of a cluster, are separated by semicolons.

    Raises:
        UrlError: As `read_server_url`.
    """
    if not isinstance(url, str):
        raise UrlError("expected a text")
    return [_read(one, _BROKER) for one in url.split(";")]


def check_server_url(url: object) -> Url:
    """Read a `--redis-url`.

    Raises:
        ConfigurationError: It cannot be read.
    """
    return _check("--redis-url", read_server_url, url)


def check_broker_url(url: object) -> list[Url]:
    """Read a `--broker-url`.

    Raises:
        ConfigurationError: It cannot be read.
    """
    return _check("--broker-url", read_broker_url, url, f"; {_WANTED_BROKER}")


def connection_options(url: Url) -> dict[str, Any]:
    """Return options of redis-py's connections other than the address; with Sentinels also `ssl`."""
    options = dict(url.query)
    if url.user:  # overrides the parameter, as in redis-py
        options["username"] = url.user
    if url.password:
        options["password"] = url.password
    if url.database is not None:
        options.setdefault("db", url.database)  # the parameter overrides it, as in redis-py
    if url.scheme == "rediss+sentinel":
        options["ssl"] = True
    return options


def _check(option: str, read: Callable[[object], T], url: object, wanted: str = "") -> T:
    try:
        return read(url)
    except UrlError as error:
        wrong = str(error)
    raise ConfigurationError(f"{option} {redact(url)!r}: {wrong}{wanted}")  # outside of `except`: no context to print


def redact(url: object) -> str:
    """Return a URL for messages, without passwords; of an unreadable one, only the scheme."""
    if isinstance(url, str) and (not url or _OF_ANOTHER_KIND.fullmatch(url)):
        return url
    if not isinstance(url, str):
        return HIDDEN
    try:
        is_broker = url.startswith(_BROKER)
        return ";".join(one.shown for one in (read_broker_url(url) if is_broker else [read_server_url(url)]))
    except UrlError:
        scheme, separator, _ = url.partition("://")
        return f"{scheme}://{HIDDEN}" if separator and scheme in {*_SERVER, *_BROKER} else HIDDEN


_OF_ANOTHER_KIND = re.compile(r"https?://[A-Za-z0-9.-]*/?")  # has no room for a password


@lru_cache(maxsize=64)
def _read_text(url: str, schemes: tuple[str, ...]) -> Url:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in schemes:
        raise UrlError(f"expected a URL that begins with one of {', '.join(f'{name}://' for name in schemes)}")
    if any(char <= " " or char == "\x7f" or char.isspace() or "\ud800" <= char <= "\udfff" for char in url):
        raise UrlError("write blanks, control characters and bytes that are not UTF-8 as %xx")
    if "#" in rest:
        raise UrlError("a # must be written as %23")
    place, question_mark, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    user, colon, password = credentials.partition(":")
    # An unknown parameter's name is quoted only if it cannot be a part of a password with a ? in it.
    is_clear = "@" not in path + query and (bool(at) or bool(slash) or ":" not in hosts)
    found = _Parts(scheme, hosts, slash + path, query, is_clear)
    parameters = _query(found)
    name = _decoded(user, "user name")
    secret = _decoded(password, "password")
    if scheme in _BROKER and name and not secret:
        raise UrlError("the password is missing")
    shown = f"{user if colon else ''}:{HIDDEN}@" if secret else f"{HIDDEN}@" if at else ""
    # Without an @ and with a colon it may be user:12/rest-of-the-password; elsewhere a path has no room for that.
    is_free_text = not at and ":" in hosts and scheme not in {"redis", "rediss", "unix"}
    shown_path = HIDDEN if is_free_text and path else path
    return Url(
        scheme,
        name,
        secret,
        _hosts(found),
        *_path(found),
        parameters,
        f"{scheme}://{shown}{hosts}{slash}{shown_path}{question_mark}{_shown(query)}",
    )


def _read(url: object, schemes: tuple[str, ...]) -> Url:
    if not isinstance(url, str):
        raise UrlError("expected a text")
    return _read_text(url, schemes)


class _Parts(NamedTuple):
    """A URL's parts, undecoded."""

    scheme: str
    hosts: str
    path: str
    query: str
    is_clear: bool  # no password can reach into the query


def _decoded(text: str, what: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass
    raise UrlError(f"the {what} is not UTF-8")


def _plain(text: str, what: str) -> str:
    """Decode a name, which is not a secret; refuse control characters."""
    plain = _decoded(text, what)
    if not plain.isprintable():
        raise UrlError(f"the {what} has a control character in it")
    return plain


# --- hosts

_HOST = re.compile(r"(?:\[(?P<six>[^]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", re.DOTALL)
_HOST_NAME = re.compile(r"[\w.-]+")


def _hosts(parts: _Parts) -> tuple[tuple[str, int | None], ...]:
    if parts.scheme == "unix":
        if parts.hosts:
            raise UrlError(f"expected unix:///path, with three slashes; {_ENCODE}")
        return ()
    if not parts.scheme.endswith("+sentinel"):
        return (_host(parts.hosts),) if parts.hosts else (("localhost", None),)
    if not all(parts.hosts.split(",")):
        raise UrlError("expected redis+sentinel://host:port,host:port/service/database: a host is missing")
    return tuple(_host(one) for one in parts.hosts.split(","))


def _host(text: str) -> tuple[str, int | None]:
    match = _HOST.fullmatch(text)
    if not match:
        raise UrlError(f"host and port cannot be read; expected host:port, or [IPv6 address]:port; {_ENCODE}")
    port = match["port"]
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536 and len(port) < 7):
        raise UrlError(f"the port must be a number from 1 to 65535; {_ENCODE}")
    return _six(match["six"]) if match["name"] is None else _name(match["name"]), int(port) if port else None


def _six(text: str) -> str:
    address = _plain(text, "host")
    try:
        IPv6Address(address)
    except ValueError:
        pass
    else:
        return address
    raise UrlError("the host in brackets is not an IPv6 address")


def _name(text: str) -> str:
    name = _plain(text, "host") or "localhost"
    try:
        name.encode("idna")  # as the resolver does
    except UnicodeError:
        name = ""
    if not _HOST_NAME.fullmatch(name):
        raise UrlError(f"the host is neither a name nor an address; {_ENCODE}")
    return name


# --- paths


def _path(parts: _Parts) -> tuple[str, str, int | None]:
    """Return the path of the socket, the service, and the database."""
    if parts.scheme == "unix":
        return _socket_path(parts.path), "", None
    path = parts.path.removeprefix("/").removesuffix("/")
    service = ""
    if parts.scheme in _BROKER:
        if "/" in path:
            raise UrlError("a / in the vhost is written as %2F")
        _plain(path, "vhost")
        return "", "", None
    if parts.scheme.endswith("+sentinel"):
        service, _, path = path.partition("/")
        if not service:
            raise UrlError("expected redis+sentinel://host:port,host:port/service/database: the service is missing")
    return "", _plain(service, "service"), DATABASE.read(path, "database (the path)") if path else None


def _socket_path(text: str) -> str:
    path = _plain(text, "path")
    if not path or path.endswith("/"):
        raise UrlError("expected unix:///path/of/the/socket?db=0: the path is missing")
    if len(path.encode()) > _LONGEST_PATH:
        raise UrlError(f"the path of the socket is longer than {_LONGEST_PATH} bytes")
    return path


# --- query parameters


def _query(parts: _Parts) -> dict[str, Any]:
    known = PARAMETERS[parts.scheme]
    found: dict[str, Any] = {}
    for part in filter(None, parts.query.split("&")):
        name, separator, value = part.partition("=")
        if name not in known:
            may_be_quoted = name in FOREIGN or (parts.is_clear and separator and name.isidentifier())
            raise UrlError(
                f"{f'the parameter {name}' if may_be_quoted else 'a parameter after the ?'} is not allowed; "
                f"{parts.scheme} URLs allow {', '.join(known)}"
            )
        if name in found:
            raise UrlError(f"the parameter {name} is given twice")
        what = f"parameter {name}"
        found[name] = known[name].read(_decoded(value.replace("+", " "), what), what)
    for prefix in ("", SENTINEL_PREFIX):
        if f"{prefix}ssl_keyfile" in found and f"{prefix}ssl_certfile" not in found:
            raise UrlError(f"the parameter {prefix}ssl_keyfile needs {prefix}ssl_certfile")
    return found


def _shown(query: str) -> str:
    shown = []
    for part in query.split("&"):
        name, _, _ = part.partition("=")
        is_secret = name.endswith(("password", "username", "ssl_options", "ssl_ca_data"))
        shown.append(f"{name}={HIDDEN}" if is_secret else part)
    return "&".join(shown)
