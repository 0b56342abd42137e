#!/usr/bin/env python3
"""An independent verifier of statusledger's formats (version 1).

Written from docs/formats alone, with the Python 3.11 standard library and
nothing else, so that a disagreement with the Rust verifier finds a mistake in
one of the two. It has the same commands, options, verdicts, `failed_check`
names and exit codes. Slow and plain on purpose: where speed and obviousness
disagree, this file is obvious.

    statusledger_verify.py receipt     BODY.json... --keys K --pin KEY_ID@INSTANCE [...]
    statusledger_verify.py export      LEDGER.zip   --pin ... [...]
    statusledger_verify.py consistency OLDER NEWER  --pin ... --keys K [--proof P]
    statusledger_verify.py keys        K            --pin ... [--since OLD]
"""

import base64
import binascii
import calendar
import datetime
import hashlib
import json as json_out
import os
import re
import struct
import sys
import zlib

# ---------------------------------------------------------------------------
# Limits, in input bytes (Ground rules)

MAX_INTEGER = 2**53 - 1
MAX_LEVELS = 32
MAX_SEALED_LEVELS = 24
MAX_ENTRY = 65_535
MAX_BODY = 8 * 1024 * 1024
MAX_OPENING_LINE = 8 * 1024 * 1024
MAX_KEY_MANIFEST = 1024 * 1024
MAX_KEYS = 1024
MAX_SIGNATURE_LINES = 64
MAX_PROOF_HASHES = 63
# formats.md sets no limit of its own for these; they bound memory only.
MAX_EXPORT_MANIFEST = 8 * 1024 * 1024
MAX_CHECKPOINT = 1024 * 1024
MAX_SMALL_INPUT = 8 * 1024 * 1024
CHUNK = 65_536


class Failed(Exception):
    """A numbered check that failed; `check` is its name in formats.md."""

    def __init__(self, check, detail, seq=None):
        super().__init__(f"{check}: {detail}")
        self.check, self.detail, self.seq = check, detail, seq


class Usage(Exception):
    """Wrong command line, or a file that cannot be read: exit 2."""


class Malformed(Exception):
    """Something that does not parse; the caller says which check that is."""


# ---------------------------------------------------------------------------
# Strict JSON (RFC 8259 as restricted by Ground rules)

_WS = re.compile(r"[ \t\n\r]*+")
_STRING = re.compile(r'"((?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+)"')
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(.))')
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?![0-9.eE+\-])")
_SIMPLE_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unescape(raw):
    out, position, high = [], 0, None
    for match in _ESCAPE.finditer(raw):
        between = raw[position:match.start()]
        if high is not None and between:
            raise Malformed("lone surrogate")
        out.append(between)
        position = match.end()
        if match.group(1) is None:
            if high is not None:
                raise Malformed("lone surrogate")
            out.append(_SIMPLE_ESCAPES[match.group(2)])
            continue
        unit = int(match.group(1), 16)
        if high is not None:
            if not 0xDC00 <= unit <= 0xDFFF:
                raise Malformed("lone surrogate")
            out.append(chr(0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00)))
            high = None
        elif 0xD800 <= unit <= 0xDBFF:
            high = unit
        elif 0xDC00 <= unit <= 0xDFFF:
            raise Malformed("lone surrogate")
        else:
            out.append(chr(unit))
    if high is not None:
        raise Malformed("lone surrogate")
    out.append(raw[position:])
    return "".join(out)


# Parsed values are never changed, so that all empty ones can be the same.
_NO_MEMBERS, _NO_ITEMS = {}, []


class _Parser:
    def __init__(self, text):
        self.text, self.at = text, 0

    def space(self):
        self.at = _WS.match(self.text, self.at).end()

    def peek(self):
        return self.text[self.at] if self.at < len(self.text) else ""

    def string(self):
        match = _STRING.match(self.text, self.at)
        if match is None:
            raise Malformed("bad string")
        self.at = match.end()
        raw = match.group(1)
        return _unescape(raw) if "\\" in raw else raw

    def value(self, level):
        """Parses a value; `level` is how many objects and arrays enclose it."""
        first = self.peek()
        if first == "{":
            return self.object(level + 1)
        if first == "[":
            return self.array(level + 1)
        if first == '"':
            return self.string()
        for word, meaning in (("true", True), ("false", False), ("null", None)):
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return meaning
        match = _INTEGER.match(self.text, self.at)
        if match is None or match.group() == "-0":
            raise Malformed("not a value, or a number that is not a plain integer")
        digits = match.group()
        # 17 characters hold -(2^53-1); more would only cost time to convert.
        if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
            raise Malformed("integer out of range")
        self.at = match.end()
        return int(digits)

    def object(self, level):
        if level > MAX_LEVELS:
            raise Malformed("too many levels")
        self.at += 1
        members = {}
        self.space()
        if self.peek() == "}":
            self.at += 1
            return _NO_MEMBERS
        while True:
            self.space()
            name = self.string()
            if name in members:
                raise Malformed("duplicate member")
            self.space()
            if self.peek() != ":":
                raise Malformed("expected a colon")
            self.at += 1
            self.space()
            members[name] = self.value(level)
            self.space()
            follows = self.peek()
            self.at += 1
            if follows == "}":
                return members
            if follows != ",":
                raise Malformed("expected a comma or a closing brace")

    def array(self, level):
        if level > MAX_LEVELS:
            raise Malformed("too many levels")
        self.at += 1
        items = []
        self.space()
        if self.peek() == "]":
            self.at += 1
            return _NO_ITEMS
        while True:
            self.space()
            items.append(self.value(level))
            self.space()
            follows = self.peek()
            self.at += 1
            if follows == "]":
                return items
            if follows != ",":
                raise Malformed("expected a comma or a closing bracket")


def parse_json(data, limit):
    """Parses one whole document of at most `limit` bytes, or raises Malformed."""
    if len(data) > limit:
        raise Malformed(f"more than {limit} bytes")
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise Malformed("invalid UTF-8") from error
    parser = _Parser(text)
    parser.space()
    value = parser.value(0)
    parser.space()
    if parser.at != len(text):
        raise Malformed("something after the document")
    return value


def levels(value):
    """How many levels of objects and arrays a parsed value has; a scalar has none."""
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(levels, value), default=0)
    return 0


# ---------------------------------------------------------------------------
# Canonical JSON (RFC 8785)

_MUST_ESCAPE = re.compile(r'[\x00-\x1f"\\]')
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def _canonical_string(text):
    return '"' + _MUST_ESCAPE.sub(lambda m: _SHORT.get(m.group()) or f"\\u{ord(m.group()):04x}", text) + '"'


def _utf16_order(text):
    return text.encode("utf-16-be")


def _write(value, out):
    if value is None:
        out.append("null")
    elif value is True:
        out.append("true")
    elif value is False:
        out.append("false")
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, str):
        out.append(_canonical_string(value))
    elif isinstance(value, list):
        out.append("[")
        for position, item in enumerate(value):
            if position:
                out.append(",")
            _write(item, out)
        out.append("]")
    else:
        out.append("{")
        for position, name in enumerate(sorted(value, key=_utf16_order)):
            if position:
                out.append(",")
            out.append(_canonical_string(name))
            out.append(":")
            _write(value[name], out)
        out.append("}")


class _Pieces:
    """Takes the pieces of _write; joins them now and then, as millions of small
    strings take many times the room of their text."""

    def __init__(self):
        self.pieces, self.joined = [], bytearray()

    def append(self, piece):
        self.pieces.append(piece)
        if len(self.pieces) == 65_536:
            self.flush()

    def flush(self):
        self.joined += "".join(self.pieces).encode("utf-8")
        self.pieces.clear()


def canonical(value):
    """The RFC 8785 bytes of a parsed value."""
    out = _Pieces()
    _write(value, out)
    out.flush()
    return bytes(out.joined)


# ---------------------------------------------------------------------------
# Values

_HEX32 = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_INSTANCE = re.compile(r"[a-z0-9.-]{1,253}")
_TYPE = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
_NAME = re.compile(r"[a-z0-9_]+")
_TIME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{6})Z")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_DECIMAL = re.compile(r"0|[1-9][0-9]*")


def is_text(value):
    return isinstance(value, str)


def is_integer(value, low=0):
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_hash(value):
    return is_text(value) and _HEX32.fullmatch(value) is not None


