"""A zip writer that can get every field wrong (APPNOTE 6.3).

`write({name: bytes})` is a plain, right archive. Members may also be given as
Member objects, whose options change one thing each.
"""

import struct
import zlib
from dataclasses import dataclass, field

TIME, DATE = 0x6000, 0x5D75  # 2026-11-21 12:00:00


def deflate(data, level=9):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


@dataclass
class Member:
    name: str
    data: bytes
    method: int = 8
    packed: bytes = None        # what is stored instead of the packed data
    descriptor: str = ""        # "", "signed", "plain", "signed64", "plain64"
    zip64: bool = False         # sizes (and, in the central header, the offset) in an extra field
    before: bytes = b""         # bytes between the member before and this one
    after: bytes = b""          # bytes after the data and its descriptor
    flags: int = 0
    local: dict = field(default_factory=dict)    # fields of the local header
    central: dict = field(default_factory=dict)  # fields of the central header
    both: dict = field(default_factory=dict)     # fields of both
    described: dict = field(default_factory=dict)
    extra: bytes = b""
    central_comment: bytes = b""


def _local(member, fields, offset):
    fields = fields | member.both | member.local
    sizes = fields["crc"], fields["packed"], fields["size"]
    if member.descriptor and not member.local.keys() & {"crc", "packed", "size"}:
        sizes = 0, 0, 0
    extra = member.extra
    if member.zip64:
        extra = struct.pack("<HHQQ", 1, 16, sizes[2], sizes[1]) + extra
        sizes = sizes[0], 0xFFFFFFFF, 0xFFFFFFFF
    return struct.pack("<IHHHHHIIIHH", fields.get("signature", 0x04034B50), fields["needed"], fields["flags"],
                       fields["method"], fields["time"], fields["date"], *sizes,
                       len(fields["name"]), len(extra)) + fields["name"] + extra


def _descriptor(member, fields):
    fields = fields | member.described
    words = fields["crc"], fields["packed"], fields["size"]
    form = "<IQQ" if member.descriptor.endswith("64") else "<III"
    return (b"PK\x07\x08" if member.descriptor.startswith("signed") else b"") + struct.pack(form, *words)


def _central(member, fields, offset):
    fields = {"offset": offset, "disk": 0, "attributes": 0} | fields | member.both | member.central
    packed, size, offset, extra = fields["packed"], fields["size"], fields["offset"], member.extra
    if member.zip64:
        extra = struct.pack("<HHQQQ", 1, 24, size, packed, offset) + extra
        packed = size = offset = 0xFFFFFFFF
    return struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0x0314, fields["needed"], fields["flags"],
                       fields["method"], fields["time"], fields["date"], fields["crc"], packed, size,
                       len(fields["name"]), len(extra), len(member.central_comment), fields["disk"], 0,
                       fields["attributes"], offset) + fields["name"] + extra + member.central_comment


def members_of(contents, **options):
    return [Member(name, data, **options) for name, data in contents.items()]


def write(contents, prefix=b"", gap=b"", suffix=b"", comment=b"", zip64_end=False, central_order=None,
          end=None, end64=None, **options):
    """contents: {name: bytes} or a list of Members. `options` go to each Member
    made from a dict; `end` and `end64` replace fields of the end records."""
    members = contents if isinstance(contents, list) else members_of(contents, **options)
    out, central = bytearray(prefix), []
    for member in members:
        packed = member.packed
        if packed is None:
            packed = deflate(member.data) if member.method == 8 else member.data
        fields = {"needed": 45 if member.zip64 else 20, "flags": member.flags | (8 if member.descriptor else 0),
                  "method": member.method, "time": TIME, "date": DATE, "crc": zlib.crc32(member.data),
                  "packed": len(packed), "size": len(member.data), "name": member.name.encode()}
        out += member.before
        offset = len(out)
        out += _local(member, fields, offset) + packed
        if member.descriptor:
            out += _descriptor(member, fields)
        out += member.after
        central.append(_central(member, fields, offset))
    out += gap
    start = len(out)
    out += b"".join(central[i] for i in central_order or range(len(central)))
    directory = {"disk": 0, "start_disk": 0, "here": len(central), "entries": len(central), "size": len(out) - start,
                 "offset": start}
    if zip64_end:
        record = directory | (end64 or {})
        at = len(out)
        out += struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, *record.values())
        out += struct.pack("<IIQI", 0x07064B50, 0, at, 1)
        directory |= {"here": 0xFFFF, "entries": 0xFFFF, "size": 0xFFFFFFFF, "offset": 0xFFFFFFFF}
    directory |= end or {}
    out += struct.pack("<IHHHHIIH", 0x06054B50, *directory.values(), len(comment)) + comment
    return bytes(out + suffix)
