"""--policy (a C2SP tlog-policy), cosignatures, and evidence after a revocation."""

from . import zips
from .build import (CHECKPOINT, OLD_CHECKPOINT, RECEIPT, STRANGER, Witness, b64, changed_keys, cosignature, log_line,
                    manifest, note_line, sha256)
from .ledger import usual_ledger

# 2026-11-21T10:00:00Z
TEN = 1795255200
A, B, C, D = (Witness(f"witness-{letter}.example.com/w") for letter in "abcd")
EVIDENCE = ("--as", "evidence")


def policy(quorum, *lines, witnesses=(A, B, C, D)):
    return "".join(f"witness {w.name[8].upper()} {w.vkey}\n" for w in witnesses) + "".join(
        line + "\n" for line in lines) + (f"quorum {quorum}\n" if quorum else "")


def add_to(corpus):
    ledger = usual_ledger()
    _quorums(corpus, ledger)
    _lines(corpus, ledger)
    _revocation(corpus, ledger)
    _files(corpus, ledger)
    _exports(corpus, ledger)


def cosigned(ledger, *by, more=""):
    """A checkpoint that these witnesses cosigned; (witness, time) or a witness."""
    pairs = [(w, TEN - 3600) if isinstance(w, Witness) else w for w in by]
    return ledger.checkpoint(lines=lambda t: log_line(t) + "".join(cosignature(t, *p) for p in pairs) + (
        more(t) if more else ""))


def body_of(ledger, checkpoint, **more):
    return ledger.receipt(4, proof=ledger.proof(4, checkpoint=checkpoint), **more)


def _quorums(corpus, ledger):
    def quorum(name, rule, by, met, *lines):
        corpus.receipt(f"witness-{name}", body_of(ledger, cosigned(ledger, *by)), None if met else "policy",
                       policy=policy(rule, *lines), verdict="witnessed",
                       also={"time": "witnessed"} if met else {"time": None})

    quorum("one", "A", [A], True)
    quorum("other-one", "A", [B], False)
    quorum("nobody", "A", [], False)
    quorum("2-of-3", "g", [A, C], True, "group g 2 A B C")
    quorum("1-of-2-of-3", "g", [B], False, "group g 2 A B C")
    quorum("any", "g", [C], True, "group g any A B C")
    quorum("all-of-3", "g", [C, B, A], True, "group g all A B C")
    quorum("all-but-one", "g", [C, B], False, "group g all A B C")
    quorum("one-twice-is-not-two", "g", [A, (A, TEN - 60)], False, "group g 2 A B C")
    nested = ("group inner 2 A B C", "group outer all inner D")
    quorum("nested", "outer", [A, B, D], True, *nested)
    quorum("nested-inner-alone", "outer", [A, B, C], False, *nested)
    quorum("nested-outer-alone", "outer", [A, D], False, *nested)
    quorum("more-than-asked-for", "A", [A, B, C, D], True)
    body = body_of(ledger, cosigned(ledger, A))
    corpus.receipt("witness-no-policy-is-included", body, also={"time": "claimed"})
    why = "quorum none is met by no cosignature at all: literally `witnessed`, its time still claimed"
    corpus.receipt("witness-quorum-none", ledger.receipt(4), policy="quorum none\n", verdict="witnessed", open=why,
                   also={"time": "claimed"})
    corpus.receipt("witness-later-proof-in-an-older-receipt", ledger.receipt(4, 5) | {"receipt": ledger.receipt(
        4, 5)["receipt"] | {"proof": ledger.proof(4, checkpoint=cosigned(ledger, A))}}, policy=policy("A"),
        verdict="witnessed")


