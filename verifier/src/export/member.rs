//! The bytes of one member of the zip, decompressed as they are read.

use std::fs::File;

use flate2::{Decompress, FlushDecompress, Status};

use super::zip::{Error, Member, Method, read_at};

/// Bytes of compressed input that are read at once.
const INPUT: usize = 64 * 1024;

/// Bytes up to which a member is read on after its content was refused, to tell a damaged zip from a wrong
/// content; beyond it the content's refusal stands, so that a small file cannot keep a verifier busy for hours.
pub(crate) const SOUND: u64 = 4 << 30;

/// Reads a member from its start to its end, once, and holds it to the sizes that the directory gives. The check
/// sum is its caller's to check: it can be computed in parallel, this cannot.
pub(crate) struct Reader<'f> {
    file: &'f File,
    member: Member,
    /// Bytes read from the file.
    consumed: u64,
    /// Bytes handed out.
    produced: u64,
    inflate: Option<Inflate>,
}

struct Inflate {
    state: Decompress,
    input: Box<[u8]>,
    /// The part of `input` that was read and not yet inflated.
    from: usize,
    to: usize,
    ended: bool,
}

impl<'f> Reader<'f> {
    pub(crate) fn new(file: &'f File, member: &Member) -> Self {
        let inflate = (member.method == Method::Deflated).then(|| Inflate {
            state: Decompress::new(false),
            input: vec![0; INPUT].into_boxed_slice(),
            from: 0,
            to: 0,
            ended: false,
        });
        Self { file, member: member.clone(), consumed: 0, produced: 0, inflate }
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// Appends up to `most` bytes to `buffer`. Fewer than that are appended only at the end, and the end is reached
    /// only if the member is as long, compressed and not, as the directory says.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, most: usize) -> Result<usize, Error> {
        let left = self.member.size - self.produced;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        let from = buffer.len();
        buffer.reserve_exact(most);
        buffer.resize(from + most, 0);
        let mut filled = 0;
        while filled < most {
            let target = &mut buffer[from + filled..];
            let read = match &mut self.inflate {
                None => fill(self.file, &self.member, &mut self.consumed, target)?,
                Some(_) => self.inflate(target)?,
            };
            if read == 0 {
                let name = self.member.name;
                return Err(Error::Zip(format!("the data of {name} is shorter than the directory says")));
            }
            filled += read;
            self.produced += read as u64;
        }
        if self.produced == self.member.size {
            self.finish()?;
        }
        Ok(most)
    }

    /// Inflates some bytes into `target`, which is not empty; none at the end of the stream.
    fn inflate(&mut self, target: &mut [u8]) -> Result<usize, Error> {
        let name = self.member.name;
        let Some(inflate) = &mut self.inflate else { return Ok(0) };
        loop {
            if inflate.ended {
                return Ok(0);
            }
            if inflate.from == inflate.to && self.consumed < self.member.compressed {
                inflate.from = 0;
                inflate.to = fill(self.file, &self.member, &mut self.consumed, &mut inflate.input)?;
            }
            let (in_before, out_before) = (inflate.state.total_in(), inflate.state.total_out());
            let status = inflate
                .state
                .decompress(&inflate.input[inflate.from..inflate.to], target, FlushDecompress::None)
                .map_err(|_| Error::Zip(format!("the data of {name} is not what deflate writes")))?;
            let read = inflate.state.total_in() - in_before;
            let written = inflate.state.total_out() - out_before;
            inflate.from += read as usize;
            inflate.ended = status == Status::StreamEnd;
            if written > 0 {
                return Ok(written as usize);
            }
            if read == 0 && !inflate.ended && self.consumed == self.member.compressed {
                return Err(Error::Zip(format!("the data of {name} ends in the middle")));
            }
        }
    }

    /// All bytes are out: the compressed ones have to be used up, and to say so themselves.
    fn finish(&mut self) -> Result<(), Error> {
        let name = self.member.name;
        // The end of the stream can stand in bytes that make no output, so one byte more is asked for.
        if self.inflate.is_some() && self.inflate(&mut [0])? > 0 {
            return Err(Error::Zip(format!("the data of {name} is longer than the directory says")));
        }
        let unused = self.inflate.as_ref().map_or(0, |inflate| inflate.to - inflate.from);
        if unused > 0 || self.consumed != self.member.compressed {
            return Err(Error::Zip(format!("bytes after the end of the data of {name}")));
        }
        Ok(())
    }
}

/// The next compressed bytes of a member, at least one if `target` is not empty and any are left.
fn fill(file: &File, member: &Member, consumed: &mut u64, target: &mut [u8]) -> Result<usize, Error> {
    let left = usize::try_from(member.compressed - *consumed).unwrap_or(usize::MAX);
    let length = left.min(target.len());
    let read = read_at(file, &mut target[..length], member.offset + *consumed)?;
    if read == 0 && length > 0 {
        // The directory was read from the whole file a moment ago.
        return Err(Error::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    *consumed += read as u64;
    Ok(read)
}

/// A whole member, check sum checked; `None` if it has more than `limit` bytes, of which it then keeps nothing.
pub(crate) fn read_small(file: &File, member: &Member, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let mut reader = Reader::new(file, member);
    let mut bytes = Vec::new();
    let mut crc = crc32fast::Hasher::new();
    loop {
        let from = bytes.len();
        if reader.read(&mut bytes, INPUT)? == 0 {
            break;
        }
        crc.update(&bytes[from..]);
        if member.size > limit {
            bytes.clear();
            if reader.produced > SOUND {
                return Ok(None);
            }
        }
    }
    if crc.finalize() != member.crc {
        return Err(Error::Zip(format!("{} does not match its check sum", member.name)));
    }
    Ok((member.size <= limit).then_some(bytes))
}
