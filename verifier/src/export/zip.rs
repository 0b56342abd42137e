//! A zip reader that accepts one shape only: the members an export has, in their order, back to back.
//!
//! A zip names each member twice, in the central directory at its end and in a header before the data, and readers
//! differ in which they believe; room between members, before the first and in comments and extra fields can hold
//! what one reader shows and another does not. So nothing here is searched for or skipped: every byte of the file
//! is accounted for, both descriptions have to agree, and what has no use in an export is refused.
//!
//! Extra fields: zip64 (0x0001) where a size or offset needs it, and the time and owner fields that common writers
//! add (extended timestamp, Unix, NTFS), whose content is ignored. Any other field is refused, above all the
//! Unicode path, which would give a member a second name.

use std::fs::File;
use std::io;

/// The members of an export, in their order. The second may be absent.
pub(crate) const NAMES: [&str; 5] =
    ["entries.jsonl", "openings.jsonl", "checkpoint", "keys.json", "manifest.json"];

/// Bytes of the end of central directory record, which has no comment.
const END: u64 = 22;
/// Bytes of the zip64 end of central directory locator.
const LOCATOR: u64 = 20;
/// Bytes of the zip64 end of central directory record without extensible data.
const END64: u64 = 56;
/// Bytes of a local header before its name.
const LOCAL: u64 = 30;
/// Bytes of a central header before its name.
const CENTRAL: usize = 46;
/// The most bytes that a central directory of five members with allowed extra fields can have, rounded up.
const MAX_DIRECTORY: u64 = 4096;
/// The most bytes of one header's extra fields.
const MAX_EXTRA: usize = 512;
/// The newest version of the format that is understood: 4.5, for zip64.
const MAX_VERSION: u16 = 45;

/// Encoding options of deflate, which say nothing about decoding.
const FLAGS_DEFLATE: u16 = 0b110;
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;

const EXTRA_ZIP64: u16 = 0x0001;
/// NTFS times, extended timestamp, Info-ZIP Unix (old, second, third).
const EXTRA_IGNORED: [u16; 5] = [0x000a, 0x5455, 0x5855, 0x7855, 0x7875];

/// What can go wrong while a member is read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file is not a zip as an export is.
    #[error("{0}")]
    Zip(String),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn zip<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Zip(what.into()))
}

/// How a member's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Stored,
    Deflated,
}

/// One member of the zip.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) crc: u32,
    /// Bytes in the file.
    pub(crate) compressed: u64,
    /// Bytes once decompressed.
    pub(crate) size: u64,
    /// Where the data starts in the file.
    pub(crate) offset: u64,
}

/// The members of an export.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) entries: Member,
    pub(crate) openings: Option<Member>,
    pub(crate) checkpoint: Member,
    pub(crate) keys: Member,
    pub(crate) manifest: Member,
}

/// A header of the central directory, as far as it is needed.
struct Central {
    flags: u16,
    method: u16,
    /// Time and date of modification, as MS-DOS writes them.
    modified: [u8; 4],
    crc: u32,
    compressed: u64,
    size: u64,
    name: &'static str,
    offset: u64,
}

/// Reads and checks the directory and every header.
pub(crate) fn read_directory(file: &File) -> Result<Directory, Error> {
    let length = file.metadata()?.len();
    let (directory, end, count) = find_directory(file, length)?;
    let centrals = read_centrals(&read(file, directory, end - directory)?)?;
    if centrals.len() as u64 != count {
        return zip("the central directory has more or fewer members than its end says");
    }
    let mut members = Vec::with_capacity(centrals.len());
    if centrals.first().is_some_and(|first| first.offset != 0) {
        return zip("bytes before the first member");
    }
    for (i, central) in centrals.iter().enumerate() {
        let next = centrals.get(i + 1).map_or(directory, |next| next.offset);
        if central.offset >= next || next > directory || central.compressed > directory {
            return zip(format!("{} does not end where the next part starts", central.name));
        }
        members.push(read_member(file, central, next)?);
    }
    let mut members = members.into_iter().peekable();
    let mut take = |name: &str| members.next_if(|member| member.name == name);
    let missing = |name: &str| Error::Zip(format!("{name} is missing or not in its place"));
    let found = Directory {
        entries: take(NAMES[0]).ok_or_else(|| missing(NAMES[0]))?,
        openings: take(NAMES[1]),
        checkpoint: take(NAMES[2]).ok_or_else(|| missing(NAMES[2]))?,
        keys: take(NAMES[3]).ok_or_else(|| missing(NAMES[3]))?,
        manifest: take(NAMES[4]).ok_or_else(|| missing(NAMES[4]))?,
    };
    match members.next() {
        None => Ok(found),
        Some(more) => zip(format!("{} is there twice or not in its place", more.name)),
    }
}

