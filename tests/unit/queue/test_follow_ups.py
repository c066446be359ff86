"""What follows a task in dramatiq's compositions: what is refused before any server is asked."""

from typing import Any

import pytest
import redis
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend

from rhai_tasks.connection.connect import connect
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.queue.follow_ups import refuse_elsewhere


@pytest.mark.parametrize(
    ("ours", "theirs", "is_refused"),
    [
        ("redis://127.0.0.1/", "redis://127.0.0.1:6379/0", False),
        ("redis://127.0.0.1:6379", "redis://localhost", False),
        ("redis://[::1]/2", "redis://user:secret@localhost/2", False),
        ("rediss://example.org/", "redis://example.org/", False),
        ("unix:///run/redis.sock", "redis://localhost", False),  # it may be
        ("redis+sentinel://a,b/main/0", "redis://anywhere", False),  # it may be
        ("redis+sentinel://a,b/main/1", "redis://anywhere", True),
        ("unix:///run/redis.sock?db=3", "redis://localhost", True),
        ("redis://localhost/0", "redis://localhost/1", True),
        ("redis://localhost:6379", "redis://localhost:6380", True),
        ("redis://example.org", "redis://localhost", True),
        ("redis://example.org", "redis://example.com", True),
    ],
)
def test_a_backend_is_refused_that_is_known_to_be_elsewhere(ours: str, theirs: str, is_refused: bool) -> None:
    backend: Any = RedisBackend(client=redis.Redis.from_url(theirs))
    try:
        refuse_elsewhere(GroupCallbacks(backend), connect(ours))
    except ConfigurationError:
        assert is_refused
    else:
        assert not is_refused
