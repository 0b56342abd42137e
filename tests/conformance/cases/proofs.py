"""tlog-proofs in receipts: checks `proof`, `origin` and `inclusion`."""

from .build import CHECKPOINT, INSTANCE, OTHER_LEDGER, b64, inclusion, log_line, proof_text, sha256
from .ledger import usual_ledger

INDEX = "the format says `index <seq>`, so another index is no such proof; `inclusion` is as sensible"


def add_to(corpus):
    ledger = usual_ledger()
    _hashes(corpus, ledger)
    _form(corpus, ledger)
    _index(corpus, ledger)
    _tree(corpus, ledger)


def _hashes(corpus, ledger):
    # Entry 4 of 13 has four hashes beside it, entry 12 two.
    path = inclusion(4, ledger.leaves)
    zero = bytes(32)

    def hashes(name, changed, failed="inclusion", seq=4):
        corpus.receipt(f"proof-hashes-{name}", ledger.receipt(seq, proof=ledger.proof(seq, hashes=changed)), failed)

    hashes("as-they-are", path, None)
    hashes("none", [])
    hashes("without-the-first", path[1:])
    hashes("without-the-last", path[:-1])
    hashes("without-a-middle-one", path[:1] + path[2:])
    hashes("one-more-at-the-end", path + [zero])
    hashes("one-more-at-the-start", [zero] + path)
    hashes("last-one-twice", path + path[-1:])
    hashes("first-one-twice", path[:1] + path)
    hashes("reversed", path[::-1])
    hashes("first-two-swapped", [path[1], path[0], *path[2:]])
    hashes("last-two-swapped", [*path[:2], path[3], path[2]])
    hashes("of-another-entry", inclusion(5, ledger.leaves))
    hashes("of-a-smaller-tree", inclusion(4, ledger.leaves[:12]))
    hashes("leaf-itself-first", [ledger.leaves[4]] + path)
    for position in range(len(path)):
        changed = list(path)
        changed[position] = changed[position][:31] + bytes([changed[position][31] ^ 1])
        hashes(f"bit-of-{position}", changed)
    last = inclusion(12, ledger.leaves)
    hashes("right-edge-as-they-are", last, None, 12)
    hashes("right-edge-one-more", last + [zero], seq=12)
    hashes("right-edge-one-less", last[:-1], seq=12)
    hashes("right-edge-padded-to-the-depth", [zero, zero] + last, seq=12)
    hashes("63", [zero] * 63)
    hashes("64", [zero] * 64, "proof")
    hashes("100000", [zero] * 100_000, "proof")
    one = ledger.checkpoint(1)
    corpus.receipt("proof-hashes-in-a-tree-of-one", ledger.receipt(0, proof=proof_text(0, [zero], one)), "inclusion")


def _form(corpus, ledger):
    good = ledger.proof(4)

    def form(name, text, failed="proof", **more):
        corpus.receipt(f"proof-form-{name}", ledger.receipt(4, proof=text), failed, **more)

    head, checkpoint = "c2sp.org/tlog-proof@v1\n", ledger.checkpoint()
    first = b64(inclusion(4, ledger.leaves)[0])
    form("empty", "")
    form("blank", " ")
    form("extra-line", good.replace(head, head + "extra eA==\n"))
    form("extra-line-empty", good.replace(head, head + "extra \n"))
    form("extra-line-after-the-index", good.replace("index 4\n", "index 4\nextra eA==\n"))
    form("version-2", good.replace("@v1\n", "@v2\n"))
    form("head-in-upper-case", good.replace("c2sp.org", "C2SP.org"))
    form("no-head", good.removeprefix(head))
    form("line-feed-first", "\n" + good)
    form("no-index", good.replace("index 4\n", ""))
    form("index-twice", good.replace("index 4\n", "index 4\nindex 4\n"))
    form("index-leading-zero", good.replace("index 4\n", "index 04\n"))
    form("index-plus", good.replace("index 4\n", "index +4\n"))
    form("index-hexadecimal", good.replace("index 4\n", "index 0x4\n"))
    form("index-space-after", good.replace("index 4\n", "index 4 \n"))
    form("index-two-spaces", good.replace("index 4\n", "index  4\n"))
    form("index-other-digit", good.replace("index 4\n", "index \u0664\n"))
    form("index-2-64-wraps-to-4", good.replace("index 4\n", f"index {2**64 + 4}\n"))
    form("index-of-1000-digits", good.replace("index 4\n", "index " + "4" * 1000 + "\n"))
    form("crlf", good.replace("\n", "\r\n"))
    form("crlf-in-the-head", good.replace(head, head.replace("\n", "\r\n")))
    form("hash-not-padded", good.replace(first, first.rstrip("=")))
    form("hash-31-bytes", good.replace(first, b64(bytes(31))))
    form("hash-33-bytes", good.replace(first, b64(bytes(33))))
    form("hash-in-hex", good.replace(first, inclusion(4, ledger.leaves)[0].hex()))
    form("hash-space-after", good.replace(first, first + " "))
    # 32 bytes in base64 end in a character whose last two bits say nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    form("hash-trailing-bits", good.replace(first, first[:42] + alphabet[alphabet.index(first[42]) + 1] + "="))
    form("two-hashes-a-line", good.replace(first + "\n", first + first + "\n"))
    form("no-empty-line", good.replace("\n\n" + checkpoint, "\n" + checkpoint))
    form("two-empty-lines", good.replace("\n\n" + checkpoint, "\n\n\n" + checkpoint))
    form("no-checkpoint", good[:-len(checkpoint)])
    form("checkpoint-twice", good + checkpoint)
    form("cut-after-the-empty-line", good.split("\n\n")[0] + "\n\n")
    form("cut-before-the-empty-line", good.split("\n\n")[0] + "\n")