def is_uuid(value):
    return is_text(value) and _UUID.fullmatch(value) is not None


def is_instance(value):
    return is_text(value) and _INSTANCE.fullmatch(value) is not None


def is_type(value):
    return is_text(value) and _TYPE.fullmatch(value) is not None


def is_time(value):
    if not is_text(value):
        return False
    match = _TIME.fullmatch(value)
    if match is None:
        return False
    year, month, day, hour, minute, second = (int(match.group(i)) for i in range(1, 7))
    if not (1 <= month <= 12 and hour <= 23 and minute <= 59 and second <= 59):
        return False
    days = 29 if month == 2 and _leap(year) else calendar.mdays[month]
    return 1 <= day <= days


def _leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def microseconds(time):
    """A valid time as microseconds since the epoch of the proleptic calendar."""
    year, month, day, hour, minute, second, micro = (int(g) for g in _TIME.fullmatch(time).groups())
    # 400 years are a whole cycle, so year 0000 needs no case of its own.
    days = datetime.date(year + 400, month, day).toordinal()
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micro


_EPOCH = None


def posix_microseconds(time):
    global _EPOCH
    if _EPOCH is None:
        _EPOCH = microseconds("1970-01-01T00:00:00.000000Z")
    return microseconds(time) - _EPOCH


def unbase64(text, length=None):
    """Strict standard base64: padded, no white space, zero trailing bits; or None."""
    if not is_text(text) or _BASE64.fullmatch(text) is None:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if base64.b64encode(raw).decode() != text or (length is not None and len(raw) != length):
        return None
    return raw


def exactly(value, members, optional=()):
    """Whether value is an object of just these members."""
    return (isinstance(value, dict) and all(m in value for m in members)
            and all(m in members or m in optional for m in value))


def without(value, *names):
    return {name: item for name, item in value.items() if name not in names}


# ---------------------------------------------------------------------------
# Hashes and the RFC 6962 tree

