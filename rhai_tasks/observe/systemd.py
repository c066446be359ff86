"""Notifications for systemd services of `Type=notify`: ready, stopping, alive. The protocol is sd_notify(3)."""

import os
import socket
import time
from contextlib import suppress

from .reports import Reports

_CHECK_SECONDS = 1.0  # between two checks of the tree


class Notifier:
    """Notifies systemd of the state of a tree; call `tell` every `pause` seconds, or more often.

    Args:
        reports: Reports of the tree.
        main: Id of the process that systemd started, if it is not this one.
    """

    def __init__(self, reports: Reports, *, main: int | None = None) -> None:
        self._reports = reports
        self._was_ready = False
        self._status = ""
        self._sent_at = float("-inf")  # time.monotonic()
        # WATCHDOG_USEC is inherited; WATCHDOG_PID, if set, names the one process that it is for.
        main = main or os.getpid()
        is_ours = int(os.environ.get("WATCHDOG_PID", main)) == main
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0")) if is_ours else 0
        self._watchdog = microseconds > 0
        self.pause = min(_CHECK_SECONDS, microseconds / 3e6) if self._watchdog else _CHECK_SECONDS

    @staticmethod
    def is_wanted() -> bool:
        """Return whether systemd expects notifications."""
        return "NOTIFY_SOCKET" in os.environ

    def tell(self) -> None:
        """Send a changed status and, if the tree is alive, the watchdog ping; at most once per `pause`."""
        if time.monotonic() < self._sent_at + self.pause / 2:
            return
        self._sent_at = time.monotonic()
        lines = []
        missing = self._reports.list_missing()
        status = f"Waiting: {'; '.join(missing)}" if missing else "Ready"
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if not missing and not self._was_ready:
            self._was_ready = True
            lines.append("READY=1")
        if self._watchdog and not self._reports.list_stuck():
            lines.append("WATCHDOG=1")
        if lines:
            send("\n".join(lines))

    def stopping(self) -> None:
        """Notify systemd that the tree stops."""
        send("STOPPING=1\nSTATUS=Stopping")


def send(state: str) -> None:
    """Send a state to systemd; without a listener, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify, suppress(OSError):
        notify.sendto(state.encode(errors="replace"), address.replace("@", "\0", 1) if address[:1] == "@" else address)
