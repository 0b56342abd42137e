"""The command line: several bodies, --complete, standard input, exit codes."""

from .build import (AT, DESTINATION, INSTANCE, OTHER_LEDGER, PIN, RECEIPT, ROOT, changed_keys, manifest, text_of)
from .ledger import usual_ledger

USAGE = 2


def add_to(corpus):
    ledger = usual_ledger()
    _several(corpus, ledger)
    _complete(corpus, ledger)
    _standard_input(corpus, ledger)
    _unpinned(corpus, ledger)
    _usage(corpus, ledger)
    _files(corpus, ledger)
    _text(corpus, ledger)


def several(corpus, name, bodies, failed=None, args=(), **more):
    files = {f"{n}.json": body for n, body in enumerate(bodies)} | {"keys.json": manifest()}
    line = ["receipt", *(f":{n}.json" for n in range(len(bodies))), "--keys", ":keys.json", "--pin", PIN, "--at", AT, *args]
    corpus.add(name, line, files, failed, None if failed else "included", **more)


def _several(corpus, ledger):
    good = [ledger.receipt(seq) for seq in (3, 4, 5)]
    several(corpus, "several-good", good, answers=[None, None, None])
    wrong = ledger.receipt(4, kind="export")
    several(corpus, "several-second-wrong", [good[0], wrong, good[2]], "signature", answers=[None, "signature", None])
    several(corpus, "several-all-wrong", [text_of(good[0])[1:], ledger.receipt(4, key=ROOT), wrong], "json",
            answers=["json", "key_unknown", "signature"])
    several(corpus, "several-first-torn", ["{", good[1]], "json", answers=["json", None])
    several(corpus, "several-26", [ledger.receipt(seq % 13, number=seq + 1) for seq in range(13)] * 2)


def _complete(corpus, ledger):
    def of(name, numbered, failed=None, complete=True, **more):
        """numbered: (seq, number) or (seq, number, members of the receipt)."""
        bodies = [ledger.receipt(seq, number=number, **(rest[0] if rest else {})) for seq, number, *rest in numbered]
        several(corpus, f"complete-{name}", bodies, failed, ("--complete",) if complete else (), **more)

    gap, conflict = "number_gap", "number_conflict"
    of("one", [(3, 9)])
    of("in-order", [(1, 7), (2, 8), (9, 9)])
    of("in-any-order", [(9, 9), (1, 7), (2, 8)])
    of("starts-anywhere", [(5, 1000), (6, 1001)])
    of("gap", [(1, 7), (9, 9)], gap)
    of("gap-in-any-order", [(9, 9), (1, 6), (2, 7)], gap)
    of("gap-of-many", [(1, 1), (2, 2**53 - 1)], gap)
    of("gap-not-asked-for", [(1, 7), (9, 9)], complete=False)
    of("same-twice", [(1, 7), (1, 7), (2, 8)])
    of("same-re-issued", [(1, 7), (1, 7, {"issued_at": "2026-11-22T00:00:00.000000Z"})])
    of("number-of-two-seqs", [(1, 7), (2, 7)], conflict)
    of("number-of-two-seqs-not-asked-for", [(1, 7), (2, 7)], conflict, False)
    of("numbers-fall-as-seq-rises", [(1, 8), (2, 7)], conflict)
    of("numbers-fall-as-seq-rises-not-asked-for", [(1, 8), (2, 7)], conflict, False)
    of("numbers-fall-far-apart", [(5, 1), (1, 9), (7, 10)], conflict, False)
    of("seq-of-two-numbers", [(1, 7), (1, 8)], conflict, open="one seq under two numbers: numbers rise where seq does not")
    other = {"destination": "dst_other"}
    of("two-destinations", [(1, 1), (1, 2, other), (2, 2), (2, 3, other)])
    of("two-destinations-one-number", [(1, 1), (2, 1, other)])
    of("gap-in-one-destination", [(1, 1), (3, 3), (2, 2, other)], gap)
    of("gap-and-conflict", [(1, 1), (2, 5), (3, 5)], gap, open="two findings: whichever is first")
    wrong = {"kind": "export"}
    of("gap-where-a-receipt-fails", [(1, 1), (2, 2, wrong), (3, 3)], "signature", answers=[None, "signature", gap],
       open="a receipt that does not verify proves no number, so that its number is missing")
    of("conflict-by-a-receipt-that-fails", [(1, 1), (2, 1, wrong)], "signature", answers=[None, "signature"],
       open="a receipt that does not verify proves no conflict")
    mine = usual_ledger(ledger=OTHER_LEDGER)
    several(corpus, "complete-two-ledgers", [ledger.receipt(1, number=1), mine.receipt(2, number=1),
                                             ledger.receipt(2, number=2), mine.receipt(5, number=2)],
            args=("--complete",))


