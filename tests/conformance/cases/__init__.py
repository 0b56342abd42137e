"""A corpus of valid and invalid inputs for verifiers of statusledger's formats.

`python3 -m cases --out DIR` writes it, always the same bytes. Every key comes
from a fixed seed, every expected answer is written down beside the case by
hand: nothing here calls a verifier, so that none can confirm itself.
"""
