"""Cancels the tasks that this process holds: one subscription brings the ids of cancelled tasks."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import redis

from rhai_tasks.connection.connect import connect_blocking
from rhai_tasks.connection.outage import RETRY_SECONDS
from rhai_tasks.protocol import RULES_NOTICE, cancel_channel, to_text
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

from .context import QueueContext
from .leases import LEASE_SECONDS, Leases
from .message import TaskMessage

logger = logging.getLogger(__name__)

_QUIET_SECONDS = 10.0  # after which the subscription is tried: a connection can be dead without a word


class Cancels:
    """Stops the scripts of cancelled tasks. Threads: one of its own listens, any may call."""

    def __init__(self, context: QueueContext, leases: Leases) -> None:
        self._context, self._leases = context, leases
        self._recent: dict[str, float] = {}  # by task id, when its cancel came: time.monotonic()
        self._thread = vital_thread("cancels", lambda: hear_cancels(context.settings, self.cancel, context.stopping))

    def start(self) -> None:
        """Listen until the broker is stopping; the thread then ends by itself, some seconds later at most."""
        self._thread.start()

    def cancel(self, task_id: str) -> None:
        """Stop a task's script if this process holds the task; `finish.lua` decides how the task has ended.

        A notice of changed rules comes this way, too.
        """
        recall = self._context.recalls.get(task_id.removeprefix(RULES_NOTICE))
        if recall and task_id.startswith(RULES_NOTICE):
            recall()
        now = time.monotonic()
        self._recent = {known: at for known, at in self._recent.items() if now < at + LEASE_SECONDS}
        self._recent[task_id] = now  # first: a fetch may be on its way that has not read it
        for queue in {run.delivery.keys.queue for run in self._context.held.all() if run.delivery.task_id == task_id}:
            # The renewal reads whether the task is still cancelled: it may have been submitted again since.
            with suppress(redis.RedisError):  # then the next renewal sees it
                self._leases.renew(queue)

    def concern(self, messages: Iterable[TaskMessage]) -> bool:
        """Whether a task of one of these messages was cancelled within the last seconds."""
        return bool(self._recent) and any(
            run.delivery.task_id in self._recent for message in messages for run in message.runs()
        )


def hear_cancels(settings: Settings, cancel: Callable[[str], object], stop: threading.Event) -> None:
    """Call `cancel` with the id of each task that is cancelled, until `stop`.

    No cancel is lost while the subscription is down: it is in the task's details, where each fetch and each renewal of
    the lease read it.
    """
    with connect_blocking(settings.redis_url) as client:
        while not stop.is_set():
            try:
                with client.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(cancel_channel(settings.namespace))
                    _listen(channel, cancel, stop)
            except redis.exceptions.NoPermissionError as error:
                logger.warning("Cancels are seen up to 3 s late: this user may not subscribe to them: %s", error)
                return
            except redis.RedisError:
                stop.wait(RETRY_SECONDS)  # others log the outage
            except Exception as error:  # a foreign message must not end the reading of later ones
                logger.warning("The subscription to cancels failed, and starts again: %.500r", error)
                stop.wait(RETRY_SECONDS)


def _listen(channel: redis.client.PubSub, cancel: Callable[[str], object], stop: threading.Event) -> None:
    asked = False
    while not stop.is_set():
        message = channel.get_message(timeout=_QUIET_SECONDS)
        if message is None:
            if asked:
                raise redis.TimeoutError("the subscription does not answer")
            channel.ping()
        elif message["type"] == "message":
            cancel(to_text(message["data"]))
        asked = message is None
