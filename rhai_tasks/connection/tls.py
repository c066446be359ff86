"""Explains failures of TLS, and checks the files that a URL names."""

import os
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rhai_tasks.errors import ConfigurationError

from .sentinel import SentinelUrl
from .urls import Url, check_server_url, redact


def tls_failure(error: BaseException | None) -> str:
    """Return the problem with the certificates of either side; empty if the error is another."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, _CUT_OFF):
            why = getattr(error, "verify_message", "")
            return f"the TLS handshake failed: {_tls_reason(error)}{f': {why}' if why else ''}".rstrip(".")
        error = error.__cause__ or error.__context__
    return ""


def _tls_reason(error: ssl.SSLError) -> str:
    reason = getattr(error, "reason", None) or str(error.args[-1])  # Python's own errors have none
    return re.sub(r" \(_ssl\.c:\d+\)$", "", reason).replace("_", " ").lower()


_CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def check_files(url: str) -> None:
    """Refuse a URL whose files cannot be used: certificates, keys, the path of a Unix socket.

    A missing socket is accepted: the server makes it.

    Raises:
        ConfigurationError: A file cannot be used, or a value such as a name of ciphers is unknown.
    """
    read = check_server_url(url)
    wrong = wrong_files(read)
    if wrong:
        raise ConfigurationError(f"--redis-url {redact(url)!r}: {wrong}")


def wrong_files(url: Url) -> str:
    """Return which file of a URL cannot be used, and why; empty if all can."""
    with suppress(OSError):  # no right to read it: connecting reports that
        if url.path and Path(url.path).is_dir():
            return "the path of the socket is a directory"
    if not url.scheme.startswith("rediss"):
        return ""
    named = SentinelUrl.of(url)
    for options in (named.options, named.sentinel_options) if named else (url.query,):
        if wrong := _wrong_certificates(options):
            return wrong
    return ""


def _wrong_certificates(options: Mapping[str, Any]) -> str:
    """Load the certificates that redis-py would load with each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    key, password = options.get("ssl_keyfile"), options.get("ssl_password", "")  # else OpenSSL asks at the terminal
    authorities = {"cafile": "ssl_ca_certs", "capath": "ssl_ca_path", "cadata": "ssl_ca_data"}
    steps: list[tuple[str, Callable[[], object]]] = [
        (name, partial(context.load_verify_locations, **{argument: options[name]}))
        for argument, name in authorities.items()
        if name in options
    ]
    if "ssl_ca_path" in options:  # OpenSSL accepts a missing folder
        steps.append(("ssl_ca_path", partial(os.listdir, options["ssl_ca_path"])))
    if "ssl_certfile" in options:
        load = partial(context.load_cert_chain, options["ssl_certfile"], key, lambda: password)
        steps.append(("ssl_certfile or ssl_keyfile", load))
    if "ssl_ciphers" in options:
        steps.append(("ssl_ciphers", partial(context.set_ciphers, options["ssl_ciphers"])))
    for name, step in steps:
        try:
            step()
        except ssl.SSLError as error:
            return f"{name} cannot be used: {_tls_reason(error)}"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        except ValueError:
            return f"{name} cannot be used"
    return ""
