"""The ground rules' JSON: what is rejected, never repaired, and the limits.

Where a lenient reader would see the same document (`1e2` for 100, the first or
the last of two members) that document is signed and in the tree, so that only
the rule itself stands between it and a wrong `included`.
"""

import hashlib
import json

from .build import b64, canonical, manifest, text_of
from .ledger import Ledger, seal, usual_ledger

MIB = 1024 * 1024


def add_to(corpus):
    _numbers(corpus)
    _duplicates(corpus)
    _text(corpus)
    _levels(corpus)
    _sizes(corpus)
    _syntax(corpus)
    _manifests(corpus)


def _numbers(corpus):
    def number(name, written, meant, failed="json"):
        one = Ledger().add("x", {"n": meant})
        text = text_of(one.receipt(0))
        assert text.count(f'{{"n":{meant}}}') == 1
        corpus.receipt(f"json-number-{name}", text.replace(f'{{"n":{meant}}}', f'{{"n":{written}}}'), failed)

    number("2-53", "9007199254740992", 2**53)
    number("2-53-plus-1", "9007199254740993", 2**53 + 1)
    number("2-53-plus-1-rounded", "9007199254740993", 2**53)
    number("minus-2-53", "-9007199254740992", -(2**53))
    number("2-53-minus-1", "9007199254740991", 2**53 - 1, None)
    number("minus-2-53-plus-1", "-9007199254740991", 1 - 2**53, None)
    number("2-63", "9223372036854775808", 2**63)
    number("2-64-wraps-to-5", "18446744073709551621", 5)
    number("exponent", "1e2", 100)
    number("exponent-upper-case", "1E2", 100)
    number("exponent-plus", "1e+2", 100)
    number("exponent-zero", "1e0", 1)
    number("exponent-negative", "100e-2", 1)
    number("exponent-huge", "1e999999999", 1)
    number("fraction-zero", "1.0", 1)
    number("fraction", "1.5", 1)
    number("zero-fraction", "0.0", 0)
    number("minus-zero", "-0", 0)
    number("minus-zero-fraction", "-0.0", 0)
    number("minus-zero-exponent", "-0e0", 0)
    number("leading-zero", "01", 1)
    number("leading-zeros-negative", "-01", -1)
    number("plus", "+1", 1)
    number("dot-first", ".5", 0)
    number("dot-last", "1.", 1)
    number("hexadecimal", "0x1", 1)
    number("separator", "1_0", 10)
    number("minus-alone", "-", 0)
    number("nan", "NaN", 0)
    number("infinity", "Infinity", 0)
    number("arabic-digit", "\u0661", 1)
    number("60000-digits", "1" + "0" * 60_000, 1)
    one = Ledger().add("x", {})
    corpus.receipt("json-number-seq-minus-zero", text_of(one.receipt(0)).replace('"seq":0', '"seq":-0'), "json")
    corpus.receipt("json-number-seq-fraction", text_of(one.receipt(0)).replace('"seq":0', '"seq":0.0'), "json")
    corpus.receipt("json-number-v-fraction", text_of(one.receipt(0))[:-1].removesuffix("1") + "1.0}", "json")
    corpus.receipt("json-number-in-an-opening", text_of(Ledger().add("x", {}, {"n": {"deep": [100]}}).receipt(0))
                   .replace('{"deep":[100]}', '{"deep":[1e2]}'), "json")