/// Where the central directory starts and ends, and how many members it is said to have.
fn find_directory(file: &File, length: u64) -> Result<(u64, u64, u64), Error> {
    let Some(end) = length.checked_sub(END) else {
        return zip("too short for a zip");
    };
    let record = read(file, end, END)?;
    let mut fields = Fields(&record);
    if fields.u32()? != 0x0605_4b50 {
        return zip("no end of central directory at the end of the file (or a comment after it)");
    }
    let disks = [fields.u16()?, fields.u16()?];
    let counts = [fields.u16()?, fields.u16()?];
    let (size, offset) = (fields.u32()?, fields.u32()?);
    if fields.u16()? != 0 {
        return zip("the zip has a comment");
    }
    let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
    let plain = u64::from(offset) + u64::from(size) == end
        && ![size, offset].contains(&u32::MAX)
        && !counts.contains(&u16::MAX);
    let (start, stop, count) = if plain {
        if disks != [0, 0] || counts[0] != counts[1] {
            return zip("the zip spans several disks");
        }
        (u64::from(offset), end, u64::from(counts[0]))
    } else {
        let (start, stop, count) = find_directory64(file, end)?;
        let agrees = disks.iter().all(|disk| [0, u16::MAX].contains(disk))
            && counts.iter().all(|&c| c == u16::MAX || u64::from(c) == count)
            && [narrow(stop - start), u32::MAX].contains(&size)
            && [narrow(start), u32::MAX].contains(&offset);
        if !agrees {
            return zip("the two ends of the central directory disagree");
        }
        (start, stop, count)
    };
    if stop - start > MAX_DIRECTORY {
        return zip("the central directory is larger than an export's");
    }
    if !(4..=5).contains(&count) {
        return zip(format!("an export has 4 or 5 members, this zip has {count}"));
    }
    Ok((start, stop, count))
}

/// The same from the zip64 records, which stand between the directory and its end record at `end`.
fn find_directory64(file: &File, end: u64) -> Result<(u64, u64, u64), Error> {
    let (Some(locator), Some(end64)) = (end.checked_sub(LOCATOR), end.checked_sub(LOCATOR + END64)) else {
        return zip("bytes before, between or after the members");
    };
    let record = read(file, locator, LOCATOR)?;
    let mut fields = Fields(&record);
    if fields.u32()? != 0x0706_4b50 {
        return zip("bytes before, between or after the members");
    }
    if (fields.u32()?, fields.u64()?, fields.u32()?) != (0, end64, 1) {
        return zip("the zip64 end of central directory is not where it has to be");
    }
    let record = read(file, end64, END64)?;
    let mut fields = Fields(&record);
    if (fields.u32()?, fields.u64()?) != (0x0606_4b50, END64 - 12) {
        return zip("no zip64 end of central directory of the plain form");
    }
    fields.u16()?; // made by, which says nothing about reading
    if fields.u16()? > MAX_VERSION {
        return zip("the zip needs a newer version of the format");
    }
    if (fields.u32()?, fields.u32()?) != (0, 0) {
        return zip("the zip spans several disks");
    }
    let (here, count, size, start) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    if here != count {
        return zip("the zip spans several disks");
    }
    if start.checked_add(size) != Some(end64) {
        return zip("bytes before, between or after the members");
    }
    Ok((start, end64, count))
}

