"""Receipt bodies: every single-byte change of meaning, and check `members`.

A single-byte change is made in the text of a good body, so that whatever the
byte belongs to keeps its form; the expected check is that of the member.
"""

from .build import (DESTINATION, ISSUED, LEDGER, OTHER_LEDGER, RECEIPT, b64, sign_json, text_of, without)
from .ledger import Ledger, leaf_of, usual_ledger


def add_to(corpus):
    ledger = usual_ledger()
    _single_bytes(corpus, ledger)
    _members(corpus, ledger)
    _forms(corpus, ledger)
    _two_ways_to_say_it(corpus, ledger)


def _flip(text, at):
    """Another character of the same kind."""
    was = text[at]
    for kind in ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        if was in kind:
            # Hex digits stay hex digits, and 0 becomes no leading zero.
            return text[:at] + ("1" if was == "0" else "a" if was in "bcdef" else
                                kind[kind.index(was) + 1] if was not in "9zZf" else kind[-2]) + text[at + 1:]
    raise AssertionError(f"{was!r} is not to be changed")


def _single_bytes(corpus, ledger):
    body = ledger.receipt(4)
    good = text_of(body)

    def change(name, failed, before, offset=0, **more):
        """Changes the byte `offset` behind where `before` ends in the text."""
        assert good.count(before) == 1, (name, good.count(before))
        at = good.index(before) + len(before) + offset
        corpus.receipt(f"body-byte-{name}", _flip(good, at), failed, **more)

    def to(name, failed, old, new, **more):
        assert good.count(old) == 1 and len(old) == len(new), name
        corpus.receipt(f"body-byte-{name}", good.replace(old, new), failed, **more)

    change("entry-v", "members", ',"v":', 0) if good.count(',"v":') == 1 else \
        corpus.receipt("body-byte-entry-v", good[:-2] + "2}", "members")
    change("ledger", "signature", '"ledger":"', 7)
    change("seq", "signature", '"seq":')
    for offset in (0, 31, 63):
        change(f"prev-{offset}", "signature", '"prev":"', offset)
    change("timestamp-year", "signature", ',"timestamp":"', 3)
    change("timestamp-microsecond", "signature", ',"timestamp":"', 25)
    to("timestamp-no-z", "members", '.000000Z","type"', '.000000z","type"')
    change("nonce", "signature", '"nonce":"', 3)
    change("type", "signature", ',"type":"', 2)
    change("data-value", "signature", '{"n":')
    to("data-name", "signature", '{"n":', '{"m":')
    to("data-text", "signature", "Z\u00fcrich", "Z\u00fcrick")
    to("data-text-case", "signature", "Z\u00fcrich", "z\u00fcrich")
    change("sealed-hash", "signature", '"sealed":{"actor_email":"', 5)
    to("sealed-name", "signature", '"sealed":{"actor_email"', '"sealed":{"actor_emaim"')
    change("opening-salt", "openings", '"ip":{"salt":"', 4)
    change("opening-value", "openings", '["192.0.2.', 0)
    change("opening-value-number", "openings", '["192.0.2.7",', 0)
    to("opening-name", "openings", '"openings":{"actor_email"', '"openings":{"actor_emaim"',
       open="'each named in data.sealed' could also be a rule of `members`")
    to("opening-member", "members", '"ip":{"salt"', '"ip":{"sald"')
    for name, old, new in (("data", '{"data":', '{"dada":'), ("ledger", ',"ledger":', ',"ledges":'),
                           ("receipt", ',"receipt":', ',"receips":'), ("openings", ',"openings":', ',"openingz":'),
                           ("nonce", ',"nonce":', ',"Nonce":'), ("number", ',"number":', ',"numbes":'),
                           ("proof", ',"proof":', ',"prooe":'), ("signature", ',"signature":', ',"signatura":')):
        to(f"name-of-{name}", "members", old, new)

    change("receipt-instance", "instance", '"instance":"', 3)
    change("receipt-id", "signature", '"id":"rcpt_', 0)
    to("receipt-id-prefix", "members", '"id":"rcpt_', '"id":"rcqt_')
    change("receipt-destination", "signature", '"destination":"dst_', 2)
    change("receipt-number", "signature", '"number":')
    to("receipt-issued-at-year", "key_window", '"issued_at":"2026', '"issued_at":"2025')
    change("receipt-issued-at-hour", "signature", '"issued_at":"', 12)
    change("receipt-key-id", "key_unknown", '"key_id":"', 10)
    for offset in (0, 42, 84):
        change(f"receipt-signature-{offset}", "signature", '"signature":"', offset)
    to("receipt-signature-padding", "members", '==","v":1},"seq"', '=A","v":1},"seq"')

    proof = '"proof":"c2sp.org/tlog-proof@v'
    change("proof-version", "proof", proof, 0)
    change("proof-index", "proof", proof + "1\\nindex ", 0,
           open="the format says `index <seq>`, so another index is no such proof; `inclusion` is as sensible")
    change("proof-first-hash", "inclusion", proof + "1\\nindex 4\\n", 3)
    change("proof-origin-instance", "origin", "\\n\\nstatus.", 2)
    change("proof-origin-ledger", "origin", "\\n\\nstatus.example.com/", 7)
    change("proof-size", "checkpoint_signature", f"\\n\\nstatus.example.com/{LEDGER}\\n", 1)
    change("proof-root", "checkpoint_signature", f"\\n\\nstatus.example.com/{LEDGER}\\n13\\n", 8)
    change("proof-signer-name", "checkpoint_signature", "\\n\\n\u2014 status.", 0)
    change("proof-signer-key-id", "checkpoint_signature", f"\\n\\n\u2014 status.example.com/{LEDGER} ", 0)
    change("proof-signer-signature", "checkpoint_signature", f"\\n\\n\u2014 status.example.com/{LEDGER} ", 40)
    to("first-brace", "json", '{"data":{', '["data":{')
    corpus.receipt("body-byte-last-brace", good[:-1] + "]", "json")
    corpus.receipt("body-byte-invalid-utf-8", good.encode().replace(b"Z\xc3\xbcrich", b"Z\xc3\x3crich"), "json")


