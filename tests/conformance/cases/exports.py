"""Exports: what they may hold, manifest.json, and who signed, when.

Checks members, manifest, instance, ledger, key_unknown, key_revoked,
key_window, stale, signature, origin, checkpoint_signature, and the shapes of
an export: whole, a range, filtered, empty.
"""

from . import zips
from .build import (AT, CHECKPOINT, EXPORTED, INSTANCE, LEDGER, MANIFEST_EXPIRES, OLD_RECEIPT, OTHER_LEDGER, Q4,
                    Q3_VERIFY_UNTIL, RECEIPT, ROOT, ROOT2, STRANGER, b64, canonical, changed_keys, key_row,
                    left_hashes, manifest, root_row, sha256, text_of, usual_keys, without)
from .ed25519 import Key
from .ledger import TYPES, Ledger, usual_ledger
from .witnesses import policy

FRESH = ("--as", "fresh", "--at")
BESIDE = "--keys, where it is given, is the key manifest; the one inside is then not judged (a pin may be later than it)"


def add_to(corpus):
    ledger = usual_ledger()
    _shapes(corpus, ledger)
    _document(corpus, ledger)
    _forms(corpus, ledger)
    _left(corpus, ledger)
    _keys(corpus, ledger)
    _time(corpus, ledger)
    _signature(corpus, ledger)
    _checkpoint(corpus, ledger)
    _order(corpus, ledger)


def _shapes(corpus, ledger):
    corpus.export("export-whole", ledger.zip(), also={
        "ok": True, "time": "claimed", "withheld": 0, "checkpoint_size": 13, "instance": INSTANCE, "ledger": LEDGER,
        "key_id": RECEIPT.id, "keys_serial": 5})
    for start, end in ((0, 1), (0, 8), (1, 13), (3, 7), (7, 8), (8, 13), (12, 13), (5, 6)):
        corpus.export(f"export-range-{start}-{end}", ledger.zip(start, end), also={"checkpoint_size": end})
    for size in (0, 1, 7, 8, 13):
        corpus.export(f"export-empty-at-{size}", ledger.zip(size, size), also={"withheld": 0})
    corpus.export("export-of-an-empty-ledger", Ledger().zip(), also={"checkpoint_size": 0})
    corpus.export("export-filtered-one-type", ledger.zip(kept=[TYPES[1]]), also={"withheld": 9})
    corpus.export("export-filtered-two-types", ledger.zip(kept=list(TYPES[:2])), also={"withheld": 4})
    corpus.export("export-filtered-all-types", ledger.zip(kept=list(TYPES)), also={"withheld": 0})
    corpus.export("export-filtered-to-nothing", ledger.zip(kept=["no.such.type"]), also={"withheld": 13})
    corpus.export("export-filtered-by-no-type", ledger.zip(kept=[]), also={"withheld": 13})
    corpus.export("export-filtered-range", ledger.zip(3, 11, [TYPES[0]]), also={"withheld": 5})
    # "Left-out lines are not proven to be of other types": one of a kept type may be missing.
    lines = ledger.lines(0, 13, list(TYPES[:2]))
    lines[3] = canonical({"leaf": ledger.leaves[3].hex(), "seq": 3})
    corpus.export("export-withholds-a-kept-type", ledger.zip(kept=list(TYPES[:2]), lines=lines, count=8),
                  also={"withheld": 5})
    corpus.export("export-without-openings", ledger.zip(openings=False))
    corpus.export("export-openings-empty", ledger.zip(openings=[]),
                  open="'absent rather than empty' is said of receipts, not of openings.jsonl")
    corpus.export("export-with-ledger", ledger.zip(), args=("--ledger", LEDGER))
    corpus.export("export-not-the-ledger-asked-for", ledger.zip(), "ledger", args=("--ledger", OTHER_LEDGER))
    corpus.export("export-manifest-re-serialised", ledger.zip(document=(
        " " + text_of(ledger.export_manifest(0, 13)).replace(",", " ,\n")).encode()),
        open="only entries.jsonl is said to be canonical")
    large = Ledger()
    for seq in range(300):
        large.add("x", {"n": seq, "p": "p" * 3000})
    corpus.export("export-of-300-entries", large.zip())
    corpus.export("export-of-300-entries-the-last-half", zips.write(large.export(150, 300), method=0))


