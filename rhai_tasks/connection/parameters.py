"""The query parameters of URLs, by scheme."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

SENTINEL_PREFIX = "sentinel_"
"""Prefix of query parameters for connections to the Sentinels."""

_MOST_DATABASES = 2**31  # the server counts them in an int


class UrlError(ValueError):
    """A part of a URL cannot be read; the text quotes none of it."""


class _Parameter(NamedTuple):
    wanted: str
    convert: Callable[[str], Any]  # raises ValueError

    def read(self, text: str, what: str) -> Any:
        try:
            return self.convert(text)
        except ValueError:
            pass
        raise UrlError(f"the {what} must be {self.wanted}")


def _number(low: int, high: int, what: str) -> _Parameter:
    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return _Parameter(f"{what} from {low} to {high}", convert)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 600:  # also false for nan
        raise ValueError
    return seconds


def _text(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError
    return text


def _secret(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _client_name(text: str) -> str:
    if not text or not all("!" <= char <= "~" for char in text):
        raise ValueError
    return text


def _flag(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[_one_of(text, _FLAGS)]


def _one_of(text: str, words: tuple[str, ...]) -> str:
    if text.lower() not in words:
        raise ValueError
    return text.lower()


_FLAGS = ("true", "yes", "1", "false", "no", "0")
_REQUIREMENTS = ("none", "optional", "required")
DATABASE = _number(0, _MOST_DATABASES - 1, "a number")
_TEXT = _Parameter("a text without control characters", _text)
_SECRET = _Parameter("a text", _secret)
_FLAG = _Parameter("true or false", _flag)
_SECONDS = _Parameter("a number of seconds from 0.1 to 600", _seconds)
_CREDENTIALS = {"username": _SECRET, "password": _SECRET}
_CONNECTION = {
    **_CREDENTIALS,
    "client_name": _Parameter("printable ASCII without blanks", _client_name),
    "protocol": _number(2, 3, "a number"),
}
_TLS = {
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_ca_data": _Parameter("certificates in PEM form", _secret),
    "ssl_certfile": _TEXT,
    "ssl_keyfile": _TEXT,
    "ssl_password": _SECRET,
    "ssl_cert_reqs": _Parameter("none, optional or required", lambda text: _one_of(text, _REQUIREMENTS)),
    "ssl_check_hostname": _FLAG,
    "ssl_ciphers": _TEXT,
    "ssl_min_version": _Parameter("771 (TLS 1.2) or 772 (TLS 1.3)", _number(771, 772, "").convert),
}
_TCP = {"socket_keepalive": _FLAG}
_DB = {"db": DATABASE}


def _sentinels(parameters: Mapping[str, _Parameter]) -> dict[str, _Parameter]:
    return {f"{SENTINEL_PREFIX}{name}": parameter for name, parameter in parameters.items()}


PARAMETERS: Mapping[str, Mapping[str, _Parameter]] = {
    "redis": {**_CONNECTION, **_DB, **_TCP},
    "rediss": {**_CONNECTION, **_DB, **_TCP, **_TLS},
    "unix": {**_CONNECTION, **_DB},
    "redis+sentinel": {**_CONNECTION, **_DB, **_TCP, **_sentinels(_CREDENTIALS)},
    "rediss+sentinel": {**_CONNECTION, **_DB, **_TCP, **_TLS, **_sentinels({**_CREDENTIALS, **_TLS})},
    "amqp": {
        "heartbeat": _number(1, 65535, "a number of seconds"),  # 0 would turn off the detection of dead connections
        "socket_timeout": _SECONDS,
        "stack_timeout": _SECONDS,
        "blocked_connection_timeout": _SECONDS,
    },
}
PARAMETERS = {
    **PARAMETERS,
    "amqps": {**PARAMETERS["amqp"], "ssl_options": _Parameter("a Python dict, %-encoded", _secret)},
}
FOREIGN = {name for names in PARAMETERS.values() for name in names}  # of other schemes
