"""Key manifests: their form, endorsements, the pin, and `keys --since`."""

from . import ed25519
from .build import (CHECKPOINT, INSTANCE, MANIFEST_EXPIRES, MANIFEST_ISSUED, OLD_RECEIPT, PIN, Q3, Q4, RECEIPT, ROOT,
                    ROOT2, ROOT3, SELF_LEDGER, STRANGER, b64, changed_keys, key_row, manifest, root_row, sha256,
                    sign_json, text_of, usual_keys, without)
from .ed25519 import Key
from .ledger import usual_ledger

BAD = "manifest"
JAN, JUNE = "2026-01-01T00:00:00.000000Z", "2026-06-01T00:00:00.000000Z"


def add_to(corpus):
    _single_bytes(corpus)
    _members(corpus)
    _times(corpus)
    _weak_keys(corpus)
    _signer(corpus)
    _chains(corpus)
    _broken_endorsements(corpus)
    _rollback(corpus)


def pin(key):
    return f"{key.id}@{INSTANCE}"


def _single_bytes(corpus):
    """Every value of the manifest, with one byte changed: always `manifest`."""
    document = manifest()

    def flipped(value):
        if isinstance(value, int):
            return value + 1
        if value is None:
            return JUNE
        at = len(value) // 2
        while value[at] in ":-.TZ@/+=":
            at += 1
        return value[:at] + {"a": "b", "1": "2", "0": "1"}.get(value[at], "a" if value[at] != "a" and not
                                                             value[at].isdigit() else "1") + value[at + 1:]

    for name in without(document, "keys"):
        corpus.manifest(f"manifest-byte-{name}", document | {name: flipped(document[name])}, BAD)
    for position, label in ((0, "root"), (1, "old-receipt"), (3, "receipt"), (4, "checkpoint")):
        for name, value in document["keys"][position].items():
            keys = list(document["keys"])
            keys[position] = keys[position] | {name: flipped(value)}
            corpus.manifest(f"manifest-byte-{label}-{name}", document | {"keys": keys}, BAD)
    text = text_of(document)
    corpus.manifest("manifest-byte-brace", text[:-1] + "]", BAD)
    corpus.manifest("manifest-byte-comma", text.replace(',"serial"', ' "serial"'), BAD)
    body = usual_ledger().receipt(4)
    corpus.receipt("manifest-byte-seen-by-a-receipt", body, BAD, keys=document | {"serial": 6})