def _lines(corpus, ledger):
    def lines(name, failed, *by, more=None, rule="A", **options):
        corpus.receipt(f"witness-line-{name}", body_of(ledger, cosigned(ledger, *by, more=more)), failed,
                       policy=policy(rule), verdict="witnessed", **options)

    bad = "checkpoint_signature"
    lines("repeated", None, A, A, A)
    corpus.receipt("witness-line-first", body_of(ledger, ledger.checkpoint(
        lines=lambda t: cosignature(t, A, TEN) + log_line(t))), policy=policy("A"), verdict="witnessed")
    corpus.receipt("witness-line-without-the-log", body_of(ledger, ledger.checkpoint(
        lines=lambda t: cosignature(t, A, TEN))), bad, policy=policy("A"))
    lines("bad-by-a-needed-witness", bad, more=lambda t: cosignature(t, A, TEN, how=lambda m: A.key.sign(m + b"x")))
    lines("bad-by-a-witness-not-needed", bad, A,
          more=lambda t: cosignature(t, B, TEN, how=lambda m: B.key.sign(m + b"x")))
    lines("bad-after-a-good-one-of-the-same", bad, A,
          more=lambda t: cosignature(t, A, TEN, how=lambda m: A.key.sign(m + b"x")))
    corpus.receipt("witness-line-bad-but-no-policy", body_of(ledger, cosigned(
        ledger, more=lambda t: cosignature(t, A, TEN, how=lambda m: bytes(64)))))
    lines("bad-by-a-stranger", None, A, more=lambda t: note_line("stranger", 4, STRANGER, bytes(72)))
    lines("time-changed", bad, more=lambda t: note_line(A.name, 4, A.key, (TEN + 1).to_bytes(8, "big") + A.key.sign(
        f"cosignature/v1\ntime {TEN}\n".encode() + t.encode())))
    lines("signed-without-a-time", bad, more=lambda t: note_line(A.name, 4, A.key, bytes(8) + A.key.sign(t.encode())))
    lines("64-bytes", bad, more=lambda t: note_line(A.name, 4, A.key, A.key.sign(t.encode())))
    lines("73-bytes", bad, A, more=lambda t: cosignature(t, A, TEN, how=lambda m: A.key.sign(m) + b"x"))
    lines("time-0", None, (A, 0))
    lines("time-2-63-less-1", None, (A, 2**63 - 1))
    lines("time-2-63", bad, (A, 2**63))
    lines("of-type-1-by-a-witness", "policy", more=lambda t: note_line(A.name, 1, A.key, A.key.sign(t.encode())))
    lines("under-another-name", "policy", more=lambda t: cosignature(t, A, TEN, name="witness-z.example.com"))
    lines("under-the-origin", "policy", more=lambda t: cosignature(t, A, TEN, name=ledger.origin))
    lines("over-another-checkpoint", bad, more=lambda t: cosignature(t, A, TEN, how=lambda m: A.key.sign(
        m.replace(b"\n13\n", b"\n12\n"))))
    lines("s-plus-l", bad, more=lambda t: cosignature(t, A, TEN, how=A.key.sign_s_plus_l))
    lines("r-is-the-identity", bad, more=lambda t: cosignature(t, A, TEN, how=A.key.sign_identity_r))
    lines("by-the-checkpoint-key-as-witness", None, A, more=lambda t: log_line(t, CHECKPOINT, kind=4))


def _revocation(corpus, ledger):
    """A receipt whose policy is met by cosignatures before revoked_at stays evidence."""
    keys = manifest(changed_keys(RECEIPT, revoked_at="2026-11-21T10:00:00.000000Z"))
    later = manifest(changed_keys(RECEIPT, revoked_at="2026-11-21T10:00:00.000001Z"))

    def revoked(name, failed, *by, rule="A", args=EVIDENCE, keys=keys, lines=(), **more):
        corpus.receipt(f"witness-revoked-{name}", body_of(ledger, cosigned(ledger, *by)), failed, keys=keys,
                       policy=policy(rule, *lines), verdict="witnessed", args=args, **more)

    two = ("group g 2 A B C",)
    revoked("cosigned-before", None, (A, TEN - 1))
    revoked("cosigned-long-before", None, (A, 1))
    revoked("cosigned-in-that-second", "key_revoked", (A, TEN))
    revoked("cosigned-in-the-second-before-a-microsecond", None, (A, TEN), keys=later)
    revoked("cosigned-after", "key_revoked", (A, TEN + 1))
    revoked("one-before-one-after", "key_revoked", (A, TEN - 1), (B, TEN + 1), rule="g", lines=two)
    revoked("two-before-one-after", None, (A, TEN - 1), (C, TEN + 1), (B, TEN - 9), rule="g", lines=two)
    revoked("same-witness-before-and-after", None, (A, TEN + 5), (A, TEN - 5),
            open="repeated lines of a key count once: the earlier date is a statement too")
    revoked("cosigned-before-but-fresh", "key_revoked", (A, TEN - 1), args=("--as", "fresh"),
            open="'stays evidence' is read as: under --as evidence")
    revoked("cosigned-before-by-default", "key_revoked", (A, TEN - 1), args=(),
            open="'stays evidence' is read as: under --as evidence")
    revoked("policy-not-met", "key_revoked", (B, TEN - 1), stderr=("key_revoked", "policy"))
    revoked("quorum-none", "key_revoked", rule="none", open="a quorum of none is met by no cosignature before anything")
    corpus.receipt("witness-revoked-no-policy", body_of(ledger, cosigned(ledger, (A, TEN - 1))), "key_revoked",
                   keys=keys, args=EVIDENCE)
    corpus.receipt("witness-revoked-signature-wrong", body_of(ledger, cosigned(ledger, (A, TEN - 1)), kind="export"),
                   "key_revoked", keys=keys, args=EVIDENCE, policy=policy("A"),
                   open="the policy is never reached; `signature` if the revocation is judged last")
    corpus.receipt("witness-revoked-outside-the-window", body_of(
        ledger, cosigned(ledger, (A, TEN - 1)), issued_at="2026-01-01T00:00:00.000000Z"), "key_revoked", keys=keys,
        args=EVIDENCE, policy=policy("A"), open="the policy is never reached; `key_window` if revocation is judged last")
    corpus.receipt("witness-checkpoint-key-revoked", body_of(ledger, cosigned(ledger, (A, TEN - 1))),
                   "checkpoint_signature", policy=policy("A"), args=EVIDENCE,
                   keys=manifest(changed_keys(CHECKPOINT, revoked_at="2026-11-21T10:00:00.000000Z")),
                   open="a revoked checkpoint key is not known, whoever cosigned; 'stays evidence' is of the receipt key")
    corpus.receipt("witness-checkpoint-key-revoked-other-line-good", body_of(ledger, ledger.checkpoint(
        lines=lambda t: log_line(t) + log_line(t, OLD_CHECKPOINT) + cosignature(t, A, TEN))), policy=policy("A"),
        verdict="witnessed", keys=manifest(changed_keys(CHECKPOINT, revoked_at="2026-11-21T10:00:00.000000Z")))


