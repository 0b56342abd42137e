"""`python3 -m cases --out DIR`: writes the corpus; DIR must not hold anything."""

import argparse
import os
import sys

from . import (bodies, checkpoints, commandline, consistency, exports, exports_lines, exports_zip, json_rules,
               manifests, proofs, receipts, witnesses)
from .corpus import Corpus

MODULES = (receipts, bodies, json_rules, proofs, checkpoints, witnesses, manifests, exports, exports_lines,
           exports_zip, consistency, commandline)


def main():
    arguments = argparse.ArgumentParser(prog="python3 -m cases", description=__doc__)
    arguments.add_argument("--out", required=True, metavar="DIR")
    out = arguments.parse_args().out
    if os.path.isdir(out) and os.listdir(out):
        sys.exit(f"{out} is not empty")
    os.makedirs(out, exist_ok=True)
    corpus = Corpus(out)
    for module in MODULES:
        module.add_to(corpus)
    corpus.finish()
    valid = sum(case["exit"] == 0 for case in corpus.cases)
    opened = sum(case.get("open", False) for case in corpus.cases)
    print(f"{len(corpus.cases)} cases: {valid} valid, {len(corpus.cases) - valid} not; {opened} open")


main()
