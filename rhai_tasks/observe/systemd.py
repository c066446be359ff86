"""What systemd is told of a service with `Type=notify`: that it is ready, that it stops, that it is alive.

The source of the protocol is sd_notify(3).
"""

import os
import socket
import time
from contextlib import suppress

from .reports import Reports

_LOOK_SECONDS = 1.0  # between two looks at the tree


class Notifier:
    """Tells systemd how a tree is; call `tell` every `pause` seconds, or more often.

    Args:
        reports: Of the tree.
        main: The process that systemd started, if that is not this one.
    """

    def __init__(self, reports: Reports, *, main: int | None = None) -> None:
        self._reports = reports
        self._was_ready = False
        self._status = ""
        self._told = float("-inf")  # time.monotonic()
        # Watched is the main process alone, if it is said which: WATCHDOG_USEC is inherited.
        main = main or os.getpid()
        watched = int(os.environ.get("WATCHDOG_PID", main)) == main
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0")) if watched else 0
        self._watchdog = microseconds > 0
        self.pause = min(_LOOK_SECONDS, microseconds / 3e6) if self._watchdog else _LOOK_SECONDS

    @staticmethod
    def is_wanted() -> bool:
        """Say whether systemd started us and wants to be told."""
        return "NOTIFY_SOCKET" in os.environ

    def tell(self) -> None:
        """Tell what has changed, and that the tree is alive if it is; nothing if that was told just now."""
        if time.monotonic() < self._told + self.pause / 2:
            return
        self._told = time.monotonic()
        lines = []
        missing = self._reports.missing()
        status = f"Waiting: {'; '.join(missing)}" if missing else "Ready"
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if not missing and not self._was_ready:
            self._was_ready = True
            lines.append("READY=1")
        if self._watchdog and not self._reports.stuck():
            lines.append("WATCHDOG=1")
        if lines:
            send("\n".join(lines))

    def stopping(self) -> None:
        """Tell that the tree stops."""
        send("STOPPING=1\nSTATUS=Stopping")


def send(state: str) -> None:
    """Send a state to systemd, if it listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify, suppress(OSError):
        notify.sendto(state.encode(errors="replace"), address.replace("@", "\0", 1) if address[:1] == "@" else address)
