"""A server that speaks TLS, and nothing else."""

import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path


class TlsServer:
    """Shakes hands with a certificate that nobody vouches for, and then hangs up."""

    def __init__(self, folder: Path) -> None:
        self.certificate, key = folder / "certificate.pem", folder / "key.pem"
        subject = ("-subj", "/CN=elsewhere", "-addext", "subjectAltName=DNS:elsewhere")
        files = ("-keyout", str(key), "-out", str(self.certificate))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
            check=True,
            capture_output=True,
        )
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(OSError), self._context.wrap_socket(connection, server_side=True):
                    pass
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
