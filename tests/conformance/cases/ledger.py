"""A ledger of the world in build.py, with its receipts and exports."""

from . import zips
from .build import (CHECKPOINT, DESTINATION, EXPORTED, INSTANCE, ISSUED, LEDGER, RECEIPT, b64, canonical,
                    checkpoint_text, consistency, inclusion, left_hashes, log_line, manifest, proof_text, root,
                    sha256, sign_json, without)


def seal(salt, value):
    return sha256(b"\x02", salt, canonical(value)).hex()


def leaf_of(entry):
    return sha256(b"\x00", canonical(entry))


class Ledger:
    """Entries that are appended one by one; every random byte is derived."""

    def __init__(self, ledger=LEDGER, instance=INSTANCE):
        self.ledger, self.instance = ledger, instance
        self.entries, self.leaves, self.openings = [], [], []

    @property
    def origin(self):
        return f"{self.instance}/{self.ledger}"

    def bytes_for(self, use, length):
        return sha256(f"{self.ledger} {len(self.entries)} {use}".encode())[:length]

    def add(self, type_="store.version.transitioned", data=None, sealed=None, **members):
        """Appends an entry; `sealed` maps a name to the value to be sealed."""
        seq = len(self.entries)
        data, openings = dict({"n": seq} if data is None else data), {}
        if sealed:
            openings = {name: {"salt": b64(self.bytes_for(name, 32)), "value": value}
                        for name, value in sealed.items()}
            data["sealed"] = {name: seal(self.bytes_for(name, 32), value) for name, value in sealed.items()}
        entry = {"v": 1, "ledger": self.ledger, "seq": seq,
                 "prev": self.leaves[-1].hex() if self.leaves else "0" * 64,
                 "timestamp": f"2026-11-20T{seq // 60:02}:{seq % 60:02}:00.000000Z",
                 "nonce": b64(self.bytes_for("nonce", 16)), "type": type_, "data": data} | members
        self.entries.append(entry)
        self.leaves.append(leaf_of(entry))
        self.openings.append(openings)
        return self

    def root(self, size=None):
        return root(self.leaves[:size])

    def text(self, size=None, **members):
        """The signed part of a checkpoint; members: origin, size, root."""
        size = len(self.leaves) if size is None else size
        return checkpoint_text(members.get("origin", self.origin), members.get("size", size),
                               members.get("root", self.root(size)))

    def checkpoint(self, size=None, key=CHECKPOINT, lines=None, **members):
        """`lines`: a function from the text to its signature lines."""
        text = self.text(size, **members)
        return text + "\n" + (lines(text) if lines else log_line(text, key))

    def proof(self, seq, size=None, checkpoint=None, index=None, hashes=None):
        leaves = self.leaves[:size]
        return proof_text(seq if index is None else index, inclusion(seq, leaves) if hashes is None else hashes,
                          checkpoint or self.checkpoint(size))

    def consistency(self, older, newer):
        return {"from": older, "to": newer,
                "hashes": [h.hex() for h in consistency(older, self.leaves[:newer])]}

    def receipt(self, seq, size=None, key=RECEIPT, kind="receipt", how=None, proof=None, entry=None, openings=None,
                extra=None, **members):
        """A receipt body. `entry` replaces the entry and `extra` adds to the body,
        both before it is signed; `members` are of `receipt`."""
        receipt = {"v": 1, "instance": self.instance, "id": f"rcpt_0192f0c3-0000-7000-8000-{seq:012x}",
                   "destination": DESTINATION, "number": seq + 1, "issued_at": ISSUED, "key_id": key.id,
                   "proof": self.proof(seq, size) if proof is None else proof} | members
        body = dict(entry or self.entries[seq]) | {"receipt": receipt} | (extra or {})
        if "signature" not in members:
            receipt["signature"] = sign_json(key, kind, body | {"receipt": without(receipt, "proof")}, how)
        openings = self.openings[seq] if openings is None else openings
        return body | ({"openings": dict(openings)} if openings else {})

    # -- exports ------------------------------------------------------------

    def lines(self, start, end, kept=None):
        """entries.jsonl, a list of bytes without their line feeds."""
        return [canonical(entry if kept is None or entry["type"] in kept else
                          {"leaf": self.leaves[entry["seq"]].hex(), "seq": entry["seq"]})
                for entry in self.entries[start:end]]

    def opening_lines(self, start, end, kept=None):
        return [canonical({"name": name, "seq": seq, **opening})
                for seq in range(start, end) if kept is None or self.entries[seq]["type"] in kept
                for name, opening in sorted(self.openings[seq].items())]

    def export_manifest(self, start, end, kept=None, key=RECEIPT, kind="export", how=None, **members):
        count = sum(kept is None or e["type"] in kept for e in self.entries[start:end])
        document = {"v": 1, "instance": self.instance, "ledger": self.ledger, "from": start, "to": end,
                    "root": self.root(end).hex(), "count": count, "filter": kept,
                    "left": [h.hex() for h in left_hashes(self.leaves, start)], "exported_at": EXPORTED,
                    "exported_by": "usr_0192f0c4-2222-7aaa-8bbb-123456789abc", "key_id": key.id} | members
        if "signature" not in members:
            document["signature"] = sign_json(key, kind, document, how)
        return document

    def export(self, start=0, end=None, kept=None, *, lines=None, openings=True, checkpoint=None, keys=None,
               document=None, **members):
        """The members of an export, in order: {name: bytes}.

        lines: instead of entries.jsonl's. openings: True where there are any, or
        a list of lines, or False. members: of manifest.json, before it is signed."""
        end = len(self.entries) if end is None else end
        lines = self.lines(start, end, kept) if lines is None else lines
        if openings is True:
            openings = self.opening_lines(start, end, kept) or False
        if document is None:
            document = canonical(self.export_manifest(start, end, kept, **members))
        out = {"entries.jsonl": b"".join(line + b"\n" for line in lines)}
        if openings is not False:
            out["openings.jsonl"] = b"".join(line + b"\n" for line in openings)
        return out | {"checkpoint": (checkpoint or self.checkpoint(end)).encode(),
                      "keys.json": canonical(keys or manifest()), "manifest.json": document}

    def zip(self, *arguments, **members):
        return zips.write(self.export(*arguments, **members))


TYPES = ("store.version.transitioned", "audit.signed_in", "key.added")


def usual_ledger(length=13, **identity):
    """Three types in turn; every audit entry has two sealed values."""
    ledger = Ledger(**identity)
    for seq in range(length):
        type_ = TYPES[seq % 3]
        sealed = {"actor_email": f"person{seq}@example.com", "ip": ["192.0.2.7", seq]} if seq % 3 == 1 else None
        ledger.add(type_, {"n": seq, "title": "Zürich – 東京 🚀"}, sealed)
    return ledger
