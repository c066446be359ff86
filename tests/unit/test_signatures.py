"""Signatures of tasks: the documented vectors, and signatures that must not be valid."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks import Client, TaskSpec
from rhai_tasks.client.details import DetailsWriter
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import HERO, READ_FIELDS, RHAI, SIGNATURE_FIELDS, SIGNED_FIELDS, Field, signed_form
from rhai_tasks.signatures import SCHEMES, SigningKey, verify

PROTOCOL = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
VECTORS = next(json.loads(text) for text in re.findall(r"```json\n(.*?)```", PROTOCOL, re.DOTALL) if '"form"' in text)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1."""
L = 2**252 + 27742317777372353535851937790883648493
"""Order of ed25519."""
P = 2**255 - 19
NOT_SIGNED = {Field.CREATED_AT, Field.TRACEPARENT, Field.PUBLIC_KEY, Field.SIGNATURE}
"""Fields that a worker reads although nobody vouches for them; the caller is signed under one name."""

KEYS = {scheme: SigningKey.new(scheme) for scheme in SCHEMES}


def details_of(key: SigningKey, **fields: str) -> dict[str, bytes]:
    texts = {"callerId": key.public_key, "signatureScheme": key.scheme, "signedAt": "1767225600", **fields}
    return {name: text.encode() for name, text in texts.items()}


def is_valid(key: SigningKey, signature: str, form: bytes, *, scheme: str = "") -> bool:
    try:
        verify(scheme or key.scheme, key.public_key, signature, form)
    except ValueError:
        return False
    return True


# --- the document


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["taskId"])
def test_the_documented_vectors_are_the_form_and_valid(vector: dict[str, Any]) -> None:
    details = {name: text.encode() for name, text in vector["details"].items()}

    form = signed_form(vector["taskId"], vector["circle"], details)

    assert form.hex() == vector["form"]
    scheme, caller, signature = (vector["details"][name] for name in ("signatureScheme", "callerId", "signature"))
    verify(scheme, caller, signature, form)


def test_the_vectors_are_of_each_scheme_and_their_keys_are_the_documented_ones() -> None:
    secret = bytes(range(1, 33))
    keys = [
        SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(secret)),
        SigningKey(ec.derive_private_key(int.from_bytes(secret), ec.SECP256K1())),
    ]

    assert {vector["details"]["callerId"] for vector in VECTORS} == {key.public_key for key in keys}
    assert {vector["details"]["signatureScheme"] for vector in VECTORS} == set(SCHEMES)


def test_each_field_that_a_worker_reads_is_signed_or_named_as_an_exception() -> None:
    assert {*READ_FIELDS, *RHAI.further, *HERO.further, *SIGNATURE_FIELDS} - SIGNED_FIELDS == NOT_SIGNED
    section = PROTOCOL.partition("### Signatures")[2].partition("\n### ")[0]
    terms = PROTOCOL.partition("### Terms of a task")[2].partition("\n### ")[0]
    assert {name for name in SIGNED_FIELDS if f"`{name}`" not in section + terms} == set()


# --- properties

_BYTES = st.binary(max_size=40)
_NAMES = st.sampled_from(sorted(SIGNED_FIELDS | {Field.PUBLIC_KEY, Field.STATUS}))
_TASKS = st.tuples(st.text(max_size=10), st.text(min_size=1, max_size=10), st.dictionaries(_NAMES, _BYTES))


def _meaning(task: tuple[str, str, dict[str, bytes]]) -> tuple[Any, ...]:
    """Return what is signed of a task."""
    task_id, circle, details = task
    caller = details.get(Field.CALLER_ID, details.get(Field.PUBLIC_KEY, b""))
    signed = {name: value for name, value in details.items() if name in SIGNED_FIELDS}
    return task_id, circle, {**signed, Field.CALLER_ID: caller}


@given(_TASKS, _TASKS)
def test_two_tasks_have_one_form_only_if_all_that_is_signed_is_the_same(one: Any, other: Any) -> None:
    assert (signed_form(*one) == signed_form(*other)) == (_meaning(one) == _meaning(other))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@given(st.data())
def test_any_changed_byte_of_any_signed_field_is_refused(key: SigningKey, data: st.DataObject) -> None:
    fields = {name: data.draw(st.binary(max_size=8)) for name in SIGNED_FIELDS} | details_of(key)
    task = {"": b"task", "circle": "kreis-ä".encode(), **fields}
    signature = key.sign(signed_form("task", "kreis-ä", fields))

    name = data.draw(st.sampled_from(sorted(task)))
    value = bytearray(task[name])
    match data.draw(st.sampled_from(["change", "insert", "remove", "leave out"])):
        case "change" if value:
            value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
        case "remove" if value:
            del value[data.draw(st.integers(0, len(value) - 1))]
        case "leave out" if name in SIGNED_FIELDS:
            del task[name]
        case _:
            value.insert(data.draw(st.integers(0, len(value))), data.draw(st.integers(0, 255)))
    if name in task:
        task[name] = bytes(value)
    task_id, circle = (task.pop(part).decode("utf-8", "surrogateescape") for part in ("", "circle"))
    form = signed_form(task_id, circle, task)

    assert not is_valid(key, signature, form)
    scheme, caller = (task.get(part, b"").decode("latin-1") for part in ("signatureScheme", "callerId"))
    with pytest.raises(ValueError, match="."):
        verify(scheme, caller, signature, form)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_any_changed_bit_of_a_signature_is_refused(key: SigningKey, place: int, bit: int) -> None:
    form = signed_form("t", "c", details_of(key))
    changed = bytearray.fromhex(key.sign(form))
    changed[place] ^= 1 << bit

    assert not is_valid(key, changed.hex(), form)


