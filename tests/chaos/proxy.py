"""A TCP proxy between workers and server that loses, delays, cuts and swallows what passes."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

_CHUNK = 64 * 1024
_LOOK_SECONDS = 0.02  # between two looks whether a silent connection speaks again


class Proxy:
    """Forwards a port of its own to a server's; set the attributes and call the methods while it runs.

    Args:
        target: The server's port, asked for with each new connection: a server may move.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self.black_hole = False  # nothing passes, in either direction; connections stand
        self.delay = 0.0  # seconds that each chunk waits
        self.target = target
        self._cut_replies = 0
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.drop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, server_url: str) -> str:
        """Rewrite a server's URL to lead through here."""
        parts = urlsplit(server_url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    def drop(self) -> None:
        """Close every connection."""

        async def close() -> None:
            for link in list(self._links):
                link.close()
            await asyncio.gather(*[link.task for link in list(self._links)], return_exceptions=True)

        self._call(close())

    def silence(self) -> None:
        """Swallow everything on the connections that stand, for ever; new ones work."""
        for link in list(self._links):
            link.silent = True

    def cut_replies(self, count: int) -> None:
        """Cut the connection in the middle of each of the next replies."""
        self._cut_replies = count

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            with suppress(OSError):
                from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target())
                link.writers.append(to_server)
                pumps = [
                    asyncio.create_task(self._pump(link, reader, to_server, cut=False)),
                    asyncio.create_task(self._pump(link, from_server, writer, cut=True)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            link.close()
            self._links.discard(link)

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cut: bool
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            while self.black_hole or link.silent:
                await asyncio.sleep(_LOOK_SECONDS)
                if writer.is_closing():  # and nobody reads what would say so
                    return
            if cut and self._cut_replies and len(chunk) > 1:
                self._cut_replies -= 1
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                return
            writer.write(chunk)
            await writer.drain()


class _Link:
    """One connection through the proxy: both its ends."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.silent = False
        task = asyncio.current_task()
        assert task
        self.task: asyncio.Task[Any] = task

    def close(self) -> None:
        for writer in self.writers:
            writer.close()