def _duplicates(corpus):
    body = usual_ledger().receipt(1)
    good = text_of(body)

    def replaced(name, old, new):
        assert good.count(old) == 1, name
        corpus.receipt(f"json-duplicate-{name}", good.replace(old, new), "json")

    replaced("top-level-first", '{"data":', '{"seq":9,"data":')
    replaced("top-level-last", ',"timestamp":', ',"seq":1,"timestamp":')
    replaced("data-wrong-one-first", '{"n":1,', '{"n":9,"n":1,')
    replaced("data-wrong-one-last", '{"n":1,', '{"n":1,"n":9,')
    replaced("data-same-value", '{"n":1,', '{"n":1,"n":1,')
    replaced("escaped", '{"n":1,', '{"n":1,"\\u006e":9,')
    replaced("escaped-both", '{"n":1,', '{"\\u006e":1,"\\u006E":9,')
    replaced("sealed", '"sealed":{', '"sealed":{"ip":"' + "0" * 64 + '",')
    replaced("openings", '"openings":{', '"openings":{"ip":{"salt":"","value":1},')
    replaced("opening-value", '"value":["192.0.2.7",1]', '"value":1,"value":["192.0.2.7",1]')
    replaced("receipt-member", '"destination":', '"destination":"dst_evil","destination":')
    replaced("receipt-twice", ',"receipt":{', ',"receipt":{},"receipt":{')
    one = Ledger().add("x", {"\u00fc/\U0001f680": 1})
    text = text_of(one.receipt(0))
    corpus.receipt("json-duplicate-escaped-pair", text.replace(
        '{"\u00fc/\U0001f680":1}', '{"\u00fc/\U0001f680":1,"\\u00FC\\/\\uD83D\\uDE80":1}'), "json")
    deep = {"a": [{"b": {"c": 1}}]}
    text = text_of(Ledger().add("x", deep).receipt(0))
    corpus.receipt("json-duplicate-deep-in-a-list", text.replace('{"c":1}', '{"c":2,"c":1}'), "json")
    text = text_of(Ledger().add("x", {}, {"v": {"a": [{"k": 1}]}}).receipt(0))
    corpus.receipt("json-duplicate-deep-in-an-opening", text.replace('{"k":1}', '{"k":1,"\\u006b":1}'), "json")
    text = text_of(Ledger().add("x", {"": 1}).receipt(0))
    corpus.receipt("json-duplicate-empty-name", text.replace('{"":1}', '{"":1,"":1}'), "json")
    many = {f"m{n}": n for n in range(3000)}
    text = text_of(Ledger().add("x", many).receipt(0))
    corpus.receipt("json-duplicate-among-3000", text.replace('"m2999":2999', '"m2999":2999,"m0":0'), "json")
    corpus.receipt("json-no-duplicate-by-case-or-form",
                   Ledger().add("x", {"a": 1, "A": 2, "\u00e9": 3, "e\u0301": 4, "a ": 5, "a\u0000": 6}).receipt(0))


def _text(corpus):
    good = text_of(Ledger().add("x", {"t": "?"}).receipt(0))

    def text(name, raw, failed="json"):
        raw = raw if isinstance(raw, bytes) else raw.encode()
        assert good.count('"t":"?"') == 1
        corpus.receipt(f"json-text-{name}", good.encode().replace(b'"t":"?"', b'"t":"' + raw + b'"'), failed)

    for name, raw in (("lone-high", "\\ud800"), ("lone-low", "\\udc00"), ("high-high", "\\ud83d\\ud83d"),
                      ("low-high", "\\ude80\\ud83d"), ("high-then-text", "\\ud83dx\\ude80"),
                      ("high-then-escape", "\\ud83d\\n"), ("high-at-the-end", "x\\uD83D"),
                      ("high-then-literal", "\\ud83d\U0001f680")):
        text(f"surrogate-{name}", raw)
    corpus.receipt("json-text-surrogate-in-a-name", good.replace('"t":"?"', '"\\udead":"?"'), "json")
    for name, raw in (("surrogate-in-utf-8", b"\xed\xa0\xbd"), ("surrogate-pair-in-utf-8", b"\xed\xa0\xbd\xed\xba\x80"),
                      ("overlong-slash", b"\xc0\xaf"), ("overlong-nul", b"\xc0\x80"), ("overlong-3", b"\xe0\x80\xaf"),
                      ("above-10ffff", b"\xf4\x90\x80\x80"), ("five-bytes", b"\xf8\x88\x80\x80\x80"),
                      ("continuation-alone", b"\x80"), ("cut-short", b"\xe2\x82"), ("latin-1", b"\xfc"),
                      ("ff", b"\xff"), ("raw-nul", b"\x00"), ("raw-tab", b"\t"), ("raw-line-feed", b"\n"),
                      ("raw-1f", b"\x1f"), ("bad-escape", b"\\x41"), ("escape-of-an-apostrophe", b"\\'"),
                      ("short-unicode-escape", b"\\u12"), ("unicode-escape-with-a-sign", b"\\u+123"),
                      ("unicode-escape-in-braces", b"\\u{41}"), ("upper-case-u", b"\\U00000041")):
        text(name, raw)
    for name, raw in (("escaped-nul", "\\u0000"), ("byte-order-mark-inside", "\ufeff")):
        value = {"\\u0000": "\0"}.get(raw, raw)
        one = text_of(Ledger().add("x", {"t": value}).receipt(0))
        corpus.receipt(f"json-text-{name}", one)
    corpus.receipt("json-byte-order-mark", b"\xef\xbb\xbf" + good.encode(), "json")
    corpus.receipt("json-byte-order-mark-at-the-end", good.encode() + b"\xef\xbb\xbf", "json")
    corpus.receipt("json-utf-16", good.encode("utf-16"), "json")
    corpus.receipt("json-utf-16-be", good.encode("utf-16-be"), "json")