@pytest.mark.parametrize(
    ("one", "other"),
    [("\u00e9", "e\u0301"), ("\u212b", "\u00c5"), ("K", "\u212a"), ("a", "A"), ("ﬁ", "fi"), ("x", "x\u200d")],
    ids=ascii,
)
def test_two_unicode_forms_of_an_id_or_a_circle_are_two_tasks(one: str, other: str) -> None:
    key = KEYS["ed25519"]
    signature = key.sign(signed_form(one, one, details_of(key)))

    assert is_valid(key, signature, signed_form(one, one, details_of(key)))
    assert not is_valid(key, signature, signed_form(other, one, details_of(key)))
    assert not is_valid(key, signature, signed_form(one, other, details_of(key)))


def test_an_id_of_any_bytes_can_be_signed() -> None:
    key = KEYS["ed25519"]
    task_id = b"\xff\x00t".decode("utf-8", "surrogateescape")
    form = signed_form(task_id, "c", details_of(key))

    assert b"\xff\x00t" in form
    assert is_valid(key, key.sign(form), form)


# --- malleable signatures and bad keys


def test_a_secp256k1_signature_with_s_in_the_upper_half_is_refused() -> None:
    key = KEYS["secp256k1"]
    form = signed_form("t", "c", details_of(key))
    signature = key.sign(form)
    r, s = signature[:64], int(signature[64:], 16)

    assert 0 < s <= ORDER // 2
    with pytest.raises(ValueError, match="upper half"):
        verify(key.scheme, key.public_key, f"{r}{ORDER - s:064x}", form)