def _members(corpus, ledger):
    body = ledger.receipt(4)
    for name in ("v", "ledger", "seq", "prev", "timestamp", "nonce", "type", "data", "receipt"):
        corpus.receipt(f"body-without-{name}", without(body, name), "members")
    for name in body["receipt"]:
        corpus.receipt(f"body-without-receipt-{name}", body | {"receipt": without(body["receipt"], name)}, "members")
    # Signed with what is too much, so that nothing but the member is wrong.
    corpus.receipt("body-unknown-member", ledger.receipt(4, extra={"note": "x"}), "members")
    corpus.receipt("body-unknown-member-of-receipt", ledger.receipt(4, note="x"), "members")
    corpus.receipt("body-unknown-member-not-signed", body | {"zz": None}, "members")
    corpus.receipt("body-openings-empty", body | {"openings": {}}, "members")
    corpus.receipt("body-openings-null", body | {"openings": None}, "members")
    corpus.receipt("body-openings-list", body | {"openings": []}, "members")
    opening = body["openings"]["ip"]
    for name, wrong in (("unknown-member", opening | {"x": 1}), ("no-salt", without(opening, "salt")),
                        ("no-value", without(opening, "value")), ("null", None), ("salt-null", opening | {"salt": None}),
                        ("salt-short", opening | {"salt": b64(bytes(31))}),
                        ("salt-hex", opening | {"salt": "00" * 32})):
        corpus.receipt(f"body-opening-{name}", body | {"openings": {"ip": wrong}}, "members")
    corpus.receipt("body-of-members-is-empty", "{}", "members")
    corpus.receipt("body-entry-alone", ledger.entries[4] and text_of(ledger.entries[4]), "members")
    corpus.receipt("body-is-a-list-of-bodies", [body], "members",
                   open="a document that is no object could also be `json`")
    corpus.receipt("body-is-a-scalar", "7", "members", open="a document that is no object could also be `json`")


