"""Keys that sign tasks, and the check of a signature; needs the extra `signatures`.

A caller's id is its public key in lowercase hex: 64 digits for `ed25519`, 66 for `secp256k1`, whose points are
compressed. Both schemes come from `cryptography`: coincurve checks secp256k1 eight times faster, but its last version
(21, of March 2025) has no wheel for Python 3.14.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import shown

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
except ModuleNotFoundError as error:
    raise ConfigurationError("signatures need cryptography: pip install 'rhai-tasks[signatures]'") from error

_SIGNATURE_BYTES = 64  # of both schemes
_HEX = frozenset("0123456789abcdef")
_HALF = _SIGNATURE_BYTES // 2

_ED25519_PRIME = 2**255 - 19
# y of the points of order 1, 2, 4 and 8: under such a key, anybody can make a signature that verifies.
_LOW_ORDER = {
    0,
    1,
    _ED25519_PRIME - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
}
_SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_ECDSA = ec.ECDSA(hashes.SHA256())

Verify = Callable[[bytes, bytes], None]
"""Takes a signature and the signed bytes; raises `InvalidSignature` or a `ValueError` if they do not match."""


class Scheme(NamedTuple):
    """A row of `SCHEMES`."""

    key_bytes: int
    load: Callable[[bytes], Verify]
    """Reads a public key; raises a `ValueError` that says what is wrong with it."""
    generate: Callable[[], Any]


def _load_ed25519(key: bytes) -> Verify:
    y = int.from_bytes(key, "little") & (2**255 - 1)
    if y >= _ED25519_PRIME or y in _LOW_ORDER:
        raise ValueError("its point is not canonical, or of low order")
    return ed25519.Ed25519PublicKey.from_public_bytes(key).verify


def _load_secp256k1(key: bytes) -> Verify:
    public_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key)

    def verify(signature: bytes, form: bytes) -> None:
        r, s = int.from_bytes(signature[:_HALF]), int.from_bytes(signature[_HALF:])
        if s > _SECP256K1_ORDER // 2:
            raise ValueError("its s is in the upper half of the order")
        public_key.verify(encode_dss_signature(r, s), form, _ECDSA)

    return verify


SCHEMES = {
    "ed25519": Scheme(32, _load_ed25519, ed25519.Ed25519PrivateKey.generate),
    "secp256k1": Scheme(33, _load_secp256k1, lambda: ec.generate_private_key(ec.SECP256K1())),
}
"""The schemes by their names in the field `signatureScheme`."""


def verify(scheme: str, caller: str, signature: str, form: bytes) -> None:
    """Check a signature.

    Args:
        scheme: Name of the scheme.
        caller: Public key, in hex.
        signature: 64 bytes, in hex.
        form: The signed bytes.

    Raises:
        ValueError: The signature is not the caller's, or not of these bytes; says what is wrong.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"the scheme is {shown(scheme)}: expected one of {', '.join(SCHEMES)}")
    check = _load(scheme, caller)
    found = _from_hex("the signature", signature, _SIGNATURE_BYTES)
    try:
        check(found, form)
    except InvalidSignature:
        raise ValueError("it is not the caller's signature of this task") from None


@lru_cache(maxsize=1024)  # to read a point takes as long as to check a signature with it
def _load(scheme: str, caller: str) -> Verify:
    key = _from_hex("the caller", caller, SCHEMES[scheme].key_bytes)
    try:
        return SCHEMES[scheme].load(key)
    except ValueError as error:
        raise ValueError(f"the caller is not a public key of {scheme}: {error}") from None


def _from_hex(what: str, text: str, length: int) -> bytes:
    # `bytes.fromhex` alone would take capitals and blanks: one key would be several callers.
    if len(text) != 2 * length or not _HEX.issuperset(text):
        raise ValueError(f"{what} is {shown(text)}: expected {length} bytes in lowercase hex")
    return bytes.fromhex(text)


class SigningKey:
    """A private key that signs tasks, of a file in PEM (PKCS #8, not encrypted).

    Attributes:
        scheme: `ed25519` or `secp256k1`.
        public_key: In lowercase hex: the caller's id.
    """

    def __init__(self, private_key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        self._private_key = private_key
        if isinstance(private_key, ed25519.Ed25519PrivateKey):
            self.scheme, self.public_key = "ed25519", private_key.public_key().public_bytes_raw().hex()
            return
        point = private_key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        self.scheme, self.public_key = "secp256k1", point.hex()

    def __repr__(self) -> str:
        return f"<SigningKey {self.scheme} {self.public_key}>"

    @classmethod
    def new(cls, scheme: str = "ed25519") -> Self:
        """Make a key.

        Raises:
            ValueError: There is no such scheme.
        """
        if scheme not in SCHEMES:
            raise ValueError(f"scheme={scheme!r}: expected one of {', '.join(SCHEMES)}")
        return cls(SCHEMES[scheme].generate())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a key from a file.

        Raises:
            ConfigurationError: The file cannot be read, or holds no such key. The text shows nothing of its content.
        """
        try:
            key = serialization.load_pem_private_key(Path(path).read_bytes(), password=None)
        except OSError as error:
            raise ConfigurationError(f"the key file {os.fspath(path)!a} cannot be read: {error.strerror}") from None
        except TypeError:
            raise ConfigurationError(f"the key file {os.fspath(path)!a} is encrypted: decrypt it first") from None
        except Exception:  # of many classes, for bytes that are not a key
            key = None
        is_secp256k1 = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256k1"
        if not is_secp256k1 and not isinstance(key, ed25519.Ed25519PrivateKey):
            raise ConfigurationError(
                f"the key file {os.fspath(path)!a} holds no private key of {' or '.join(SCHEMES)} in PEM"
            ) from None
        return cls(key)  # type: ignore[arg-type]  # one of the two

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new file that only this user can read.

        Raises:
            ConfigurationError: There is such a file, or it cannot be written.
        """
        text = self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(text)
        except OSError as error:
            raise ConfigurationError(f"the key file {os.fspath(path)!a} cannot be made: {error.strerror}") from None

    def sign(self, form: bytes) -> str:
        """Return the signature of these bytes, 64 bytes in hex."""
        if isinstance(self._private_key, ed25519.Ed25519PrivateKey):
            return self._private_key.sign(form).hex()
        r, s = decode_dss_signature(self._private_key.sign(form, _ECDSA))
        return f"{r:064x}{min(s, _SECP256K1_ORDER - s):064x}"
