#!/usr/bin/env python3
"""Runs an implementation of statusledger-verify over the corpus of `cases`.

    run.py --cases DIR --command 'statusledger-verify' [--jobs N] [--only TEXT]

Prints each disagreement, those about open cases apart, and closes with
`N passed, N failed` alone on a line. Exit 1 if a firm case failed.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

MAX_MEMORY_KIB = 256 * 1024
MEMBERS = ("file", "ok", "verdict", "time", "failed_check", "seq", "instance", "ledger", "key_id", "checkpoint_size",
           "withheld", "keys_serial")


class Run:
    """One run of the command: what it said and what it took."""

    def __init__(self, command, case, directory, time_limit):
        stdin = open(os.path.join(directory, case["stdin"]), "rb") if "stdin" in case else subprocess.DEVNULL
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            arguments = case["args"] + (["--json"] if case.get("json", True) else [])
            process = subprocess.Popen(command + arguments, cwd=directory, stdin=stdin, stdout=out, stderr=err)
            self.timed_out = False
            timer = threading.Timer(time_limit, self._stop, (process,))
            timer.start()
            # wait4 and not wait: it also tells the peak memory of this child. (What
            # it tells is never below what this runner has itself, which is little.)
            _, status, usage = os.wait4(process.pid, 0)
            timer.cancel()
            process.returncode = self.exit = os.waitstatus_to_exitcode(status)
            self.memory_kib = usage.ru_maxrss
            self.seconds = usage.ru_utime + usage.ru_stime
            out.seek(0)
            err.seek(0)
            self.out, self.err = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
        if stdin is not subprocess.DEVNULL:
            stdin.close()

    def _stop(self, process):
        self.timed_out = True
        # Not process.kill(): that would reap the child before wait4 does.
        os.kill(process.pid, 9)

    def answers(self):
        return [json.loads(line) for line in self.out.splitlines() if line.strip()]


def disagreements(case, run, time_limit):
    """What differs from what the case says, as sentences."""
    if run.timed_out:
        return [f"took more than {time_limit} s"]
    found = []
    if run.memory_kib > MAX_MEMORY_KIB:
        found.append(f"took {run.memory_kib // 1024} MiB of memory")
    if run.exit != case["exit"]:
        found.append(f"exit {run.exit}, not {case['exit']}")
    found += [f"standard error does not say {text!r}" for text in case.get("stderr", ()) if text not in run.err]
    if run.exit not in (0, 1) or case["exit"] == 2 or not case.get("json", True):
        return found
    try:
        answers = run.answers()
    except ValueError:
        return found + ["standard output is not a JSON object a line"]
    if not answers:
        return found + ["no answer on standard output"]
    failed = next((a.get("failed_check") for a in answers if a.get("failed_check") is not None), None)
    if failed != case["failed_check"]:
        found.append(f"failed_check {failed}, not {case['failed_check']}")
    missing = {m for a in answers for m in MEMBERS if m not in a}
    if missing:
        found.append(f"members missing: {', '.join(sorted(missing))}")
    first = answers[0]
    # Only receipts and exports have a verdict that formats.md names.
    if case["args"][0] in ("receipt", "export") and case["exit"] == 0 and first.get("verdict") != case["verdict"]:
        found.append(f"verdict {first.get('verdict')}, not {case['verdict']}")
    if any(bool(a.get("ok")) != (a.get("failed_check") is None) for a in answers):
        found.append("ok and failed_check contradict each other")
    if (run.exit == 0) != all(a.get("ok") for a in answers):
        found.append("exit code and ok contradict each other")
    for member, value in case.get("also", {}).items():
        if first.get(member, "absent") != value:
            found.append(f"{member} {first.get(member, 'absent')!r}, not {value!r}")
    if "answers" in case and [a.get("failed_check") for a in answers] != case["answers"]:
        found.append(f"by file {[a.get('failed_check') for a in answers]}, not {case['answers']}")
    return found


def absolute(word):
    """A word of --command, still right when run from the corpus' directory."""
    return os.path.abspath(word) if os.path.exists(word) else word


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", required=True, metavar="DIR", help="what `python3 -m cases --out DIR` wrote")
    arguments.add_argument("--command", required=True, help="the implementation, with its own first arguments")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    arguments.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their name")
    arguments.add_argument("--time-limit", type=float, default=60, metavar="SECONDS", help="for each case (60)")
    options = arguments.parse_args()
    command = [absolute(word) for word in shlex.split(options.command)]
    with open(os.path.join(options.cases, "index.jsonl"), encoding="utf-8") as handle:
        cases = [case for case in map(json.loads, handle) if options.only in case["name"]]

    def run(case):
        done = Run(command, case, options.cases, options.time_limit)
        return case, done, disagreements(case, done, options.time_limit)

    passed, failed, opened, worst_memory, worst_time = 0, 0, [], (0, ""), (0.0, "")
    with ThreadPoolExecutor(max_workers=max(1, options.jobs)) as pool:
        for case, done, found in pool.map(run, cases):
            worst_memory = max(worst_memory, (done.memory_kib, case["name"]))
            worst_time = max(worst_time, (done.seconds, case["name"]))
            if not found:
                passed += 1
            elif case.get("open") and not done.timed_out and done.exit in (0, 1, 2) \
                    and done.memory_kib <= MAX_MEMORY_KIB:
                opened.append((case, found))
            else:
                failed += 1
                last = done.err.strip().splitlines()[-1:] or [""]
                print(f"{case['name']}: {'; '.join(found)} [{last[0][:200]}]")
    for case, found in opened:
        print(f"open: {case['name']}: {'; '.join(found)} ({case['why']})")
    print(f"most memory {worst_memory[0] // 1024} MiB ({worst_memory[1]}), "
          f"longest {worst_time[0]:.2f} s ({worst_time[1]})")
    print(f"{len(opened)} open cases answered otherwise")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