def _document(corpus, ledger):
    """Single bytes of manifest.json, and its members."""
    document = ledger.export_manifest(3, 13)

    def changed(name, failed, **members):
        corpus.export(f"export-manifest-{name}", ledger.zip(3, 13, document=canonical(document | members)), failed)

    changed("byte-v", "members", v=2)
    changed("byte-instance", "instance", instance="status.example.con")
    changed("byte-ledger", "signature", ledger=OTHER_LEDGER)
    changed("byte-from", "signature", **{"from": 4})
    changed("byte-to", "signature", to=12)
    changed("byte-root", "signature", root="0" + document["root"][1:] if document["root"][0] != "0"
            else "1" + document["root"][1:])
    changed("byte-count", "signature", count=11)
    changed("filter-added", "signature", filter=list(TYPES))
    changed("byte-left", "signature", left=[document["left"][1], document["left"][0]])
    changed("byte-exported-at", "signature", exported_at=EXPORTED.replace("09:", "10:"))
    changed("byte-exported-by", "signature", exported_by="usr_x")
    changed("byte-key-id", "key_unknown", key_id=STRANGER.id)
    changed("signature-of-another", "signature", signature=ledger.export_manifest(0, 13)["signature"])
    changed("signature-all-zeros", "signature", signature=b64(bytes(64)))
    for name in document:
        if name != "signature":
            part = without(document, name, "signature")
            part["signature"] = b64(RECEIPT.sign(b"statusledger/v1/export\n" + canonical(part)))
            corpus.export(f"export-manifest-without-{name}", ledger.zip(3, 13, document=canonical(part)), "members")
    corpus.export("export-manifest-without-signature",
                  ledger.zip(3, 13, document=canonical(without(document, "signature"))), "members")
    for name, text in (("empty", b""), ("not-json", b"x"), ("list", b"[]"), ("trailing", canonical(document) + b"x"),
                       ("duplicate", canonical(document).replace(b'"from":3', b'"from":0,"from":3')),
                       ("exponent", canonical(document).replace(b'"from":3', b'"from":3e0')),
                       ("10000-levels", b"[" * 10_000)):
        corpus.export(f"export-manifest-{name}", ledger.zip(3, 13, document=text), "members")


def _forms(corpus, ledger):
    """Wrong forms, signed as they are."""
    def of(name, failed="members", **members):
        corpus.export(f"export-manifest-{name}", ledger.zip(3, 13, **members), failed)

    of("unknown-member", note="x")
    of("v-text", v="1")
    of("from-negative", **{"from": -1})
    of("from-text", **{"from": "3"})
    of("to-null", to=None)
    of("from-above-to", **{"from": 14})
    of("root-upper-case", root=ledger.root().hex().upper())
    of("root-base64", root=b64(ledger.root()))
    of("count-negative", count=-1)
    of("count-text", count="10")
    of("filter-text", filter="key.added")
    of("filter-of-numbers", filter=[1])
    of("filter-true", filter=True)
    of("left-null", left=None)
    of("left-of-short-hashes", left=["ab"])
    of("exported-at-short", exported_at="2026-11-21T09:00:00Z")
    of("exported-by-null", exported_by=None)
    of("ledger-upper-case", ledger=LEDGER.upper())
    of("key-id-upper-case", key_id=RECEIPT.id.upper())
    of("signature-not-padded", signature=b64(bytes(64)).rstrip("="))


