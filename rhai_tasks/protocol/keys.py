"""This project's own keys: dramatiq's layout, and keys for leases, deliveries, delays and repeated calls."""

import re
from dataclasses import dataclass
from functools import lru_cache

from .text import to_bytes, to_text


def key_pattern(prefix: str) -> bytes:
    """Return the glob pattern of keys with this prefix."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^" else bytes([byte]) for byte in to_bytes(prefix)) + b"*"


ACTOR = "run_script"
"""Name of the dramatiq actor that every message is for."""


def message_head(queue: str) -> str:
    """Return the JSON of a dramatiq message up to its time; Lua adds the rest."""
    return f'{{"queue_name":"{queue}","actor_name":"{ACTOR}","kwargs":{{}},"message_timestamp":'


_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(rb"\.([0-9a-f]{2})")
_QUEUE_PREFIX = "rhai-"


def queue_name(circle: str) -> str:
    """Return the name of a circle's dramatiq queue; `circle_of` is the inverse.

    Bytes outside letters, digits, `_` and `-` are written as `.` and two hex digits: dramatiq gives `.`
    and `:` a meaning of its own at the end of names, and circles may hold any character.
    """
    escaped = _UNSAFE.sub(lambda match: b".%02x" % match[0][0], to_bytes(circle))
    return _QUEUE_PREFIX + escaped.decode()


def is_circle_queue(queue: str) -> bool:
    """Whether this is a circle's dramatiq queue, not one of an actor in Python."""
    return queue.startswith(_QUEUE_PREFIX)


@lru_cache(maxsize=1024)  # called for every task
def circle_of(queue: str) -> str:
    """Return the circle of a dramatiq queue."""
    escaped = to_bytes(queue.removeprefix(_QUEUE_PREFIX))
    return to_text(_ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), escaped))


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """Keys of one dramatiq queue under a namespace (docs/protocol.md, "Keys of our own")."""

    namespace: str
    queue: str

    @property
    def messages(self) -> str:
        """List, the queue itself: ids of messages, and of tasks that become messages when they are fetched."""
        return f"{self.namespace}:{self.queue}"

    @property
    def bodies(self) -> str:
        """Hash of message id to message, waiting or held; dramatiq's own."""
        return f"{self.messages}.msgs"

    @property
    def dead(self) -> str:
        """Sorted set of dead message ids by milliseconds; dramatiq's own."""
        return f"{self.messages}.XQ"

    @property
    def dead_bodies(self) -> str:
        """Hash of dead message id to message; dramatiq's own."""
        return f"{self.dead}.msgs"

    @property
    def dead_reasons(self) -> str:
        """Hash of dead message id to the reason."""
        return f"{self.dead}.reasons"

    @property
    def sequence(self) -> str:
        """Counter for message ids: a smaller id was fetched earlier."""
        return f"{self.messages}.sequence"

    @property
    def published(self) -> str:
        """Sorted set of ids of unclaimed messages in RabbitMQ, by the server's millisecond."""
        return f"{self.messages}.published"

    @property
    def leases(self) -> str:
        """Sorted set of broker id to the server's millisecond at which its lease ends."""
        return f"{self.messages}.leases"

    @property
    def deliveries(self) -> str:
        """Hash of message id to the number of processes that died with it."""
        return f"{self.messages}.deliveries"

    @property
    def full(self) -> str:
        """String that exists while a bridge waits for room."""
        return f"{self.messages}.full"

    @property
    def room(self) -> str:
        """List on which a bridge waits for room."""
        return f"{self.messages}.room"

    @property
    def delayed(self) -> str:
        """Sorted set of task ids by the server's millisecond at which they go to the native list."""
        return f"{self.messages}.delayed"

    @property
    def delayed_messages(self) -> str:
        """Sorted set of ids of messages or tasks by the server's millisecond at which they go to the queue."""
        return f"{self.messages}.delayed_messages"

    @property
    def delay_queue(self) -> str:
        """List of ids of messages that dramatiq's own brokers have delayed; dramatiq's own."""
        return f"{self.messages}.DQ"

    @property
    def delay_bodies(self) -> str:
        """Hash of the same ids to messages; dramatiq's own."""
        return f"{self.delay_queue}.msgs"

    @property
    def rules(self) -> str:
        """Hash of the circle's rules: its fields are named by `Rule.field`, its values are `Rule.note`."""
        return f"{self.messages}.rules"

    @property
    def callers(self) -> str:
        """Hash of the id of a held message to its caller; may be lost."""
        return f"{self.messages}.callers"

    @property
    def lines(self) -> str:
        """Sorted set of callers with a line, by their virtual time, or the server's millisecond when last served."""
        return f"{self.messages}.lines"

    @property
    def line_number(self) -> str:
        """Number of the element that was parked last."""
        return f"{self.messages}.lines.number"

    @property
    def turns(self) -> str:
        """Hash of the virtual times of callers; it exists while a bridge keeps turns."""
        return f"{self.messages}.turns"

    @property
    def charges(self) -> str:
        """Hash of the id of a held message to what its caller was charged for it."""
        return f"{self.messages}.turns.charges"

    def line(self, caller: str) -> bytes:
        """List of a caller's elements that have left the queue and may not begin yet."""
        return to_bytes(f"{self.messages}.line.{caller}")

    def waiting(self, caller: str | None) -> str:
        """Set of ids of a caller's tasks, or of the circle's, that clients have submitted and that may still wait."""
        return f"{self.messages}.waiting" if caller is None else f"{self.messages}.waiting.{caller}"

    @property
    def buckets(self) -> str:
        """Hash of token buckets, by `circle` or `caller <caller>`."""
        return f"{self.messages}.buckets"

    @property
    def wake(self) -> str:
        """List on which a bridge waits for a delayed task that is due before all that it knows."""
        return f"{self.messages}.wake"

    def acks(self, broker_id: str) -> str:
        """Set of message ids that one broker holds; dramatiq's own."""
        return f"{self.namespace}:__acks__.{broker_id}.{self.queue}"

    @staticmethod
    def acks_start(namespace: str) -> str:
        """Prefix of the keys that `acks` returns."""
        return f"{namespace}:__acks__."

    def released(self, broker_id: str) -> str:
        """String: a process that had this broker id, and the number of its last release."""
        return f"{self.namespace}:__released__.{broker_id}.{self.queue}"

    @staticmethod
    def acceptance(namespace: str, digest: str) -> str:
        """String: how long the signature of a task is valid, whether the task has ended, and its message's id."""
        return f"{namespace}:__accepted__.{digest}"

    @staticmethod
    def registry(namespace: str) -> str:
        """Set of the names of all queues that a bridge has ever served."""
        return f"{namespace}:__queues__"