def sha256(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


EMPTY_ROOT = sha256()
ZEROS = "0" * 64


def leaf_hash(entry_bytes):
    return sha256(b"\x00", entry_bytes)


def node_hash(left, right):
    return sha256(b"\x01", left, right)


def root_from_inclusion(leaf, index, size, path):
    """RFC 9162 2.1.3.2; None where the path has not the length it has to have."""
    if index >= size:
        return None
    fn, sn, running = index, size - 1, leaf
    for hash_ in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            running = node_hash(hash_, running)
            while fn & 1 == 0 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            running = node_hash(running, hash_)
        fn >>= 1
        sn >>= 1
    return running if sn == 0 else None


def consistent(first, second, first_root, second_root, path):
    """RFC 9162 2.1.4.2, with the two sizes it leaves out: 0 and equal ones."""
    if first == second:
        return not path and first_root == second_root
    if first == 0:
        return not path and first_root == EMPTY_ROOT
    if first > second or not path:
        return False
    path = list(path)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    older = newer = path[0]
    for hash_ in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            older = node_hash(hash_, older)
            newer = node_hash(hash_, newer)
            while fn & 1 == 0 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            newer = node_hash(newer, hash_)
        fn >>= 1
        sn >>= 1
    return sn == 0 and older == first_root and newer == second_root


class Frontier:
    """The perfect subtrees of a tree that grows at its right edge."""

    def __init__(self):
        self.subtrees = []  # (leaves, hash), largest first

    def append(self, hash_):
        leaves = 1
        while self.subtrees and self.subtrees[-1][0] == leaves:
            hash_ = node_hash(self.subtrees.pop()[1], hash_)
            leaves *= 2
        self.subtrees.append((leaves, hash_))

    def root(self):
        if not self.subtrees:
            return EMPTY_ROOT
        running = self.subtrees[-1][1]
        for _, hash_ in reversed(self.subtrees[:-1]):
            running = node_hash(hash_, running)
        return running


# ---------------------------------------------------------------------------
# Ed25519 (RFC 8032), cofactorless, canonical A, R and S, no small order

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
D2 = 2 * D % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def _add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = p[3] * q[3] * D2 % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _double(p):
    a = p[0] * p[0]
    b = p[1] * p[1]
    c = 2 * p[2] * p[2]
    h = a + b
    e = h - (p[0] + p[1]) ** 2
    g = a - b
    f = c + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _negate(p):
    return (-p[0] % P, p[1], p[2], -p[3] % P)


def decode_point(data):
    """The point, or None for a non-canonical encoding or one off the curve."""
    if len(data) != 32:
        return None
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        return None
    yy = y * y % P
    u, v = (yy - 1) % P, (D * yy + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        if v * x * x % P != -u % P:
            return None
        x = x * SQRT_M1 % P
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def encode_point(p):
    inverse = pow(p[2], P - 2, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def small_order(p):
    for _ in range(3):
        p = _double(p)
    return p[0] % P == 0 and (p[1] - p[2]) % P == 0


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def decode_key(data):
    """A public key's point, or None where it is weak or malformed."""
    point = decode_point(data)
    return None if point is None or small_order(point) else point


def ed25519_verify(key, message, signature):
    """key: 32 bytes. True only for a signature that Ground rules accept."""
    a = decode_key(key)
    if a is None or len(signature) != 64:
        return False
    r = decode_point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if r is None or small_order(r) or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    # [S]B - [k]A, both scalars at once, has to be R itself.
    minus_a = _negate(a)
    both = _add(BASE, minus_a)
    running = IDENTITY
    for bit in range(252, -1, -1):
        running = _double(running)
        s_bit, k_bit = s >> bit & 1, k >> bit & 1
        if s_bit and k_bit:
            running = _add(running, both)
        elif s_bit:
            running = _add(running, BASE)
        elif k_bit:
            running = _add(running, minus_a)
    return encode_point(running) == signature[:32]


def signed_bytes(kind, value):
    return b"statusledger/v1/" + kind.encode() + b"\n" + canonical(value)


# ---------------------------------------------------------------------------
# The key manifest and what one pin makes of it

KEY_MEMBERS = ("key_id", "public_key", "purpose", "not_before", "not_after", "verify_until", "revoked_at")
ROOT_MEMBERS = KEY_MEMBERS + ("endorsed_by", "endorsement")
MANIFEST_MEMBERS = ("v", "instance", "ledger", "serial", "issued_at", "expires", "keys", "key_id", "signature")


class Manifest:
    """A key manifest that verified under a pin."""

    def __init__(self, document, keys, trusted_roots):
        self.document, self.keys, self.trusted_roots = document, keys, trusted_roots
        self.instance, self.ledger = document["instance"], document["ledger"]
        self.serial, self.issued_at = document["serial"], document["issued_at"]
        self.expires = document["expires"]

    def key(self, key_id, purpose):
        key = self.keys.get(key_id)
        return key if key is not None and key["purpose"] == purpose else None


def _key_is_well_formed(key):
    if not isinstance(key, dict):
        return False
    members = ROOT_MEMBERS if key.get("purpose") == "root" else KEY_MEMBERS
    if not exactly(key, members) or key["purpose"] not in ("root", "receipt", "checkpoint"):
        return False
    public = unbase64(key["public_key"], 32)
    if not is_hash(key["key_id"]) or public is None:
        return False
    if sha256(public).hex() != key["key_id"] or decode_key(public) is None:
        return False
    if not is_time(key["not_before"]):
        return False
    if any(key[m] is not None and not is_time(key[m]) for m in ("not_after", "verify_until", "revoked_at")):
        return False
    if key["verify_until"] is not None and (key["purpose"] == "root" or key["not_after"] is None):
        return False
    if key["purpose"] == "root":
        return is_hash(key["endorsed_by"]) and unbase64(key["endorsement"], 64) is not None
    return True


def _endorsement_verifies(instance, root, endorser):
    statement = {"instance": instance, **{m: root[m] for m in ("key_id", "not_before", "public_key", "purpose")}}
    return ed25519_verify(unbase64(endorser["public_key"]), signed_bytes("endorsement", statement),
                          unbase64(root["endorsement"]))


def in_window(time, key):
    return key["not_before"] <= time and (key["not_after"] is None or time <= key["not_after"])


def read_manifest(data, pin_key):
    """Check `manifest`: parses, and is signed by a root that the pin leads to."""
    def reject(detail):
        return Failed("manifest", detail)

    try:
        document = parse_json(data, MAX_KEY_MANIFEST)
    except Malformed as error:
        raise reject(f"the key manifest does not parse: {error}") from error
    if not exactly(document, MANIFEST_MEMBERS) or not (
            document["v"] == 1 and is_integer(document["v"]) and is_instance(document["instance"])
            and is_uuid(document["ledger"]) and is_integer(document["serial"], 1)
            and is_time(document["issued_at"]) and is_time(document["expires"])
            and isinstance(document["keys"], list) and is_hash(document["key_id"])
            and unbase64(document["signature"], 64) is not None):
        raise reject("a member is missing, unknown or of the wrong form")
    lifetime = microseconds(document["expires"]) - microseconds(document["issued_at"])
    if not 0 <= lifetime <= 100 * 86_400 * 1_000_000:
        raise reject("expires is not within 100 days after issued_at")
    if len(document["keys"]) > MAX_KEYS:
        raise reject(f"more than {MAX_KEYS} keys")
    keys = {}
    for key in document["keys"]:
        if not _key_is_well_formed(key):
            raise reject("a key is weak or malformed")
        if key["key_id"] in keys:
            raise reject("a key id is there twice")
        keys[key["key_id"]] = key

    # A root is introduced by itself (the first) or by one that stands before it.
    before, trusted = {}, {}
    for key in document["keys"]:
        if key["purpose"] != "root":
            continue
        key_id = key["key_id"]
        endorser = before.get(key["endorsed_by"])
        if not before:
            if key["endorsed_by"] != key_id:
                raise reject("the first root does not endorse itself")
            endorser = key
        elif endorser is None:
            raise reject("a root's endorser does not stand before it")
        if not _endorsement_verifies(document["instance"], key, endorser):
            raise reject("an endorsement does not verify")
        before[key_id] = key
        counts = in_window(key["not_before"], endorser) and endorser["revoked_at"] is None
        if key_id == pin_key or (endorser["key_id"] in trusted and counts):
            trusted[key_id] = key
    if pin_key not in trusted:
        raise reject("the pinned root is not in it")
    signer = trusted.get(document["key_id"])
    if signer is None:
        raise reject("it is not signed by a root that the pin leads to")
    if signer["not_after"] is not None or signer["revoked_at"] is not None \
            or not in_window(document["issued_at"], signer):
        raise reject("the root that signed it is not current in it")
    if not ed25519_verify(unbase64(signer["public_key"]), signed_bytes("manifest", without(document, "signature")),
                          unbase64(document["signature"])):
        raise reject("its signature does not verify")
    return Manifest(document, keys, trusted)


def rollback(new, old):
    """Why NEW takes back what OLD said, or None."""
    if new.serial < old.serial:
        return f"serial fell from {old.serial} to {new.serial}"
    for key_id, was in old.keys.items():
        now = new.keys.get(key_id)
        if now is None:
            return f"key {key_id} disappeared"
        for member in ("not_after", "verify_until", "revoked_at"):
            if was[member] is not None and was[member] != now[member]:
                return f"{member} of key {key_id} changed"
    return None


# ---------------------------------------------------------------------------
# Checkpoints, proofs and witness policies (C2SP signed-note, tlog-checkpoint,
# tlog-proof, tlog-cosignature, tlog-policy)

class Checkpoint:
    def __init__(self, text, origin, size, root, lines):
        self.text, self.origin, self.size, self.root, self.lines = text, origin, size, root, lines


def _decimal(text):
    if len(text) > 20 or _DECIMAL.fullmatch(text) is None or int(text) >= 2**64:
        raise Malformed("not a decimal number")
    return int(text)


def parse_checkpoint(text):
    """`text`: a str. Raises Malformed."""
    if any(ord(c) < 0x20 and c != "\n" for c in text):
        raise Malformed("a control character in the checkpoint")
    lines = text.split("\n")
    if len(lines) < 6 or lines[-1] != "" or lines[3] != "" or lines[0] == "":
        raise Malformed("the checkpoint has not the form of one")
    size = _decimal(lines[1])
    root = unbase64(lines[2], 32)
    if root is None:
        raise Malformed("the checkpoint's root is not 32 bytes of base64")
    if len(lines) - 5 > MAX_SIGNATURE_LINES:
        raise Malformed("more than 64 signature lines")
    signatures = []
    for line in lines[4:-1]:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "\u2014":
            raise Malformed("a signature line has not the form of one")
        name, blob = parts[1], unbase64(parts[2])
        if name == "" or "+" in name or any(c.isspace() for c in name) or blob is None or len(blob) < 5:
            raise Malformed("a signature line has not the form of one")
        signatures.append((name, blob[:4], blob[4:]))
    return Checkpoint("\n".join(lines[:3]).encode() + b"\n", lines[0], size, root, signatures)


def parse_checkpoint_bytes(data):
    if len(data) > MAX_CHECKPOINT:
        raise Malformed("the checkpoint is too long")
    try:
        return parse_checkpoint(data.decode("utf-8", "strict"))
    except UnicodeDecodeError as error:
        raise Malformed("the checkpoint is not UTF-8") from error


def parse_proof(text):
    """A tlog-proof: (index, hashes, checkpoint). Raises Malformed."""
    head, _, rest = text.partition("\n")
    if head != "c2sp.org/tlog-proof@v1":
        raise Malformed("not a tlog-proof")
    line, _, rest = rest.partition("\n")
    if not line.startswith("index "):
        raise Malformed("no index line")
    index = _decimal(line[len("index "):])
    hashes = []
    while True:
        line, newline, rest = rest.partition("\n")
        if newline == "":
            raise Malformed("no checkpoint")
        if line == "":
            break
        hash_ = unbase64(line, 32)
        if hash_ is None or len(hashes) == MAX_PROOF_HASHES:
            raise Malformed("a hash is malformed, or there are more than 63")
        hashes.append(hash_)
    return index, hashes, parse_checkpoint(rest)


def note_key_id(name, kind, public):
    return sha256(name.encode(), b"\n", bytes([kind]), public)[:4]


class Witness:
    def __init__(self, note_name, public):
        self.note_name, self.public = note_name, public
        self.key_id = note_key_id(note_name, 0x04, public)


class Policy:
    """A C2SP tlog-policy: what it takes for a checkpoint to be witnessed."""

    def __init__(self, witnesses, groups, quorum):
        self.witnesses, self.groups, self.quorum = witnesses, groups, quorum

    def met_by(self, cosigners):
        """cosigners: names (of this file) of the witnesses that cosigned."""
        if self.quorum == b"none":
            return True
        met = {name: name in cosigners for name in self.witnesses}
        for name, threshold, members in self.groups:
            met[name] = sum(met[m] for m in members) >= threshold
        return met[self.quorum]


def parse_policy(data):
    def bad(detail):
        return Usage(f"the policy is not a tlog-policy: {detail}")

    if any(b < 0x20 and b not in (0x09, 0x0A) or b == 0x7F for b in data):
        raise bad("a control character")
    witnesses, groups, names, listed, quorum, publics = {}, [], set(), set(), None, set()
    for line in data.split(b"\n"):
        items = [i for i in re.split(rb"[ \t]+", line) if i]
        if not items or items[0].startswith(b"#"):
            continue
        if items[0] == b"log":
            continue
        if items[0] == b"witness" and len(items) in (3, 4):
            name = items[1]
            parts = items[2].split(b"+", 2)
            if name in names or name == b"none" or len(parts) != 3:
                raise bad("a witness line")
            try:
                note_name, raw = parts[0].decode("utf-8"), unbase64(parts[2].decode("ascii"))
            except UnicodeDecodeError as error:
                raise bad("a witness key") from error
            if raw is None or len(raw) != 33 or raw[0] != 0x04 or decode_key(raw[1:]) is None or not note_name:
                raise bad("a witness key that is not an Ed25519 cosignature key")
            witness = Witness(note_name, raw[1:])
            if parts[1] != witness.key_id.hex().encode() or witness.public in publics:
                raise bad("a witness key whose id is wrong, or that is there twice")
            publics.add(witness.public)
            names.add(name)
            witnesses[name] = witness
        elif items[0] == b"group" and len(items) >= 4:
            name, threshold, members = items[1], items[2], items[3:]
            if name in names or name == b"none":
                raise bad("a group's name")
            for member in members:
                if member not in names or member in listed:
                    raise bad("a group's member")
                listed.add(member)
            if threshold == b"all":
                needed = len(members)
            elif threshold == b"any":
                needed = 1
            elif re.fullmatch(rb"[1-9][0-9]{0,5}", threshold) and int(threshold) <= len(members):
                needed = int(threshold)
            else:
                raise bad("a group's threshold")
            names.add(name)
            groups.append((name, needed, members))
        elif items[0] == b"quorum" and len(items) == 2:
            if quorum is not None or (items[1] != b"none" and items[1] not in names):
                raise bad("the quorum line")
            quorum = items[1]
        else:
            raise bad("an unknown line")
    if quorum is None:
        raise bad("no quorum line")
    return Policy(witnesses, groups, quorum)


def check_checkpoint_signature(checkpoint, manifest, policy, revoked_count):
    """Check `checkpoint_signature`; returns {witness name: earliest timestamp}."""
    keys = [k for k in manifest.keys.values() if k["purpose"] == "checkpoint"
            and (revoked_count or k["revoked_at"] is None)]
    origin = checkpoint.origin
    logs = [(note_key_id(origin, 0x01, unbase64(k["public_key"])), unbase64(k["public_key"])) for k in keys]
    signed, cosigned = False, {}
    for name, key_id, signature in checkpoint.lines:
        # A note's key is its name and its id: each key that has both is meant.
        known, verified = False, False
        if name == origin:
            for log_id, public in logs:
                if log_id == key_id:
                    known = True
                    if len(signature) == 64 and ed25519_verify(public, checkpoint.text, signature):
                        verified = signed = True
        for label, witness in (policy.witnesses.items() if policy else ()):
            if witness.note_name == name and witness.key_id == key_id:
                known = True
                if len(signature) != 72:
                    continue
                timestamp = int.from_bytes(signature[:8], "big")
                message = b"cosignature/v1\ntime %d\n" % timestamp + checkpoint.text
                if timestamp < 2**63 and ed25519_verify(witness.public, message, signature[8:]):
                    verified = True
                    cosigned[label] = min(timestamp, cosigned.get(label, timestamp))
        if known and not verified:
            raise Failed("checkpoint_signature", "a line by a known key does not verify")
    if not signed:
        raise Failed("checkpoint_signature", "not signed by a checkpoint key of the manifest")
    return cosigned


# ---------------------------------------------------------------------------
# Entries

ENTRY_MEMBERS = ("v", "ledger", "seq", "prev", "timestamp", "nonce", "type", "data")


def entry_is_well_formed(entry):
    """`entry` has just ENTRY_MEMBERS; are they of the right form?"""
    if not (is_integer(entry["v"]) and entry["v"] == 1 and is_uuid(entry["ledger"]) and is_integer(entry["seq"])
            and is_hash(entry["prev"]) and is_time(entry["timestamp"]) and unbase64(entry["nonce"], 16) is not None
            and is_type(entry["type"]) and isinstance(entry["data"], dict)):
        return False
    if "sealed" in entry["data"]:
        sealed = entry["data"]["sealed"]
        if not isinstance(sealed, dict):
            return False
        return all(_NAME.fullmatch(name) and is_hash(value) for name, value in sealed.items())
    return True


def opens(sealed, name, salt, value):
    """Whether salt and value are the opening of what is sealed under name."""
    return name in sealed and sha256(b"\x02", salt, canonical(value)).hex() == sealed[name]


# ---------------------------------------------------------------------------
# Answers

class Answer:
    """What is said of one file; `as_json` has the members of --json."""

    def __init__(self, file):
        self.file, self.verdict, self.time, self.failures = file, None, None, []
        self.seq = self.instance = self.ledger = self.key_id = None
        self.checkpoint_size = self.withheld = self.keys_serial = None
        self.notes = []

    @property
    def ok(self):
        return not self.failures

    def fail(self, failure):
        self.failures.append(failure)
        if failure.seq is not None:
            self.seq = failure.seq

    def as_json(self):
        return {"file": self.file, "ok": self.ok, "verdict": self.verdict if self.ok else None,
                "time": self.time if self.ok else None,
                "failed_check": None if self.ok else self.failures[0].check, "seq": self.seq,
                "instance": self.instance, "ledger": self.ledger, "key_id": self.key_id,
                "checkpoint_size": self.checkpoint_size, "withheld": self.withheld,
                "keys_serial": self.keys_serial}


class Options:
    """What the command line asked for, parsed."""

    def __init__(self):
        self.pin_key = self.pin_instance = None
        self.ledger = self.destination = self.at = self.judged = self.policy = None
        # `consistency`: a revoked key still counts, nothing is judged by date.
        self.revoked_count = False


def judge_key(answer, manifest, key, key_id, time, options, judged):
    """Checks key_unknown, key_revoked, key_window, stale."""
    if key is None:
        raise Failed("key_unknown", f"no receipt key {key_id} in the key manifest")
    if key["revoked_at"] is not None and not options.revoked_count:
        answer.fail(Failed("key_revoked", f"the key was revoked at {key['revoked_at']}"))
    if not in_window(time, key):
        raise Failed("key_window", f"signed at {time}, outside of the key's window")
    if judged == "fresh":
        at = options.at
        if key["verify_until"] is not None and at > key["verify_until"]:
            answer.fail(Failed("stale", f"the key was good until {key['verify_until']}"))
        elif at > manifest.expires:
            answer.fail(Failed("stale", f"the key manifest expired at {manifest.expires}"))


def judge_policy(answer, options, cosigned, key, judged):
    """Check policy; the verdict; and what revocation leaves standing."""
    policy = options.policy
    answer.verdict, answer.time = "included", "claimed"
    if policy is None:
        return
    if not policy.met_by(cosigned):
        raise Failed("policy", "the witnesses' quorum is not met")
    answer.verdict = "witnessed"
    if cosigned:
        answer.time = "witnessed"
    if judged == "evidence" and key["revoked_at"] is not None:
        limit = posix_microseconds(key["revoked_at"])
        early = {name for name, at in cosigned.items() if at * 1_000_000 < limit}
        if early and policy.met_by(early):
            answer.failures = [f for f in answer.failures if f.check != "key_revoked"]


# ---------------------------------------------------------------------------
# Receipts

RECEIPT_MEMBERS = ("v", "instance", "id", "destination", "number", "issued_at", "key_id", "signature", "proof")


def _receipt_is_well_formed(receipt):
    return (exactly(receipt, RECEIPT_MEMBERS) and is_integer(receipt["v"]) and receipt["v"] == 1
            and is_instance(receipt["instance"]) and is_text(receipt["id"])
            and receipt["id"].startswith("rcpt_") and is_uuid(receipt["id"][5:])
            and is_text(receipt["destination"]) and is_integer(receipt["number"], 1)
            and is_time(receipt["issued_at"]) and is_hash(receipt["key_id"])
            and unbase64(receipt["signature"], 64) is not None and is_text(receipt["proof"]))


def _openings_are_well_formed(openings):
    return (isinstance(openings, dict) and openings
            and all(exactly(o, ("salt", "value")) and unbase64(o["salt"], 32) is not None
                    for o in openings.values()))


def verify_receipt(answer, data, manifest_data, options):
    """All checks of a receipt body, in order. Returns (body, checkpoint)."""
    try:
        body = parse_json(data, MAX_BODY)
        openings = body.get("openings") if isinstance(body, dict) else None
        for opening in openings.values() if isinstance(openings, dict) else ():
            if isinstance(opening, dict) and levels(opening.get("value")) > MAX_SEALED_LEVELS:
                raise Malformed("a sealed value of more than 24 levels")
    except Malformed as error:
        raise Failed("json", str(error)) from error

    if not exactly(body, ENTRY_MEMBERS + ("receipt",), ("openings",)) or not entry_is_well_formed(body) \
            or not _receipt_is_well_formed(body["receipt"]) \
            or ("openings" in body and not _openings_are_well_formed(body["openings"])):
        raise Failed("members", "a member is missing, unknown or of the wrong form")
    entry, receipt = without(body, "receipt", "openings"), body["receipt"]
    if entry["seq"] == 0 and entry["prev"] != ZEROS:
        raise Failed("members", "prev of seq 0 is not 64 zeros")
    entry_bytes = canonical(entry)
    if len(entry_bytes) > MAX_ENTRY:
        raise Failed("json", f"the entry has more than {MAX_ENTRY} bytes")
    answer.seq, answer.instance, answer.ledger = entry["seq"], receipt["instance"], entry["ledger"]
    answer.key_id = receipt["key_id"]

    manifest = read_manifest(manifest_data, options.pin_key)
    answer.keys_serial = manifest.serial
    answer.notes.append(f"revocations known up to key manifest {manifest.serial} of {manifest.issued_at}")
    if not receipt["instance"] == manifest.instance == options.pin_instance:
        raise Failed("instance", "receipt, key manifest and pin name different instances")
    if options.ledger is not None and entry["ledger"] != options.ledger:
        raise Failed("ledger", "of another ledger")
    if options.destination is not None and receipt["destination"] != options.destination:
        raise Failed("destination", "made for another destination")
    key = manifest.key(receipt["key_id"], "receipt")
    judged = options.judged or "fresh"
    judge_key(answer, manifest, key, receipt["key_id"], receipt["issued_at"], options, judged)

    statement = without(body, "openings")
    statement["receipt"] = without(receipt, "proof", "signature")
    if not ed25519_verify(unbase64(key["public_key"]), signed_bytes("receipt", statement),
                          unbase64(receipt["signature"])):
        raise Failed("signature", "the receipt's signature does not verify")

    try:
        index, path, checkpoint = parse_proof(receipt["proof"])
    except Malformed as error:
        raise Failed("proof", str(error)) from error
    if index != entry["seq"]:
        raise Failed("proof", "the proof is for another index than seq")
    answer.checkpoint_size = checkpoint.size
    if checkpoint.origin != f"{manifest.instance}/{entry['ledger']}":
        raise Failed("origin", "the checkpoint is of another ledger or instance")
    cosigned = check_checkpoint_signature(checkpoint, manifest, options.policy, options.revoked_count)
    if root_from_inclusion(leaf_hash(entry_bytes), index, checkpoint.size, path) != checkpoint.root:
        raise Failed("inclusion", "the entry is not where the checkpoint has it")
    sealed = entry["data"].get("sealed", {})
    for name, opening in body.get("openings", {}).items():
        if not opens(sealed, name, unbase64(opening["salt"]), opening["value"]):
            raise Failed("openings", f"{name} does not open what is sealed")
    judge_policy(answer, options, cosigned, key, judged)
    return body, checkpoint


def check_numbers(answers, complete):
    """number_conflict and, if asked for, number_gap; over verified receipts."""
    groups = {}
    for answer, body in answers:
        if answer.ok:
            groups.setdefault((body["ledger"], body["receipt"]["destination"]), []).append(
                (body["receipt"]["number"], body["seq"], answer))
    for group in groups.values():
        group.sort(key=lambda item: item[:2])
        for (number, seq, _), (next_number, next_seq, answer) in zip(group, group[1:]):
            if (number == next_number) != (seq == next_seq) or seq > next_seq:
                answer.fail(Failed("number_conflict", f"number {number} is seq {seq}, "
                                                      f"number {next_number} is seq {next_seq}"))
            elif complete and next_number > number + 1:
                answer.fail(Failed("number_gap", f"no number between {number} and {next_number}"))


# ---------------------------------------------------------------------------
# Zip, strictly: APPNOTE 6.3 as far as Export allows it

class Member:
    def __init__(self, name, method, crc, packed, size, start):
        self.name, self.method, self.crc, self.packed, self.size, self.start = name, method, crc, packed, size, start


ORDERS = (("entries.jsonl", "openings.jsonl", "checkpoint", "keys.json", "manifest.json"),
          ("entries.jsonl", "checkpoint", "keys.json", "manifest.json"))
# Deflate's effort (bits 1, 2), data descriptor (3), UTF-8 names (11).
ALLOWED_FLAGS = 0b0000_1000_0000_1110


def _zip64(extra, wanted):
    """The values of the zip64 extra field for the fields that are saturated."""
    values, at, seen = None, 0, set()
    while at < len(extra):
        if at + 4 > len(extra):
            raise Malformed("a torn extra field")
        tag, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + length > len(extra) or tag in seen:
            raise Malformed("a torn or repeated extra field")
        seen.add(tag)
        if tag == 0x7075:
            raise Malformed("a second name, in a Unicode path field")
        if tag == 0x0001:
            values = extra[at:at + length]
        at += length
    if wanted == 0:
        return [], values is not None
    if values is None or len(values) < 8 * wanted:
        raise Malformed("a zip64 field is missing")
    return list(struct.unpack_from(f"<{wanted}Q", values)), True


class Zip:
    """The members of an export; every byte of the file accounted for."""

    def __init__(self, file):
        self.file = file
        self.file.seek(0, os.SEEK_END)
        self.length = self.file.tell()
        self.members = {}
        try:
            self._read()
        except struct.error as error:
            raise Malformed("torn") from error

    def _bytes(self, at, length):
        if at < 0 or at + length > self.length:
            raise Malformed("points outside of the file")
        self.file.seek(at)
        data = self.file.read(length)
        if len(data) != length:
            raise Malformed("torn")
        return data

    def _end(self):
        """(entries, size of the central directory, its offset, where it ends)."""
        at = self.length - 22
        fields = struct.unpack("<IHHHHIIH", self._bytes(at, 22))
        signature, disk, start_disk, here, entries, size, offset, comment = fields
        if signature != 0x06054B50 or comment != 0:
            raise Malformed("does not end with an end record without a comment")
        locator = at - 20
        if locator >= 0 and self._bytes(locator, 4) == b"PK\x06\x07":
            _, record_disk, record_at, disks = struct.unpack("<IIQI", self._bytes(locator, 20))
            if record_at + 56 != locator or record_disk != 0 or disks not in (0, 1):
                raise Malformed("the zip64 end record is not right before its locator")
            record = struct.unpack("<IQHHIIQQQQ", self._bytes(record_at, 56))
            if record[0] != 0x06064B50 or record[1] != 44 or record[4] != 0 or record[5] != 0:
                raise Malformed("the zip64 end record is malformed")
            here64, entries64, size64, offset64 = record[6:]
            for small, large, saturated in ((disk, 0, 0xFFFF), (start_disk, 0, 0xFFFF), (here, here64, 0xFFFF),
                                            (entries, entries64, 0xFFFF), (size, size64, 0xFFFFFFFF),
                                            (offset, offset64, 0xFFFFFFFF)):
                if small not in (large, saturated):
                    raise Malformed("the two end records disagree")
            here, entries, size, offset, end = here64, entries64, size64, offset64, record_at
        else:
            if disk != 0 or start_disk != 0:
                raise Malformed("of several disks")
            end = at
        if here != entries or entries not in (4, 5):
            raise Malformed("not four or five members")
        if offset + size != end:
            raise Malformed("the central directory is not right before the end record")
        return entries, offset, end

    def _read(self):
        entries, at, end = self._end()
        directory_at = at
        records = []
        for _ in range(entries):
            fields = struct.unpack("<IHHHHHHIIIHHHHHII", self._bytes(at, 46))
            (signature, _, needed, flags, method, time, date, crc, packed, size,
             name_length, extra_length, comment_length, disk, _, attributes, offset) = fields
            if signature != 0x02014B50 or comment_length != 0:
                raise Malformed("a central header is malformed or has a comment")
            if name_length > 64:
                raise Malformed("a name that does not belong here")
            name = self._bytes(at + 46, name_length)
            extra = self._bytes(at + 46 + name_length, extra_length)
            saturated = [size == 0xFFFFFFFF, packed == 0xFFFFFFFF, offset == 0xFFFFFFFF, disk == 0xFFFF]
            values, _ = _zip64(extra, sum(saturated[:3]))
            if saturated[0]:
                size = values.pop(0)
            if saturated[1]:
                packed = values.pop(0)
            if saturated[2]:
                offset = values.pop(0)
            # The Unix file type (none, or a regular file) and the DOS directory bit.
            if attributes >> 28 not in (0, 0o10) or attributes & 0x10:
                raise Malformed("a directory or a link")
            if disk not in (0, 0xFFFF):
                raise Malformed("of several disks")
            if flags & ~ALLOWED_FLAGS or method not in (0, 8):
                raise Malformed("encrypted, or with a flag or method that is not allowed")
            if method == 0 and packed != size:
                raise Malformed("stored, but of two sizes")
            records.append((name, needed, flags, method, time, date, crc, packed, size, offset))
            at += 46 + name_length + extra_length
        if at != end:
            raise Malformed("something after the central headers")
        names = tuple(r[0].decode("ascii", "replace") for r in records)
        if names not in ORDERS:
            raise Malformed("not exactly the members of an export, in their order")
        expected = 0
        for position, record in enumerate(records):
            following = records[position + 1][9] if position + 1 < len(records) else directory_at
            if record[9] != expected:
                raise Malformed("bytes before, between or over members")
            self._local(names[position], record, following)
            expected = following

    def _local(self, name, record, following):
        raw_name, needed, flags, method, time, date, crc, packed, size, offset = record
        (signature, l_needed, l_flags, l_method, l_time, l_date, l_crc, l_packed, l_size,
         name_length, extra_length) = struct.unpack("<IHHHHHIIIHH", self._bytes(offset, 30))
        if signature != 0x04034B50 or (l_needed, l_flags, l_method, l_time, l_date) != (
                needed, flags, method, time, date):
            raise Malformed(f"{name}: local and central header disagree")
        if self._bytes(offset + 30, name_length) != raw_name:
            raise Malformed(f"{name}: local and central name disagree")
        extra = self._bytes(offset + 30 + name_length, extra_length)
        values, _ = _zip64(extra, (l_size == 0xFFFFFFFF) + (l_packed == 0xFFFFFFFF))
        if l_size == 0xFFFFFFFF:
            l_size = values.pop(0)
        if l_packed == 0xFFFFFFFF:
            l_packed = values.pop(0)
        start = offset + 30 + name_length + extra_length
        after = following - (start + packed)
        if flags & 8:
            for local, central in ((l_crc, crc), (l_packed, packed), (l_size, size)):
                if local not in (0, central):
                    raise Malformed(f"{name}: local and central header disagree")
            forms = {12: "<III", 16: "<4sIII", 20: "<IQQ", 24: "<4sIQQ"}
            if after not in forms:
                raise Malformed(f"{name}: a gap, or no data descriptor")
            described = struct.unpack(forms[after], self._bytes(start + packed, after))
            if described[-3:] != (crc, packed, size) or (len(described) == 4 and described[0] != b"PK\x07\x08"):
                raise Malformed(f"{name}: the data descriptor disagrees")
        else:
            if (l_crc, l_packed, l_size) != (crc, packed, size):
                raise Malformed(f"{name}: local and central header disagree")
            if after != 0:
                raise Malformed(f"{name}: a gap after it")
        self.members[name] = Member(name, method, crc, packed, size, start)

    def chunks(self, name):
        """The member's bytes, a bounded piece at a time."""
        member = self.members[name]
        at, left = member.start, member.packed
        inflate = zlib.decompressobj(-15) if member.method == 8 else None
        produced = 0
        while left:
            piece = self._bytes(at, min(CHUNK, left))
            at, left = at + len(piece), left - len(piece)
            if inflate is None:
                yield piece
                continue
            while piece:
                if inflate.eof:
                    raise Malformed(f"{name}: bytes after the deflated data")
                try:
                    out = inflate.decompress(piece, CHUNK)
                except zlib.error as error:
                    raise Malformed(f"{name}: not deflated data") from error
                piece = inflate.unconsumed_tail or inflate.unused_data
                produced += len(out)
                if produced > member.size:
                    raise Malformed(f"{name}: longer than its header says")
                if out:
                    yield out
                elif not inflate.unconsumed_tail and not inflate.eof:
                    break
        if inflate is not None:
            # What zlib still holds back once all input was handed over.
            while not inflate.eof:
                try:
                    out = inflate.decompress(b"", CHUNK)
                except zlib.error as error:
                    raise Malformed(f"{name}: not deflated data") from error
                if not out:
                    break
                produced += len(out)
                if produced > member.size:
                    raise Malformed(f"{name}: longer than its header says")
                yield out
            if not inflate.eof:
                raise Malformed(f"{name}: the deflated data does not end")

    def check_contents(self):
        """Every member unpacks to the size and the checksum of its header."""
        for name, member in self.members.items():
            crc, size = 0, 0
            for piece in self.chunks(name):
                crc, size = zlib.crc32(piece, crc), size + len(piece)
                if size > member.size:
                    raise Malformed(f"{name}: longer than its header says")
            if (crc, size) != (member.crc, member.size):
                raise Malformed(f"{name}: size or checksum is wrong")

    def read(self, name, limit):
        """The whole member, or None where it has more than `limit` bytes."""
        if self.members[name].size > limit:
            return None
        return b"".join(self.chunks(name))

    def lines(self, name, limit):
        """(line, whole) pairs; whole is false for one too long or without LF."""
        pending = bytearray()
        for piece in self.chunks(name):
            start = 0
            while True:
                end = piece.find(b"\n", start)
                pending += piece[start:] if end < 0 else piece[start:end]
                if len(pending) > limit:
                    yield bytes(pending[:limit]), False
                    return
                if end < 0:
                    break
                yield bytes(pending), True
                pending.clear()
                start = end + 1
        if pending:
            yield bytes(pending), False


# ---------------------------------------------------------------------------
# Exports

EXPORT_MEMBERS = ("v", "instance", "ledger", "from", "to", "root", "count", "filter", "left",
                  "exported_at", "exported_by", "key_id", "signature")
OPENING_MEMBERS = ("name", "salt", "seq", "value")


def _export_is_well_formed(document):
    return (exactly(document, EXPORT_MEMBERS) and is_integer(document["v"]) and document["v"] == 1
            and is_instance(document["instance"]) and is_uuid(document["ledger"])
            and is_integer(document["from"]) and is_integer(document["to"]) and document["from"] <= document["to"]
            and is_hash(document["root"]) and is_integer(document["count"])
            and (document["filter"] is None or (isinstance(document["filter"], list)
                                                and all(is_type(t) for t in document["filter"])))
            and isinstance(document["left"], list) and all(is_hash(h) for h in document["left"])
            and is_time(document["exported_at"]) and is_text(document["exported_by"])
            and is_hash(document["key_id"]) and unbase64(document["signature"], 64) is not None)


class Openings:
    """openings.jsonl read alongside the entries, so that neither is held.

    Its check comes after the entries', so the first mistake is only kept."""

    def __init__(self, lines):
        self.lines, self.mistake, self.last, self.current = lines, None, None, None
        self._advance()

    def _advance(self):
        self.current = None
        pair = next(self.lines, None)
        if pair is None:
            return
        line, whole = pair
        try:
            if not whole:
                raise Malformed("a line that is too long or does not end")
            opening = parse_json(line, MAX_OPENING_LINE)
            if not exactly(opening, OPENING_MEMBERS) or not is_text(opening["name"]) \
                    or not is_integer(opening["seq"]) or unbase64(opening["salt"], 32) is None:
                raise Malformed("a line of the wrong form")
            if levels(opening["value"]) > MAX_SEALED_LEVELS:
                raise Malformed("a sealed value of more than 24 levels")
            place = (opening["seq"], opening["name"])
            if self.last is not None and place <= self.last:
                raise Malformed("lines out of order")
        except Malformed as error:
            self.mistake = Failed("openings", str(error))
            return
        self.last, self.current = place, opening

    def entry(self, seq, sealed):
        """Checks the openings of entry `seq`; sealed is {} where it is withheld."""
        while self.mistake is None and self.current is not None and self.current["seq"] <= seq:
            opening = self.current
            if opening["seq"] < seq or not opens(sealed, opening["name"], unbase64(opening["salt"]),
                                                 opening["value"]):
                self.mistake = Failed("openings", f"{opening['name']} does not open what is sealed", opening["seq"])
                return
            self._advance()

    def finish(self):
        if self.mistake is None and self.current is not None:
            self.mistake = Failed("openings", "an opening of no entry here", self.current["seq"])
        if self.mistake is not None:
            raise self.mistake


def verify_export(answer, path, manifest_data, options, root_at=None):
    """All checks of an export, in order.

    manifest_data: the key manifest given beside it, or None. root_at: a size
    whose root is wanted too (exports from 0). Returns (document, checkpoint,
    root at that size or None)."""
    try:
        handle = open(path, "rb")
    except OSError as error:
        raise Usage(f"{path}: {error.strerror}") from error
    with handle:
        try:
            archive = Zip(handle)
            archive.check_contents()
        except Malformed as error:
            raise Failed("zip", str(error)) from error
        return _verify_export(answer, archive, manifest_data, options, root_at)


def _verify_export(answer, archive, manifest_data, options, root_at):
    raw = archive.read("manifest.json", MAX_EXPORT_MANIFEST)
    try:
        document = parse_json(raw, MAX_EXPORT_MANIFEST) if raw is not None else None
    except Malformed as error:
        raise Failed("members", f"manifest.json does not parse: {error}") from error
    if not _export_is_well_formed(document):
        raise Failed("members", "a member of manifest.json is missing, unknown or of the wrong form")
    answer.instance, answer.ledger, answer.key_id = document["instance"], document["ledger"], document["key_id"]

    # A key manifest given beside the export stands in for the one inside, which
    # may be older than the pin.
    if manifest_data is None:
        manifest_data = archive.read("keys.json", MAX_KEY_MANIFEST)
        if manifest_data is None:
            raise Failed("manifest", "keys.json has more than 1 MiB")
    manifest = read_manifest(manifest_data, options.pin_key)
    answer.keys_serial = manifest.serial
    answer.notes.append(f"revocations known up to key manifest {manifest.serial} of {manifest.issued_at}")
    if not document["instance"] == manifest.instance == options.pin_instance:
        raise Failed("instance", "export, key manifest and pin name different instances")
    if options.ledger is not None and document["ledger"] != options.ledger:
        raise Failed("ledger", "of another ledger")
    key = manifest.key(document["key_id"], "receipt")
    judged = options.judged or "evidence"
    judge_key(answer, manifest, key, document["key_id"], document["exported_at"], options, judged)
    if not ed25519_verify(unbase64(key["public_key"]), signed_bytes("export", without(document, "signature")),
                          unbase64(document["signature"])):
        raise Failed("signature", "the export's signature does not verify")

    raw = archive.read("checkpoint", MAX_CHECKPOINT)
    try:
        checkpoint = parse_checkpoint_bytes(raw if raw is not None else b"")
    except Malformed as error:
        raise Failed("origin", f"the checkpoint does not parse: {error}") from error
    answer.checkpoint_size = checkpoint.size
    if checkpoint.origin != f"{manifest.instance}/{document['ledger']}":
        raise Failed("origin", "the checkpoint is of another ledger or instance")
    cosigned = check_checkpoint_signature(checkpoint, manifest, options.policy, options.revoked_count)

    start, end = document["from"], document["to"]
    frontier, left_fits = Frontier(), True
    sizes = [1 << bit for bit in range(start.bit_length() - 1, -1, -1) if start >> bit & 1]
    if len(sizes) == len(document["left"]):
        frontier.subtrees = [(n, bytes.fromhex(h)) for n, h in zip(sizes, document["left"])]
    else:
        left_fits = False
    openings = Openings(archive.lines("openings.jsonl", MAX_OPENING_LINE)
                        if "openings.jsonl" in archive.members else iter(()))
    kept = None if document["filter"] is None else set(document["filter"])
    count = withheld = 0
    previous_leaf, previous_time, found_root = None, None, None
    if root_at == start == 0:
        found_root = EMPTY_ROOT
    seq = start
    for line, whole in archive.lines("entries.jsonl", MAX_ENTRY):
        leaf, time = _check_line(line, whole, seq, end, document, kept, previous_leaf, previous_time, openings)
        if time is None:
            withheld += 1
        else:
            count += 1
            previous_time = time
        previous_leaf = leaf
        frontier.append(leaf)
        seq += 1
        if root_at == seq and start == 0:
            found_root = frontier.root()
    answer.withheld = withheld
    if count != document["count"]:
        raise Failed("count", f"{count} entries, the manifest says {document['count']}")
    root = frontier.root()
    if not left_fits or seq != end or checkpoint.size != end:
        raise Failed("root", "the lines, the hashes before them and the checkpoint are not of one size")
    if root.hex() != document["root"] or root != checkpoint.root:
        raise Failed("root", "the entries do not hash to the root that was signed")
    openings.finish()
    judge_policy(answer, options, cosigned, key, "export")
    return document, checkpoint, found_root


def _check_line(line, whole, seq, end, document, kept, previous_leaf, previous_time, openings):
    """The checks of one line of entries.jsonl; returns (leaf, timestamp or None)."""
    try:
        if not whole:
            raise Malformed("too long, or no line feed after it")
        value = parse_json(line, MAX_ENTRY)
        if canonical(value) != line:
            raise Malformed("not the canonical form of what it says")
    except Malformed as error:
        raise Failed("not_canonical", str(error), seq) from error
    left_out = exactly(value, ("leaf", "seq"))
    if left_out:
        if not is_hash(value["leaf"]) or not is_integer(value["seq"]):
            raise Failed("members", "a left-out line of the wrong form", seq)
    elif not exactly(value, ENTRY_MEMBERS) or not entry_is_well_formed(value):
        raise Failed("members", "a member is missing, unknown or of the wrong form", seq)
    if value["seq"] != seq or seq >= end:
        raise Failed("seq", f"seq {value['seq']} where {seq} belongs", seq)
    if left_out:
        if kept is None:
            raise Failed("filter", "left out, though the manifest says that nothing is", seq)
        openings.entry(seq, {})
        return bytes.fromhex(value["leaf"]), None
    if value["ledger"] != document["ledger"]:
        raise Failed("ledger", "of another ledger", seq)
    expected = ZEROS if seq == 0 else previous_leaf.hex() if previous_leaf is not None else None
    if expected is not None and value["prev"] != expected:
        raise Failed("link", "prev is not the entry before", seq)
    if previous_time is not None and value["timestamp"] < previous_time:
        raise Failed("time", "earlier than the entry before", seq)
    if kept is not None and value["type"] not in kept:
        raise Failed("filter", "of a type that the filter leaves out", seq)
    openings.entry(seq, value["data"].get("sealed", {}))
    return leaf_hash(line), value["timestamp"]


# ---------------------------------------------------------------------------
# Commands

def read_file(path, limit):
    """At most limit + 1 bytes, so that what is too long shows."""
    try:
        if path == "-":
            return sys.stdin.buffer.read(limit + 1)
        with open(path, "rb") as handle:
            return handle.read(limit + 1)
    except OSError as error:
        raise Usage(f"{path}: {error.strerror}") from error


def command_receipt(files, arguments, options):
    manifest_data = read_file(arguments["--keys"], MAX_KEY_MANIFEST)
    answers, verified = [], []
    for file in files:
        answer = Answer(file)
        answers.append(answer)
        data = read_file(file, MAX_BODY)
        try:
            if options.pin_key is None:
                raise Failed("unpinned", "without --pin nothing is proven")
            body, _ = verify_receipt(answer, data, manifest_data, options)
            verified.append((answer, body))
        except Failed as failure:
            answer.fail(failure)
    check_numbers(verified, "--complete" in arguments)
    return answers


def command_export(files, arguments, options):
    if files[0] == "-":
        raise Usage("an export cannot be read from standard input")
    answer = Answer(files[0])
    manifest_data = read_file(arguments["--keys"], MAX_KEY_MANIFEST) if "--keys" in arguments else None
    if not os.path.isfile(files[0]):
        raise Usage(f"{files[0]}: no such file")
    try:
        if options.pin_key is None:
            raise Failed("unpinned", "without --pin nothing is proven")
        verify_export(answer, files[0], manifest_data, options)
    except Failed as failure:
        answer.fail(failure)
    return [answer]


def _looks_like_zip(path):
    if path == "-":
        return False
    try:
        with open(path, "rb") as handle:
            return handle.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError as error:
        raise Usage(f"{path}: {error.strerror}") from error


def command_consistency(files, arguments, options):
    options.revoked_count, options.judged = True, "evidence"
    manifest_data = read_file(arguments["--keys"], MAX_KEY_MANIFEST)
    answers = [Answer(file) for file in files]
    proof_data = read_file(arguments["--proof"], MAX_SMALL_INPUT) if "--proof" in arguments else None
    points = []  # (answer, checkpoint, export's path or None)
    for answer in answers:
        export = _looks_like_zip(answer.file)
        data = None if export else read_file(answer.file, MAX_BODY)
        try:
            if data is not None and answer.file == "-" and data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                raise Usage("an export cannot be read from standard input")
            if options.pin_key is None:
                raise Failed("unpinned", "without --pin nothing is proven")
            if export:
                document, checkpoint, _ = verify_export(answer, answer.file, manifest_data, options)
                points.append((answer, checkpoint, answer.file if document["from"] == 0 else None))
            elif data.lstrip(b" \t\r\n")[:1] == b"{":
                _, checkpoint = verify_receipt(answer, data, manifest_data, options)
                points.append((answer, checkpoint, None))
            else:
                points.append((answer, _bare_checkpoint(answer, data, manifest_data, options), None))
        except Failed as failure:
            answer.fail(failure)
        answer.verdict = answer.time = None
    if all(answer.ok for answer in answers):
        try:
            _check_consistency(points, proof_data, options, manifest_data)
        except Failed as failure:
            answers[-1].fail(failure)
    return answers


def _bare_checkpoint(answer, data, manifest_data, options):
    try:
        checkpoint = parse_checkpoint_bytes(data)
    except Malformed as error:
        raise Failed("proof", str(error)) from error
    manifest = read_manifest(manifest_data, options.pin_key)
    answer.keys_serial = manifest.serial
    if manifest.instance != options.pin_instance:
        raise Failed("instance", "key manifest and pin name different instances")
    instance, _, ledger = checkpoint.origin.partition("/")
    if instance != manifest.instance or not is_uuid(ledger):
        raise Failed("origin", "the checkpoint is of another instance")
    answer.instance, answer.ledger, answer.checkpoint_size = instance, ledger, checkpoint.size
    check_checkpoint_signature(checkpoint, manifest, None, True)
    return checkpoint


def _check_consistency(points, proof_data, options, manifest_data):
    # The sizes say which is the older: a checkpoint has no time of its own.
    older, newer = sorted(points, key=lambda point: point[1].size)
    first, second = older[1], newer[1]
    if first.origin != second.origin:
        raise Failed("origin", "the two are of different ledgers")
    if first.size == second.size:
        if first.root != second.root:
            raise Failed("inconsistent", "two roots for one size")
        return
    if newer[2] is not None:
        _, _, root = verify_export(Answer(newer[2]), newer[2], manifest_data, options, root_at=first.size)
        if root != first.root:
            raise Failed("inconsistent", "the export does not continue the older tree")
        return
    if proof_data is None:
        raise Usage("the sizes differ: give the consistency proof with --proof")
    try:
        proof = parse_json(proof_data, MAX_SMALL_INPUT)
    except Malformed as error:
        raise Failed("proof", f"the consistency proof does not parse: {error}") from error
    if not exactly(proof, ("from", "to", "hashes")) or not is_integer(proof["from"]) or not is_integer(proof["to"]) \
            or not isinstance(proof["hashes"], list) or not all(is_hash(h) for h in proof["hashes"]):
        raise Failed("proof", "the consistency proof has not the form of one")
    if (proof["from"], proof["to"]) != (first.size, second.size):
        raise Failed("proof", "the consistency proof is for other sizes")
    if not consistent(first.size, second.size, first.root, second.root, [bytes.fromhex(h) for h in proof["hashes"]]):
        raise Failed("inconsistent", "the newer tree is not proven to continue the older")


def command_keys(files, arguments, options):
    answer = Answer(files[0])
    data = read_file(files[0], MAX_KEY_MANIFEST)
    since = read_file(arguments["--since"], MAX_KEY_MANIFEST) if "--since" in arguments else None
    try:
        if options.pin_key is None:
            raise Failed("unpinned", "without --pin nothing is proven")
        manifest = read_manifest(data, options.pin_key)
        answer.instance, answer.ledger, answer.keys_serial = manifest.instance, manifest.ledger, manifest.serial
        answer.key_id = manifest.document["key_id"]
        answer.notes.append(f"key manifest {manifest.serial} of {manifest.issued_at}, expires {manifest.expires}")
        if manifest.instance != options.pin_instance:
            raise Failed("instance", "key manifest and pin name different instances")
        if since is not None:
            old = read_manifest(since, options.pin_key)
            if old.instance != manifest.instance:
                raise Failed("instance", "the two key manifests are of different instances")
            reason = rollback(manifest, old)
            if reason is not None:
                raise Failed("rollback", reason)
    except Failed as failure:
        answer.fail(failure)
    return [answer]


COMMANDS = {
    # command: (function, options with a value, options without, fewest and most files, needs --keys)
    "receipt": (command_receipt, ("--keys", "--pin", "--ledger", "--destination", "--at", "--as", "--policy"),
                ("--complete", "--json"), 1, None, True),
    "export": (command_export, ("--pin", "--keys", "--ledger", "--at", "--as", "--policy"), ("--json",), 1, 1, False),
    "consistency": (command_consistency, ("--pin", "--keys", "--proof"), ("--json",), 2, 2, True),
    "keys": (command_keys, ("--pin", "--since"), ("--json",), 1, 1, False),
}


def parse_arguments(argv):
    if not argv or argv[0] not in COMMANDS:
        raise Usage("commands: " + ", ".join(COMMANDS))
    function, valued, flags, fewest, most, needs_keys = COMMANDS[argv[0]]
    files, arguments, rest = [], {}, list(argv[1:])
    while rest:
        item = rest.pop(0)
        if item == "-" or not item.startswith("-"):
            files.append(item)
            continue
        name, equals, value = item.partition("=")
        if name in arguments:
            raise Usage(f"{name} is there twice")
        if name in flags and not equals:
            arguments[name] = True
        elif name in valued:
            if not equals:
                if not rest:
                    raise Usage(f"{name} needs a value")
                value = rest.pop(0)
            arguments[name] = value
        else:
            raise Usage(f"unknown option {name}")
    if len(files) < fewest or (most is not None and len(files) > most):
        raise Usage("wrong number of files")
    if needs_keys and "--keys" not in arguments:
        raise Usage("--keys is missing")
    if (files + [arguments.get("--keys"), arguments.get("--since"), arguments.get("--proof"),
                 arguments.get("--policy")]).count("-") > 1:
        raise Usage("standard input can be read once")
    options = Options()
    if "--pin" in arguments:
        key, at, instance = arguments["--pin"].partition("@")
        if not is_hash(key) or not at or not is_instance(instance):
            raise Usage("a pin is KEY_ID@INSTANCE")
        options.pin_key, options.pin_instance = key, instance
    options.ledger = arguments.get("--ledger")
    if options.ledger is not None and not is_uuid(options.ledger):
        raise Usage("--ledger takes a UUID")
    options.destination = arguments.get("--destination")
    options.judged = arguments.get("--as")
    if options.judged not in (None, "fresh", "evidence"):
        raise Usage("--as takes fresh or evidence")
    options.at = arguments.get("--at")
    if options.at is None:
        options.at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    elif not is_time(options.at):
        raise Usage("--at takes a time such as 2026-11-22T01:02:03.000004Z")
    if "--policy" in arguments:
        options.policy = parse_policy(read_file(arguments["--policy"], MAX_SMALL_INPUT))
    return function, files, arguments, options


def main(argv):
    try:
        function, files, arguments, options = parse_arguments(argv)
        answers = function(files, arguments, options)
    except Usage as error:
        print(f"statusledger-verify: {error}", file=sys.stderr)
        return 2
    for answer in answers:
        if "--json" in arguments:
            print(json_out.dumps(answer.as_json()))
        elif answer.ok:
            words = [answer.verdict or "verified"]
            if answer.time:
                words.append(f"time: {answer.time}")
            if answer.withheld:
                words.append(f"{answer.withheld} withheld")
            print(f"{answer.file}: {', '.join(words + answer.notes)}")
        for failure in answer.failures:
            where = f" (seq {failure.seq})" if failure.seq is not None else ""
            print(f"{answer.file}: {failure.check}: {failure.detail}{where}", file=sys.stderr)
    return 0 if all(answer.ok for answer in answers) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