def _left(corpus, ledger):
    """`left`, `root` and `count`, signed as they are."""
    good = [h.hex() for h in left_hashes(ledger.leaves, 7)]

    def of(name, failed, start=7, end=13, **members):
        corpus.export(f"export-left-{name}", ledger.zip(start, end, **members), failed)

    why = "the number of hashes in `left` follows from `from`: `root` as it cannot be recomputed, or `members`"
    of("as-it-is", None, left=good)
    of("reordered", "root", left=good[::-1])
    of("other-hash", "root", left=[good[0], good[1], "ab" * 32])
    corpus.export("export-left-one-less", ledger.zip(7, 13, left=good[:-1]), "root", open=why)
    corpus.export("export-left-one-more", ledger.zip(7, 13, left=good + ["ab" * 32]), "root", open=why)
    corpus.export("export-left-folded-into-one", ledger.zip(7, 13, left=[ledger.root(7).hex()]), "root", open=why)
    corpus.export("export-left-though-from-is-0", ledger.zip(left=["ab" * 32]), "root", open=why)
    corpus.export("export-left-of-leaves", ledger.zip(7, 13, left=[h.hex() for h in ledger.leaves[:7]]), "root", open=why)
    corpus.export("export-left-empty", ledger.zip(7, 13, left=[]), "root", open=why)
    of("root-other", "root", root="ab" * 32)
    of("root-of-a-smaller-tree", "root", root=ledger.root(12).hex())
    of("root-of-an-empty-tree", "root", 0, 0, root="00" * 32)
    for name, count in (("less", 5), ("more", 7), ("zero", 0)):
        of(f"count-{name}", "count", count=count)
    corpus.export("export-count-of-lines-and-not-of-entries", ledger.zip(kept=[TYPES[0]], count=13), "count")
    corpus.export("export-empty-with-another-root", ledger.zip(7, 7, left=good[:2] + ["ab" * 32]), "root")
    # prev of the first line names the entry before, which `left` has where `from` is odd.
    changed = usual_ledger()
    changed.entries[7]["prev"] = "ab" * 32
    changed.leaves[7] = sha256(b"\x00", canonical(changed.entries[7]))
    changed.entries[8:], changed.leaves[8:], changed.openings[8:] = [], [], []
    corpus.export("export-first-prev-is-not-in-left", changed.zip(7, 8),
                  open="prev is checked between neighbours and for seq 0; not against `left`")


def _keys(corpus, ledger):
    def of(name, keys, failed=None, **more):
        corpus.export(f"export-keys-{name}", ledger.zip(keys=keys), failed, **more)

    of("signed-by-nobody", manifest() | {"serial": 6}, "manifest")
    of("of-another-instance", manifest([root_row(ROOT, instance="other.example.com"), *usual_keys()[1:]],
                                       instance="other.example.com"), "instance")
    corpus.export("export-keys-not-json", zips.write(ledger.export() | {"keys.json": b"{"}), "manifest")
    corpus.export("export-keys-empty", zips.write(ledger.export() | {"keys.json": b""}), "manifest")
    good = canonical(manifest())
    corpus.export("export-keys-1-mib", zips.write(ledger.export() | {
        "keys.json": good + b" " * (1024 * 1024 - len(good))}))
    corpus.export("export-keys-1-mib-and-1", zips.write(ledger.export() | {
        "keys.json": good + b" " * (1024 * 1024 + 1 - len(good))}), "manifest")
    archive = ledger.zip()
    corpus.export("export-pin-of-another-root", archive, "manifest", pin=f"{ROOT2.id}@{INSTANCE}")
    corpus.export("export-pin-of-another-instance", archive, "instance", pin=f"{ROOT.id}@other.example.com")
    other = usual_ledger(instance="other.example.com")
    corpus.export("export-of-another-instance", other.zip(), "instance")
    corpus.export("export-by-a-stranger", ledger.zip(key=STRANGER), "key_unknown")
    corpus.export("export-by-the-checkpoint-key", ledger.zip(key=CHECKPOINT), "key_unknown")
    corpus.export("export-by-the-root", ledger.zip(key=ROOT), "key_unknown")
    revoked = manifest(changed_keys(RECEIPT, revoked_at="2026-11-21T10:00:00.000000Z"), serial=6)
    of("key-revoked", revoked, "key_revoked")
    corpus.export("export-keys-key-revoked-and-line-wrong", ledger.zip(keys=revoked, lines=ledger.lines(0, 12)),
                  "key_revoked", stderr=("count",))
    corpus.export("export-keys-beside-it-the-same", archive, keys=manifest())
    corpus.export("export-keys-beside-it-later", archive, keys=manifest(serial=6), also={"keys_serial": 6},
                  open="--keys is the key manifest that is judged by; its serial is the one that is named")
    corpus.export("export-keys-beside-it-revoke", archive, "key_revoked", keys=revoked)
    corpus.export("export-keys-beside-it-revoke-the-checkpoint-key", archive, "checkpoint_signature",
                  keys=manifest(changed_keys(CHECKPOINT, revoked_at=EXPORTED), serial=6))
    corpus.export("export-keys-beside-it-wrong", archive, "manifest", keys=manifest() | {"serial": 7})
    older = manifest(usual_keys()[:3], serial=4)
    corpus.export("export-keys-beside-it-older", archive, "key_unknown", keys=older,
                  open="an older --keys that does not have the key: judged by it, or by the later one inside")
    corpus.export("export-keys-inside-wrong-beside-it-right", ledger.zip(keys=manifest() | {"serial": 7}),
                  keys=manifest(), open=BESIDE)
    corpus.export("export-keys-inside-revoke-beside-it-older", ledger.zip(keys=revoked), keys=manifest(), open=BESIDE,
                  also={"keys_serial": 5})
    june = "2026-06-01T00:00:00.000000Z"
    later = manifest([root_row(ROOT, not_after="2026-11-22T00:00:00.000000Z"), root_row(ROOT2, ROOT, june),
                      *usual_keys()[1:]], signer=ROOT2, serial=6)
    corpus.export("export-keys-beside-it-under-a-later-pin", archive, keys=later, pin=f"{ROOT2.id}@{INSTANCE}",
                  open=BESIDE, also={"keys_serial": 6})
    mixed = Key("receipt key with torsion", torsion=True)
    keys = manifest([*usual_keys(), key_row(mixed, "receipt")])
    corpus.export("export-key-with-torsion-valid-with-cofactor-only", ledger.zip(
        keys=keys, key=mixed, how=lambda m: mixed.sign_by_k(m, False)), "signature")


