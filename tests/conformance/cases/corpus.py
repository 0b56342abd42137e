"""Where cases go: files beside an index, one JSON object a line."""

import json
import os

from .build import AT, PIN, canonical, manifest

# `open` is also what a case is called whose answer formats.md leaves open.
_open = open


def as_bytes(content):
    if isinstance(content, bytes):
        return content
    return content.encode() if isinstance(content, str) else canonical(content)


class Corpus:
    """Collects cases and writes each one's files into a folder of its name."""

    def __init__(self, out):
        self.out, self.cases, self.names = out, [], set()
        self.keys = canonical(manifest())

    def add(self, name, args, files, failed=None, verdict=None, *, exit=None, stdin=None, open=None, also=None,
            answers=None, json_mode=True, stderr=None):
        """One run of the command line.

        args: an argument that starts with `:` is a file of this case.
        failed: the failed_check of the first answer that has one.
        open: why formats.md leaves this answer open, where it does.
        also: further members that the first answer of --json has to have.
        answers: a failed_check (or None) for each file, where there are several.
        stderr: texts that have to be on standard error."""
        assert name not in self.names, name
        self.names.add(name)
        folder = os.path.join(self.out, name)
        os.makedirs(folder)
        for file, content in files.items():
            with _open(os.path.join(folder, file), "wb") as handle:
                handle.write(as_bytes(content))
        case = {"name": name, "args": [f"{name}/{a[1:]}" if a.startswith(":") else a for a in args],
                "exit": exit if exit is not None else 1 if failed else 0, "failed_check": failed, "verdict": verdict}
        for member, value in (("stdin", stdin and f"{name}/{stdin}"), ("open", open and True), ("why", open),
                              ("also", also), ("answers", answers), ("stderr", stderr),
                              ("json", None if json_mode else False)):
            if value is not None:
                case[member] = value
        self.cases.append(case)

    def receipt(self, name, body, failed=None, *, keys=None, args=(), at=AT, pin=PIN, verdict=None, policy=None,
                **more):
        """`receipt` over one body; keys: the key manifest, if not the usual one."""
        files = {"body.json": body, "keys.json": self.keys if keys is None else keys}
        line = ["receipt", ":body.json", "--keys", ":keys.json", "--pin", pin, *(["--at", at] if at else []), *args]
        if policy is not None:
            files["policy"] = policy
            line += ["--policy", ":policy"]
        self.add(name, line, files, failed, None if failed else verdict or "included", **more)

    def export(self, name, archive, failed=None, *, keys=None, args=(), pin=PIN, verdict=None, policy=None, **more):
        """`export` over one zip; keys: a key manifest given beside it."""
        files = {"ledger.zip": archive}
        line = ["export", ":ledger.zip", "--pin", pin, *args]
        for option, content in (("keys", keys), ("policy", policy)):
            if content is not None:
                files[option] = content
                line += [f"--{option}", f":{option}"]
        self.add(name, line, files, failed, None if failed else verdict or "included", **more)

    def manifest(self, name, keys, failed=None, *, since=None, pin=PIN, **more):
        """`keys` over one key manifest."""
        files = {"keys.json": keys} | ({} if since is None else {"old.json": since})
        line = ["keys", ":keys.json", "--pin", pin] + ([] if since is None else ["--since", ":old.json"])
        self.add(name, line, files, failed, **more)

    def consistency(self, name, older, newer, failed=None, *, proof=None, keys=None, pin=PIN, args=(), **more):
        files = {"older": older, "newer": newer, "keys.json": self.keys if keys is None else keys}
        line = ["consistency", ":older", ":newer", "--pin", pin, "--keys", ":keys.json", *args]
        if proof is not None:
            files["proof.json"] = proof
            line += ["--proof", ":proof.json"]
        self.add(name, line, files, failed, **more)

    def finish(self):
        with _open(os.path.join(self.out, "index.jsonl"), "w") as handle:
            for case in self.cases:
                handle.write(json.dumps(case, ensure_ascii=False) + "\n")
