"""Checkpoints: their form, their signature lines, and who may sign them.

Each stands in a receipt's proof, where one that does not parse is `proof`, and
the telling ones also in an export, where that is `origin`.
"""

from . import ed25519
from .build import (CHECKPOINT, OLD_CHECKPOINT, RECEIPT, ROOT, STRANGER, b64, changed_keys, key_row, log_line, manifest,
                    note_line, sha256, usual_keys)
from .ed25519 import Key
from .ledger import usual_ledger

BAD = "checkpoint_signature"


def add_to(corpus):
    ledger = usual_ledger()
    _form(corpus, ledger)
    _lines(corpus, ledger)
    _keys(corpus, ledger)
    _signatures(corpus, ledger)


def both(corpus, ledger, name, checkpoint, failed=None, keys=None, **more):
    """In a receipt and in an export; `proof` here is `origin` there."""
    corpus.receipt(f"checkpoint-{name}", ledger.receipt(4, proof=ledger.proof(4, checkpoint=checkpoint)), failed,
                   keys=keys, **more)
    from . import zips
    corpus.export(f"checkpoint-{name}-in-an-export", zips.write(ledger.export(checkpoint=checkpoint, keys=keys)),
                  "origin" if failed == "proof" else failed, **more)


def _form(corpus, ledger):
    good = ledger.checkpoint()
    text, line = good.split("\n\n")
    root = text.split("\n")[2]

    def form(name, checkpoint, failed="proof"):
        both(corpus, ledger, name, checkpoint, failed)

    def resigned(name, text, failed="proof"):
        form(name, text + "\n" + log_line(text), failed)

    form("as-it-is", good, None)
    form("no-signature-line", text + "\n\n")
    form("no-line-feed-at-the-end", good[:-1])
    form("line-feed-after", good + "\n")
    form("text-after", good + "x")
    form("crlf", good.replace("\n", "\r\n"))
    form("tab-for-a-space", good.replace("\u2014 ", "\u2014\t"))
    form("hyphen-for-the-dash", good.replace("\u2014", "-"))
    form("en-dash", good.replace("\u2014", "\u2013"))
    form("no-blank-line", text + "\n" + line)
    form("two-blank-lines", text + "\n\n\n" + line)
    form("name-missing", text + "\n\n\u2014 " + line.split(" ")[2])
    form("name-with-a-space", good + good.split("\n\n")[1].replace("\u2014 ", "\u2014 a "))
    form("name-with-a-plus", good + note_line("a+b", 1, STRANGER, bytes(64)))
    form("name-with-a-no-break-space", good + note_line("a\u00a0b", 1, STRANGER, bytes(64)))
    form("line-not-base64", good + "\u2014 stranger !!!!\n")
    form("line-not-padded", good + note_line("stranger", 1, STRANGER, bytes(64)).replace("=", ""))
    form("line-of-three-bytes", good + "\u2014 stranger AAAA\n")
    lines = text + "\n"
    resigned("extension-line", lines + "extension\n")
    resigned("extension-line-empty", lines + "\n")
    resigned("size-leading-zero", lines.replace("\n13\n", "\n013\n"))
    resigned("size-plus", lines.replace("\n13\n", "\n+13\n"))
    resigned("size-negative", lines.replace("\n13\n", "\n-13\n"))
    resigned("size-hexadecimal", lines.replace("\n13\n", "\n0xd\n"))
    resigned("size-empty", lines.replace("\n13\n", "\n\n"))
    resigned("size-2-64-plus-13", lines.replace("\n13\n", f"\n{2**64 + 13}\n"))
    resigned("root-31-bytes", lines.replace(root, b64(bytes(31))))
    resigned("root-33-bytes", lines.replace(root, b64(bytes(33))))
    resigned("root-in-hex", lines.replace(root, ledger.root().hex()))
    resigned("root-not-padded", lines.replace(root, root.rstrip("=")))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    resigned("root-trailing-bits", lines.replace(root, root[:42] + alphabet[alphabet.index(root[42]) + 1] + "="))
    resigned("root-empty", lines.replace(root, ""))
    resigned("control-character-in-the-origin", lines.replace("status.", "status\x01."))
    resigned("origin-empty", "\n" + lines.split("\n", 1)[1])
    from . import zips
    corpus.export("checkpoint-not-utf-8-in-an-export",
                  zips.write(ledger.export() | {"checkpoint": good.encode() + b"\xe2\x80\x94 \xff AAAAAAAA\n"}), "origin")
    corpus.export("checkpoint-empty-in-an-export", zips.write(ledger.export() | {"checkpoint": b""}), "origin")


