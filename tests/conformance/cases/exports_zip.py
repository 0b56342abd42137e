"""The zip itself: "exactly, in this order", and every way not to be. All `zip`."""

import struct
import zlib

from . import zips
from .ledger import usual_ledger
from .zips import Member, members_of, write

MIB = 1024 * 1024
NAMES = ("entries.jsonl", "openings.jsonl", "checkpoint", "keys.json", "manifest.json")


def add_to(corpus):
    contents = usual_ledger().export()
    assert tuple(contents) == NAMES
    _allowed(corpus, contents)
    _members(corpus, contents)
    _names(corpus, contents)
    _headers(corpus, contents)
    _bytes_around(corpus, contents)
    _data(corpus, contents)
    _descriptors_and_zip64(corpus, contents)
    _bombs(corpus, contents)


def one_changed(contents, name, **options):
    """All members as they are, but one with these options."""
    return [Member(n, data, **(options if n == name else {})) for n, data in contents.items()]


def _allowed(corpus, contents):
    def good(name, archive, **more):
        corpus.export(f"zip-{name}", archive, **more)

    good("deflated", write(contents))
    good("stored", write(contents, method=0))
    good("mixed", write([Member(n, d, method=8 * (i % 2)) for i, (n, d) in enumerate(contents.items())]))
    for form in ("signed", "plain"):
        good(f"data-descriptors-{form}", write(contents, descriptor=form))
        good(f"data-descriptors-{form}-stored", write(contents, descriptor=form, method=0))
    good("zip64-members", write(contents, zip64=True))
    good("zip64-end", write(contents, zip64_end=True))
    good("zip64-throughout", write(contents, zip64=True, zip64_end=True))
    good("zip64-with-data-descriptors", write(contents, zip64=True, descriptor="signed64", zip64_end=True))
    good("zip64-with-plain-data-descriptors", write(contents, zip64=True, descriptor="plain64"))
    good("data-descriptors-and-sizes-in-the-header", write([Member(
        n, d, descriptor="signed", local={"crc": zlib.crc32(d)}) for n, d in contents.items()]))
    good("utf-8-flag", write(contents, flags=0x0800))
    good("deflate-effort-flags", write(contents, flags=0x0006))
    good("deflate-of-stored-blocks", write([Member(n, d, packed=zips.deflate(d, 0)) for n, d in contents.items()]))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)
    fixed = packer.compress(contents["entries.jsonl"]) + packer.flush()
    good("deflate-fixed-tables", write(one_changed(contents, "entries.jsonl", packed=fixed)))
    pieces = zlib.compressobj(1, zlib.DEFLATED, -15)
    flushed = b"".join(pieces.compress(bytes([b])) + pieces.flush(zlib.Z_FULL_FLUSH)
                       for b in contents["checkpoint"]) + pieces.flush()
    good("deflate-flushed-after-each-byte", write(one_changed(contents, "checkpoint", packed=flushed)))
    good("unix-attributes", write(contents, central={"attributes": 0o100644 << 16}))
    extra = struct.pack("<HHBI", 0x5455, 5, 1, 1763726400)
    good("extra-field-of-a-time", write(contents, extra=extra),
         open="extra fields are not named: neither a comment nor a gap")


def _members(corpus, contents):
    def bad(name, members, **more):
        corpus.export(f"zip-{name}", write(members), "zip", **more)

    for name in NAMES:
        part = {n: d for n, d in contents.items() if n != name}
        if name != "openings.jsonl":
            bad(f"without-{name}", part)
    bad("empty", {})
    for name in ("README", "entries.jsonl.bak", "a", "receipts/1.json", "\u00fc.txt"):
        bad(f"extra-file-{name.replace('/', '-').replace(chr(252), 'u')}", contents | {name: b"x"})
    bad("extra-file-first", {"a": b""} | contents)
    for name in NAMES:
        bad(f"twice-{name}", members_of(contents) + [Member(name, contents[name])])
    bad("twice-with-another-content", members_of(contents) + [Member("keys.json", b"{}")])
    bad("six-of-five", members_of(contents)[:4] + members_of(contents)[3:])
    order = members_of(contents)
    bad("order-reversed", order[::-1])
    bad("order-manifest-first", order[-1:] + order[:-1])
    bad("order-openings-first", [order[1], order[0], *order[2:]])
    bad("order-keys-before-the-checkpoint", [*order[:2], order[3], order[2], order[4]])
    corpus.export("zip-order-of-the-central-headers-alone", write(contents, central_order=[4, 3, 2, 1, 0]), "zip")
    corpus.export("zip-order-two-central-headers-swapped", write(contents, central_order=[0, 1, 3, 2, 4]), "zip")
    central_fewer = write(contents, central_order=[0, 2, 3, 4], end={"here": 4, "entries": 4})
    corpus.export("zip-member-without-a-central-header", central_fewer, "zip")
    bad("directory", {"entries/": b""} | contents)
    bad("directory-last", contents | {"x/": b""})
    bad("directory-by-attribute", [*members_of(contents), Member("x", b"", method=0, central={"attributes": 0x10})])