/// The headers of the central directory, each with a name of an export's.
fn read_centrals(directory: &[u8]) -> Result<Vec<Central>, Error> {
    let mut fields = Fields(directory);
    let mut centrals = Vec::with_capacity(NAMES.len());
    while !fields.0.is_empty() {
        if fields.0.len() < CENTRAL || fields.u32()? != 0x0201_4b50 {
            return zip("the central directory has something else than headers");
        }
        let made_by = fields.u16()?;
        let version = fields.u16()?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        let modified = fields.u32()?.to_le_bytes();
        let (crc, compressed, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
        let disk = fields.u16()?;
        fields.u16()?; // whether it is text: a guess of the writer
        let attributes = fields.u32()?;
        let offset = fields.u32()?;
        let name = known_name(fields.bytes(name.into())?)?;
        let extra = Extra::parse(fields.bytes(extra.into())?, name)?;
        fields.bytes(comment.into())?;

        if comment != 0 {
            return zip(format!("{name} has a comment"));
        }
        if version > MAX_VERSION {
            return zip(format!("{name} needs a newer version of the format"));
        }
        check_flags(name, flags, method)?;
        // Unix keeps the kind of file in the upper half; MS-DOS marks a directory in the lower.
        let kind = attributes >> 28;
        let regular = made_by >> 8 != 3 || [0, 0o10].contains(&kind);
        if !regular || attributes & 0x10 != 0 {
            return zip(format!("{name} is not a regular file"));
        }
        let mut wide = Fields(extra.zip64.unwrap_or_default());
        let size = wide.widened(size)?;
        let compressed = wide.widened(compressed)?;
        let offset = wide.widened(offset)?;
        let disk = if disk == u16::MAX { wide.u32()? } else { disk.into() };
        if !wide.0.is_empty() {
            return zip(format!("{name} has a zip64 field with more than it needs"));
        }
        if disk != 0 {
            return zip("the zip spans several disks");
        }
        if method == 0 && compressed != size {
            return zip(format!("{name} is stored in another size than its own"));
        }
        centrals.push(Central { flags, method, modified, crc, compressed, size, name, offset });
        if centrals.len() > NAMES.len() {
            return zip("more members than an export has");
        }
    }
    Ok(centrals)
}

/// Checks the local header of a member, and that it, its data and its descriptor fill the file up to `next`.
fn read_member(file: &File, central: &Central, next: u64) -> Result<Member, Error> {
    let name = central.name;
    let header = read(file, central.offset, LOCAL)?;
    let mut fields = Fields(&header);
    if fields.u32()? != 0x0403_4b50 {
        return zip(format!("{name} has no local header where the directory says"));
    }
    let version = fields.u16()?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    let modified = fields.u32()?.to_le_bytes();
    let (crc, compressed, size) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name_length, extra_length) = (fields.u16()?, fields.u16()?);
    if version > MAX_VERSION {
        return zip(format!("{name} needs a newer version of the format"));
    }
    let agrees = flags == central.flags
        && method == central.method
        && modified == central.modified
        && usize::from(name_length) == name.len();
    if !agrees {
        return zip(format!("the two headers of {name} disagree"));
    }
    if usize::from(extra_length) > MAX_EXTRA {
        return zip(format!("{name} has more extra fields than an export's"));
    }
    let rest = read(file, central.offset + LOCAL, u64::from(name_length) + u64::from(extra_length))?;
    let mut rest = Fields(&rest);
    if rest.bytes(name.len())? != name.as_bytes() {
        return zip(format!("the two headers of {name} disagree"));
    }
    let extra = Extra::parse(rest.0, name)?;
    let described = flags & FLAG_DESCRIPTOR != 0;
    // In a local header zip64 holds both sizes, whether one or both need it.
    let (size, compressed) = match extra.zip64 {
        None => (u64::from(size), u64::from(compressed)),
        Some(wide) => {
            if wide.len() != 16 {
                return zip(format!("{name} has a zip64 field of another length than two sizes"));
            }
            let mut wide = Fields(wide);
            let mut side = |narrow: u32| {
                let wide = wide.u64()?;
                let same = narrow == u32::MAX || u64::from(narrow) == wide || (described && narrow == 0);
                if same { Ok(wide) } else { zip(format!("{name} gives its size twice, and differently")) }
            };
            (side(size)?, side(compressed)?)
        }
    };
    let fits = |local: u64, central: u64| local == central || (described && local == 0);
    if !fits(crc.into(), central.crc.into())
        || !fits(size, central.size)
        || !fits(compressed, central.compressed)
    {
        return zip(format!("the two headers of {name} disagree"));
    }
    let offset = central.offset + LOCAL + u64::from(name_length) + u64::from(extra_length);
    let after = offset.checked_add(central.compressed).and_then(|end| next.checked_sub(end));
    match after {
        Some(0) if !described => {}
        Some(length @ (12 | 16 | 20 | 24)) if described => {
            check_descriptor(central, &read(file, next - length, length)?)?;
        }
        _ => return zip(format!("{name} does not end where the next part starts")),
    }
    let method = if central.method == 0 { Method::Stored } else { Method::Deflated };
    Ok(Member { name, method, crc: central.crc, compressed: central.compressed, size: central.size, offset })
}

