//! Writes zips byte by byte, right ones and every kind of wrong one.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// How the data descriptor is written.
#[derive(Clone, Copy, PartialEq)]
pub enum Descriptor {
    None,
    /// With its signature or without, with sizes of 64 bits or 32.
    Present {
        signed: bool,
        wide: bool,
    },
}

/// A member and every field of its two headers.
#[derive(Clone)]
pub struct Member {
    pub local: Header,
    pub central: Header,
    pub data: Vec<u8>,
    pub descriptor: Descriptor,
    /// Bytes put between this member and the next.
    pub gap: Vec<u8>,
    pub comment: Vec<u8>,
    pub attributes: u32,
    pub made_by: u16,
    pub disk: u16,
    /// Added to the offset in the central header.
    pub shift: i64,
    /// Whether the offset in the central header is in its zip64 field, which then has to be written by `write`.
    pub wide_offset: bool,
}

#[derive(Clone)]
pub struct Header {
    pub name: Vec<u8>,
    pub version: u16,
    pub flags: u16,
    pub method: u16,
    pub modified: u32,
    pub crc: u32,
    pub compressed: u32,
    pub size: u32,
    pub extra: Vec<u8>,
}

impl Member {
    pub fn with(name: &str, method: u16, data: Vec<u8>, size: u32, crc: u32) -> Self {
        let header = Header {
            name: name.into(),
            version: 20,
            flags: 0,
            method,
            modified: 0x5d76_6820,
            crc,
            compressed: data.len() as u32,
            size,
            extra: Vec::new(),
        };
        Self {
            local: header.clone(),
            central: header,
            data,
            descriptor: Descriptor::None,
            gap: Vec::new(),
            comment: Vec::new(),
            attributes: 0o100_644 << 16,
            made_by: 0x0314,
            disk: 0,
            shift: 0,
            wide_offset: false,
        }
    }

    pub fn stored(name: &str, data: Vec<u8>) -> Self {
        let (size, crc) = (data.len() as u32, crc32fast::hash(&data));
        Self::with(name, 0, data, size, crc)
    }

    pub fn deflated(name: &str, data: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data).unwrap();
        Self::with(name, 8, encoder.finish().unwrap(), data.len() as u32, crc32fast::hash(data))
    }

    /// Moves the sizes behind the data.
    pub fn streamed(mut self, signed: bool, wide: bool) -> Self {
        self.descriptor = Descriptor::Present { signed, wide };
        self.local.flags |= 8;
        self.central.flags |= 8;
        (self.local.crc, self.local.compressed, self.local.size) = (0, 0, 0);
        self
    }

    /// Gives the sizes in zip64 fields, in both headers or in the local one only.
    pub fn wide(mut self, central: bool) -> Self {
        let sizes = [u64::from(self.local.size), u64::from(self.local.compressed)];
        let field = extra(1, &sizes.map(u64::to_le_bytes).concat());
        self.local.extra.extend(&field);
        (self.local.size, self.local.compressed) = (u32::MAX, u32::MAX);
        if central {
            let sizes = [u64::from(self.central.size), u64::from(self.central.compressed)];
            self.central.extra.extend(extra(1, &sizes.map(u64::to_le_bytes).concat()));
            (self.central.size, self.central.compressed) = (u32::MAX, u32::MAX);
        }
        self
    }

    /// Changes both headers alike.
    pub fn both(mut self, change: impl Fn(&mut Header)) -> Self {
        change(&mut self.local);
        change(&mut self.central);
        self
    }
}

/// An extra field.
pub fn extra(id: u16, content: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &(content.len() as u16).to_le_bytes(), content].concat()
}

fn put(out: &mut Vec<u8>, header: &Header) {
    for field in [header.version, header.flags, header.method] {
        out.extend(field.to_le_bytes());
    }
    for field in [header.modified, header.crc, header.compressed, header.size] {
        out.extend(field.to_le_bytes());
    }
    out.extend((header.name.len() as u16).to_le_bytes());
    out.extend((header.extra.len() as u16).to_le_bytes());
}

/// The members and their central directory, apart.
pub fn parts(members: &[Member]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let offset = out.len() as u64;
        out.extend(0x0403_4b50u32.to_le_bytes());
        put(&mut out, &member.local);
        out.extend([&member.local.name[..], &member.local.extra, &member.data].concat());
        if let Descriptor::Present { signed, wide } = member.descriptor {
            if signed {
                out.extend(0x0807_4b50u32.to_le_bytes());
            }
            out.extend(member.central.crc.to_le_bytes());
            let (compressed, size) = (member.data.len() as u64, u64::from(member.central.size));
            for field in [compressed, size] {
                out.extend(&field.to_le_bytes()[..if wide { 8 } else { 4 }]);
            }
        }
        out.extend(&member.gap);

        let shifted = offset.wrapping_add_signed(member.shift);
        let mut central = member.central.clone();
        if member.wide_offset {
            central.extra.extend(extra(1, &shifted.to_le_bytes()));
        }
        directory.extend(0x0201_4b50u32.to_le_bytes());
        directory.extend(member.made_by.to_le_bytes());
        put(&mut directory, &central);
        directory.extend((member.comment.len() as u16).to_le_bytes());
        directory.extend(member.disk.to_le_bytes());
        directory.extend(0u16.to_le_bytes());
        directory.extend(member.attributes.to_le_bytes());
        let narrow = if member.wide_offset { u32::MAX } else { shifted as u32 };
        directory.extend(narrow.to_le_bytes());
        directory.extend([&central.name[..], &central.extra, &member.comment].concat());
    }
    (out, directory)
}

/// The end record.
pub fn end(count: u16, size: u32, offset: u32, comment: &[u8]) -> Vec<u8> {
    let mut end = 0x0605_4b50u32.to_le_bytes().to_vec();
    for field in [0, 0, count, count] {
        end.extend(u16::to_le_bytes(field));
    }
    end.extend(size.to_le_bytes());
    end.extend(offset.to_le_bytes());
    end.extend((comment.len() as u16).to_le_bytes());
    end.extend(comment);
    end
}

/// The zip64 end record and its locator, for a directory that starts at `offset`.
pub fn end64(count: u64, size: u64, offset: u64) -> Vec<u8> {
    let mut end = 0x0606_4b50u32.to_le_bytes().to_vec();
    end.extend(44u64.to_le_bytes());
    end.extend([45u16, 45].map(u16::to_le_bytes).concat());
    end.extend([0u32, 0].map(u32::to_le_bytes).concat());
    end.extend([count, count, size, offset].map(u64::to_le_bytes).concat());
    end.extend(0x0706_4b50u32.to_le_bytes());
    end.extend(0u32.to_le_bytes());
    end.extend((offset + size).to_le_bytes());
    end.extend(1u32.to_le_bytes());
    end
}

pub fn write(members: &[Member]) -> Vec<u8> {
    let (out, directory) = parts(members);
    let end = end(members.len() as u16, directory.len() as u32, out.len() as u32, b"");
    [out, directory, end].concat()
}
