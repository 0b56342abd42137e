"""Receipts: what verifies, who signed, for whom, when, and under which key.

Checks manifest (briefly), instance, ledger, destination, key_unknown,
key_revoked, key_window, stale, signature, openings; --as and --at.
"""

import json

from . import ed25519
from .build import (CHECKPOINT, DESTINATION, INSTANCE, ISSUED, LEDGER, MANIFEST_EXPIRES, OLD_RECEIPT, OTHER_LEDGER, Q3,
                    Q3_VERIFY_UNTIL, Q4, RECEIPT, ROOT, ROOT2, STRANGER, b64, canonical, changed_keys, key_row, manifest,
                    root_row, text_of, usual_keys)
from .ed25519 import Key
from .ledger import Ledger, usual_ledger

FRESH, EVIDENCE = ("--as", "fresh"), ("--as", "evidence")


def add_to(corpus):
    ledger = usual_ledger()
    _good(corpus, ledger)
    _variety(corpus, ledger)
    _whom(corpus, ledger)
    _when(corpus, ledger)
    _revoked(corpus, ledger)
    _signature(corpus, ledger)
    _openings(corpus, ledger)


def shuffled(value):
    """Every object's members in the reverse of the canonical order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in sorted(value, reverse=True)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def _good(corpus, ledger):
    for seq in (0, 1, 7, 8, 12):
        corpus.receipt(f"receipt-seq-{seq}-of-13", ledger.receipt(seq),
                       also={"ok": True, "time": "claimed", "seq": seq, "instance": INSTANCE, "ledger": LEDGER,
                             "key_id": RECEIPT.id, "checkpoint_size": 13, "keys_serial": 5})
    corpus.receipt("receipt-tree-of-one", ledger.receipt(0, 1), also={"checkpoint_size": 1})
    corpus.receipt("receipt-last-of-a-full-tree", ledger.receipt(7, 8))
    corpus.receipt("receipt-first-after-a-full-tree", ledger.receipt(8, 9))
    corpus.receipt("receipt-proof-replaced-by-a-later-one",
                   ledger.receipt(4, 5) | {"receipt": ledger.receipt(4, 5)["receipt"] | {"proof": ledger.proof(4)}})
    body = ledger.receipt(1)
    del body["openings"]
    corpus.receipt("receipt-openings-dropped", body)
    body = ledger.receipt(1)
    del body["openings"]["ip"]
    corpus.receipt("receipt-one-opening-dropped", body)
    corpus.receipt("receipt-with-ledger-and-destination", ledger.receipt(3),
                   args=("--ledger", LEDGER, "--destination", DESTINATION))


def _variety(corpus, ledger):
    body = ledger.receipt(1)
    corpus.receipt("receipt-pretty-printed", json.dumps(body, indent=2, ensure_ascii=False))
    corpus.receipt("receipt-all-kinds-of-white-space",
                   "\r\n\t " + json.dumps(body, separators=("\t,\n ", " \r:\t")) + " \t\r\n")
    corpus.receipt("receipt-members-reordered", json.dumps(shuffled(body), ensure_ascii=False))
    corpus.receipt("receipt-non-ascii-escaped", json.dumps(body, ensure_ascii=True))
    every = "".join(f"\\u{ord(c):04x}" for c in "store")
    corpus.receipt("receipt-ascii-escaped-in-a-value", text_of(ledger.receipt(0)).replace('"store.', f'"{every}.'))
    corpus.receipt("receipt-ascii-escaped-in-a-name", text_of(ledger.receipt(0)).replace('"ledger"', '"l\\u0065dger"'))
    corpus.receipt("receipt-solidus-escaped", text_of(body).replace("/", "\\/"))

    def one(name, data, type_="x", **more):
        corpus.receipt(name, Ledger().add(type_, data).receipt(0), **more)

    # Sorted by UTF-16 code units: U+1F600 (D83D…) before U+FB33, unlike by code point.
    one("receipt-utf-16-member-order", {"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3, "1": 4, "\r": 5, "\u0080": 6,
                                        "\u00f6": 7})
    one("receipt-every-control-character", {"".join(map(chr, range(33))): "".join(map(chr, range(128)))})
    one("receipt-text-is-not-normalised", {"e\u0301": 1, "\u00e9": 2})
    one("receipt-noncharacters", {"\uffff": "\ufffe\U0010ffff\ufdd0\ue000"})
    one("receipt-type-of-one-word", {}, "x")
    one("receipt-unknown-type", {}, "zz_9.0.a_b.c")
    one("receipt-empty-member-name", {"": ""})
    one("receipt-largest-integers", {"max": 2**53 - 1, "min": 1 - 2**53, "zero": 0})
    one("receipt-html-and-slashes", {"x": "</script>&<>\u2028\u2029\u007f"})
    one("receipt-empty-sealed", {"sealed": {}})
    whole = {"a": [True, False, None, {}, [], ""], "__proto__": {"constructor": 1}, "hasOwnProperty": 0,
             "toString": "x", "length": 3}
    one("receipt-names-that-trap-scripts", whole)
    one("receipt-receipt-inside-data", {"receipt": {"v": 1}, "openings": {}})
    body = Ledger().add(data={}, timestamp="2024-02-29T23:59:59.999999Z").receipt(0)
    corpus.receipt("receipt-leap-day", body)
    for number in (1, 2**53 - 1):
        corpus.receipt(f"receipt-number-{number}", ledger.receipt(2, number=number))
    nonce = Ledger().add(data={}, nonce="+/+/+/+/+/+/+/+/+/+/+w==")
    corpus.receipt("receipt-nonce-with-plus-and-slash", nonce.receipt(0))


def _whom(corpus, ledger):
    body = ledger.receipt(2)
    corpus.receipt("receipt-pin-of-another-instance", body, "instance", pin=f"{ROOT.id}@other.example.com")
    corpus.receipt("receipt-of-another-instance", ledger.receipt(2, instance="other.example.com"), "instance")
    other = usual_ledger(instance="other.example.com")
    corpus.receipt("receipt-and-checkpoint-of-another-instance", other.receipt(2), "instance")
    keys = manifest([root_row(ROOT, instance="other.example.com"), *usual_keys()[1:]], instance="other.example.com")
    corpus.receipt("receipt-key-manifest-of-another-instance", body, "instance", keys=keys)
    corpus.receipt("receipt-pin-of-a-prefix-of-the-instance", body, "instance", pin=f"{ROOT.id}@status.example.co")
    corpus.receipt("receipt-pin-of-another-root", body, "manifest", pin=f"{ROOT2.id}@{INSTANCE}")
    corpus.receipt("receipt-pin-of-a-receipt-key", body, "manifest", pin=f"{RECEIPT.id}@{INSTANCE}")
    corpus.receipt("receipt-pin-of-a-checkpoint-key", body, "manifest", pin=f"{CHECKPOINT.id}@{INSTANCE}")
    corpus.receipt("receipt-not-the-ledger-asked-for", body, "ledger", args=("--ledger", OTHER_LEDGER))
    corpus.receipt("receipt-not-the-destination-asked-for", body, "destination", args=("--destination", "dst_other"))
    corpus.receipt("receipt-neither-ledger-nor-destination", body, "ledger",
                   args=("--destination", "dst_other", "--ledger", OTHER_LEDGER))
    corpus.receipt("receipt-instance-before-ledger", body, "instance", pin=f"{ROOT.id}@other.example.com",
                   args=("--ledger", OTHER_LEDGER))

    corpus.receipt("receipt-by-a-stranger", ledger.receipt(2, key=STRANGER), "key_unknown")
    corpus.receipt("receipt-by-the-root", ledger.receipt(2, key=ROOT), "key_unknown")
    corpus.receipt("receipt-by-a-checkpoint-key", ledger.receipt(2, key=CHECKPOINT), "key_unknown")
    corpus.receipt("receipt-key-id-of-another-key", ledger.receipt(2, key_id=OLD_RECEIPT.id,
                                                                  issued_at="2026-09-01T00:00:00.000000Z"), "signature")


def _when(corpus, ledger):
    def issued(name, at, failed=None, key=RECEIPT, **more):
        corpus.receipt(name, ledger.receipt(2, key=key, issued_at=at), failed, **more)

    before_q4, after_q4 = "2026-09-30T23:59:59.999999Z", "2026-10-01T00:00:00.000001Z"
    issued("receipt-window-first-instant", Q4)
    issued("receipt-before-the-window", before_q4, "key_window")
    issued("receipt-old-key-last-instant", Q4, key=OLD_RECEIPT)
    issued("receipt-old-key-after-its-window", after_q4, "key_window", key=OLD_RECEIPT)
    issued("receipt-old-key-first-instant", Q3, key=OLD_RECEIPT)
    issued("receipt-old-key-before-its-window", "2026-06-30T23:59:59.999999Z", "key_window", key=OLD_RECEIPT)
    issued("receipt-window-is-judged-as-evidence-too", before_q4, "key_window", args=EVIDENCE)
    issued("receipt-issued-after-the-time-judged", "2026-12-01T00:00:00.000000Z",
           open="nothing says that issued_at must not be after --at: not judged")
    issued("receipt-issued-before-its-entry", "2026-10-02T00:00:00.000000Z",
           open="nothing says that issued_at must not be before the entry's timestamp: not judged")

    def judged(name, at, failed=None, key=RECEIPT, args=(), **more):
        issued_at = ISSUED if key is RECEIPT else "2026-09-01T00:00:00.000000Z"
        corpus.receipt(name, ledger.receipt(2, key=key, issued_at=issued_at), failed, at=at, args=args, **more)

    judged("receipt-manifest-expires-now", MANIFEST_EXPIRES)
    judged("receipt-manifest-expired", "2027-01-30T00:00:00.000001Z", "stale")
    judged("receipt-manifest-expired-fresh-by-name", "2027-01-30T00:00:00.000001Z", "stale", args=FRESH)
    judged("receipt-manifest-expired-evidence", "2030-01-01T00:00:00.000000Z", args=EVIDENCE)
    judged("receipt-verify-until-now", Q3_VERIFY_UNTIL, key=OLD_RECEIPT)
    judged("receipt-verify-until-past", "2026-12-30T00:00:00.000001Z", "stale", key=OLD_RECEIPT)
    judged("receipt-verify-until-past-evidence", "2026-12-30T00:00:00.000001Z", key=OLD_RECEIPT, args=EVIDENCE)
    expired = manifest(issued_at="2020-01-01T00:00:00.000000Z", expires="2020-02-01T00:00:00.000000Z",
                       keys=[root_row(ROOT, not_before="2019-01-01T00:00:00.000000Z"), *usual_keys()[1:]])
    corpus.receipt("receipt-fresh-is-the-default-and-now-the-time", ledger.receipt(2), "stale", keys=expired, at=None)
    corpus.receipt("receipt-evidence-needs-no-time", ledger.receipt(2), keys=expired, at=None, args=EVIDENCE)
    # `stale` lets the others go on, but it stays the first that failed.
    body = ledger.receipt(2)
    late = "2027-02-01T00:00:00.000000Z"
    corpus.receipt("receipt-stale-and-signature", ledger.receipt(2, kind="export"), "stale", at=late,
                   stderr=("signature",), json_mode=True)
    corpus.receipt("receipt-stale-and-window", ledger.receipt(2, issued_at=before_q4), "key_window", at=late)
    corpus.receipt("receipt-stale-after-unknown-key", ledger.receipt(2, key=STRANGER), "key_unknown", at=late)
    corpus.receipt("receipt-stale-and-policy-met-by-nobody", body, "stale", at=late, policy="quorum none\n")


def _revoked(corpus, ledger):
    revoked = {"revoked_at": "2026-11-21T10:00:00.000000Z"}
    keys = manifest(changed_keys(RECEIPT, **revoked))
    corpus.receipt("receipt-key-revoked", ledger.receipt(2), "key_revoked", keys=keys)
    corpus.receipt("receipt-key-revoked-evidence", ledger.receipt(2), "key_revoked", keys=keys, args=EVIDENCE)
    corpus.receipt("receipt-key-revoked-long-before", ledger.receipt(2), "key_revoked",
                   keys=manifest(changed_keys(RECEIPT, revoked_at="2026-10-02T00:00:00.000000Z")))
    corpus.receipt("receipt-key-revoked-in-future", ledger.receipt(2), "key_revoked",
                   keys=manifest(changed_keys(RECEIPT, revoked_at="2027-01-01T00:00:00.000000Z")),
                   open="revoked_at after the time judged: 'nothing by it counts, whatever its date'")
    corpus.receipt("receipt-key-revoked-and-signature-wrong", ledger.receipt(2, kind="manifest"), "key_revoked",
                   keys=keys, stderr=("key_revoked", "signature"))
    corpus.receipt("receipt-key-revoked-and-outside-its-window", ledger.receipt(2, issued_at=Q3), "key_revoked",
                   keys=keys, stderr=("key_revoked", "key_window"))
    corpus.receipt("receipt-key-revoked-and-stale", ledger.receipt(2), "key_revoked", keys=keys,
                   at="2027-02-01T00:00:00.000000Z", stderr=("key_revoked", "stale"))
    corpus.receipt("receipt-other-receipt-key-revoked", ledger.receipt(2),
                   keys=manifest(changed_keys(OLD_RECEIPT, **revoked)))
    corpus.receipt("receipt-checkpoint-key-revoked", ledger.receipt(2), "checkpoint_signature",
                   keys=manifest(changed_keys(CHECKPOINT, **revoked)))


def _signature(corpus, ledger):
    for kind in ("export", "manifest", "endorsement", "checkpoint", "Receipt"):
        corpus.receipt(f"receipt-signed-as-{kind}", ledger.receipt(2, kind=kind), "signature")
    corpus.receipt("receipt-signed-without-a-kind", ledger.receipt(
        2, how=lambda message: RECEIPT.sign(message.split(b"\n", 1)[1])), "signature")
    corpus.receipt("receipt-signed-with-crlf-after-the-kind", ledger.receipt(
        2, how=lambda message: RECEIPT.sign(message.replace(b"\n", b"\r\n", 1))), "signature")
    corpus.receipt("receipt-signed-over-the-hash", ledger.receipt(
        2, how=lambda message: RECEIPT.sign(ed25519.hashlib.sha512(message).digest())), "signature")
    corpus.receipt("receipt-signed-by-another-receipt-key", ledger.receipt(2, how=OLD_RECEIPT.sign), "signature")
    corpus.receipt("receipt-signature-of-another-receipt",
                   ledger.receipt(2, signature=ledger.receipt(3)["receipt"]["signature"]), "signature")
    corpus.receipt("receipt-signature-all-zeros", ledger.receipt(2, signature=b64(bytes(64))), "signature")
    body = ledger.receipt(1)
    whole = {**body, "receipt": {n: v for n, v in body["receipt"].items() if n != "signature"}}
    del whole["openings"]
    corpus.receipt("receipt-signed-with-the-proof", ledger.receipt(1, signature=b64(RECEIPT.sign(
        b"statusledger/v1/receipt\n" + canonical(whole)))), "signature")
    del whole["receipt"]["proof"]
    corpus.receipt("receipt-signed-with-the-openings", ledger.receipt(1, signature=b64(RECEIPT.sign(
        b"statusledger/v1/receipt\n" + canonical(whole | {"openings": body["openings"]})))), "signature")

    corpus.receipt("receipt-s-plus-l", ledger.receipt(2, how=RECEIPT.sign_s_plus_l), "signature")
    corpus.receipt("receipt-r-is-the-identity", ledger.receipt(2, how=RECEIPT.sign_identity_r), "signature")
    for position, encoding in enumerate(ed25519.SMALL_ORDER_NON_CANONICAL):
        if position in (2, 3, 4):
            corpus.receipt(f"receipt-r-is-the-identity-not-canonical-{position}", ledger.receipt(
                2, how=lambda message, r=encoding: RECEIPT.sign_identity_r(message, r)), "signature")
    corpus.receipt("receipt-r-with-torsion", ledger.receipt(2, how=RECEIPT.sign_torsion_r), "signature")
    mixed = Key("receipt key with torsion", torsion=True)
    keys = manifest([*usual_keys(), key_row(mixed, "receipt")])
    corpus.receipt("receipt-key-with-torsion-valid-without-cofactor",
                   ledger.receipt(2, key=mixed, how=lambda m: mixed.sign_by_k(m, True)), keys=keys)
    corpus.receipt("receipt-key-with-torsion-valid-with-cofactor-only",
                   ledger.receipt(2, key=mixed, how=lambda m: mixed.sign_by_k(m, False)), "signature", keys=keys)


def _openings(corpus, ledger):
    body = ledger.receipt(1)
    opening = body["openings"]["actor_email"]

    def with_openings(name, openings, failed="openings", **more):
        corpus.receipt(name, ledger.receipt(1, openings=openings), failed, **more)

    with_openings("receipt-opening-other-value", {"actor_email": opening | {"value": "person2@example.com"}})
    with_openings("receipt-opening-other-salt", {"actor_email": opening | {"salt": b64(bytes(32))}})
    with_openings("receipt-openings-swapped", {"actor_email": body["openings"]["ip"], "ip": opening})
    with_openings("receipt-opening-not-in-sealed", {"nobody": opening},
                  open="'each named in data.sealed' could also be a rule of `members`")
    with_openings("receipt-opening-under-another-name", {"actor_emails": opening},
                  open="'each named in data.sealed' could also be a rule of `members`")
    with_openings("receipt-opening-under-a-malformed-name", {"Actor-Email": opening},
                  open="no name in data.sealed can be that: `openings`, or a form of `members`")
    with_openings("receipt-one-of-two-openings-wrong", {"actor_email": opening, "ip": opening})
    corpus.receipt("receipt-opening-where-nothing-is-sealed", ledger.receipt(2, openings={"ip": opening}), "openings",
                   open="'each named in data.sealed' could also be a rule of `members`")
    corpus.receipt("receipt-openings-of-another-entry", ledger.receipt(1, openings=ledger.openings[4]), "openings")
    text = text_of(body).replace('"value":["192.0.2.7",1]', '"value":[ "192.0.2.7" ,\n1 ]')
    corpus.receipt("receipt-opening-value-re-serialised", text)
    for position, value in enumerate((None, "", 0, False, [], {}, "\u00fc\U0001f680", {"b": 1, "a": [None]})):
        one = Ledger().add("x", {}, {"v": value})
        corpus.receipt(f"receipt-sealed-value-{position}", one.receipt(0))