def _members(corpus):
    corpus.manifest("manifest-good", manifest(), also={"ok": True, "instance": INSTANCE, "keys_serial": 5})
    for name in manifest():
        if name != "signature":
            document = without(manifest(), name, "signature")
            document["signature"] = sign_json(ROOT, "manifest", document)
            corpus.manifest(f"manifest-without-{name}", document, BAD)
    corpus.manifest("manifest-without-signature", without(manifest(), "signature"), BAD)
    corpus.manifest("manifest-unknown-member", manifest(comment="x"), BAD)
    corpus.manifest("manifest-unknown-member-not-signed", manifest() | {"comment": "x"}, BAD)

    def of(name, failed=BAD, **members):
        corpus.manifest(f"manifest-{name}", manifest(**members), failed)

    for name, value in (("v-2", {"v": 2}), ("v-text", {"v": "1"}), ("serial-0", {"serial": 0}),
                        ("serial-text", {"serial": "5"}), ("serial-negative", {"serial": -1}),
                        ("ledger-upper-case", {"ledger": SELF_LEDGER.upper().replace("0192F0C1", "0192F0C1")}),
                        ("ledger-null", {"ledger": None}), ("keys-object", {"keys": {}}), ("keys-empty", {"keys": []}),
                        ("issued-at-short", {"issued_at": "2026-11-01T00:00:00Z"}),
                        ("expires-null", {"expires": None}), ("instance-null", {"instance": None})):
        of(name, **value)
    of("serial-1", None, serial=1)
    of("serial-2-53-less-1", None, serial=2**53 - 1)
    good = manifest()["signature"]
    of("signature-not-padded", signature=good.rstrip("="))
    of("signature-65-bytes", signature=b64(bytes(65)))

    def row(name, failed=BAD, **members):
        corpus.manifest(f"manifest-key-{name}", manifest(changed_keys(RECEIPT, **members)), failed)

    for name in ("key_id", "public_key", "purpose", "not_before", "not_after", "verify_until", "revoked_at"):
        keys = [without(r, name) if r["key_id"] == RECEIPT.id else r for r in usual_keys()]
        corpus.manifest(f"manifest-key-without-{name}", manifest(keys), BAD)
    row("unknown-member", note="x")
    row("purpose-unknown", purpose="witness")
    row("purpose-list", purpose=["receipt", "checkpoint"])
    row("purpose-null", purpose=None)
    row("id-of-another-key", key_id=STRANGER.id)
    row("public-key-of-another-key", public_key=STRANGER.base64)
    row("public-key-31-bytes", public_key=b64(RECEIPT.public[:31]), key_id=sha256(RECEIPT.public[:31]).hex())
    row("public-key-33-bytes", public_key=b64(RECEIPT.public + b"x"), key_id=sha256(RECEIPT.public + b"x").hex())
    row("public-key-hex", public_key=RECEIPT.public.hex())
    row("public-key-not-padded", public_key=RECEIPT.base64.rstrip("="))
    row("id-upper-case", key_id=RECEIPT.id.upper())
    row("not-before-null", not_before=None)
    row("not-after-invalid", not_after="2026-02-30T00:00:00.000000Z")
    row("revoked-at-true", revoked_at=True)
    row("endorsed-though-no-root", endorsed_by=ROOT.id, endorsement=good)
    corpus.manifest("manifest-root-without-endorsement", manifest(
        [without(root_row(ROOT), "endorsement", "endorsed_by"), *usual_keys()[1:]]), BAD)
    corpus.manifest("manifest-root-with-verify-until", manifest(
        [root_row(ROOT), root_row(ROOT2, ROOT, not_after=Q4, verify_until="2026-12-30T00:00:00.000000Z"),
         *usual_keys()[1:]]), BAD, open="'null while current and for roots': a root's verify_until is malformed")
    for name, members in (("verify-until-of-a-current-key", {"verify_until": "2027-01-30T00:00:00.000000Z"}),
                          ("verify-until-before-not-after", {"not_after": MANIFEST_ISSUED, "verify_until": Q4})):
        corpus.manifest(f"manifest-key-{name}", manifest(changed_keys(RECEIPT, **members)),
                        BAD if "current" in name else None,
                        open="whether verify_until follows from not_after is described, not demanded")
    corpus.manifest("manifest-key-there-twice", manifest([*usual_keys(), key_row(RECEIPT, "receipt")]), BAD)
    corpus.manifest("manifest-key-of-two-purposes", manifest([*usual_keys(), key_row(RECEIPT, "checkpoint")]), BAD)
    corpus.manifest("manifest-root-is-a-receipt-key-too", manifest([*usual_keys(), key_row(ROOT, "receipt")]), BAD)
    corpus.manifest("manifest-root-alone", manifest([root_row(ROOT)]))
    corpus.manifest("manifest-root-last", manifest([*usual_keys()[1:], root_row(ROOT)]))
    unsigned = {"key_id": "0" * 64, "endorsed_by": ROOT.id}
    corpus.manifest("manifest-no-root", manifest(usual_keys()[1:]), BAD)
    corpus.manifest("manifest-signed-by-no-key-of-it", manifest(key_id=unsigned["key_id"]), BAD)
    # Key rows that share one curve point would not be unique; these are made cheaply.
    many = [key_row(Key(f"many {n}"), "receipt") for n in range(1020)]
    corpus.manifest("manifest-1024-keys", manifest([*usual_keys()[:1], *usual_keys()[2:], *many[:1020]]))
    corpus.manifest("manifest-1025-keys", manifest([*usual_keys(), *many]), BAD)