/// A data descriptor: with or without its signature, with sizes of 32 or 64 bits, which its length tells.
fn check_descriptor(central: &Central, descriptor: &[u8]) -> Result<(), Error> {
    let mut fields = Fields(descriptor);
    let signed = matches!(descriptor.len(), 16 | 24);
    let signature = if signed { fields.u32()? } else { 0x0807_4b50 };
    let crc = fields.u32()?;
    let (compressed, size) = if descriptor.len() < 20 {
        (fields.u32()?.into(), fields.u32()?.into())
    } else {
        (fields.u64()?, fields.u64()?)
    };
    if (signature, crc, compressed, size) == (0x0807_4b50, central.crc, central.compressed, central.size) {
        Ok(())
    } else {
        zip(format!("the data descriptor of {} disagrees with the directory", central.name))
    }
}

fn check_flags(name: &str, flags: u16, method: u16) -> Result<(), Error> {
    let allowed = match method {
        0 => FLAG_DESCRIPTOR | FLAG_UTF8,
        8 => FLAG_DESCRIPTOR | FLAG_UTF8 | FLAGS_DEFLATE,
        _ => return zip(format!("{name} is compressed by method {method}; an export uses 0 or 8")),
    };
    if flags & 1 != 0 {
        return zip(format!("{name} is encrypted"));
    }
    if flags & !allowed != 0 {
        return zip(format!("{name} has flags that an export does not use"));
    }
    Ok(())
}

fn known_name(name: &[u8]) -> Result<&'static str, Error> {
    NAMES.into_iter().find(|known| known.as_bytes() == name).map_or_else(
        || zip(format!("a member that an export does not have: {:?}", String::from_utf8_lossy(name))),
        Ok,
    )
}

/// The extra fields of a header.
#[derive(Default)]
struct Extra<'a> {
    zip64: Option<&'a [u8]>,
}

impl<'a> Extra<'a> {
    fn parse(extra: &'a [u8], name: &str) -> Result<Self, Error> {
        if extra.len() > MAX_EXTRA {
            return zip(format!("{name} has more extra fields than an export's"));
        }
        let mut fields = Fields(extra);
        let mut seen: Vec<u16> = Vec::new();
        let mut found = Self::default();
        while !fields.0.is_empty() {
            let (id, length) = (fields.u16()?, fields.u16()?);
            let content = fields.bytes(length.into())?;
            if seen.contains(&id) {
                return zip(format!("{name} has an extra field twice"));
            }
            seen.push(id);
            if id == EXTRA_ZIP64 {
                found.zip64 = Some(content);
            } else if !EXTRA_IGNORED.contains(&id) {
                return zip(format!(
                    "{name} has an extra field of a kind (0x{id:04x}) that an export does not use"
                ));
            }
        }
        Ok(found)
    }
}

/// Little-endian fields from the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let Some((head, tail)) = self.0.split_at_checked(length) else {
            return zip("a header ends early");
        };
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((head, tail)) = self.0.split_first_chunk() else {
            return zip("a header ends early");
        };
        self.0 = tail;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    /// A field of 32 bits, or, where it says so, the next of 64 bits from here.
    fn widened(&mut self, narrow: u32) -> Result<u64, Error> {
        if narrow == u32::MAX { self.u64() } else { Ok(narrow.into()) }
    }
}

/// `length` bytes at `offset`; a range outside of the file is the zip's fault, not the disk's.
fn read(file: &File, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    let Ok(length) = usize::try_from(length) else {
        return zip("a header points outside of the file");
    };
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match read_at(file, &mut buffer[filled..], offset + filled as u64)? {
            0 => return zip("a header points outside of the file"),
            read => filled += read,
        }
    }
    Ok(buffer)
}

/// Reads some bytes at `offset` without moving a cursor that others share; 0 at the end of the file.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, buffer, offset);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset);
        match read {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
