"""entries.jsonl and openings.jsonl, line by line.

Checks not_canonical, members, seq, ledger, link, time, filter (each with its
seq), count, root, openings.
"""

from . import zips
from .build import LEDGER, OTHER_LEDGER, b64, canonical, sha256, text_of, without
from .ledger import TYPES, Ledger, seal, usual_ledger

MIB = 1024 * 1024


def add_to(corpus):
    ledger = usual_ledger()
    _bytes(corpus, ledger)
    _canonical(corpus, ledger)
    _members(corpus, ledger)
    _order(corpus, ledger)
    _time(corpus)
    _filter(corpus, ledger)
    _sizes(corpus)
    _openings(corpus, ledger)


def _bytes(corpus, ledger):
    """A byte of a line changed, and the checksum set right again."""
    def of(name, failed, seq, at, change, kept=None):
        lines = ledger.lines(0, 13, kept)
        lines[seq] = change(lines[seq])
        corpus.export(f"line-byte-{name}", ledger.zip(kept=kept, lines=lines, openings=False), failed, also={"seq": at})

    def swap(old, new):
        def change(line):
            assert line.count(old) == 1 and len(old) == len(new), (line, old)
            return line.replace(old, new)
        return change

    of("data", "link", 6, 7, swap(b'"n":6', b'"n":5'))
    of("data-of-the-first", "link", 0, 1, swap(b'"n":0', b'"n":5'))
    of("text", "link", 6, 7, swap("Z\u00fcrich".encode(), "Z\u00f6rich".encode()))
    of("prev", "link", 6, 6, lambda line: line.replace(ledger.leaves[5].hex().encode(), b"ab" * 32))
    of("prev-of-the-first", "link", 0, 0, swap(b'"prev":"0', b'"prev":"1'))
    of("seq", "seq", 6, 6, swap(b'"seq":6', b'"seq":7'))
    of("ledger", "ledger", 6, 6, swap(LEDGER.encode(), OTHER_LEDGER.encode()))
    of("timestamp-later-than-the-next", "link", 6, 7, swap(b"T00:06:00", b"T00:07:01"))
    of("timestamp-earlier", "time", 6, 6, swap(b"T00:06:00", b"T00:04:59"))
    of("nonce", "link", 6, 7, lambda line: line.replace(b'"nonce":"' + ledger.entries[6]["nonce"][:1].encode(),
                                                        b'"nonce":"/'))
    of("type", "link", 6, 7, swap(b'"type":"store.', b'"type":"stare.'))
    of("type-out-of-the-filter", "filter", 6, 6, swap(b'"type":"store.', b'"type":"stare.'), list(TYPES))
    of("sealed-hash", "link", 7, 8, lambda line: line.replace(b'"ip":"' + ledger.entries[7]["data"]["sealed"]["ip"][
        :2].encode(), b'"ip":"' + (b"00" if ledger.entries[7]["data"]["sealed"]["ip"][:2] != "00" else b"11")))
    of("v", "members", 6, 6, lambda line: line[:-2] + b"2}")
    of("member-name", "members", 6, 6, swap(b'"nonce":', b'"nonca":'))
    of("left-out-leaf", "link", 5, 6, lambda line: line.replace(ledger.leaves[5].hex().encode(), b"ab" * 32),
       [TYPES[0]])
    of("left-out-seq", "seq", 5, 5, swap(b'"seq":5', b'"seq":4'), [TYPES[0]])
    # Nothing follows the last line, so that its change shows in the root alone.
    lines = ledger.lines(0, 13)
    lines[12] = lines[12].replace(b'"n":12', b'"n":13')
    corpus.export("line-byte-data-of-the-last", ledger.zip(lines=lines), "root")
    lines = ledger.lines(0, 11, [TYPES[0]])
    lines[10] = canonical({"leaf": "ab" * 32, "seq": 10})
    corpus.export("line-byte-leaf-of-the-last", ledger.zip(0, 11, [TYPES[0]], lines=lines), "root")
    lines = ledger.lines(0, 11, [TYPES[0]])
    lines[7] = canonical({"leaf": "ab" * 32, "seq": 7})
    corpus.export("line-byte-leaf-between-two-left-out", ledger.zip(0, 11, [TYPES[0]], lines=lines), "root")


def with_line(ledger, seq, line, **more):
    lines = ledger.lines(0, 13, more.get("kept"))
    lines[seq] = line
    return ledger.zip(lines=lines, openings=False, **more)


