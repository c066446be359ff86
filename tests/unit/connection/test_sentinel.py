import pytest

from rhai_tasks.connection.connect import connect, connect_async
from rhai_tasks.connection.sentinel import SentinelUrl
from rhai_tasks.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "addresses", "service", "options", "sentinel_options"),
    [
        ("redis+sentinel://h1:1,h2:2/mymaster/3", [("h1", 1), ("h2", 2)], "mymaster", {"db": 3}, {}),
        ("redis+sentinel://h/my%20master", [("h", 26379)], "my master", {"db": 0}, {}),
        ("redis+sentinel://[::1]:7,[::2]/m", [("::1", 7), ("::2", 26379)], "m", {"db": 0}, {}),
        (
            "redis+sentinel://me:p%40ss@h/m?client_name=x&sentinel_password=s",
            [("h", 26379)],
            "m",
            {"db": 0, "username": "me", "password": "p@ss", "client_name": "x"},
            {"password": "s"},
        ),
        (
            "rediss+sentinel://h/m?ssl_ca_certs=ca.pem",
            [("h", 26379)],
            "m",
            {"db": 0, "ssl": True, "ssl_ca_certs": "ca.pem"},
            {"ssl": True, "ssl_ca_certs": "ca.pem"},
        ),
    ],
)
def test_a_url_of_sentinels_is_read(
    url: str,
    addresses: list[tuple[str, int]],
    service: str,
    options: dict[str, object],
    sentinel_options: dict[str, object],
) -> None:
    parsed = SentinelUrl.parse(url)

    assert parsed == SentinelUrl(addresses, service, options, sentinel_options)


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "unix:///path"])
def test_other_urls_are_left_to_others(url: str) -> None:
    assert SentinelUrl.parse(url) is None


@pytest.mark.parametrize("url", ["redis+sentinel://h", "redis+sentinel:///m", "redis+sentinel://h:x/m", "http://h"])
@pytest.mark.parametrize("make", [connect, connect_async])
def test_a_url_that_cannot_be_read_is_refused(url: str, make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigurationError, match="--redis-url"):
        make(url)