def _times(corpus):
    def expires(name, at, failed=None, **more):
        corpus.manifest(f"manifest-expires-{name}", manifest(expires=at), failed, **more)

    expires("after-100-days", "2027-02-09T00:00:00.000000Z")
    expires("after-100-days-and-a-microsecond", "2027-02-09T00:00:00.000001Z", BAD)
    expires("after-101-days", "2027-02-10T00:00:00.000000Z", BAD)
    expires("in-ten-years", "2036-11-01T00:00:00.000000Z", BAD)
    expires("before-it-was-issued", "2026-10-31T00:00:00.000000Z", BAD,
            open="'at most 100 days later': earlier is not later")
    corpus.manifest("manifest-100-days-over-a-leap-day", manifest(
        [root_row(ROOT, not_before="2023-01-01T00:00:00.000000Z")], issued_at="2024-01-01T00:00:00.000000Z",
        expires="2024-04-10T00:00:00.000000Z"))
    corpus.manifest("manifest-100-days-and-one-over-a-leap-day", manifest(
        [root_row(ROOT, not_before="2023-01-01T00:00:00.000000Z")], issued_at="2024-01-01T00:00:00.000000Z",
        expires="2024-04-11T00:00:00.000000Z"), BAD)
    corpus.manifest("manifest-expired-long-ago", manifest(
        [root_row(ROOT, not_before="2019-01-01T00:00:00.000000Z")], issued_at="2020-01-01T00:00:00.000000Z",
        expires="2020-02-01T00:00:00.000000Z"), open="`keys` has no time to judge by and no `stale`")


def _weak_keys(corpus):
    """A weak or malformed key rejects the manifest, used or not, of any purpose."""
    def weak(name, public, purpose="receipt"):
        row = key_row(RECEIPT, purpose) | {"public_key": b64(public), "key_id": sha256(public).hex()}
        corpus.manifest(f"manifest-weak-{name}", manifest([*usual_keys(), row]), BAD)

    for position, public in enumerate(ed25519.SMALL_ORDER):
        weak(f"small-order-{position}", public, ("receipt", "checkpoint")[position % 2])
    for position, public in enumerate(ed25519.SMALL_ORDER_NON_CANONICAL):
        weak(f"small-order-not-canonical-{position}", public)
    weak("not-canonical", ed25519.NON_CANONICAL)
    weak("no-point", ed25519.NO_POINT)
    weak("all-ones", b"\xff" * 32)
    # With A the neutral element, R = S * B verifies any message.
    public = ed25519.SMALL_ORDER[0]
    forged = ed25519.encode(ed25519.times_base(1)) + (1).to_bytes(32, "little")
    identity = type("Identity", (), {"public": public, "id": sha256(public).hex(), "base64": b64(public),
                                     "sign": staticmethod(lambda message: forged)})
    keys = [*usual_keys(), key_row(identity, "receipt")]
    corpus.receipt("manifest-weak-receipt-key-forges", usual_ledger().receipt(4, key=identity), BAD,
                   keys=manifest(keys))
    corpus.manifest("manifest-weak-root-forges", manifest([root_row(identity)], signer=identity), BAD,
                    pin=f"{identity.id}@{INSTANCE}")


