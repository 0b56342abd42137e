#!/usr/bin/env python3
"""Sends changed cases to two implementations and prints where they differ.

    differ.py --cases DIR --command A --command B [--count N] [--seed S]

Nothing is expected of the answers but that they agree on exit code,
failed_check and verdict, that neither is ended by a signal, and that exit 0 or
1 comes with an answer. A third of the inputs are signed after the change, so
that it reaches the checks behind the signature. Closes with `N agreed, M
differed`; exit 1 where M is not 0, and the inputs are kept in --keep.
"""

import argparse
import io
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

from cases import zips
from cases.build import AT, PIN, manifest, text_of
from cases.ledger import Ledger, leaf_of, usual_ledger

MAX_FILE = 100_000
TOKENS = [b"0", b"-0", b"1e2", b"1.0", b"null", b"true", b"{}", b"[]", b'""', b"9007199254740991", b"9007199254740992",
          b"\\u0000", b"\\ud800", b"\\u00e9", b"\xef\xbb\xbf", b"\xff", b"\n", b"\r\n", b" ", b",", b":", b'"', b"}", b"]",
          "\u2014 ".encode(), b"=", b"/", b"-1", b"01", b"2026-02-29T00:00:00.000000Z", b"\0", b"\xe2\x80\xa8"]


def changed(data, random_):
    """`data` with one to three small changes."""
    data = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        at = random_.randrange(len(data) + 1)
        length = random_.choice((0, 1, 1, 2, 8, 64))
        kind = random_.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            data[at:at + length] = random_.choice(TOKENS)
        elif kind == 2:
            data[at:at] = random_.choice(TOKENS)
        elif kind == 3:
            del data[at:at + max(length, 1)]
        elif kind == 4:
            data[at:at] = data[at:at + max(length, 1)]
        elif at < len(data):
            data[at] = random_.choice(b'0123456789abcdef"{}[],:.-eE \\')
    return bytes(data)


def from_case(case, directory, folder, random_):
    """A case of the corpus with one of its files changed; None where it has none."""
    files = [a for a in case["args"] if a.startswith(case["name"] + "/") and os.path.isfile(os.path.join(directory, a))]
    files = [f for f in files if 0 < os.path.getsize(os.path.join(directory, f)) < MAX_FILE]
    if not files:
        return None
    arguments = list(case["args"])
    victim = random_.choice(files)
    for file in sorted(set(files)):
        with open(os.path.join(directory, file), "rb") as handle:
            data = handle.read()
        if file == victim:
            data = changed_zip(data, random_) if data[:2] == b"PK" else changed(data, random_)
        with open(os.path.join(folder, os.path.basename(file)), "wb") as handle:
            handle.write(data)
    prefix = case["name"] + "/"
    return [os.path.join(folder, a[len(prefix):]) if a.startswith(prefix) else a for a in arguments]


