"""URLs that name a master by its Sentinels: `redis+sentinel://host:26379,host2:26379/service/0`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from redis.connection import parse_url

_SENTINEL_PORT = 26379
_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_SENTINEL_PREFIX = "sentinel_"


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """What such a URL says."""

    addresses: list[tuple[str, int]]
    service: str
    options: Mapping[str, Any]  # of connections to the master
    sentinel_options: Mapping[str, Any]  # of connections to the Sentinels

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """Read a URL; `None` if its scheme is another.

        User, password and query are the master's, as in other URLs; query parameters that begin with
        `sentinel_` are the Sentinels', such as `sentinel_username` and `sentinel_password`. With
        `rediss+sentinel` both speak TLS.

        Raises:
            ValueError: It names no Sentinel or no service.
        """
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            return None
        scheme = _SCHEMES[parts.scheme]
        user, at, hosts = parts.netloc.rpartition("@")
        service, _, database = parts.path.strip("/").partition("/")
        if not hosts or not service:
            raise ValueError("wanted is redis+sentinel://host:port,host:port/service/database")
        addresses = [_address(host) for host in hosts.split(",")]
        query = [part for part in parts.query.split("&") if part]
        own = [part for part in query if not part.startswith(_SENTINEL_PREFIX)]
        theirs = [part.removeprefix(_SENTINEL_PREFIX) for part in query if part.startswith(_SENTINEL_PREFIX)]
        options = _options(f"{scheme}://{user}{at}master/{database or 0}?{'&'.join(own)}")
        tls = [part for part in own if part.startswith("ssl")]
        sentinel_options = _options(f"{scheme}://sentinel/?{'&'.join([*tls, *theirs])}")
        return cls(addresses, unquote(service), options, sentinel_options)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # an IPv6 address ends with a bracket
        host, port = text, str(_SENTINEL_PORT)
    if not port.isdigit():
        raise ValueError(f"{port!r} is no port")
    return host.strip("[]"), int(port)


def _options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # redis-py's is not annotated
    options.pop("host", None)
    options.pop("port", None)
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    return options
