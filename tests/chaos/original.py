"""A worker as the original is, to take tasks beside ours: one at a time, and lost if it is killed.

python -m tests.chaos.original PORT CIRCLE
"""

import json
import signal
import sys
from typing import Any

import redis

from rhai_tasks.errors import RhaiError

from .guests import make_engine


def main(port: int, circle: str) -> None:
    """Run tasks until SIGTERM, and the task at hand to its end."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    engine = make_engine()
    client: Any = redis.Redis(port=port, decode_responses=True)
    while not stopping:
        popped = client.blpop([f"rhai_tasks:{circle}"], 1)
        if not popped:
            continue
        key = f"rhai_task_details:{popped[1]}"
        details = client.hgetall(key)
        client.hset(key, "status", "processing")
        try:
            end = {"status": "completed", "output": engine.run(details["script"])}
        except RhaiError as error:
            end = {"status": "error", "error": str(error)}
        client.hset(key, mapping=end)
        client.lpush(details["replyToQueue"], json.dumps({"taskId": popped[1], **end}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
