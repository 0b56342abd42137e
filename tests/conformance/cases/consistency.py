"""`consistency`: two states of one log, whatever each was read from."""

from . import zips
from .build import (CHECKPOINT, INSTANCE, OTHER_LEDGER, RECEIPT, ROOT, changed_keys, log_line, manifest, root_row,
                    text_of, usual_keys)
from .ledger import Ledger, usual_ledger


def rewritten(ledger, at, length=13):
    """The same ledger with another entry `at`, chained and hashed anew."""
    other = Ledger(ledger.ledger, ledger.instance)
    for entry in ledger.entries[:length]:
        data = entry["data"] | ({"n": 999} if entry["seq"] == at else {})
        other.add(entry["type"], data, timestamp=entry["timestamp"])
    return other


def add_to(corpus):
    ledger = usual_ledger()
    _good(corpus, ledger)
    _rewritten(corpus, ledger)
    _proofs(corpus, ledger)
    _exports(corpus, ledger)
    _inputs(corpus, ledger)
    _keys(corpus, ledger)


def _good(corpus, ledger):
    for older, newer in ((1, 2), (1, 13), (2, 4), (3, 7), (4, 8), (6, 7), (7, 8), (8, 13), (12, 13), (5, 11)):
        corpus.consistency(f"consistency-{older}-to-{newer}", ledger.checkpoint(older), ledger.checkpoint(newer),
                           proof=ledger.consistency(older, newer), answers=[None, None])
    same = ledger.checkpoint(9)
    corpus.consistency("consistency-equal", same, same)
    corpus.consistency("consistency-equal-of-two-kinds", ledger.receipt(4, 9), same)
    corpus.consistency("consistency-equal-two-receipts", ledger.receipt(4, 9), ledger.receipt(7, 9))
    corpus.consistency("consistency-equal-two-exports", ledger.zip(3, 9), ledger.zip(5, 9))
    corpus.consistency("consistency-equal-with-a-proof-not-needed", same, same, proof=ledger.consistency(4, 9),
                       open="a proof that is not needed is not read")
    corpus.consistency("consistency-receipt-and-checkpoint", ledger.receipt(2, 5), ledger.checkpoint(13),
                       proof=ledger.consistency(5, 13))
    corpus.consistency("consistency-two-receipts", ledger.receipt(2, 5), ledger.receipt(2, 13),
                       proof=ledger.consistency(5, 13))
    corpus.consistency("consistency-proof-re-serialised", ledger.checkpoint(3), ledger.checkpoint(7), proof=text_of(
        ledger.consistency(3, 7)).replace(",", " ,\n").replace("{", "{ "))
    corpus.consistency("consistency-empty-to-13", ledger.checkpoint(0), ledger.checkpoint(13),
                       proof={"from": 0, "to": 13, "hashes": []},
                       open="RFC 6962 has no proof from 0; an empty one says all there is to say")
    corpus.consistency("consistency-the-newer-first", ledger.checkpoint(13), ledger.checkpoint(5),
                       proof=ledger.consistency(5, 13),
                       open="the sizes say which is the older, whatever the order on the command line")


def _rewritten(corpus, ledger):
    bad = "inconsistent"
    for at in (0, 4, 8):
        other = rewritten(ledger, at)
        corpus.consistency(f"consistency-rewritten-at-{at}-equal-sizes", ledger.checkpoint(13), other.checkpoint(13), bad)
        corpus.consistency(f"consistency-rewritten-at-{at}-receipts", ledger.receipt(5), other.receipt(5), bad)
        corpus.consistency(f"consistency-rewritten-at-{at}-export", ledger.receipt(5, 9), other.zip(), bad)
        corpus.consistency(f"consistency-rewritten-at-{at}-its-own-proof", ledger.checkpoint(9), other.checkpoint(13), bad,
                           proof=other.consistency(9, 13))
        corpus.consistency(f"consistency-rewritten-at-{at}-the-true-proof", ledger.checkpoint(9), other.checkpoint(13), bad,
                           proof=ledger.consistency(9, 13))
    corpus.consistency("consistency-rewritten-behind-the-older", ledger.receipt(5, 9), rewritten(ledger, 11).zip())
    corpus.consistency("consistency-cut-short-and-continued", ledger.checkpoint(9), rewritten(ledger, 8).checkpoint(13),
                       bad, proof=rewritten(ledger, 8).consistency(9, 13))
    corpus.consistency("consistency-shorter-history-export", ledger.receipt(5, 9), ledger.zip(0, 8), None,
                       proof=ledger.consistency(8, 9),
                       open="a shorter NEWER: the sizes say which is the older, and the two are of one history")
    corpus.consistency("consistency-shorter-rewritten-export", ledger.zip(), rewritten(ledger, 4, 9).zip(), bad)