def _canonical(corpus, ledger):
    line = ledger.lines(0, 13)[6]
    reordered = text_of(without(ledger.entries[6], "v"))[:-1].replace("{", '{"v":1,', 1) + "}"
    for name, changed in (("space", line.replace(b",", b", ", 1)), ("space-after", line + b" "),
                          ("carriage-return", line + b"\r"), ("tab-before", b"\t" + line),
                          ("members-reordered", reordered.encode()),
                          ("escaped-letter", line.replace(b'"type":"store', b'"type":"\\u0073tore')),
                          ("escaped-non-ascii", line.replace("\u00fc".encode(), b"\\u00fc")),
                          ("escaped-solidus", line.replace("\u2013".encode(), b"\\/")),
                          ("exponent", line.replace(b'"n":6', b'"n":6e0')),
                          ("fraction", line.replace(b'"n":6', b'"n":6.0')),
                          ("minus-zero", line.replace(b'"n":6', b'"n":-0')),
                          ("2-53", line.replace(b'"n":6', b'"n":9007199254740992')),
                          ("duplicate", line.replace(b'"n":6', b'"n":6,"n":6')),
                          ("duplicate-escaped", line.replace(b'"n":6', b'"\\u006e":6,"n":6')),
                          ("lone-surrogate", line.replace("\u00fc".encode(), b"\\ud83d")),
                          ("not-utf-8", line.replace("\u00fc".encode(), b"\xfc")), ("empty", b""), ("not-json", b"x"),
                          ("byte-order-mark", b"\xef\xbb\xbf" + line), ("two-documents", line + b"{}"),
                          ("nul-after", line + b"\0"), ("cut-short", line[:-1]),
                          ("10000-levels", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
                          ("33-levels", line.replace(b'"n":6', b'"n":' + b"[" * 31 + b"]" * 31))):
        corpus.export(f"line-{name}", with_line(ledger, 6, changed), "not_canonical", also={"seq": 6})
    # A raw U+007F and U+2028 stand as they are; a control character in lower-case hex.
    one = Ledger().add("x", {"t": "\x7f\u2028\x1f\x0b\b\f", "n": {str(n): n for n in range(12)}})
    corpus.export("line-canonical-escapes", one.zip())
    one = Ledger().add("x", {"\ufb33": 1, "\U0001f600": 2})
    corpus.export("line-utf-16-member-order", one.zip())
    wrong = canonical(one.entries[0]).replace('{"\U0001f600":2,"\ufb33":1}'.encode(), '{"\ufb33":1,"\U0001f600":2}'.encode())
    one.leaves[0] = sha256(b"\x00", wrong)
    corpus.export("line-code-point-member-order", one.zip(lines=[wrong]), "not_canonical", also={"seq": 0})
    one = Ledger().add("x", {"t": "\x1f"})
    wrong = canonical(one.entries[0]).replace(b"\\u001f", b"\\u001F")
    one.leaves[0] = sha256(b"\x00", wrong)
    corpus.export("line-upper-case-escape", one.zip(lines=[wrong]), "not_canonical", also={"seq": 0})
    for depth, failed in ((30, None), (31, "not_canonical")):
        value = 1
        for _ in range(depth):
            value = [value]
        corpus.export(f"line-levels-{depth + 2}", Ledger().add("x", {"d": value}).zip(), failed)
    contents = ledger.export()
    contents["entries.jsonl"] = contents["entries.jsonl"][:-1]
    corpus.export("line-last-without-line-feed", zips.write(contents), "not_canonical",
                  open="'LF after each': `not_canonical`, as the line is none; `count` or `root` if it is not read")
    contents = ledger.export()
    contents["entries.jsonl"] += b"\n"
    corpus.export("line-empty-at-the-end", zips.write(contents), "not_canonical", also={"seq": 13})
    contents["entries.jsonl"] = contents["entries.jsonl"][:-1].replace(b"\n", b"\r\n")
    corpus.export("line-crlf", zips.write(contents), "not_canonical", also={"seq": 0})


def _members(corpus, ledger):
    entry = ledger.entries[6]

    def of(name, value, failed="members", **more):
        corpus.export(f"line-members-{name}", with_line(ledger, 6, canonical(value), **more), failed, also={"seq": 6})

    for name in entry:
        of(f"without-{name}", without(entry, name))
    of("unknown", entry | {"x": 1})
    of("receipt", entry | {"receipt": {}})
    of("openings", entry | {"openings": {}})
    of("list", [entry])
    of("scalar", 6)
    of("v-2", entry | {"v": 2})
    of("timestamp", entry | {"timestamp": "2026-11-20T00:06:00Z"})
    of("nonce", entry | {"nonce": b64(bytes(15))})
    of("type", entry | {"type": "Store"})
    of("sealed", entry | {"data": {"sealed": {"A": "0" * 64}}})
    of("seq-negative", entry | {"seq": -6})
    of("prev-upper-case", entry | {"prev": entry["prev"].upper()})
    leaf = ledger.leaves[5].hex()
    for name, value in (("left-out-unknown", {"leaf": leaf, "seq": 5, "type": "x"}), ("left-out-no-seq", {"leaf": leaf}),
                        ("left-out-upper-case", {"leaf": leaf.upper(), "seq": 5}), ("left-out-short", {"leaf": "ab", "seq": 5}),
                        ("left-out-seq-text", {"leaf": leaf, "seq": "5"}), ("left-out-null", None)):
        corpus.export(f"line-members-{name}", with_line(ledger, 5, canonical(value), kept=[TYPES[0]]), "members",
                      also={"seq": 5})


def _order(corpus, ledger):
    good = ledger.lines(0, 13)

    def of(name, lines, failed, seq=None, start=0, end=13, open=None, **more):
        corpus.export(f"lines-{name}", ledger.zip(start, end, lines=lines, openings=False, **more), failed,
                      also={} if seq is None else {"seq": seq}, open=open)

    of("swapped", good[:4] + [good[5], good[4]] + good[6:], "seq", 4)
    of("reversed", good[::-1], "seq", 0)
    of("one-missing", good[:4] + good[5:], "seq", 4)
    of("first-missing", good[1:], "seq", 0)
    of("last-missing", good[:-1], "count")
    why = "fewer lines than seqs, with a count that is right for the lines: `root`, or a rule of `count`"
    of("last-missing-and-counted", good[:-1], "root", count=12, open=why)
    of("none", [], "count")
    of("none-and-counted", [], "root", count=0, open=why)
    of("one-twice", good[:5] + good[4:], "seq", 5)
    of("last-twice", good + good[-1:], "seq", 13)
    why = "a line whose seq is `to`: `seq`, as the export covers none such, or `count` once all are read"
    of("one-more", good[:12], "seq", 11, end=11, open=why)
    of("one-more-and-counted", good[:12], "seq", 11, end=11, count=12, open=why)
    of("more-before-from", good[2:], "seq", 3, start=3)
    inserted = ledger.entries[4] | {"data": {"n": 99}}
    of("inserted", good[:5] + [canonical(inserted)] + good[5:], "seq", 5)
    of("replaced-and-linked", good[:12] + [canonical(ledger.entries[12] | {"data": {}})], "root")


def _time(corpus):
    def ledger_of(*times, kept=None):
        out = Ledger()
        for position, time in enumerate(times):
            out.add("xyz"[position], {}, timestamp=time)
        return out

    at = "2026-11-20T00:00:00.{:06}Z".format
    corpus.export("time-equal", ledger_of(at(5), at(5), at(5)).zip())
    corpus.export("time-falls-by-a-microsecond", ledger_of(at(5), at(4)).zip(), "time", also={"seq": 1})
    corpus.export("time-falls-over-a-year", ledger_of("2027-01-01T00:00:00.000000Z", at(4)).zip(), "time", also={"seq": 1})
    three = ledger_of(at(5), at(9), at(4))
    why = "the entry before is withheld, but no later one may be earlier than one before that"
    corpus.export("time-falls-behind-a-withheld-one", three.zip(kept=["x", "z"]), "time", open=why, also={"seq": 2})
    corpus.export("time-falls-to-a-withheld-one", ledger_of(at(5), at(4), at(5)).zip(kept=["x", "z"]))
    corpus.export("time-in-the-future", ledger_of("2099-01-01T00:00:00.000000Z").zip())


def _filter(corpus, ledger):
    kept = [TYPES[0]]
    lines = ledger.lines(0, 13, kept)
    lines[4] = canonical(ledger.entries[4])
    corpus.export("filter-entry-of-another-type", ledger.zip(kept=kept, lines=lines, count=6), "filter", also={"seq": 4})
    lines = ledger.lines(0, 13)
    lines[4] = canonical({"leaf": ledger.leaves[4].hex(), "seq": 4})
    corpus.export("filter-left-out-though-none-is", ledger.zip(lines=lines, count=12, openings=False), "filter",
                  also={"seq": 4})
    corpus.export("filter-prefix-of-a-type", ledger.zip(kept=["store.version"], lines=ledger.lines(0, 13, kept), count=5),
                  "filter", also={"seq": 0})
    corpus.export("filter-with-a-type-twice", ledger.zip(kept=[TYPES[0], TYPES[0]]),
                  open="a list of types: nothing says that none is there twice")
    corpus.export("filter-with-what-is-no-type", ledger.zip(kept=[TYPES[0], "Not A Type"]), "members",
                  open="a list of types, and this is none")


def _sizes(corpus):
    empty = len(canonical(Ledger().add("x", {"p": ""}).entries[0]))

    def of(size):
        return Ledger().add("x", {"p": "p" * (size - empty)})

    corpus.export("line-of-65535", of(65_535).zip())
    corpus.export("line-of-65536", of(65_536).zip(), "not_canonical",
                  open="too long a line is rejected before it is judged: `not_canonical` rather than `members`")
    corpus.export("line-of-65536-stored", zips.write(of(65_536).export(), method=0),
                  "not_canonical", open="too long a line is rejected before it is judged")
    corpus.export("line-of-64-mib", zips.write(Ledger().add("x", {}).export() | {"entries.jsonl": b"x" * (64 * MIB)}),
                  "not_canonical", open="too long a line is rejected before it is judged")
    corpus.export("line-feeds-64-mib", zips.write(Ledger().add("x", {}).export() | {"entries.jsonl": b"\n" * (64 * MIB)}),
                  "not_canonical", also={"seq": 0})


def _openings(corpus, ledger):
    good = ledger.opening_lines(0, 13)

    def of(name, lines, failed="openings", start=0, end=13, kept=None, **more):
        corpus.export(f"openings-{name}", ledger.zip(start, end, kept, openings=lines), failed, **more)

    def opening(at, called, **members):
        return {"name": called, "seq": at, **ledger.openings[at][called]} | members

    of("as-they-are", good, None)
    of("some-dropped", good[1:3] + good[4:], None)
    of("one", good[5:6], None)
    of("of-a-range", ledger.opening_lines(3, 9), None, 3, 9)
    of("of-a-filtered-export", ledger.opening_lines(0, 13, [TYPES[1]]), None, kept=[TYPES[1]])
    of("names-out-of-order", [good[1], good[0]] + good[2:])
    of("seqs-out-of-order", good[2:4] + good[:2] + good[4:])
    of("twice", good[:1] + good)
    of("twice-at-the-end", good + good[-1:])
    of("other-value", [canonical(opening(1, "ip", value=1))])
    of("other-salt", [canonical(opening(1, "ip", salt=b64(bytes(32))))])
    of("of-another-entry", [canonical(opening(1, "ip", seq=4))])
    of("of-another-name", [canonical(opening(1, "ip", name="actor_email"))])
    of("of-a-name-not-sealed", [canonical(opening(1, "ip", name="nobody"))])
    of("of-an-entry-that-seals-nothing", [canonical(opening(1, "ip", seq=2))])
    of("of-a-seq-behind-the-end", good + [canonical(opening(1, "ip", seq=13))])
    of("of-a-seq-before-from", good[:2] + ledger.opening_lines(3, 13), start=3)
    of("of-a-left-out-seq", good, kept=[TYPES[0]])
    of("of-one-left-out-seq", ledger.opening_lines(0, 13, [TYPES[1]])[:1], kept=[TYPES[0]])
    for name, members in (("salt-short", {"salt": b64(bytes(31))}), ("salt-not-padded", {"salt": b64(bytes(32)).rstrip("=")}),
                          ("unknown-member", {"x": 1}), ("seq-text", {"seq": "1"}), ("name-null", {"name": None})):
        of(name, [canonical(opening(1, "ip", **members))])
    for name in ("name", "salt", "seq", "value"):
        of(f"without-{name}", [canonical(without(opening(1, "ip"), name))])
    line = good[1]
    for name, changed in (("exponent", line.replace(b",1]", b",1e0]")), ("duplicate", line.replace(b'"seq":1', b'"seq":1,"seq":1')),
                          ("lone-surrogate", line.replace(b"192.", b"\\ud83d")), ("not-json", b"x"), ("empty-line", b""),
                          ("trailing", line + b"x"), ("list", b"[" + line + b"]"), ("10000-levels", b"[" * 10_000)):
        of(name, [good[0], changed])
    spaced = line.replace(b",", b" , ")
    of("not-canonical", [good[0], spaced], None, open="only entries.jsonl is said to be canonical")
    contents = ledger.export()
    contents["openings.jsonl"] = contents["openings.jsonl"][:-1]
    corpus.export("openings-last-without-line-feed", zips.write(contents), "openings",
                  open="LF after each line is said of entries.jsonl alone")
    for depth, failed in ((24, None), (25, "openings")):
        value = 1
        for _ in range(depth):
            value = [value]
        corpus.export(f"openings-{depth}-levels", Ledger().add("x", {}, {"v": value}).zip(), failed)

    def sized(size):
        salt = bytes(32)
        fixed = len(canonical({"name": "v", "salt": b64(salt), "seq": 0, "value": ""}))
        value = "x" * (size - fixed)
        one = Ledger().add("x", {"sealed": {"v": seal(salt, value)}})
        return zips.write(one.export(openings=[canonical({"name": "v", "salt": b64(salt), "seq": 0, "value": value})]))

    corpus.export("openings-of-8-mib", sized(8 * MIB))
    corpus.export("openings-of-8-mib-and-1", sized(8 * MIB + 1), "openings")