def workers_key(namespace: str) -> str:
    """Hash of broker id to the report of that worker process, see observe/recorder.py; and of `quiet_field`."""
    return f"{namespace}:__workers__"


def quiet_field(broker_id: str) -> str:
    """Field of `workers_key`: a process with this broker id takes no tasks, by an operator's order."""
    return f"quiet {broker_id}"


def state_channel(namespace: str) -> str:
    """Prefix of the channel on which a task's new status is published; the details key follows.

    A message is a status, and for a final one that has a text of at most 4096 bytes, a blank and the text.
    """
    return f"{namespace}:__state__:"


def api_keys_key(namespace: str) -> str:
    """Hash of the id of an API key to its record; the key itself is nowhere."""
    return f"{namespace}:__api_keys__"


def changes_key(namespace: str) -> str:
    """String: how often tasks were cancelled or submitted again.

    While it stays, a worker need not read again what it has read of a task.
    """
    return f"{namespace}:__changes__"


def audit_key(namespace: str) -> str:
    """List of the last changes of rules, newest first."""
    return f"{namespace}:__audit__"


def cancel_channel(namespace: str) -> str:
    """Channel on which the ids of cancelled tasks are published, and notices of changed rules."""
    return f"{namespace}:__cancel__"


RULES_NOTICE = "rules of "
"""Start of a notice on the channel for cancels; the queue follows, whose circle's rules have changed.

A task may have such an id, too: then its cancel also makes workers read the rules again.
"""


def submits_key(namespace: str, client_id: str) -> str:
    """Sorted set of a client's completed calls, which it may repeat if the reply got lost."""
    return f"{namespace}:__submits__.{client_id}"