def _names(corpus, contents):
    for label, name in (("dot-slash", "./checkpoint"), ("parent", "../checkpoint"), ("absolute", "/checkpoint"),
                        ("in-a-folder", "a/checkpoint"), ("back-slash", "a\\checkpoint"), ("drive", "C:checkpoint"),
                        ("slash-after", "checkpoint/"), ("nul-after", "checkpoint\0"), ("nul-inside", "checkpoint\0.txt"),
                        ("space-after", "checkpoint "), ("dot-after", "checkpoint."), ("upper-case", "CHECKPOINT"),
                        ("one-upper-case", "Checkpoint"), ("empty", ""), ("cyrillic", "\u0441heckpoint"),
                        ("full-width", "\uff43heckpoint"), ("long", "checkpoint" + "t" * 5000),
                        ("climbing", "../" * 20 + "etc/passwd"), ("zero-width", "check\u200bpoint")):
        corpus.export(f"zip-name-{label}", write([Member(
            name if n == "checkpoint" else n, d) for n, d in contents.items()]), "zip")
        if label in ("parent", "absolute", "upper-case"):
            corpus.export(f"zip-name-{label}-in-the-local-header", write(one_changed(
                contents, "checkpoint", local={"name": name.encode()})), "zip")
            corpus.export(f"zip-name-{label}-in-the-central-header", write(one_changed(
                contents, "checkpoint", central={"name": name.encode()})), "zip")
    corpus.export("zip-name-not-utf-8", write(one_changed(contents, "checkpoint", both={"name": b"\xffcheckpoint"})), "zip")
    corpus.export("zip-names-exchanged-in-the-local-headers", write([
        Member(n, d, local={"name": {"keys.json": b"checkpoint", "checkpoint": b"keys.json"}.get(n, n.encode())})
        for n, d in contents.items()]), "zip")
    extra = b"\x01" + struct.pack("<I", zlib.crc32(b"checkpoint")) + b"../../x"
    corpus.export("zip-name-in-a-unicode-path-field", write(one_changed(
        contents, "checkpoint", extra=struct.pack("<HH", 0x7075, len(extra)) + extra)), "zip",
        open="extra fields are not named; this one gives the member a second name")
    link = {"attributes": 0o120777 << 16}
    corpus.export("zip-checkpoint-is-a-symbolic-link", write(one_changed(contents, "checkpoint", central=link)),
                  "zip", open="attributes are not named; a link is no file of that name")
    folder = {"attributes": 0o040755 << 16 | 0x10}
    corpus.export("zip-checkpoint-is-a-directory", write(one_changed(contents, "checkpoint", central=folder)), "zip",
                  open="attributes are not named; 'no directories'")


def _headers(corpus, contents):
    """Local and central headers have to agree, and be of the kinds allowed."""
    size = len(contents["keys.json"])
    for field, value in (("needed", 45), ("flags", 0x0800), ("method", 0), ("time", 1), ("date", 0x5D76), ("crc", 1),
                         ("packed", 7), ("size", size + 1)):
        for side in ("local", "central"):
            corpus.export(f"zip-{side}-{field}-differs", write(one_changed(
                contents, "keys.json", **{side: {field: value}})), "zip",
                open="'headers agreeing': also in the version that it takes to unpack" if field == "needed" else None)
    for label, flags in (("encrypted", 0x0001), ("strongly-encrypted", 0x0041), ("patched", 0x0020),
                         ("masked-headers", 0x2000)):
        corpus.export(f"zip-flag-{label}", write(one_changed(contents, "keys.json", flags=flags)), "zip")
        corpus.export(f"zip-flag-{label}-all", write(contents, flags=flags), "zip")
    corpus.export("zip-flag-encrypted-in-the-central-header", write(one_changed(
        contents, "keys.json", central={"flags": 1})), "zip")
    for method in (1, 6, 9, 12, 14, 93, 95, 97, 99):
        corpus.export(f"zip-method-{method}", write(one_changed(contents, "keys.json", both={"method": method})), "zip")
    corpus.export("zip-method-0-of-deflated-data", write(one_changed(contents, "keys.json", both={"method": 0})), "zip")
    corpus.export("zip-method-8-of-stored-data", write(one_changed(contents, "keys.json", both={"method": 8},
                                                                   method=0)), "zip")
    corpus.export("zip-local-signature", write(one_changed(contents, "keys.json", local={"signature": 0x04034B51})), "zip")
    corpus.export("zip-central-disk", write(one_changed(contents, "keys.json", central={"disk": 1})), "zip")
    for offset in (0, 7, 10**9, 0xFFFFFFFF):
        corpus.export(f"zip-central-offset-{offset}", write(one_changed(
            contents, "keys.json", central={"offset": offset})), "zip")
    corpus.export("zip-two-members-of-one-offset", write(one_changed(contents, "openings.jsonl", central={"offset": 0})),
                  "zip")
    corpus.export("zip-member-comment", write(one_changed(contents, "keys.json", central_comment=b"x")), "zip")
    corpus.export("zip-extra-field-torn", write(one_changed(contents, "keys.json", extra=b"\x01")), "zip",
                  open="extra fields are not named; one that cannot be read is malformed")