def _nested(depth, inner="1", form="["):
    """`depth` levels of lists (or objects) around a scalar."""
    return "[" * depth + inner + "]" * depth if form == "[" else '{"a":' * depth + inner + "}" * depth


def _levels(corpus):
    def nested(name, depth, form, failed):
        # The body is level 1 and data level 2.
        text = text_of(Ledger().add("x", {"d": json.loads(_nested(depth, form=form))}).receipt(0))
        corpus.receipt(f"json-{name}", text, failed)

    nested("32-levels-of-lists", 30, "[", None)
    nested("33-levels-of-lists", 31, "[", "json")
    nested("32-levels-of-objects", 30, "{", None)
    nested("33-levels-of-objects", 31, "{", "json")
    text = text_of(Ledger().add("x", {"d": 0}).receipt(0))
    # The innermost empty list is a level too.
    corpus.receipt("json-33-levels-the-last-empty", text.replace('{"d":0}', '{"d":' + _nested(30, "[]") + "}"), "json")
    for name, opening in (("lists", "["), ("objects", '{"a":')):
        corpus.receipt(f"json-10000-levels-of-{name}", text.replace('{"d":0}', '{"d":' + opening * 10_000), "json")
    corpus.receipt("json-10000-levels-closed", text.replace('{"d":0}', '{"d":' + _nested(10_000) + "}"), "json")
    corpus.receipt("json-2000000-levels", "[" * 2_000_000, "json")
    corpus.receipt("json-10000-levels-in-an-opening", text_of(Ledger().add("x", {}, {"v": 1}).receipt(0))
                   .replace('"value":1', '"value":' + _nested(10_000)), "json")

    def sealed(name, depth, form, failed, **more):
        value = json.loads(_nested(depth, form=form))
        corpus.receipt(f"json-sealed-{name}", Ledger().add("x", {}, {"v": value}).receipt(0), failed, **more)

    sealed("24-levels-of-lists", 24, "[", None)
    sealed("24-levels-of-objects", 24, "{", None)
    why = "a sealed value of 25 levels in a body of 28: `json` by the sentence's place, or `openings`, or `members`"
    sealed("25-levels-of-lists", 25, "[", "json", open=why)
    sealed("25-levels-of-objects", 25, "{", "json", open=why)