def _files(corpus, ledger):
    body = body_of(ledger, cosigned(ledger, A, B))

    def file(name, text, **more):
        corpus.receipt(f"policy-file-{name}", body, policy=text, verdict="witnessed", **more)

    file("log-lines-ignored", "log whatever+this+is https://log.example.com\nlog x\n" + policy("A"))
    file("comments-and-white-space", "# comment\n\n \t\n  # more\n" + policy("A").replace(" ", " \t ") + "#end")
    file("url", policy(None, witnesses=(B,)) + f"witness A {A.vkey} https://w.example.com/\nquorum A\n")
    file("no-line-feed-at-the-end", policy("A")[:-1])
    file("non-ascii-names", policy(None, witnesses=(B,)) + f"witness W\u00e4chter {A.vkey}\nquorum W\u00e4chter\n")
    file("order-of-witnesses", policy("A", witnesses=(D, C, B, A)))
    many = [Witness(f"witness-{n}") for n in range(32)]
    file("32-witnesses", "".join(f"witness w{n} {w.vkey}\n" for n, w in enumerate(many)) + policy("A"))
    why = "a policy that does not parse is read as a usage error (2), not as a receipt that fails `policy`"
    wrong = A.vkey.split("+")

    def broken(name, text):
        corpus.receipt(f"policy-broken-{name}", body, "policy", policy=text, exit=2, open=why)

    broken("empty", "")
    broken("no-quorum", policy(None))
    broken("two-quorums", policy("A") + "quorum A\n")
    broken("quorum-of-nobody-known", policy("Z"))
    broken("quorum-before-its-group", "quorum A\n" + policy(None))
    broken("unknown-line", policy("A") + "threshold 2\n")
    broken("same-witness-twice", policy("A") + f"witness E {A.vkey}\n")
    broken("same-key-under-two-names", policy("A") + "witness E " + _vkey("other", A) + "\n")
    broken("same-name-twice", policy("A") + f"witness A {Witness('x').vkey}\n")
    broken("witness-named-none", f"witness none {A.vkey}\nquorum none\n")
    broken("threshold-0", policy("g", "group g 0 A B"))
    broken("threshold-above-the-members", policy("g", "group g 3 A B"))
    broken("member-twice", policy("g", "group g 1 A A"))
    broken("member-of-two-groups", policy("g", "group g 1 A B", "group h 1 A C"))
    broken("member-not-defined-yet", policy("g", "group g 1 h A", "group h 1 B"))
    broken("group-in-itself", policy("g", "group g 1 g"))
    broken("group-without-members", policy("g", "group g any"))
    broken("key-id-wrong", f"witness A {wrong[0]}+00000000+{wrong[2]}\nquorum A\n")
    broken("key-of-a-log", f"witness A {_vkey('x', A, 1)}\nquorum A\n")
    broken("key-of-small-order", "witness A x+" + sha256(b"x\n\x04", b"\x01" + bytes(31))[:4].hex() + "+" + b64(
        b"\x04\x01" + bytes(31)) + "\nquorum A\n")
    broken("control-character", policy("A") + "# \x07\n")
    broken("carriage-return", policy("A").replace("\n", "\r\n"))


def _vkey(name, witness, kind=4):
    public = witness.key.public
    return f"{name}+{sha256(name.encode(), bytes([10, kind]), public)[:4].hex()}+{b64(bytes([kind]) + public)}"


def _exports(corpus, ledger):
    archive = zips.write(ledger.export(checkpoint=cosigned(ledger, A, B)))
    corpus.export("witness-export", archive, policy=policy("g", "group g 2 A B C"), verdict="witnessed",
                  also={"time": "witnessed"})
    corpus.export("witness-export-policy-not-met", archive, "policy", policy=policy("g", "group g 2 A C D"))
    corpus.export("witness-export-without-policy", archive, also={"time": "claimed"})
    keys = manifest(changed_keys(RECEIPT, revoked_at="2026-11-21T10:00:00.000000Z"))
    early = zips.write(ledger.export(checkpoint=cosigned(ledger, (A, TEN - 1)), keys=keys))
    corpus.export("witness-export-key-revoked-cosigned-before", early, "key_revoked", policy=policy("A"),
                  open="only 'a receipt' stays evidence; an export's own signature is cosigned by nobody")
