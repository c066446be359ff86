"""A dramatiq pipeline: an actor in Python, then a script, then another actor in Python.

python -m examples.pipeline redis://127.0.0.1/ 02abc

A worker of the circle runs the script. This process runs the actors.
"""

import sys
from queue import SimpleQueue

import dramatiq
from dramatiq import pipeline
from dramatiq.brokers.redis import RedisBroker

from rhai_tasks import ScriptActor

PRICES = {"tea": 2.5, "cake": 4.0}


def main(url: str, circle: str) -> None:
    """Price an order; a script decides on the discount."""
    broker = RedisBroker(url=url, namespace="rhai_dramatiq")  # type: ignore[no-untyped-call]
    bills: SimpleQueue[str] = SimpleQueue()

    @dramatiq.actor(broker=broker)
    def price(order: dict[str, int]) -> float:
        return sum(PRICES[item] * count for item, count in order.items())

    @dramatiq.actor(broker=broker)
    def bill(total: str) -> None:
        bills.put(total)

    discount = ScriptActor(url, circle=circle)
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    pipeline(
        [
            price.message({"tea": 2, "cake": 5}),
            discount.message("if INPUT > 20.0 { INPUT * 0.9 } else { INPUT }"),
            bill.message_with_options(),  # its argument is the output of the script
        ],
        broker=broker,
    ).run()
    print("to pay:", bills.get(timeout=30))
    worker.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
