"""Builds every document of formats.md: entries, trees, checkpoints, proofs,
receipts, key manifests and exports, right by default and wrong on request.

Nothing here checks anything: what a caller asks for is built and signed.
"""

import base64
import hashlib

from .ed25519 import Key

# ---------------------------------------------------------------------------
# Canonical JSON (RFC 8785)

_SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quote(text):
    """A JSON string literal as RFC 8785 writes it."""
    return '"' + "".join(_SHORT.get(ord(c)) or (f"\\u{ord(c):04x}" if ord(c) < 32 else c) for c in text) + '"'


def text_of(value):
    """The RFC 8785 form of a value, as str; integers are written as they are."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    return "{" + ",".join(f"{quote(name)}:{text_of(value[name])}" for name in names) + "}"


def canonical(value):
    return text_of(value).encode()


def b64(data):
    return base64.b64encode(data).decode()


def without(value, *names):
    return {name: item for name, item in value.items() if name not in names}


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def sign_json(key, kind, value, how=None):
    """base64 of the signature over `statusledger/v1/<kind>`; `how` replaces key.sign."""
    return b64((how or key.sign)(f"statusledger/v1/{kind}\n".encode() + canonical(value)))


# ---------------------------------------------------------------------------
# RFC 6962, word for word: D[n] is split at the largest power of two below n

def node(left, right):
    return sha256(b"\x01", left, right)


def _split(n):
    return 1 << (n - 1).bit_length() - 1


def root(leaves):
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node(root(leaves[:k]), root(leaves[k:]))


def inclusion(index, leaves):
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return inclusion(index, leaves[:k]) + [root(leaves[k:])]
    return inclusion(index - k, leaves[k:]) + [root(leaves[:k])]


def consistency(older, leaves, whole=True):
    if older == len(leaves):
        return [] if whole else [root(leaves)]
    k = _split(len(leaves))
    if older <= k:
        return consistency(older, leaves[:k], whole) + [root(leaves[k:])]
    return consistency(older - k, leaves[k:], False) + [root(leaves[:k])]


def left_hashes(leaves, start):
    """The perfect subtrees that cover the first `start` leaves, largest first."""
    out, at = [], 0
    for bit in range(start.bit_length() - 1, -1, -1):
        if start >> bit & 1:
            out.append(root(leaves[at:at + (1 << bit)]))
            at += 1 << bit
    return out


# ---------------------------------------------------------------------------
# The world that the cases live in

INSTANCE = "status.example.com"
LEDGER = "0192f0c1-7a4e-7cc3-98c4-dc0c0c07398f"
OTHER_LEDGER = "0192f0c1-7a4e-7cc3-98c4-dc0c0c07dead"
SELF_LEDGER = "0192f0c1-0000-7000-8000-000000000001"
DESTINATION = "dst_0192f0c2-1111-7aaa-8bbb-123456789abc"
# When everything is judged unless a case says otherwise.
AT = "2026-11-22T12:00:00.000000Z"
ISSUED = "2026-11-21T08:00:00.000000Z"
EXPORTED = "2026-11-21T09:00:00.000000Z"
MANIFEST_ISSUED = "2026-11-01T00:00:00.000000Z"
MANIFEST_EXPIRES = "2027-01-30T00:00:00.000000Z"
Q3, Q4 = "2026-07-01T00:00:00.000000Z", "2026-10-01T00:00:00.000000Z"
# Q4 + 90 days.
Q3_VERIFY_UNTIL = "2026-12-30T00:00:00.000000Z"

ROOT, ROOT2, ROOT3 = Key("root 1"), Key("root 2"), Key("root 3")
RECEIPT, OLD_RECEIPT = Key("receipt key"), Key("receipt key of the last quarter")
CHECKPOINT, OLD_CHECKPOINT = Key("checkpoint key"), Key("checkpoint key of the last quarter")
STRANGER = Key("a key of nobody here")
PIN = f"{ROOT.id}@{INSTANCE}"


def key_row(key, purpose, not_before=Q4, **members):
    row = {"key_id": key.id, "public_key": key.base64, "purpose": purpose, "not_before": not_before,
           "not_after": None, "verify_until": None, "revoked_at": None}
    return row | members


def root_row(key, by=None, not_before="2026-01-01T00:00:00.000000Z", instance=INSTANCE, kind="endorsement",
             how=None, **members):
    """A root with its endorsement; `by` is the endorsing key, itself by default."""
    by = by or key
    row = key_row(key, "root", not_before, **members)
    statement = {"instance": instance, **{m: row[m] for m in ("key_id", "not_before", "public_key", "purpose")}}
    signed = {"endorsed_by": by.id, "endorsement": sign_json(by, kind, statement, how)}
    return row | {name: value for name, value in signed.items() if name not in members}


def usual_keys():
    retired = {"not_after": Q4, "verify_until": Q3_VERIFY_UNTIL}
    return [root_row(ROOT),
            key_row(OLD_RECEIPT, "receipt", Q3, **retired), key_row(OLD_CHECKPOINT, "checkpoint", Q3, **retired),
            key_row(RECEIPT, "receipt"), key_row(CHECKPOINT, "checkpoint")]


def changed_keys(key, **members):
    """The usual keys with some members of one of them replaced."""
    return [row | members if row["key_id"] == key.id else row for row in usual_keys()]


def manifest(keys=None, signer=ROOT, kind="manifest", how=None, **members):
    document = {"v": 1, "instance": INSTANCE, "ledger": SELF_LEDGER, "serial": 5, "issued_at": MANIFEST_ISSUED,
                "expires": MANIFEST_EXPIRES, "keys": usual_keys() if keys is None else keys,
                "key_id": signer.id} | members
    if "signature" not in members:
        document["signature"] = sign_json(signer, kind, document, how)
    return document


# ---------------------------------------------------------------------------
# Checkpoints and proofs

def note_line(name, kind, key, signature, key_id=None):
    key_id = sha256(name.encode(), b"\n", bytes([kind]), key.public)[:4] if key_id is None else key_id
    return f"\u2014 {name} {b64(key_id + signature)}\n"


def checkpoint_text(origin, size, root_hash):
    return f"{origin}\n{size}\n{b64(root_hash)}\n"


def log_line(text, key=CHECKPOINT, name=None, how=None, kind=0x01):
    name = text.split("\n")[0] if name is None else name
    return note_line(name, kind, key, (how or key.sign)(text.encode()))


def cosignature(text, witness, timestamp, name=None, how=None):
    """A C2SP tlog-cosignature line by a Witness."""
    message = f"cosignature/v1\ntime {timestamp}\n".encode() + text.encode()
    signature = timestamp.to_bytes(8, "big") + (how or witness.key.sign)(message)
    return note_line(name or witness.name, 0x04, witness.key, signature)


class Witness:
    def __init__(self, name):
        self.name, self.key = name, Key("witness " + name)

    @property
    def vkey(self):
        key_id = sha256(self.name.encode(), b"\n\x04", self.key.public)[:4]
        return "+".join((self.name, key_id.hex(), b64(b"\x04" + self.key.public)))


def proof_text(index, hashes, checkpoint, head="c2sp.org/tlog-proof@v1\n"):
    return f"{head}index {index}\n" + "".join(b64(h) + "\n" for h in hashes) + "\n" + checkpoint