def _index(corpus, ledger):
    for index in (0, 3, 5, 12, 13, 2**53, 2**64 - 1):
        corpus.receipt(f"proof-index-{index}", ledger.receipt(4, proof=ledger.proof(4, index=index)), "proof",
                       open=INDEX)
    corpus.receipt("proof-whole-of-another-entry", ledger.receipt(4, proof=ledger.proof(5)), "proof", open=INDEX)
    # 4 + 16 has the same low bits, and so the same path in a tree of 13.
    corpus.receipt("proof-index-with-the-same-path", ledger.receipt(4, proof=ledger.proof(4, index=20)), "proof",
                   open=INDEX)


def _tree(corpus, ledger):
    def proof(name, failed, checkpoint, hashes=None, seq=4, **more):
        corpus.receipt(f"proof-tree-{name}", ledger.receipt(seq, proof=proof_text(
            seq, inclusion(seq, ledger.leaves) if hashes is None else hashes, checkpoint)), failed, **more)

    proof("size-is-seq", "inclusion", ledger.checkpoint(4))
    proof("size-is-seq-plus-1", None, ledger.checkpoint(5), inclusion(4, ledger.leaves[:5]))
    proof("size-0", "inclusion", ledger.checkpoint(0), [])
    proof("size-0-root-is-the-leaf", "inclusion", ledger.checkpoint(0, root=ledger.leaves[0]), [], 0)
    proof("root-of-another-tree", "inclusion", ledger.checkpoint(root=ledger.root(12)))
    proof("size-too-large-for-the-root", "inclusion", ledger.checkpoint(size=29))
    proof("size-2-64-less-1", "inclusion", ledger.checkpoint(size=2**64 - 1))
    proof("root-is-the-leaf-no-hashes", "inclusion", ledger.checkpoint(root=ledger.leaves[4]), [])
    inner = sha256(b"\x01", ledger.leaves[4], ledger.leaves[5])
    proof("inner-node-as-the-leaf", "inclusion", ledger.checkpoint(size=2, root=inner), [ledger.leaves[5]], 4)
    other = usual_ledger(ledger=OTHER_LEDGER)
    proof("checkpoint-of-another-ledger", "origin", other.checkpoint(), inclusion(4, other.leaves))
    proof("origin-of-another-ledger", "origin", ledger.checkpoint(origin=other.origin))
    proof("origin-of-another-instance", "origin", ledger.checkpoint(origin=f"other.example.com/{ledger.ledger}"))
    proof("origin-without-a-ledger", "origin", ledger.checkpoint(origin=INSTANCE))
    proof("origin-with-a-slash-after", "origin", ledger.checkpoint(origin=ledger.origin + "/"))
    proof("origin-with-a-scheme", "origin", ledger.checkpoint(origin="https://" + ledger.origin))
    proof("origin-in-upper-case", "origin", ledger.checkpoint(origin=f"{INSTANCE}/{ledger.ledger.upper()}"))
    proof("origin-before-its-signature", "origin", ledger.checkpoint(
        origin=other.origin, lines=lambda text: log_line(text, CHECKPOINT, how=lambda _: bytes(64))))
    body = ledger.receipt(4)
    rewritten = usual_ledger()
    rewritten.entries[4]["data"] = {"n": 5}
    corpus.receipt("proof-entry-is-not-the-leaf", ledger.receipt(4, entry=ledger.entries[4] | {"data": {"n": 5}},
                                                                 openings={}), "inclusion")
    corpus.receipt("proof-entry-of-another-ledger-signed", ledger.receipt(4, entry=body and other.entries[4],
                                                                          openings={}), "origin")
    corpus.receipt("proof-tree-of-whole-bodies", _tree_of_bodies(ledger), "inclusion")


def _tree_of_bodies(ledger):
    """A leaf that hashes the entry with its receipt: not what the ledger holds."""
    from .build import canonical, node, without
    body = ledger.receipt(4)
    body["receipt"] = without(body["receipt"], "proof")
    leaf = sha256(b"\x00", canonical(without(body, "openings")))
    return ledger.receipt(4, proof=proof_text(4, [leaf], ledger.checkpoint(size=13, root=node(leaf, leaf))))
