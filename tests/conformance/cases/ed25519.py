"""Ed25519 signing in pure Python, and the signatures that nobody should accept.

For test data only: nothing here runs in constant time. Points are extended
homogeneous coordinates (X, Y, Z, T) as in RFC 8032, section 5.1.4.
"""

import base64
import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def add(p, q):
    x1, y1, z1, t1 = p
    x2, y2, z2, t2 = q
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * D * t1 * t2 % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar, point):
    out = IDENTITY
    while scalar:
        if scalar & 1:
            out = add(out, point)
        point = add(point, point)
        scalar >>= 1
    return out


def encode(point):
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    return ((y * inverse % P) | ((x * inverse % P) & 1) << 255).to_bytes(32, "little")


def from_y(y, sign):
    """The point with this y (reduced), or None where there is none."""
    y %= P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * SQRT_M1 % P
    if x * x % P != square:
        return None
    if x & 1 != sign:
        x = -x % P
    return x, y, 1, x * y % P


BASE = from_y(4 * pow(5, -1, P), 0)
_POWERS = [BASE]
while len(_POWERS) < 256:
    _POWERS.append(add(_POWERS[-1], _POWERS[-1]))


def times_base(scalar):
    out = IDENTITY
    for bit, power in enumerate(_POWERS):
        if scalar >> bit & 1:
            out = add(out, power)
    return out


def _torsion_generator():
    """A point of order 8: L times any point that has the whole torsion in it."""
    y = 2
    while True:
        point = from_y(y, 0)
        if point is not None:
            torsion = multiply(L, point)
            if encode(multiply(4, torsion)) != encode(IDENTITY):
                return torsion
        y += 1


TORSION = _torsion_generator()
# All eight points of small order, in their canonical encodings.
SMALL_ORDER = [encode(multiply(n, TORSION)) for n in range(8)]


def _raw(y, sign):
    return (y | sign << 255).to_bytes(32, "little")


# The encodings of small-order points that are not canonical: y not reduced,
# or the sign bit set where x is 0.
SMALL_ORDER_NON_CANONICAL = [_raw(P, 0), _raw(P, 1), _raw(P + 1, 0), _raw(P + 1, 1), _raw(1, 1), _raw(P - 1, 1)]
# A point of large order whose y was not reduced.
NON_CANONICAL = next(_raw(P + y, 0) for y in range(2, 19) if from_y(y, 0) is not None)
# 32 bytes that are the y of no point at all.
NO_POINT = next(_raw(y, 0) for y in range(2, 100) if from_y(y, 0) is None)


def _number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


class Key:
    """A key pair made from a label; `torsion` adds a small-order point to A."""

    def __init__(self, label, torsion=False):
        seed = hashlib.sha256(b"statusledger conformance\n" + label.encode()).digest()
        expanded = hashlib.sha512(seed).digest()
        self.label = label
        self.scalar = (int.from_bytes(expanded[:32], "little") & (2**254 - 8)) | 2**254
        self.prefix = expanded[32:]
        point = times_base(self.scalar)
        self.public = encode(add(point, TORSION) if torsion else point)

    @property
    def id(self):
        return hashlib.sha256(self.public).hexdigest()

    @property
    def base64(self):
        return base64.b64encode(self.public).decode()

    def _finish(self, r_bytes, r, message):
        k = _number(r_bytes, self.public, message) % L
        return r_bytes + ((r + k * self.scalar) % L).to_bytes(32, "little")

    def sign(self, message):
        """RFC 8032."""
        r = _number(self.prefix, message) % L
        return self._finish(encode(times_base(r)), r, message)

    def sign_s_plus_l(self, message):
        """S + L: the same signature to whoever does not check S < L."""
        good = self.sign(message)
        return good[:32] + (int.from_bytes(good[32:], "little") + L).to_bytes(32, "little")

    def sign_identity_r(self, message, r_bytes=SMALL_ORDER[0]):
        """R is the neutral element, encoded as given; the equation holds."""
        return self._finish(r_bytes, 0, message)

    def sign_torsion_r(self, message):
        """R has a small-order part: right only where the cofactor is multiplied in."""
        r = _number(self.prefix, message) % L
        return self._finish(encode(add(times_base(r), TORSION)), r, message)

    def sign_by_k(self, message, divisible):
        """For a key with torsion: whether 8 divides k, so that the small-order
        part of A drops out of the cofactorless equation."""
        attempt = 0
        while True:
            r = _number(self.prefix, attempt.to_bytes(4, "big"), message) % L
            r_bytes = encode(times_base(r))
            k = _number(r_bytes, self.public, message) % L
            if (k % 8 == 0) == divisible:
                return self._finish(r_bytes, r, message)
            attempt += 1