def _time(corpus, ledger):
    def at(name, exported_at, failed=None, key=RECEIPT, args=(), **more):
        corpus.export(f"export-time-{name}", ledger.zip(key=key, exported_at=exported_at), failed, args=args, **more)

    at("window-first-instant", Q4)
    at("before-the-window", "2026-09-30T23:59:59.999999Z", "key_window")
    at("old-key-last-instant", Q4, key=OLD_RECEIPT)
    at("old-key-after-its-window", "2026-10-01T00:00:00.000001Z", "key_window", OLD_RECEIPT)
    at("evidence-is-the-default", EXPORTED, args=("--at", "2030-01-01T00:00:00.000000Z"))
    at("fresh", EXPORTED, args=(*FRESH, AT))
    at("fresh-manifest-expires-now", EXPORTED, args=(*FRESH, MANIFEST_EXPIRES))
    at("fresh-manifest-expired", EXPORTED, "stale", args=(*FRESH, "2027-01-30T00:00:00.000001Z"))
    old = "2026-09-01T00:00:00.000000Z"
    at("fresh-verify-until-now", old, key=OLD_RECEIPT, args=(*FRESH, Q3_VERIFY_UNTIL))
    at("fresh-verify-until-past", old, "stale", OLD_RECEIPT, (*FRESH, "2026-12-30T00:00:00.000001Z"))
    corpus.export("export-time-fresh-stale-inside-later-beside", ledger.zip(
        keys=manifest(expires="2026-11-20T00:00:00.000000Z")), keys=manifest(serial=6), args=(*FRESH, AT),
        open="--keys is the key manifest that is judged by, so that its expiry counts")


def _signature(corpus, ledger):
    for kind in ("receipt", "manifest", "endorsement"):
        corpus.export(f"export-signed-as-{kind}", ledger.zip(kind=kind), "signature")
    corpus.export("export-signed-by-another-key", ledger.zip(how=OLD_RECEIPT.sign), "signature")
    corpus.export("export-signed-s-plus-l", ledger.zip(how=RECEIPT.sign_s_plus_l), "signature")
    corpus.export("export-signed-r-is-the-identity", ledger.zip(how=RECEIPT.sign_identity_r), "signature")
    corpus.export("export-signed-r-with-torsion", ledger.zip(how=RECEIPT.sign_torsion_r), "signature")