def _forms(corpus, ledger):
    """Values of a wrong form, in an entry that is otherwise whole and signed."""
    def entry(name, failed="members", **members):
        one = Ledger().add("x", {}, **members)
        entry = one.entries[0]
        # The leaf is what it is: everything about this ledger verifies but the form.
        assert one.leaves[0] == leaf_of(entry)
        corpus.receipt(f"entry-{name}", one.receipt(0), failed)

    for name, value in (("zero", 0), ("two", 2), ("text", "1"), ("true", True)):
        entry(f"v-{name}", v=value)
    for name, value in (("upper-case", LEDGER.upper()), ("no-hyphens", LEDGER.replace("-", "")), ("short", LEDGER[:-1]),
                        ("braces", "{" + LEDGER + "}"), ("null", None)):
        one = Ledger().add("x", {}, ledger=value)
        corpus.receipt(f"entry-ledger-{name}", one.receipt(0), "members")
    for name, value in (("negative", -1), ("text", "0"), ("null", None)):
        one = Ledger().add("x", {}, seq=value)
        corpus.receipt(f"entry-seq-{name}", one.receipt(0, proof=ledger.proof(0)), "members")
    for name, value in (("upper-case", "A" * 64), ("short", "0" * 63), ("base64", b64(bytes(32))), ("null", None)):
        entry(f"prev-{name}", prev=value)
    for name, value in (("no-fraction", "2026-11-20T00:00:00Z"), ("milliseconds", "2026-11-20T00:00:00.000Z"),
                        ("nanoseconds", "2026-11-20T00:00:00.000000000Z"), ("offset", "2026-11-20T00:00:00.000000+00:00"),
                        ("lower-case", "2026-11-20t00:00:00.000000z"), ("space", "2026-11-20 00:00:00.000000Z"),
                        ("leap-second", "2026-12-31T23:59:60.000000Z"), ("hour-24", "2026-11-20T24:00:00.000000Z"),
                        ("minute-60", "2026-11-20T00:60:00.000000Z"), ("month-13", "2026-13-01T00:00:00.000000Z"),
                        ("month-0", "2026-00-01T00:00:00.000000Z"), ("day-0", "2026-11-00T00:00:00.000000Z"),
                        ("day-31-of-november", "2026-11-31T00:00:00.000000Z"),
                        ("day-29-of-a-common-february", "2026-02-29T00:00:00.000000Z"),
                        ("day-29-of-february-2100", "2100-02-29T00:00:00.000000Z"),
                        ("comma", "2026-11-20T00:00:00,000000Z"), ("number", 1763596800), ("year-5", "12026-11-20T00:00:00.000000Z"),
                        ("other-digits", "2026-11-2\u0660T00:00:00.000000Z"), ("line-feed", "2026-11-20T00:00:00.000000Z\n")):
        entry(f"timestamp-{name}", timestamp=value)
    for name, value in (("15-bytes", b64(bytes(15))), ("17-bytes", b64(bytes(17))), ("not-padded", b64(bytes(16))[:-2]),
                        ("url-alphabet", "-_-_-_-_-_-_-_-_-_-_-w=="), ("white-space", " " + b64(bytes(16))),
                        ("line-feed", b64(bytes(16)) + "\n"), ("trailing-bits", b64(bytes(16))[:-3] + "B=="),
                        ("hex", "00" * 16)):
        entry(f"nonce-{name}", nonce=value)
    for name, value in (("empty", ""), ("upper-case", "Store.x"), ("hyphen", "a-b"), ("dot-first", ".a"),
                        ("dot-last", "a."), ("two-dots", "a..b"), ("line-feed", "a.b\n"), ("non-ascii", "\u00e4"),
                        ("null", None)):
        entry(f"type-{name}", type=value)
    for name, value in (("null", None), ("list", []), ("text", "{}")):
        one = Ledger().add("x", {})
        one.entries[0]["data"] = value
        one.leaves[0] = leaf_of(one.entries[0])
        corpus.receipt(f"entry-data-{name}", one.receipt(0), "members")
    for name, value in (("list", []), ("null", None), ("hash-upper-case", {"a": "A" * 64}), ("hash-short", {"a": "0" * 63}),
                        ("name-upper-case", {"A": "0" * 64}), ("name-empty", {"": "0" * 64}),
                        ("name-with-a-dot", {"a.b": "0" * 64}), ("number", {"a": 1})):
        corpus.receipt(f"entry-sealed-{name}", Ledger().add("x", {"sealed": value}).receipt(0), "members")
    corpus.receipt("entry-seq-0-with-a-prev", Ledger().add("x", {}, prev="ab" * 32).receipt(0), "members",
                   open="an entry's own definition says 64 zeros, but no receipt check names prev")

    def receipt(name, failed="members", **members):
        corpus.receipt(f"receipt-member-{name}", ledger.receipt(4, **members), failed)

    for name, value in (("zero", 0), ("two", 2), ("text", "1"), ("true", True)):
        receipt(f"v-{name}", v=value)
    for name, value in (("no-prefix", "0192f0c3-0000-7000-8000-000000000004"), ("prefix-upper-case", "RCPT_" + LEDGER),
                        ("uuid-upper-case", "rcpt_0192F0C3-0000-7000-8000-000000000004"), ("no-uuid", "rcpt_4"),
                        ("null", None)):
        receipt(f"id-{name}", id=value)
    for name, value in (("zero", 0), ("negative", -1), ("text", "5"), ("null", None)):
        receipt(f"number-{name}", number=value)
    for name, value in (("no-z", ISSUED[:-1]), ("seconds-60", "2026-11-21T08:00:60.000000Z"), ("null", None)):
        receipt(f"issued-at-{name}", issued_at=value)
    for name, value in (("upper-case", RECEIPT.id.upper()), ("short", RECEIPT.id[:-2]), ("base64", RECEIPT.base64)):
        receipt(f"key-id-{name}", key_id=value)
    for name, value in (("empty", ""), ("upper-case", "Status.example.com"), ("254-long", "a" * 254),
                        ("port", "status.example.com:443"), ("null", None)):
        receipt(f"instance-{name}", instance=value)
    receipt("instance-253-long", "instance", instance="a" * 253)
    for name, value in (("null", None), ("number", 7), ("object", {"id": DESTINATION})):
        receipt(f"destination-{name}", destination=value)
    good = ledger.receipt(4)["receipt"]["signature"]
    for name, value in (("63-bytes", b64(bytes(63))), ("65-bytes", b64(bytes(65))), ("not-padded", good.rstrip("=")),
                        ("line-feed", good + "\n"), ("empty", ""), ("null", None),
                        ("url-alphabet", "-_" + good[2:])):
        receipt(f"signature-{name}", signature=value)
    # The last character before the padding has four bits that have to be zero.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    receipt("signature-trailing-bits", signature=good[:85] + alphabet[alphabet.index(good[85]) + 1] + "==")
    body = ledger.receipt(4)
    body["receipt"] = body["receipt"] | {"proof": None}
    corpus.receipt("receipt-member-proof-null", body, "members")
    body = ledger.receipt(4)
    body["receipt"] = [body["receipt"]]
    corpus.receipt("receipt-member-receipt-is-a-list", body, "members")