def _standard_input(corpus, ledger):
    body, keys = ledger.receipt(4), manifest()
    base = ("--pin", PIN, "--at", AT)
    corpus.add("stdin-body", ["receipt", "-", "--keys", ":keys.json", *base], {"body.json": body, "keys.json": keys},
               None, "included", stdin="body.json")
    corpus.add("stdin-body-wrong", ["receipt", "-", "--keys", ":keys.json", *base], {
        "body.json": ledger.receipt(4, kind="export"), "keys.json": keys}, "signature", stdin="body.json",
        also={"file": "-"})
    corpus.add("stdin-keys", ["receipt", ":body.json", "--keys", "-", *base], {"body.json": body, "keys.json": keys},
               None, "included", stdin="keys.json")
    corpus.add("stdin-body-among-files", ["receipt", ":body.json", "-", "--keys", ":keys.json", *base], {
        "body.json": body, "keys.json": keys, "second.json": ledger.receipt(5)}, None, "included", stdin="second.json",
        answers=[None, None])
    corpus.add("stdin-key-manifest", ["keys", "-", "--pin", PIN], {"keys.json": keys}, stdin="keys.json")
    corpus.add("stdin-empty", ["receipt", "-", "--keys", ":keys.json", *base], {"body.json": "", "keys.json": keys},
               "json", stdin="body.json")
    corpus.add("stdin-checkpoint", ["consistency", "-", ":newer", "--pin", PIN, "--keys", ":keys.json"], {
        "older": ledger.checkpoint(), "newer": ledger.checkpoint(), "keys.json": keys}, stdin="older")
    corpus.add("stdin-export", ["export", "-", "--pin", PIN], {"ledger.zip": ledger.zip()}, exit=USAGE, stdin="ledger.zip")
    corpus.add("stdin-export-in-consistency", ["consistency", "-", ":newer", "--pin", PIN, "--keys", ":keys.json"], {
        "ledger.zip": ledger.zip(), "newer": ledger.checkpoint(), "keys.json": keys}, exit=USAGE,
        stdin="ledger.zip", open="'not for exports': usage, or a checkpoint that does not parse")


def _unpinned(corpus, ledger):
    files = {"body.json": ledger.receipt(4), "keys.json": manifest(), "ledger.zip": ledger.zip(),
             "checkpoint": ledger.checkpoint()}
    for name, line in (("receipt", ["receipt", ":body.json", "--keys", ":keys.json"]), ("export", ["export", ":ledger.zip"]),
                       ("keys", ["keys", ":keys.json"]),
                       ("consistency", ["consistency", ":checkpoint", ":checkpoint", "--keys", ":keys.json"])):
        corpus.add(f"unpinned-{name}", line, files, "unpinned", stderr=("unpinned",), also={"ok": False})
    corpus.add("unpinned-two-bodies", ["receipt", ":body.json", ":body.json", "--keys", ":keys.json"], files, "unpinned",
               answers=["unpinned", "unpinned"])
    corpus.add("unpinned-torn-body", ["receipt", ":torn", "--keys", ":keys.json"], files | {"torn": "{"}, "unpinned",
               open="without --pin nothing is judged: `unpinned` before `json`")