def _signer(corpus):
    def how(name, failed=BAD, **more):
        corpus.manifest(f"manifest-signed-{name}", manifest(**more), failed)

    for kind in ("receipt", "export", "endorsement"):
        how(f"as-{kind}", kind=kind)
    how("by-a-receipt-key", signer=RECEIPT)
    how("by-a-checkpoint-key", signer=CHECKPOINT)
    how("by-a-stranger", signer=STRANGER)
    how("with-anothers-key-id", signer=STRANGER, key_id=ROOT.id)
    how("s-plus-l", how=ROOT.sign_s_plus_l)
    how("r-is-the-identity", how=ROOT.sign_identity_r)
    how("r-with-torsion", how=ROOT.sign_torsion_r)
    how("before-the-roots-window", keys=[root_row(ROOT, not_before="2026-11-01T00:00:00.000001Z"), *usual_keys()[1:]])
    how("at-the-start-of-the-roots-window", None, keys=[root_row(ROOT, not_before=MANIFEST_ISSUED), *usual_keys()[1:]])
    how("by-a-retired-root", keys=[root_row(ROOT, not_after="2027-01-01T00:00:00.000000Z"), *usual_keys()[1:]])
    how("by-a-revoked-root", keys=[root_row(ROOT, revoked_at="2026-11-20T00:00:00.000000Z"), *usual_keys()[1:]])
    how("by-a-root-revoked-later-on", keys=[root_row(ROOT, revoked_at="2026-12-20T00:00:00.000000Z"),
                                            *usual_keys()[1:]])
    for other in (ROOT2, RECEIPT, OLD_RECEIPT, STRANGER):
        corpus.manifest(f"manifest-pin-is-{other.label.replace(' ', '-')}", manifest(), BAD, pin=pin(other))
    corpus.manifest("manifest-pin-of-another-instance", manifest(), "instance", pin=f"{ROOT.id}@other.example.com")


def _chains(corpus):
    def chain(name, keys, signer, pinned, failed=None, **more):
        corpus.manifest(f"endorsement-{name}", manifest([*keys, *usual_keys()[1:]], signer=signer), failed,
                        pin=pin(pinned), **more)

    retired = {"not_after": Q3}
    first, second = root_row(ROOT), root_row(ROOT2, ROOT, JUNE)
    third = root_row(ROOT3, ROOT2, Q3)
    chain("two-roots-signed-by-the-first", [first, second], ROOT, ROOT)
    chain("two-roots-signed-by-the-second", [first, second], ROOT2, ROOT)
    chain("pin-of-the-second-signed-by-it", [first, second], ROOT2, ROOT2)
    chain("pin-of-the-second-signed-by-the-first", [first, second], ROOT, ROOT2, BAD)
    chain("three-roots", [first, second, third], ROOT3, ROOT)
    chain("three-roots-pin-of-the-second", [first, second, third], ROOT3, ROOT2)
    chain("three-roots-pin-of-the-third-signed-by-the-second", [first, second, third], ROOT2, ROOT3, BAD)
    chain("two-branches", [first, second, root_row(ROOT3, ROOT, Q3)], ROOT3, ROOT)
    chain("two-branches-pin-of-the-other", [first, second, root_row(ROOT3, ROOT, Q3)], ROOT3, ROOT2, BAD)
    chain("endorser-retired-since", [root_row(ROOT, **retired), second], ROOT2, ROOT)
    chain("endorsed-at-the-end-of-the-endorsers-window", [root_row(ROOT, **retired), root_row(ROOT2, ROOT, Q3)], ROOT2,
          ROOT)
    chain("endorsed-after-the-endorsers-window", [root_row(ROOT, **retired), root_row(
        ROOT2, ROOT, "2026-07-01T00:00:00.000001Z")], ROOT2, ROOT, BAD)
    chain("endorsed-at-the-start-of-the-endorsers-window", [first, root_row(ROOT2, ROOT, JAN)], ROOT2, ROOT)
    chain("endorsed-before-the-endorsers-window", [first, root_row(
        ROOT2, ROOT, "2025-12-31T23:59:59.999999Z")], ROOT2, ROOT, BAD)
    revoked = root_row(ROOT, revoked_at=Q4, not_after=Q4)
    chain("endorser-revoked", [revoked, second], ROOT2, ROOT, BAD)
    why = "whether an endorser revoked since breaks the manifest itself, or only the chain through it"
    chain("endorser-revoked-pin-of-the-endorsed", [revoked, second], ROOT2, ROOT2, open=why)
    chain("endorser-out-of-window-pin-of-the-endorsed", [root_row(ROOT, **retired), root_row(
        ROOT2, ROOT, Q4)], ROOT2, ROOT2, open=why)
    chain("middle-root-revoked", [first, second | {"revoked_at": Q4}, third], ROOT3, ROOT, BAD)
    chain("endorsed-root-revoked-signed-by-the-first", [first, second | {"revoked_at": Q4}], ROOT, ROOT)
    chain("endorsed-root-revoked-signed-by-itself", [first, second | {"revoked_at": Q4}], ROOT2, ROOT, BAD)


