"""The HTTP port of a tree: /livez, /readyz and /metrics."""

import logging
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from urllib.parse import urlsplit

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.settings import read_address

from .metrics import Samples
from .reports import Reports

logger = logging.getLogger(__name__)

_REQUEST_SECONDS = 10.0  # for a client to send its request, or for a server to answer
_TEXT = "text/plain; charset=utf-8"
_NO_CLIENT = "metrics need prometheus-client: pip install 'rhai-tasks[metrics]'\n"


def listen(address: str) -> socket.socket:
    """Bind the port; this process or a fork of it can serve it then.

    Args:
        address: `HOST:PORT`, `[IPv6]:PORT` or `PORT`, on the loopback address; port 0 is any free port.

    Raises:
        ConfigurationError: The address is invalid or not free.
    """
    host, port = read_address("--metrics-address", address)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigurationError(f"--metrics-address {address!r}: {error}; expected HOST:PORT") from error
    host, port = listener.getsockname()[:2]
    logger.info("Health and metrics are at http://%s:%d", f"[{host}]" if ":" in host else host, port)
    if find_spec("prometheus_client") is None:
        logger.warning("There is /livez and /readyz, but %s", _NO_CLIENT.strip())
    return listener


def serve(listener: socket.socket, reports: Reports, samples: Samples = tuple) -> None:
    """Answer requests on threads of this process from now on.

    Args:
        listener: Bound to the port.
        reports: Reports of the tree.
        samples: Further values for /metrics.
    """
    threading.Thread(target=_Server(listener, reports, samples).serve_forever, name="monitor", daemon=True).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, reports: Reports, samples: Samples) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._reports, self._samples = reports, samples
        self._metrics: Callable[[str], tuple[bytes, str]] | None = None
        self._making = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  (socketserver's names)
        """Log why a request failed; the default prints a traceback, even if the client has disconnected."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            logger.debug("The connection from %s failed: %s", client_address, error)
        else:
            logger.exception("The request from %s failed", client_address)

    def answer(self, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, content type and body."""
        if path == "/livez":
            return _verdict(self._reports.list_stuck())
        if path == "/readyz":
            return _verdict(self._reports.list_missing())
        if path == "/metrics":
            return self._show_metrics(accept)
        return HTTPStatus.NOT_FOUND, _TEXT, b"there is /livez, /readyz and /metrics\n"

    def _show_metrics(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        try:
            from .exposition import Exposition  # noqa: PLC0415  (an extra, needed only for this path)
        except ModuleNotFoundError:
            return HTTPStatus.NOT_IMPLEMENTED, _TEXT, _NO_CLIENT.encode()
        with self._making:
            if self._metrics is None:
                self._metrics = Exposition(self._reports, self._samples).text
        body, content_type = self._metrics(accept)
        return HTTPStatus.OK, content_type, body


def _verdict(wrong: list[str]) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
    return status, _TEXT, "".join(f"{line}\n" for line in wrong or ["ok"]).encode(errors="replace")


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_SECONDS
    server_version, sys_version = "rhai-tasks", ""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)  # noqa: S101  (no other server uses this handler)
        status, content_type, body = self.server.answer(urlsplit(self.path).path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name for it)
        logger.debug(format, *args)


def ask(address: str, path: str) -> tuple[bool, str]:
    """Send a request to a tree's port; return whether the status is 200, and the body.

    Raises:
        ConfigurationError: The address is invalid.
    """
    host, port = read_address("--address", address)
    connection = HTTPConnection(host, port, timeout=_REQUEST_SECONDS / 2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status == HTTPStatus.OK, response.read().decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        return False, f"no answer at {address}: {getattr(error, 'strerror', None) or error}"
    finally:
        connection.close()