def _bytes_around(corpus, contents):
    good = write(contents)

    def bad(name, archive, **more):
        corpus.export(f"zip-{name}", archive, "zip", **more)

    bad("comment", write(contents, comment=b"made by x"))
    bad("bytes-before", write(contents, prefix=b"#!/bin/sh\n"))
    bad("bytes-before-offsets-not-moved", b"x" * 10 + good)
    bad("bytes-after", write(contents, suffix=b"x"))
    bad("line-feed-after", good + b"\n")
    bad("zip-in-front", good + good)
    bad("another-zip-in-front", write(usual_ledger(5).export()) + good)
    bad("gap-between-members", write(one_changed(contents, "keys.json", before=b"xx")))
    bad("gap-after-a-member", write(one_changed(contents, "entries.jsonl", after=b"PK")))
    bad("gap-before-the-directory", write(contents, gap=b"x"))
    bad("gap-of-a-hidden-member", write(one_changed(contents, "keys.json", before=write({"x": b"y"})[:33])))
    bad("empty-file", b"")
    bad("end-record-alone", b"PK\x05\x06" + bytes(18))
    bad("not-a-zip", b"x" * 1000)
    bad("zeros", bytes(10_000))
    for cut in (1, 10, 22, 100, len(good) // 2, len(good) - 4):
        bad(f"cut-short-by-{'half' if cut == len(good) // 2 else 'all-but-4' if cut == len(good) - 4 else cut}", good[:-cut])
    bad("first-byte-missing", good[1:])
    for field, value in (("disk", 1), ("start_disk", 1), ("here", 4), ("entries", 4), ("entries", 6), ("entries", 65534),
                         ("size", 1), ("offset", 1), ("offset", 0xFFFFFFFE)):
        bad(f"end-{field.replace('_', '-')}-{value}", write(contents, end={field: value}))
    bad("end-four-of-five", write(contents, end={"here": 4, "entries": 4}))
    bad("gzip", b"\x1f\x8b\x08\x00" + good)


def _data(corpus, contents):
    def bad(name, **options):
        corpus.export(f"zip-data-{name}", write(one_changed(contents, options.pop("of", "entries.jsonl"), **options)), "zip")

    entries = contents["entries.jsonl"]
    packed = zips.deflate(entries)
    for name in NAMES:
        bad(f"checksum-of-{name}", of=name, both={"crc": zlib.crc32(contents[name]) ^ 1})
    # A line changed and the checksum left: the zip is wrong before the line is.
    stale = entries.replace(b'"n":6', b'"n":5')
    bad("line-changed-checksum-left", packed=zips.deflate(stale))
    bad("line-changed-checksum-left-stored", packed=stale, method=0)
    bad("cut-short", packed=packed[:-5])
    bad("half", packed=packed[:len(packed) // 2])
    bad("none", packed=b"")
    bad("bytes-behind-the-end", packed=packed + b"\0")
    bad("second-stream", packed=packed + packed)
    bad("not-deflated", packed=b"\xff" * 500)
    bad("zlib-wrapped", packed=zlib.compress(entries))
    bad("distance-before-the-start", packed=b"\x03\x41\x00")
    bad("shorter-than-said", packed=zips.deflate(entries[:-10]))
    bad("longer-than-said", packed=zips.deflate(entries + b"x" * 10))
    bad("size-said-0", both={"size": 0})
    bad("size-said-4-gib", both={"size": 0xFFFFFFFE})
    bad("packed-size-said-more", both={"packed": len(packed) + 1})
    bad("packed-size-said-less", both={"packed": len(packed) - 1})
    bad("packed-size-said-1-gib", both={"packed": 1 << 30})


def _descriptors_and_zip64(corpus, contents):
    def bad(name, archive, **more):
        corpus.export(f"zip-{name}", archive, "zip", **more)

    for field in ("crc", "packed", "size"):
        bad(f"data-descriptor-{field}-differs", write(one_changed(
            contents, "keys.json", descriptor="signed", described={field: 7})))
    bad("data-descriptor-missing", write(one_changed(contents, "keys.json", flags=8)))
    bad("data-descriptor-without-its-flag", write(one_changed(
        contents, "keys.json", after=b"PK\x07\x08" + struct.pack("<III", zlib.crc32(contents["keys.json"]), 1, 1))))
    bad("data-descriptor-and-a-gap", write(one_changed(contents, "keys.json", descriptor="signed", after=b"xx")))
    bad("data-descriptor-header-says-otherwise", write(one_changed(
        contents, "keys.json", descriptor="signed", local={"crc": 7})))
    for field, value in (("here", 4), ("entries", 6), ("size", 1), ("offset", 1), ("disk", 1), ("start_disk", 1),
                         ("offset", 2**63), ("entries", 2**64 - 1)):
        bad(f"zip64-end-{field.replace('_', '-')}-{value}", write(contents, zip64_end=True, end64={field: value}))
    bad("zip64-end-records-disagree", write(contents, zip64_end=True, end={"entries": 4}))
    good = bytearray(write(contents, zip64_end=True))
    moved = bytes(good).replace(struct.pack("<II", 0x07064B50, 0), struct.pack("<II", 0x07064B50, 1))
    bad("zip64-locator-of-another-disk", moved)
    at = good.rindex(b"PK\x06\x07")
    bad("zip64-locator-points-elsewhere", bytes(good[:at + 8] + struct.pack("<Q", 0) + good[at + 16:]))
    bad("zip64-gap-before-the-locator", bytes(good[:at] + b"xx" + good[at:]))
    record = good.rindex(b"PK\x06\x06")
    bad("zip64-record-missing", bytes(good[:record] + good[at:]))
    bad("zip64-locator-missing", bytes(good[:at] + good[at + 20:]))
    bad("zip64-extra-missing", write(one_changed(contents, "keys.json", central={"size": 0xFFFFFFFF})))
    short = struct.pack("<HHI", 1, 4, 7)
    bad("zip64-extra-too-short", write(one_changed(contents, "keys.json", extra=short, both={"size": 0xFFFFFFFF})))
    big = struct.pack("<HHQQ", 1, 16, 2**63, 2**63)
    bad("zip64-sizes-of-2-63", write(one_changed(contents, "keys.json", extra=big,
                                                 both={"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF})))


def _bombs(corpus, contents):
    """Little data that unpacks to much, honest about its size or not."""
    def bomb(name, byte, mib):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        crc, packed = 0, bytearray()
        for _ in range(mib):
            crc = zlib.crc32(byte * MIB, crc)
            packed += packer.compress(byte * MIB)
        return Member(name, b"", packed=bytes(packed + packer.flush()), both={"crc": crc, "size": mib * MIB})

    def with_bomb(name, of, failed, byte=b"x", mib=512, **options):
        member = bomb(of, byte, mib)
        member.both |= options
        members = [member if n == of else Member(n, d) for n, d in contents.items()]
        corpus.export(f"zip-bomb-{name}", write(members), failed)

    with_bomb("entries", "entries.jsonl", "not_canonical")
    with_bomb("entries-of-line-feeds", "entries.jsonl", "not_canonical", b"\n")
    with_bomb("openings", "openings.jsonl", "openings")
    with_bomb("openings-of-line-feeds", "openings.jsonl", "openings", b"\n")
    with_bomb("checkpoint", "checkpoint", "origin")
    with_bomb("keys", "keys.json", "manifest", b" ")
    with_bomb("manifest", "manifest.json", "members", b" ")
    with_bomb("entries-size-not-said", "entries.jsonl", "zip", size=len(contents["entries.jsonl"]))
    with_bomb("keys-size-not-said", "keys.json", "zip", size=len(contents["keys.json"]))
    with_bomb("manifest-size-said-0", "manifest.json", "zip", size=0)
    nested = write(contents | {"entries.jsonl": write(contents)})
    corpus.export("zip-bomb-a-zip-as-entries", nested, "not_canonical")