def _proofs(corpus, ledger):
    good = ledger.consistency(5, 13)
    hashes = good["hashes"]
    assert len(hashes) == 5

    def of(name, proof, failed, older=5, newer=13, **more):
        corpus.consistency(f"consistency-proof-{name}", ledger.checkpoint(older), ledger.checkpoint(newer), failed,
                           proof=proof, **more)

    bad = "inconsistent"
    of("empty", good | {"hashes": []}, bad)
    of("without-the-first", good | {"hashes": hashes[1:]}, bad)
    of("without-the-last", good | {"hashes": hashes[:-1]}, bad)
    of("one-more", good | {"hashes": hashes + ["00" * 32]}, bad)
    of("first-twice", good | {"hashes": hashes[:1] + hashes}, bad)
    of("reversed", good | {"hashes": hashes[::-1]}, bad)
    of("two-swapped", good | {"hashes": [hashes[0], hashes[2], hashes[1], *hashes[3:]]}, bad)
    for position in range(5):
        changed = hashes[:position] + ["ab" * 32] + hashes[position + 1:]
        of(f"hash-{position}-changed", good | {"hashes": changed}, bad)
    of("older-root-first-for-a-full-tree", {"from": 8, "to": 13, "hashes": [ledger.root(8).hex()] + ledger.consistency(
        8, 13)["hashes"]}, bad, 8)
    of("100000-hashes", good | {"hashes": ["ab" * 32] * 100_000}, bad,
       open="far more hashes than any proof: `inconsistent` as it proves nothing, or `proof`")
    why = "a proof for other sizes: `proof`, as it is not the proof of these two, or `inconsistent`"
    of("for-another-older", ledger.consistency(4, 13), "proof", open=why)
    of("for-another-newer", ledger.consistency(5, 12), "proof", open=why)
    of("sizes-changed", good | {"from": 4}, "proof", open=why)
    of("sizes-swapped", good | {"from": 13, "to": 5}, "proof", open=why)
    for name, changed in (("list", hashes), ("unknown-member", good | {"x": 1}), ("from-text", good | {"from": "5"}),
                          ("hash-upper-case", good | {"hashes": [h.upper() for h in hashes]}),
                          ("hash-short", good | {"hashes": ["ab"]}), ("hashes-null", good | {"hashes": None}),
                          ("hash-number", good | {"hashes": [1]}), ("no-hashes", {"from": 5, "to": 13}),
                          ("not-json", "x"), ("empty-file", ""), ("duplicate", text_of(good).replace('"to":13', '"to":13,"to":13')),
                          ("exponent", text_of(good).replace('"from":5', '"from":5e0')),
                          ("10000-levels", "[" * 10_000)):
        of(f"form-{name}", changed, "proof")
    corpus.consistency("consistency-no-proof", ledger.checkpoint(5), ledger.checkpoint(13), exit=2,
                       open="'needs a proof': one not given is usage, rather than `proof` or `inconsistent`")


def _exports(corpus, ledger):
    whole = ledger.zip()
    corpus.consistency("consistency-export-covers-a-receipt", ledger.receipt(2, 5), whole)
    corpus.consistency("consistency-export-covers-a-checkpoint", ledger.checkpoint(8), whole)
    corpus.consistency("consistency-export-covers-an-export", ledger.zip(3, 9), whole)
    corpus.consistency("consistency-export-covers-an-empty-one", ledger.zip(0, 0), whole)
    corpus.consistency("consistency-export-filtered-covers-too", ledger.checkpoint(8), ledger.zip(kept=["key.added"]))
    corpus.consistency("consistency-export-not-from-0-with-a-proof", ledger.checkpoint(5), ledger.zip(6, 13),
                       proof=ledger.consistency(5, 13))
    corpus.consistency("consistency-export-older-with-a-proof", ledger.zip(0, 5), ledger.checkpoint(13),
                       proof=ledger.consistency(5, 13))
    corpus.consistency("consistency-export-first", whole, ledger.receipt(2, 5),
                       open="the sizes say which is the older, whatever the order on the command line")
    corpus.consistency("consistency-export-wrong-within", ledger.checkpoint(5), ledger.zip(
        lines=ledger.lines(0, 12)), "count", answers=[None, "count"])