def _checkpoint(corpus, ledger):
    def of(name, checkpoint, failed, **more):
        corpus.export(f"export-checkpoint-{name}", ledger.zip(3, 12, checkpoint=checkpoint), failed, **more)

    why = "'of size exactly `to`': no check is named for it; `root`, which is the checkpoint's too"
    of("of-a-larger-tree", ledger.checkpoint(13), "root", open=why)
    of("of-a-smaller-tree", ledger.checkpoint(11), "root", open=why)
    of("root-of-another-tree", ledger.checkpoint(12, root=ledger.root(11)), "root")
    of("size-of-another-tree", ledger.checkpoint(13, root=ledger.root(12)), "root", open=why)
    of("of-another-ledger", usual_ledger(ledger=OTHER_LEDGER).checkpoint(12), "origin")
    of("of-another-instance", usual_ledger(instance="other.example.com").checkpoint(12), "origin")
    other = usual_ledger(ledger=OTHER_LEDGER)
    corpus.export("export-lines-of-another-ledger", ledger.zip(lines=other.lines(0, 13), openings=False), "ledger",
                  also={"seq": 0})
    corpus.export("export-ledger-of-the-manifest-alone", ledger.zip(ledger=OTHER_LEDGER), "origin")
    rewritten = usual_ledger()
    rewritten.entries[5]["data"]["n"] = 999
    corpus.export("export-checkpoint-of-the-history-before", _chain_again(rewritten).zip(
        checkpoint=ledger.checkpoint()), "root")
    corpus.export("export-history-rewritten-as-a-whole", _chain_again(rewritten).zip())


def _chain_again(ledger):
    """Every prev and leaf computed anew, as whoever rewrites a database would."""
    previous = "0" * 64
    for seq, entry in enumerate(ledger.entries):
        entry["prev"] = previous
        ledger.leaves[seq] = sha256(b"\x00", canonical(entry))
        previous = ledger.leaves[seq].hex()
    return ledger


def _order(corpus, ledger):
    """Where two checks fail, the first is named."""
    bad_keys = manifest() | {"serial": 6}
    for name, options in (("members", {"v": 2}), ("manifest", {"keys": bad_keys}), ("signature", {"kind": "receipt"}),
                          ("lines", {"lines": [b"x"]})):
        members = [zips.Member(n, d, both={"crc": 1} if n == "entries.jsonl" else {})
                   for n, d in ledger.export(**options).items()]
        corpus.export(f"export-order-zip-before-{name}", zips.write(members), "zip")
    corpus.export("export-order-members-before-manifest", ledger.zip(v=2, keys=bad_keys), "members")
    corpus.export("export-order-manifest-before-instance", ledger.zip(keys=bad_keys, instance="x.example.com"), "manifest")
    corpus.export("export-order-instance-before-ledger", ledger.zip(), "instance", pin=f"{ROOT.id}@x.example.com",
                  args=("--ledger", OTHER_LEDGER))
    corpus.export("export-order-ledger-before-key", ledger.zip(key=STRANGER), "ledger", args=("--ledger", OTHER_LEDGER))
    corpus.export("export-order-signature-before-origin", ledger.zip(kind="receipt", checkpoint="x"), "signature")
    corpus.export("export-order-origin-before-lines", ledger.zip(checkpoint="x", lines=[b"x"]), "origin")
    corpus.export("export-order-lines-before-count", ledger.zip(count=1, lines=ledger.lines(0, 5) + [b"{}"]), "members")
    corpus.export("export-order-count-before-root", ledger.zip(count=1, root="ab" * 32), "count")
    corpus.export("export-order-root-before-openings", ledger.zip(root="ab" * 32, openings=[b"x"]), "root")
    corpus.export("export-order-openings-before-policy", ledger.zip(openings=[b"x"]), "openings",
                  policy=policy("A"))
