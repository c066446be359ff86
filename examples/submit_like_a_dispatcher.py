"""Submit a script to a running worker and wait for its result, with plain Redis commands.

python -m examples.submit_like_a_dispatcher redis://127.0.0.1/ 02abc '40 + 2'
"""

import sys
import time
from typing import Any
from uuid import uuid4

import redis


def run(client: Any, circle: str, script: str) -> dict[str, str]:
    """Submit a script; return the details hash of its task once it has ended."""
    task_id = str(uuid4())
    details_key = f"rhai_task_details:{task_id}"
    client.hset(details_key, mapping={"script": script, "status": "pending", "callerId": "03me"})
    client.lpush(f"rhai_tasks:{circle}", task_id)
    while client.hget(details_key, "status") not in {"completed", "error"}:
        time.sleep(0.005)
    details: dict[str, str] = client.hgetall(details_key)
    return details


if __name__ == "__main__":
    url, circle, script = sys.argv[1:]
    with redis.Redis.from_url(url, decode_responses=True) as client:
        ended = run(client, circle, script)
    print(ended.get("output") if ended["status"] == "completed" else ended.get("error"))
