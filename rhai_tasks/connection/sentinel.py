"""URLs that name a master by its Sentinels: `redis+sentinel://host:26379,host2:26379/service/0`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .parameters import SENTINEL_PREFIX
from .urls import Url, connection_options, read_server_url

_SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The parts of such a URL."""

    addresses: list[tuple[str, int]]
    service: str
    options: Mapping[str, Any]  # of connections to the master
    sentinel_options: Mapping[str, Any]  # of connections to the Sentinels

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """Parse a URL; `None` if its scheme is another.

        User, password and query are the master's, as in other URLs; query parameters that begin with
        `sentinel_` are the Sentinels', such as `sentinel_username` and `sentinel_password`. With
        `rediss+sentinel` both speak TLS.

        Raises:
            ValueError: The URL cannot be read; the text quotes none of it.
        """
        return cls.of(read_server_url(url))

    @classmethod
    def of(cls, url: Url) -> Self | None:
        """Make one from a parsed URL; `None` if its scheme is another."""
        if not url.scheme.endswith("+sentinel"):
            return None
        options = {"db": 0, **connection_options(url)}
        theirs = {name: options.pop(name) for name in list(options) if name.startswith(SENTINEL_PREFIX)}
        sentinel_options = {name: value for name, value in options.items() if name.startswith("ssl")}
        sentinel_options |= {name.removeprefix(SENTINEL_PREFIX): value for name, value in theirs.items()}
        addresses = [(host, port or _SENTINEL_PORT) for host, port in url.hosts]
        return cls(addresses, url.service, options, sentinel_options)