def _sizes(corpus):
    def entry_of(size):
        """A ledger with one entry of just this many canonical bytes."""
        empty = len(canonical(Ledger().add("x", {"p": ""}).entries[0]))
        one = Ledger().add("x", {"p": "p" * (size - empty)})
        assert len(canonical(one.entries[0])) == size
        return one

    corpus.receipt("size-entry-65535", entry_of(65_535).receipt(0))
    why = "an entry inside a body has no input bytes of its own: `json` as for the other sizes, or `members`"
    corpus.receipt("size-entry-65536", entry_of(65_536).receipt(0), "json", open=why)
    corpus.receipt("size-entry-1-mib", entry_of(MIB).receipt(0), "json", open=why)
    # Written with escapes it takes more input than its canonical form has.
    text = text_of(entry_of(65_535).receipt(0)).replace("pppp", "\\u0070p\\u0070p")
    corpus.receipt("size-entry-65535-written-longer", text,
                   open="an entry's size is that of its canonical bytes, which a body need not be written in")

    small = text_of(usual_ledger().receipt(1))
    pad = 8 * MIB - len(small.encode())
    corpus.receipt("size-body-8-mib", small + " " * pad)
    corpus.receipt("size-body-8-mib-and-1", small + " " * (pad + 1), "json")
    corpus.receipt("size-body-8-mib-and-1-before", " " * (pad + 1) + small, "json")
    salt = hashlib.sha256(b"salt").digest()

    def opening_of(size, fill):
        """A body of at most `size` bytes whose opening is as long as it can be."""
        def body(value):
            one = Ledger().add("x", {"sealed": {"v": seal(salt, value)}})
            return canonical(one.receipt(0, openings={"v": {"salt": b64(salt), "value": value}}))
        return body(fill(size - len(body(fill(0)))))

    corpus.receipt("size-opening-of-8-mib-text", opening_of(8 * MIB, lambda n: "x" * n))
    corpus.receipt("size-opening-of-8-mib-lists", opening_of(8 * MIB - 8, lambda n: [[] for _ in range(n // 3)]))
    corpus.receipt("size-opening-of-8-mib-objects", opening_of(8 * MIB - 8, lambda n: [{} for _ in range(n // 3)]))
    corpus.receipt("size-opening-of-8-mib-members", opening_of(
        8 * MIB - 20, lambda n: {f"{i:06x}": 0 for i in range(n // 11)}))
    corpus.receipt("size-opening-of-8-mib-integers", opening_of(8 * MIB - 8, lambda n: [7] * (n // 2)))
    corpus.receipt("size-empty-file", "", "json")
    corpus.receipt("size-32-mib-of-zeros", bytes(32 * MIB), "json")
    corpus.receipt("size-32-mib-of-white-space", " " * (32 * MIB), "json")


def _syntax(corpus):
    good = text_of(Ledger().add("x", {"a": [1, 2], "b": True}).receipt(0))
    for name, text in (("letter", good + "x"), ("second-document", good + "{}"), ("same-document-twice", good + good),
                       ("comma", good + ","), ("brace", good + "}"), ("nul", good + "\0"), ("comment", good + " // x"),
                       ("no-break-space", good + "\u00a0"), ("form-feed", good + "\f"), ("vertical-tab", "\v" + good)):
        corpus.receipt(f"json-trailing-{name}", text, "json")
    for name, old, new in (("comma-after-the-last-item", "[1,2]", "[1,2,]"), ("comma-first", "[1,2]", "[,1,2]"),
                           ("two-commas", "[1,2]", "[1,,2]"), ("no-comma", "[1,2]", "[1 2]"),
                           ("comma-after-the-last-member", '"b":true}', '"b":true,}'), ("no-colon", '"b":true', '"b" true'),
                           ("colon-twice", '"b":true', '"b"::true'), ("true-in-upper-case", '"b":true', '"b":True'),
                           ("word-cut-short", '"b":true', '"b":tru'), ("name-without-quotes", '"b":true', 'b:true'),
                           ("apostrophes", '"b":true', "'b':true"), ("comment", '"b":true', '/**/"b":true'),
                           ("bracket-for-brace", '"b":true}', '"b":true]'), ("undefined", '"b":true', '"b":undefined'),
                           ("name-is-a-number", '"b":true', '1:true')):
        assert good.count(old) == 1
        corpus.receipt(f"json-syntax-{name}", good.replace(old, new), "json")
    corpus.receipt("json-cut-short", good[:-1], "json")
    corpus.receipt("json-cut-in-a-text", good[:good.index("tlog-proof")], "json")
    corpus.receipt("json-white-space-alone", " \n", "json")


def _manifests(corpus):
    """The same rules hold for a key manifest, as `manifest`."""
    good = text_of(manifest())
    corpus.manifest("json-manifest-serial-exponent", good.replace('"serial":5', '"serial":5e0'), "manifest")
    corpus.manifest("json-manifest-serial-fraction", good.replace('"serial":5', '"serial":5.0'), "manifest")
    corpus.manifest("json-manifest-duplicate", good.replace('"serial":5', '"serial":6,"serial":5'), "manifest")
    corpus.manifest("json-manifest-duplicate-in-a-key", good.replace('"purpose":"root"', '"purpose":"root","purpose":"root"'),
                    "manifest")
    corpus.manifest("json-manifest-duplicate-escaped", good.replace('"serial":5', '"serial":5,"seri\\u0061l":6'), "manifest")
    corpus.manifest("json-manifest-byte-order-mark", "\ufeff" + good, "manifest")
    corpus.manifest("json-manifest-trailing", good + "{}", "manifest")
    corpus.manifest("json-manifest-10000-levels", "[" * 10_000, "manifest")
    corpus.manifest("json-manifest-empty", "", "manifest")
    pad = MIB - len(good.encode())
    corpus.manifest("json-manifest-1-mib", good + " " * pad)
    corpus.manifest("json-manifest-1-mib-and-1", good + " " * (pad + 1), "manifest")
    corpus.manifest("json-manifest-re-serialised", json.dumps(json.loads(good), indent=1, sort_keys=False))
