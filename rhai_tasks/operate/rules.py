"""Sets and shows the rules of circles, and keeps the log of what operators do."""

import getpass
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import (
    RULES_NOTICE,
    UNREADABLE,
    QueueKeys,
    Rule,
    audit_key,
    cancel_channel,
    queue_name,
    seconds_of,
)

from .workers import read_workers

_ENDS = {"pause": "resume", "block": "unblock", "limit": "clear the limit of"}
AUDITED = 1000
"""How many acts the log keeps, of all circles together."""

_LONGEST = 1000  # characters of a text in the log: ids of tasks have any length

Note = Callable[[str, str], None]
"""Notes in the log what was done: the circle, empty for none or several, and what."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a circle's rules, or what an operator has done otherwise."""

    at: float  # seconds since the epoch, by the server's clock
    by: str
    circle: str
    what: str
    reason: str


class Rules:
    """Sets and clears rules. Workers obey from their next fetch on, and release what they have prefetched.

    Args:
        client: A connection.
        namespace: Prefix of this project's keys.
        by: The person or program to name in the log; by default user and machine.
    """

    def __init__(self, client: Any, namespace: str, by: str | None = None) -> None:
        self._client, self._namespace = client, namespace
        self._by = _this_user() if by is None else by

    def read(self, circle: str) -> list[Rule]:
        """List the rules of a circle."""
        fields = self._client.hgetall(self._keys(circle).rules)
        rules = (Rule.read(field, note) for field, note in sorted(fields.items()))
        return [rule for rule in rules if rule]

    def set(self, circle: str, rule: Rule) -> None:
        """Set a rule, in the place of one with the same verb and subject.

        Raises:
            ConfigurationError: A worker serves the circle through RabbitMQ, where rules do not hold.
        """
        for report in read_workers(self._client, self._namespace):
            if report.rabbitmq and (circle in report.circles or report.circle_count > len(report.circles)):
                raise ConfigurationError(
                    f"rules do not hold through RabbitMQ, by which process {report.pid} on {report.host} serves circle "
                    f"{circle}: start it without --broker-url"
                )
        rule = replace(rule, by=self._by, at=self._now())
        self._change(circle, rule, {rule.field: rule.note}, rule.verb, rule.reason)

    def clear(self, circle: str, rule: Rule, reason: str = "") -> bool:
        """Clear a rule; return whether there was one with its verb and subject."""
        if not self._client.hexists(self._keys(circle).rules, rule.field):
            return False
        self._change(circle, replace(rule, at=self._now()), {}, _ENDS[rule.verb], reason)
        return True

    def note(self, circle: str, what: str, *, by: str | None = None) -> None:
        """Note in the log what an operator has done otherwise; an empty circle stands for none or several.

        `by`: another person or program than usual.
        """
        with self._client.pipeline(transaction=True) as pipeline:
            self._log(pipeline, [self._now(), by or self._by, circle, what, ""])
            pipeline.execute()

    def changes(self, circle: str | None = None) -> list[Change]:
        """List the last changes, newest first: of one circle, or of all."""
        entries = self._client.lrange(audit_key(self._namespace), 0, -1)
        return [change for change in _read_changes(entries) if circle is None or change.circle == circle[:_LONGEST]]

    def _change(self, circle: str, rule: Rule, values: dict[bytes, str], verb: str, reason: str) -> None:
        keys = self._keys(circle)
        what = f"{verb} {rule.subject}" + (f": {rule.quota}" if rule.quota else "")
        change = [rule.at, self._by, circle, what, reason]
        with self._client.pipeline(transaction=True) as pipeline:
            if values:
                pipeline.sadd(keys.registry(self._namespace), keys.queue)  # so that the rule is shown
                pipeline.hset(keys.rules, mapping=values)
            else:
                pipeline.hdel(keys.rules, rule.field)
            self._log(pipeline, change)
            if values:  # nothing has to come back for a rule that is gone
                pipeline.publish(cancel_channel(self._namespace), RULES_NOTICE + keys.queue)
            pipeline.execute()

    def _log(self, pipeline: Any, change: list[Any]) -> None:
        at, *texts = change
        pipeline.lpush(audit_key(self._namespace), json.dumps([at, *(text[:_LONGEST] for text in texts)]))
        pipeline.ltrim(audit_key(self._namespace), 0, AUDITED - 1)

    def _keys(self, circle: str) -> QueueKeys:
        return QueueKeys(self._namespace, queue_name(circle))

    def _now(self) -> float:
        seconds, microseconds = self._client.time()
        return float(seconds + microseconds / 1e6)


def common_circle(circles: Iterable[str]) -> str:
    """Return the circle if all are the same; empty if they are several, or there is none."""
    first, *others = set(circles) or {""}
    return "" if others else first


def _read_changes(entries: list[bytes]) -> Iterator[Change]:
    for entry in entries:
        with suppress(*UNREADABLE):  # of another version
            at, by, circle, what, reason = json.loads(entry)
            yield Change(seconds_of(at), *map(str, (by, circle, what, reason)))


def _this_user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