def _usage(corpus, ledger):
    files = {"body.json": ledger.receipt(4), "keys.json": manifest(), "ledger.zip": ledger.zip(),
             "checkpoint": ledger.checkpoint(5)}
    receipt = ["receipt", ":body.json", "--keys", ":keys.json"]

    def of(name, line, **more):
        corpus.add(f"usage-{name}", line, files, exit=USAGE, **more)

    of("nothing", [])
    of("unknown-command", ["verify", ":body.json"])
    of("no-file", ["receipt", "--keys", ":keys.json", "--pin", PIN])
    of("no-keys", ["receipt", ":body.json", "--pin", PIN])
    of("consistency-without-keys", ["consistency", ":checkpoint", ":checkpoint", "--pin", PIN])
    of("consistency-one-file", ["consistency", ":checkpoint", "--pin", PIN, "--keys", ":keys.json"])
    of("consistency-three-files", ["consistency", ":checkpoint", ":checkpoint", ":checkpoint", "--pin", PIN, "--keys",
                                   ":keys.json"])
    of("two-exports", ["export", ":ledger.zip", ":ledger.zip", "--pin", PIN])
    of("two-key-manifests", ["keys", ":keys.json", ":keys.json", "--pin", PIN])
    of("unknown-option", [*receipt, "--pin", PIN, "--trust"])
    for name, pin in (("without-instance", ROOT.id), ("with-an-empty-instance", ROOT.id + "@"), ("without-key", "@" + INSTANCE),
                      ("empty", ""), ("key-short", f"{ROOT.id[:-2]}@{INSTANCE}"), ("key-upper-case", f"{ROOT.id.upper()}@{INSTANCE}"),
                      ("key-base64", f"{ROOT.base64}@{INSTANCE}"), ("instance-upper-case", f"{ROOT.id}@{INSTANCE.upper()}"),
                      ("instance-with-a-scheme", f"{ROOT.id}@https://{INSTANCE}"), ("white-space", f" {ROOT.id}@{INSTANCE}"),
                      ("instance-254-long", f"{ROOT.id}@{'a' * 254}")):
        of(f"pin-{name}", [*receipt, f"--pin={pin}"])
    for name, at in (("date", "2026-11-22"), ("no-fraction", "2026-11-22T12:00:00Z"), ("milliseconds", "2026-11-22T12:00:00.000Z"),
                     ("no-date", "2026-02-30T12:00:00.000000Z"), ("second-60", "2026-11-22T12:00:60.000000Z"),
                     ("now", "now"), ("empty", "")):
        of(f"at-{name}", [*receipt, "--pin", PIN, f"--at={at}"])
    for name, how in (("unknown", "proof"), ("upper-case", "FRESH"), ("empty", "")):
        of(f"as-{name}", [*receipt, "--pin", PIN, f"--as={how}"])
    of("ledger-is-no-uuid", [*receipt, "--pin", PIN, "--ledger", "mine"],
       open="--ledger takes a ledger's id, and this is none: usage, or a ledger that no receipt is of")
    of("export-with-complete", ["export", ":ledger.zip", "--pin", PIN, "--complete"])
    of("export-with-destination", ["export", ":ledger.zip", "--pin", PIN, "--destination", DESTINATION])
    of("keys-with-keys", ["keys", ":keys.json", "--pin", PIN, "--keys", ":keys.json"])
    of("keys-with-at", ["keys", ":keys.json", "--pin", PIN, "--at", AT])
    of("receipt-with-since", [*receipt, "--pin", PIN, "--since", ":keys.json"])
    of("consistency-with-policy", ["consistency", ":checkpoint", ":checkpoint", "--pin", PIN, "--keys", ":keys.json",
                                   "--policy", ":keys.json"])
    of("option-without-value", [*receipt, "--pin"])
    of("option-twice", [*receipt, "--pin", PIN, "--pin", PIN], open="an option that is there twice")
    of("standard-input-twice", ["receipt", "-", "--keys", "-", "--pin", PIN], stdin="body.json",
       open="one standard input cannot be two files")