def changed_zip(data, random_):
    """Half of the time the bytes of the zip, otherwise those of a member."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # whatever zipfile has against it
        contents = {}
    if not contents or random_.random() < 0.5:
        return changed(data, random_)
    name = random_.choice(list(contents))
    if contents[name]:
        contents[name] = changed(contents[name], random_)
    return zips.write(contents, method=random_.choice((0, 8)))


def lenient(text):
    """What most readers would make of a text, floats made whole; or None."""
    try:
        value = json.loads(text, parse_float=lambda t: int(float(t)), parse_constant=lambda t: 0)
        text_of(value).encode()
        return value
    except (ValueError, OverflowError, RecursionError, AttributeError):
        return None


def signed_receipt(folder, random_):
    """An entry changed in its text, then signed and put in a tree of its own."""
    one = Ledger().add("a.b", {"n": 100, "list": [1, {"k": "v"}], "t": "\u00e4\U0001f600"}, {"v": {"x": [1, "y"]}})
    while True:
        text = changed(text_of(one.entries[0]).encode(), random_)
        entry = lenient(text)
        if isinstance(entry, dict) and text.rstrip().endswith(b"}"):
            break
    one.entries[0], one.leaves[0] = entry, leaf_of(entry)
    rest = one.receipt(0)
    added = {name: rest[name] for name in ("openings", "receipt")}
    body = text.rstrip()[:-1] + b"," + text_of(added).encode()[1:]
    for name, content in (("body.json", body), ("keys.json", text_of(manifest()).encode())):
        with open(os.path.join(folder, name), "wb") as handle:
            handle.write(content)
    return ["receipt", os.path.join(folder, "body.json"), "--keys", os.path.join(folder, "keys.json"), "--pin", PIN,
            "--at", AT]


def signed_export(folder, random_):
    """An export one line or member of which was changed before it was hashed and signed."""
    ledger = usual_ledger(random_.randrange(1, 10))
    start = random_.randrange(len(ledger.entries))
    kept = random_.choice((None, None, ["audit.signed_in"]))
    lines = ledger.lines(start, len(ledger.entries), kept)
    openings = ledger.opening_lines(start, len(ledger.entries), kept)
    members = {}
    what = random_.randrange(4)
    if what == 0:
        at = random_.randrange(len(lines))
        lines[at] = changed(lines[at], random_)
    elif what == 1 and openings:
        at = random_.randrange(len(openings))
        openings[at] = changed(openings[at], random_)
    elif what == 2:
        random_.choice((lines, openings or lines)).append(random_.choice(lines + openings))
    else:
        document = lenient(changed(text_of(ledger.export_manifest(start, len(ledger.entries), kept)).encode(), random_))
        members = {n: v for n, v in (document if isinstance(document, dict) else {}).items() if n != "signature"}
    if what == 0:
        # The root that these lines give, so that only the line itself is wrong.
        entry = lenient(lines[at])
        if isinstance(entry, dict) and "leaf" not in entry:
            ledger.leaves[start + at] = leaf_of(entry)
    members.pop("lines", None)
    try:
        contents = ledger.export(start, None, kept, lines=lines, openings=openings or False, **{
            n: v for n, v in members.items() if n not in ("start", "end", "kept", "openings", "checkpoint", "keys",
                                                          "document", "key", "how", "kind")})
    except (AttributeError, UnicodeEncodeError):
        return None
    with open(os.path.join(folder, "ledger.zip"), "wb") as handle:
        handle.write(zips.write(contents, method=random_.choice((0, 8))))
    return ["export", os.path.join(folder, "ledger.zip"), "--pin", PIN]


def run(command, arguments, stdin):
    """(exit, failed_check, verdict)."""
    done = subprocess.run(command + arguments + ["--json"], stdin=stdin, capture_output=True, timeout=120, check=False)
    if done.returncode not in (0, 1):
        return done.returncode, None, None
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    if not answers:
        return done.returncode, "no answer", None
    failed = next((a["failed_check"] for a in answers if a["failed_check"] is not None), None)
    verdict = answers[0]["verdict"] if arguments[0] in ("receipt", "export") else None
    return done.returncode, failed, verdict


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", required=True, metavar="DIR")
    arguments.add_argument("--command", required=True, action="append", help="twice")
    arguments.add_argument("--count", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--keep", metavar="DIR", help="where inputs that differ are kept")
    options = arguments.parse_args()
    commands = [shlex.split(c) for c in options.command]
    if len(commands) != 2:
        arguments.error("--command has to be there twice")
    with open(os.path.join(options.cases, "index.jsonl"), encoding="utf-8") as handle:
        cases = [case for case in map(json.loads, handle) if case["exit"] != 2 and "stdin" not in case]

    def one(number):
        random_ = random.Random(f"{options.seed} {number}")
        folder = tempfile.mkdtemp(prefix=f"differ-{number}-")
        try:
            make = random_.choice((signed_receipt, signed_export, None, None, None, None))
            name = make.__name__ if make else None
            if make:
                line = make(folder, random_)
            else:
                case = random_.choice(cases)
                name, line = case["name"], from_case(case, options.cases, folder, random_)
            if line is None:
                return True
            answers = [run(command, line, subprocess.DEVNULL) for command in commands]
            if answers[0] == answers[1] and answers[0][0] in (0, 1, 2):
                return True
            print(f"{number} ({name}): {answers[0]} and {answers[1]}", flush=True)
            if options.keep:
                kept = os.path.join(options.keep, str(number))
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                with open(os.path.join(kept, "arguments"), "w", encoding="utf-8") as handle:
                    handle.write(shlex.join(a.replace(folder, kept) for a in line) + "\n")
            return False
        finally:
            shutil.rmtree(folder)

    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        agreed = list(pool.map(one, range(options.count)))
    print(f"{sum(agreed)} agreed, {len(agreed) - sum(agreed)} differed")
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