def _broken_endorsements(corpus):
    def broken(name, keys, signer=ROOT, pinned=ROOT, failed=BAD, **more):
        corpus.manifest(f"endorsement-{name}", manifest([*keys, *usual_keys()[1:]], signer=signer), failed,
                        pin=pin(pinned), **more)

    first, second = root_row(ROOT), root_row(ROOT2, ROOT, JUNE)
    broken("loop-of-two", [root_row(ROOT, ROOT2), root_row(ROOT2, ROOT)])
    broken("loop-of-two-signed-by-the-second", [root_row(ROOT, ROOT2), root_row(ROOT2, ROOT)], ROOT2)
    broken("loop-of-three", [root_row(ROOT, ROOT3), root_row(ROOT2, ROOT), root_row(ROOT3, ROOT2)])
    broken("loop-behind-the-first", [first, root_row(ROOT2, ROOT3, JUNE), root_row(ROOT3, ROOT2, JUNE)], ROOT3)
    broken("endorsed-before-its-endorser", [first, root_row(ROOT3, ROOT2, Q3), second], ROOT3)
    broken("first-not-by-itself", [root_row(ROOT2, ROOT, JUNE), first], ROOT2)
    broken("second-by-itself", [first, root_row(ROOT2)], ROOT2)
    broken("second-by-itself-pinned", [first, root_row(ROOT2)], ROOT2, ROOT2)
    broken("by-a-receipt-key", [first, root_row(ROOT2, RECEIPT, Q4)], ROOT2)
    broken("by-a-key-that-is-not-there", [first, root_row(ROOT2, STRANGER, JUNE)], ROOT2)
    broken("by-another-than-it-names", [first, root_row(ROOT2, STRANGER, JUNE, endorsed_by=ROOT.id)], ROOT2)
    broken("signed-as-a-manifest", [first, root_row(ROOT2, ROOT, JUNE, kind="manifest")], ROOT2)
    broken("for-another-instance", [first, root_row(ROOT2, ROOT, JUNE, instance="other.example.com")], ROOT2)
    broken("for-another-not-before", [first, second | {"not_before": Q3}], ROOT2)
    broken("of-another-key", [first, second | {"endorsement": root_row(ROOT3, ROOT, JUNE)["endorsement"]}], ROOT2)
    broken("s-plus-l", [first, root_row(ROOT2, ROOT, JUNE, how=ROOT.sign_s_plus_l)], ROOT2)
    broken("first-root-signature-wrong", [root_row(ROOT, how=lambda _: bytes(64))],
           open="the pinned root is trusted without its own endorsement, but what does not verify is no endorsement")
    why = "a root outside of the chain with an endorsement that does not verify: read as a malformed manifest"
    broken("unused-root-signature-wrong", [first, second | {"endorsement": b64(bytes(64))}], open=why)
    broken("unused-root-endorser-not-there", [first, root_row(ROOT2, STRANGER, JUNE)], open=why)
    broken("null", [first, second | {"endorsement": None}])
    broken("63-bytes", [first, second | {"endorsement": b64(bytes(63))}])