@pytest.mark.parametrize("r", [0, 1, ORDER - 1, ORDER, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, ORDER // 2, ORDER, 2**256 - 1])
def test_a_secp256k1_signature_out_of_bounds_is_refused(r: int, s: int) -> None:
    assert not is_valid(KEYS["secp256k1"], f"{r:064x}{s:064x}", b"form")


def test_an_ed25519_signature_with_s_beyond_the_order_is_refused() -> None:
    key = KEYS["ed25519"]
    signature = bytes.fromhex(key.sign(b"form"))
    s = int.from_bytes(signature[32:], "little") + L

    assert s < 2**256
    assert not is_valid(key, (signature[:32] + s.to_bytes(32, "little")).hex(), b"form")


Point = tuple[int, int]
D = -121665 * pow(121666, -1, P) % P


def add(one: Point, other: Point) -> Point:
    """Add points of edwards25519."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def low_order_points() -> set[Point]:
    """Find the points of order 1, 2, 4 and 8: L times any point is one, and one of order 8 generates all."""
    for y in range(2, 200):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if x * x % P != square:
            x = x * pow(2, (P - 1) // 4, P) % P
        if x * x % P != square:
            continue
        found, step, power = (0, 1), (x, y), L
        while power:
            found, step, power = (add(found, step) if power & 1 else found), add(step, step), power >> 1
        points = [(0, 1)]
        while (following := add(points[-1], found)) != (0, 1):
            points.append(following)
        if len(points) == 8:
            return set(points)
    raise AssertionError("unreachable: half of all points have a part of order 8")


def encodings(point: Point) -> set[str]:
    """Encode a point with each sign, and also with y beyond the prime, where there is room."""
    x, y = point
    return {
        ((sign << 255) | number).to_bytes(32, "little").hex()
        for number in (y, y + P)
        if number < 2**255
        for sign in {x & 1, *({0, 1} if x == 0 else ())}
    }


LOW_ORDER = sorted({text for point in low_order_points() for text in encodings(point)})


@pytest.mark.parametrize("caller", LOW_ORDER)
def test_a_key_of_low_order_is_refused(caller: str) -> None:
    identity = (1).to_bytes(32, "little") + bytes(32)  # R the identity, s = 0: valid for one message of eight

    for number in range(32):
        with pytest.raises(ValueError, match="not a public key of ed25519"):
            verify("ed25519", caller, identity.hex(), b"form %d" % number)


def test_there_are_eight_points_of_low_order() -> None:
    assert len(low_order_points()) == 8
    assert len(LOW_ORDER) == 14


def _compressed(curve: ec.EllipticCurve) -> str:
    key = ec.generate_private_key(curve).public_key()
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint).hex()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: KEYS["ed25519"].public_key,
        lambda: KEYS["secp256k1"].public_key,
        lambda: _compressed(ec.SECP256R1()),
        lambda: "04" + "11" * 64,
        lambda: "02" + "00" * 32,
        lambda: "02" + "ff" * 32,
        lambda: "00" * 33,
        KEYS["secp256k1"].public_key.upper,
        KEYS["ed25519"].public_key.upper,
        lambda: " " + KEYS["ed25519"].public_key[1:],
        lambda: "",
        lambda: "caller",
        lambda: "é" * 64,
    ],
    ids=[
        "ed25519",
        "secp256k1",
        "P-256",
        "uncompressed",
        "0",
        "beyond",
        "infinity",
        "02AB",
        "AB",
        "blank",
        "",
        "x",
        "é",
    ],
)
def test_another_key_than_the_signers_is_refused(scheme: str, make: Callable[[], str]) -> None:
    caller, key = make(), SigningKey.new(scheme)

    with pytest.raises(ValueError, match="."):
        verify(scheme, caller, key.sign(b"form"), b"form")


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize(
    "spell", [str.upper, lambda text: text + "00", lambda text: text[2:], lambda text: text[:0], "0x".join]
)
def test_a_signature_has_one_spelling(key: SigningKey, spell: Callable[[str], str]) -> None:
    signature = key.sign(b"form")

    with pytest.raises(ValueError, match="64 bytes in lowercase hex"):
        verify(key.scheme, key.public_key, spell(signature), b"form")


@pytest.mark.parametrize("scheme", ["", "ED25519", "rsa", "none", "\udcff"])
def test_an_unknown_scheme_is_refused(scheme: str) -> None:
    with pytest.raises(ValueError, match="expected one of ed25519, secp256k1"):
        verify(scheme, KEYS["ed25519"].public_key, KEYS["ed25519"].sign(b"form"), b"form")


# --- files


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_key_is_read_as_it_was_written_and_only_its_user_can_read_it(tmp_path: Path, scheme: str) -> None:
    key = SigningKey.new(scheme)
    key.write(tmp_path / "key")

    again = SigningKey.read(tmp_path / "key")

    assert (again.scheme, again.public_key) == (scheme, key.public_key)
    assert is_valid(key, again.sign(b"form"), b"form")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="cannot be made: File exists"):
        SigningKey.new(scheme).write(tmp_path / "key")
    assert SigningKey.read(tmp_path / "key").public_key == key.public_key


def _pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    text: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "holds no private key"),
        (lambda: b"s3cret", "holds no private key"),
        (lambda: b"-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n", "holds no private key"),
        (lambda: _pem(ec.generate_private_key(ec.SECP256R1())), "holds no private key of ed25519 or secp256k1"),
        (lambda: _pem(rsa.generate_private_key(65537, 2048)), "holds no private key of ed25519 or secp256k1"),
        (lambda: _pem(ed25519.Ed25519PrivateKey.generate(), b"s3cret"), "is encrypted"),
    ],
    ids=["empty", "no key", "broken", "P-256", "RSA", "encrypted"],
)
def test_a_file_without_a_key_is_refused_and_not_shown(
    tmp_path: Path, content: Callable[[], bytes], reason: str
) -> None:
    (tmp_path / "key").write_bytes(content())

    with pytest.raises(ConfigurationError, match=reason) as raised:
        SigningKey.read(tmp_path / "key")

    assert "s3cret" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        SigningKey.read(tmp_path / "none")


# --- the client


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_client_signs_what_it_submits(key: SigningKey) -> None:
    writer = DetailsWriter(circle="kreis", signing_key=key)
    spec = TaskSpec(
        "40 + 2", timeout=2.5, context_id="c", delay=10.0, start_before=2e9, fields={"replyToQueue": "r", "other": "o"}
    )

    pairs = iter(writer.write(spec, "tâsk", "now"))

    details = {name: text.encode() for name, text in zip(pairs, pairs, strict=True)}
    assert details["callerId"].decode() == key.public_key
    form = signed_form("tâsk", "kreis", details)
    assert is_valid(key, details["signature"].decode(), form)
    del details["other"]
    assert signed_form("tâsk", "kreis", details) == form


@pytest.mark.parametrize("options", [{"caller_id": "somebody"}, {"fields": {"signedAt": "0"}}], ids=str)
def test_a_client_signs_for_nobody_else(options: Any) -> None:
    with Client(circle="c", signing_key=KEYS["ed25519"]) as app, pytest.raises(ValueError, match="signing key|own"):
        app.submit("1", **options)
    with pytest.raises(ValueError, match="the signing key is"):
        Client(circle="c", caller_id="somebody", signing_key=KEYS["ed25519"])


def test_a_private_key_is_in_no_representation() -> None:
    key = KEYS["ed25519"]
    secret = _pem(key._private_key)

    shown = repr(DetailsWriter(signing_key=key)) + str(key)

    assert key.public_key in shown
    assert secret.splitlines()[1].decode() not in shown