def _files(corpus, ledger):
    files = {"body.json": ledger.receipt(4), "keys.json": manifest(), "ledger.zip": ledger.zip(), "checkpoint":
             ledger.checkpoint(5)}
    receipt = ["--keys", ":keys.json", "--pin", PIN, "--at", AT]

    def of(name, line, **more):
        corpus.add(f"file-{name}", line, files, exit=USAGE, **more)

    of("body-missing", ["receipt", ":none.json", *receipt])
    of("second-body-missing", ["receipt", ":body.json", ":none.json", *receipt])
    of("keys-missing", ["receipt", ":body.json", "--keys", ":none.json", "--pin", PIN])
    of("policy-missing", ["receipt", ":body.json", *receipt, "--policy", ":none"])
    of("export-missing", ["export", ":none.zip", "--pin", PIN])
    of("export-keys-missing", ["export", ":ledger.zip", "--pin", PIN, "--keys", ":none.json"])
    of("key-manifest-missing", ["keys", ":none.json", "--pin", PIN])
    of("since-missing", ["keys", ":keys.json", "--pin", PIN, "--since", ":none.json"])
    of("older-missing", ["consistency", ":none", ":checkpoint", "--pin", PIN, "--keys", ":keys.json"])
    of("proof-missing", ["consistency", ":checkpoint", ":checkpoint", "--pin", PIN, "--keys", ":keys.json", "--proof",
                         ":none.json"])
    of("body-is-a-directory", ["receipt", ":.", *receipt])
    of("export-is-a-directory", ["export", ":.", "--pin", PIN])
    of("keys-is-a-directory", ["receipt", ":body.json", "--keys", ":.", "--pin", PIN])


def _text(corpus, ledger):
    """Without --json: what failed is on standard error, with its file."""
    body = ledger.receipt(4)
    corpus.receipt("text-good", body, json_mode=False)
    corpus.receipt("text-signature", ledger.receipt(4, kind="export"), "signature", json_mode=False,
                   stderr=("text-signature/body.json", "signature"))
    corpus.receipt("text-json", "{", "json", json_mode=False, stderr=("text-json/body.json", "json"))
    corpus.receipt("text-revoked-and-stale", body, "key_revoked", json_mode=False, at="2027-02-01T00:00:00.000000Z",
                   keys=manifest(changed_keys(RECEIPT, revoked_at="2026-11-22T00:00:00.000000Z")),
                   stderr=("text-revoked-and-stale/body.json", "key_revoked", "stale"))
    several(corpus, "text-second-of-three", [body, ledger.receipt(5, key=ROOT), ledger.receipt(6)], "key_unknown",
            json_mode=False, stderr=("text-second-of-three/1.json", "key_unknown"))
    corpus.export("text-export", ledger.zip(), json_mode=False)
    corpus.export("text-export-line", ledger.zip(lines=ledger.lines(0, 4) + ledger.lines(5, 13)), "seq", json_mode=False,
                  stderr=("text-export-line/ledger.zip", "seq", "4"))
    corpus.manifest("text-rollback", manifest(serial=4), "rollback", since=manifest(), json_mode=False,
                    stderr=("text-rollback/keys.json", "rollback"))
    corpus.consistency("text-inconsistent", ledger.checkpoint(5), ledger.checkpoint(5, root=ledger.root(6)),
                       "inconsistent", json_mode=False, stderr=("inconsistent",))
    corpus.add("text-unpinned", ["receipt", ":body.json", "--keys", ":keys.json"], {"body.json": body, "keys.json":
               manifest()}, "unpinned", json_mode=False, stderr=("text-unpinned/body.json", "unpinned"))