def _inputs(corpus, ledger):
    """What is read has to verify by itself, with the checks of its kind."""
    good = ledger.checkpoint(13)

    def of(name, older, newer, failed, **more):
        corpus.consistency(f"consistency-input-{name}", older, newer, failed, **more)

    other = usual_ledger(ledger=OTHER_LEDGER)
    of("of-two-ledgers", ledger.checkpoint(13), other.checkpoint(13), "origin")
    of("of-two-ledgers-of-two-sizes", ledger.checkpoint(5), other.checkpoint(13), "origin", proof=ledger.consistency(5, 13))
    far = usual_ledger(instance="other.example.com")
    of("of-another-instance", ledger.checkpoint(13), far.checkpoint(13), "origin")
    of("receipt-of-another-instance", ledger.receipt(4), far.receipt(4), "instance")
    of("checkpoint-by-a-stranger", good, ledger.checkpoint(13, key=RECEIPT), "checkpoint_signature")
    of("checkpoint-bad-line", good, ledger.checkpoint(13, lines=lambda t: log_line(t, how=lambda _: bytes(64))),
       "checkpoint_signature")
    of("checkpoint-does-not-parse", good, good[:-1], "proof")
    of("checkpoint-extension-line", good, ledger.text() + "x\n\n" + log_line(ledger.text() + "x\n"), "proof")
    of("origin-is-no-uuid", good, ledger.checkpoint(13, origin=f"{INSTANCE}/x"), "origin")
    of("origin-changed-and-so-not-signed", good, good.replace("status.example.com", "status.example.con", 1), "origin",
       open="a checkpoint by itself is held to the order of a receipt's: `origin`, then `checkpoint_signature`")
    why = "neither a receipt body, a checkpoint nor an export: read as a checkpoint that does not parse"
    of("empty", good, "", "proof", open=why)
    of("text", good, "hello\n", "proof", open=why)
    of("receipt-cut-short", good, text_of(ledger.receipt(4))[:-1], "json")
    of("receipt-signature", good, ledger.receipt(4, kind="export"), "signature")
    of("receipt-opening", good, ledger.receipt(4, openings={"ip": ledger.openings[1]["ip"]}), "openings")
    of("receipt-with-white-space-first", ledger.checkpoint(13), " \n" + text_of(ledger.receipt(4)), None)
    of("manifest", good, good, "manifest", keys=manifest() | {"serial": 6})
    of("pin-of-another-instance", good, good, "instance", pin=f"{ROOT.id}@other.example.com")
    of("export-torn", good, ledger.zip()[:-1], "zip")
    of("zip-of-something-else", good, zips.write({"a": b"b"}), "zip")
    rewritten_too = rewritten(ledger, 3)
    of("both-wrong-and-inconsistent", ledger.checkpoint(13), rewritten_too.checkpoint(13, key=RECEIPT),
       "checkpoint_signature")
    of("receipt-stale-is-not-judged", ledger.receipt(4), good, None, keys=manifest(
        [root_row(ROOT, not_before="2019-01-01T00:00:00.000000Z"), *usual_keys()[1:]],
        issued_at="2020-01-01T00:00:00.000000Z", expires="2020-02-01T00:00:00.000000Z"),
       open="consistency has no --at and no --as: nothing is judged by date")


def _keys(corpus, ledger):
    """Revoked keys still count: two histories under one key are the finding."""
    revoked = {"revoked_at": "2026-11-21T10:00:00.000000Z"}
    keys = manifest([row | revoked if row["purpose"] != "root" else row for row in usual_keys()])
    other = rewritten(ledger, 4)
    corpus.consistency("consistency-keys-revoked-consistent", ledger.checkpoint(5), ledger.checkpoint(13), keys=keys,
                       proof=ledger.consistency(5, 13))
    corpus.consistency("consistency-keys-revoked-inconsistent", ledger.checkpoint(13), other.checkpoint(13), "inconsistent",
                       keys=keys)
    corpus.consistency("consistency-keys-revoked-receipts", ledger.receipt(5), other.receipt(5), "inconsistent", keys=keys)
    corpus.consistency("consistency-keys-revoked-export", ledger.receipt(5, 9), other.zip(keys=keys), "inconsistent",
                       keys=keys)
    corpus.consistency("consistency-keys-revoked-export-inside-too", ledger.zip(keys=keys), ledger.checkpoint(13),
                       keys=keys)
    corpus.consistency("consistency-checkpoint-key-revoked", ledger.checkpoint(13), ledger.receipt(4),
                       keys=manifest(changed_keys(CHECKPOINT, **revoked)))
    corpus.consistency("consistency-root-revoked", ledger.checkpoint(13), ledger.checkpoint(13), "manifest",
                       keys=manifest([root_row(ROOT, **revoked), *usual_keys()[1:]]))
