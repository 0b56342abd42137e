"""Starts a node, puts something of everything into it, and lets Schemathesis at it with an administrator's key."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.request

# Seconds for all of it; fuzzing goes on until they are over.
BUDGET = 120
# What is held against the document, and what a document implies.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
]


def start(program: str, work: pathlib.Path) -> tuple[subprocess.Popen, str]:
    """The node, and its address."""
    environment = {
        "PATH": os.environ["PATH"],
        "STATUSLEDGER_API__REQUESTS_PER_MINUTE": "1000000",
        "STATUSLEDGER_API__BURST": "100000",
        # What is delivered goes to loopback, where nobody listens.
        "STATUSLEDGER_DELIVERY__ALLOW_HTTP": "true",
        "STATUSLEDGER_DELIVERY__ALLOW_NETWORKS": '["127.0.0.0/8"]',
    }
    node = subprocess.Popen(
        [program, "up", "--data-dir", str(work / "data"), "--port", "0", "--bootstrap-token-file", str(work / "token")],
        stdout=subprocess.PIPE,
        stderr=(work / "log").open("w"),
        env=environment,
        text=True,
    )
    timer = threading.Timer(60, node.kill)
    timer.start()
    address = None
    for line in node.stdout:
        words = line.split()
        if words[:1] == ["address"]:
            address = words[1]
        if words[:1] == ["token"]:
            break
    timer.cancel()
    if address is None:
        raise SystemExit(f"the node does not serve: {(work / 'log').read_text()}")
    return node, address


def scene(address: str, token: str) -> tuple[dict[str, object], str]:
    """Something of everything; the ids to put into paths, and a source's token."""

    def call(method: str, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address + path, data, method=method)
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or "null")

    workspace = call("POST", "/v1/workspaces", {"name": "schemathesis"})["id"]
    at = f"/v1/workspaces/{workspace}"
    destination = call("POST", f"{at}/destinations", {"name": "nobody", "url": "http://127.0.0.1:9/"})["id"]
    source = call("POST", f"{at}/sources", {"kind": "inbound", "name": "events"})
    call("POST", f"{at}/destinations/{destination}/test")
    key = call("POST", f"{at}/keys", {"name": "a key", "scopes": ["read"]})["id"]
    invitation = call("POST", f"{at}/invitations", {"email": "ana@example.com", "role": "viewer"})["id"]
    return {
        "path.workspace": workspace,
        "path.destination": destination,
        "path.source": source["id"],
        "path.key": key,
        "path.invitation": invitation,
    }, source["token"]


def toml(value: object) -> str:
    return json.dumps(value)


def main() -> int:
    program, work, seed = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    node, address = start(program, work)
    try:
        token = (work / "token").read_text().strip()
        ids, source_token = scene(address, token)
        # Real ids where something is read or changed; where something is removed they are made up, or all that comes
        # after would find nothing.
        lines = [f"seed = {seed}", f"max-time = {BUDGET}", "request-timeout = 40", "headers = { Authorization = " + toml(f"Bearer {token}") + " }"]
        lines += ["[checks]", "enabled = false"]
        lines += [f"{check}.enabled = true" for check in CHECKS]
        lines += ["[phases.stateful]", "enabled = false"]
        lines += ["[generation]", "max-examples = 40", 'database = "none"']
        workspace = {"path.workspace": ids["path.workspace"]}
        for methods, given in ((["GET", "POST", "PUT", "PATCH"], ids), (["DELETE"], workspace)):
            lines += ["[[operations]]", f"include-method = {toml(methods)}"]
            lines += ["parameters = { " + ", ".join(f'"{name}" = {toml(value)}' for name, value in given.items()) + " }"]
        lines += ["[[operations]]", 'include-path = ["/in/{source}"]', f'parameters = {{ "path.source" = {toml(ids["path.source"])} }}']
        lines += ["headers = { Authorization = " + toml(f"Bearer {source_token}") + " }"]
        (work / "schemathesis.toml").write_text("\n".join(lines) + "\n")
        run = subprocess.run(
            [
                str(work / "venv/bin/schemathesis"),
                "--config-file",
                str(work / "schemathesis.toml"),
                "run",
                f"{address}/openapi.json",
                "--warnings",
                "off",
            ],
            cwd=work,
            timeout=BUDGET * 4,
            check=False,
        )
        if node.poll() is not None:
            print("the node has ended", file=sys.stderr)
            return 1
        if run.returncode:
            print((work / "log").read_text()[-4000:], file=sys.stderr)
        return run.returncode
    finally:
        node.terminate()
        node.wait(60)


if __name__ == "__main__":
    sys.exit(main())