def _lines(corpus, ledger):
    def lines(name, made, failed=None, **more):
        both(corpus, ledger, name, ledger.checkpoint(lines=made), failed, **more)

    stranger = note_line("stranger.example.com", 1, STRANGER, bytes(64))
    lines("unknown-line-after", lambda t: log_line(t) + stranger)
    lines("unknown-line-before", lambda t: stranger + log_line(t))
    lines("unknown-line-of-another-length", lambda t: log_line(t) + note_line("post.quantum", 9, STRANGER, bytes(2420)))
    lines("unknown-key-of-the-same-name", lambda t: log_line(t) + log_line(t, STRANGER))
    lines("same-key-id-under-another-name", lambda t: log_line(t) + note_line(
        "stranger.example.com", 1, STRANGER, bytes(64), sha256(ledger.origin.encode(), b"\n\x01", CHECKPOINT.public)[:4]))
    lines("repeated-line", lambda t: log_line(t) * 3)
    lines("64-lines", lambda t: stranger * 63 + log_line(t))
    lines("65-lines", lambda t: stranger * 64 + log_line(t), "proof")
    lines("64-lines-of-one-key", lambda t: log_line(t) * 64)
    lines("unknown-lines-alone", lambda t: stranger, BAD)
    lines("two-known-keys", lambda t: log_line(t) + log_line(t, OLD_CHECKPOINT))
    wrong = lambda t, key=CHECKPOINT: log_line(t, key, how=lambda _: key.sign(b"something else"))
    lines("bad-line-by-the-known-key", wrong, BAD)
    lines("bad-line-after-a-good-one", lambda t: log_line(t) + wrong(t), BAD)
    lines("bad-line-before-a-good-one", lambda t: wrong(t) + log_line(t), BAD)
    lines("bad-line-by-another-known-key", lambda t: log_line(t) + wrong(t, OLD_CHECKPOINT), BAD)
    lines("known-key-63-bytes", lambda t: log_line(t) + log_line(t, how=lambda m: CHECKPOINT.sign(m)[:63]), BAD)
    lines("known-key-65-bytes", lambda t: log_line(t) + log_line(t, how=lambda m: CHECKPOINT.sign(m) + b"\0"), BAD)
    # Without --policy no witness is known, so its bad line says nothing.
    lines("line-of-type-4-by-the-checkpoint-key", lambda t: log_line(t) + log_line(t, kind=0x04))


def _keys(corpus, ledger):
    def by(name, key, failed=None, keys=None, made=None, **more):
        both(corpus, ledger, name, ledger.checkpoint(lines=made or (lambda t: log_line(t, key))), failed, keys, **more)

    by("key-of-the-last-quarter", OLD_CHECKPOINT)
    by("by-a-stranger", STRANGER, BAD)
    by("by-the-receipt-key", RECEIPT, BAD)
    by("by-the-root", ROOT, BAD)
    by("name-is-not-the-origin", CHECKPOINT, BAD, made=lambda t: log_line(t, name="status.example.com"))
    by("key-id-of-type-4-only", CHECKPOINT, BAD, made=lambda t: log_line(t, kind=0x04))
    revoked = {"revoked_at": "2026-11-21T10:00:00.000000Z"}
    keys = manifest(changed_keys(CHECKPOINT, **revoked))
    by("key-revoked", CHECKPOINT, BAD, keys)
    by("key-revoked-beside-a-good-one", CHECKPOINT, None, keys,
       lambda t: log_line(t) + log_line(t, OLD_CHECKPOINT))
    by("key-revoked-bad-line-beside-a-good-one", CHECKPOINT, None, keys,
       lambda t: log_line(t, how=lambda _: bytes(64)) + log_line(t, OLD_CHECKPOINT))
    window = {"not_before": "2030-01-01T00:00:00.000000Z"}
    by("key-window-is-not-judged", CHECKPOINT, None, manifest(changed_keys(CHECKPOINT, **window)))
    past = {"not_before": "2020-01-01T00:00:00.000000Z", "not_after": "2020-04-01T00:00:00.000000Z",
            "verify_until": "2020-06-30T00:00:00.000000Z"}
    by("key-window-long-past", CHECKPOINT, None, manifest(changed_keys(CHECKPOINT, **past)))
    mixed = Key("checkpoint key with torsion", torsion=True)
    keys = manifest([*usual_keys(), key_row(mixed, "checkpoint")])
    by("key-with-torsion-valid-without-cofactor", mixed, None, keys,
       lambda t: log_line(t, mixed, how=lambda m: mixed.sign_by_k(m, True)))
    by("key-with-torsion-valid-with-cofactor-only", mixed, BAD, keys,
       lambda t: log_line(t, mixed, how=lambda m: mixed.sign_by_k(m, False)))


def _signatures(corpus, ledger):
    def how(name, sign):
        both(corpus, ledger, name, ledger.checkpoint(lines=lambda t: log_line(t, how=sign)), BAD)

    how("s-plus-l", CHECKPOINT.sign_s_plus_l)
    how("r-is-the-identity", CHECKPOINT.sign_identity_r)
    how("r-is-the-identity-not-canonical", lambda m: CHECKPOINT.sign_identity_r(m, ed25519.SMALL_ORDER_NON_CANONICAL[2]))
    how("r-with-torsion", CHECKPOINT.sign_torsion_r)
    how("signed-with-the-blank-line", lambda m: CHECKPOINT.sign(m + b"\n"))
    how("signed-without-the-last-line-feed", lambda m: CHECKPOINT.sign(m[:-1]))
    how("signed-with-a-kind", lambda m: CHECKPOINT.sign(b"statusledger/v1/checkpoint\n" + m))
    how("signed-as-a-cosignature", lambda m: CHECKPOINT.sign(b"cosignature/v1\ntime 1\n" + m))