def _rollback(corpus):
    old = manifest()
    body = usual_ledger().receipt(4)

    def since(name, new, failed=None, was=old, **more):
        corpus.manifest(f"since-{name}", new, failed, since=was, **more)

    fail = "rollback"
    since("the-same", old)
    since("serial-rises", manifest(serial=6))
    since("serial-falls", manifest(serial=4), fail)
    since("serial-stays-with-another-content", manifest(expires="2027-01-31T00:00:00.000000Z"),
          open="nothing says that one serial has one content")
    since("key-added", manifest([*usual_keys(), key_row(STRANGER, "receipt")], serial=6))
    since("keys-reordered", manifest([usual_keys()[0], *usual_keys()[:0:-1]], serial=6))
    for position, label in ((1, "old-receipt"), (3, "receipt"), (4, "checkpoint")):
        keys = usual_keys()
        del keys[position]
        since(f"{label}-key-disappears", manifest(keys, serial=6), fail)
    two = manifest([root_row(ROOT), root_row(ROOT2, ROOT, JUNE), *usual_keys()[1:]])
    since("root-disappears", manifest(serial=6), fail, two)
    retired = {"not_after": Q4, "verify_until": "2026-12-30T00:00:00.000000Z"}
    since("key-retired", manifest(changed_keys(RECEIPT, **retired), serial=6))
    since("key-revoked", manifest(changed_keys(RECEIPT, revoked_at=Q4), serial=6))
    for member in ("not_after", "verify_until", "revoked_at"):
        was = manifest(changed_keys(OLD_RECEIPT, revoked_at=Q4))
        for label, value in (("null-again", None), ("later", "2027-03-01T00:00:00.000000Z"), ("earlier", Q3)):
            changed = {"revoked_at": Q4} | {member: value}
            if member == "not_after":
                # 90 days after it, so that the new manifest is right in itself.
                changed["verify_until"] = {"later": "2027-05-30T00:00:00.000000Z", "earlier": "2026-09-29T00:00:00.000000Z",
                                           "null-again": None}[label]
            since(f"{member}-{label}", manifest(changed_keys(OLD_RECEIPT, **changed), serial=6), fail, was)
    since("not-before-changes", manifest(changed_keys(RECEIPT, not_before="2026-10-02T00:00:00.000000Z"), serial=6),
          open="not_before is not among the members that must not change")
    since("purpose-changes", manifest(changed_keys(RECEIPT, purpose="checkpoint"), serial=6),
          open="purpose is not among the members that must not change; 'never two' is of one manifest")
    since("signed-by-the-next-root", manifest(
        [root_row(ROOT, not_after=Q4), root_row(ROOT2, ROOT, Q4), *usual_keys()[1:]], signer=ROOT2, serial=6))
    since("old-by-a-root-revoked-now", manifest(
        [root_row(ROOT, not_after=Q4, revoked_at=Q4), root_row(ROOT2, ROOT, JUNE), *usual_keys()[1:]], signer=ROOT2,
        serial=6), "manifest", two)
    since("old-of-a-stranger", manifest(serial=6), "manifest", manifest(
        [root_row(STRANGER), *usual_keys()[1:]], signer=STRANGER), open="OLD is held to the same pin as NEW")
    since("old-does-not-parse", manifest(serial=6), "manifest", "{}",
          open="OLD that does not parse: `manifest`, or an I/O error")
    since("new-does-not-verify", manifest(serial=6) | {"serial": 7}, "manifest")
    since("new-does-not-verify-and-falls", manifest(serial=4) | {"serial": 3}, "manifest")
    # An older manifest is still a valid one: only --since can tell.
    corpus.receipt("since-older-manifest-without-since", body, keys=manifest(serial=4), also={"keys_serial": 4})
    assert PIN == pin(ROOT) and MANIFEST_EXPIRES > old["issued_at"]