def _two_ways_to_say_it(corpus, ledger):
    """Order of the checks where two fail."""
    body = ledger.receipt(4)
    corpus.receipt("body-json-before-manifest", text_of(body) + "x", "json", keys="{}")
    corpus.receipt("body-members-before-manifest", without(body, "v"), "members", keys="{}")
    corpus.receipt("body-manifest-before-instance", ledger.receipt(4, instance="x.example.com"), "manifest", keys="{}")
    corpus.receipt("body-unknown-key-before-signature", ledger.receipt(4, key_id="ab" * 32, signature=b64(bytes(64))),
                   "key_unknown")
    corpus.receipt("body-window-before-signature",
                   ledger.receipt(4, issued_at="2025-01-01T00:00:00.000000Z", signature=b64(bytes(64))), "key_window")
    corpus.receipt("body-signature-before-proof", ledger.receipt(4, proof="x", signature=b64(bytes(64))), "signature")
    corpus.receipt("body-ledger-changed-and-asked-for", body | {"ledger": OTHER_LEDGER}, "signature",
                   args=("--ledger", OTHER_LEDGER))
    wrong = {"openings": {"ip": body["openings"]["ip"] | {"value": 1}}}
    changed = body | wrong
    changed["receipt"] = changed["receipt"] | {"proof": ledger.proof(4, hashes=[])}
    corpus.receipt("body-inclusion-before-openings", changed, "inclusion")
    receipt = without(body["receipt"], "proof", "signature")
    statement = without(body, "openings", "receipt") | {"receipt": receipt}
    assert sign_json(RECEIPT, "receipt", statement) == body["receipt"]["signature"]
    corpus.receipt("body-signed-with-a-seq-that-the-proof-has-not", ledger.receipt(4, extra={"seq": 5}), "proof",
                   open="the proof's index is 4 and seq 5: `proof` by the format's `index <seq>`, or `inclusion`")
