//! The lines of an export, streamed.
//!
//! The zip is checked before anything in it counts, but its check sums are known only at the end. So a line that
//! fails does not end the reading: the rest is read and summed up without being looked at, and if the zip turns out
//! to be damaged, that is the answer.

use std::fs::File;
use std::thread;

use super::entries::{self, Chain, Rules};
use super::member::{Reader, SOUND};
use super::openings::{self, Merge, Stop};
use super::parallel::{Lines, Ordered, ordered};
use super::zip::{Directory, Error, Member};
use crate::{Failure, entry};

/// Threads for entries: beyond this the reading itself is what takes the time.
const MOST_WORKERS: usize = 16;
/// Threads for openings. Each may hold a line of 8 MiB, so there are few.
const MOST_OPENING_WORKERS: usize = 4;

/// What the lines come to.
pub(crate) struct Streamed {
    /// All lines, or the lowest that failed.
    pub(crate) chain: Result<Chain, Failure>,
    /// Whether the openings match; not looked at where the chain fails.
    pub(crate) openings: Result<(), Failure>,
}

/// Reads entries and openings in one pass.
///
/// # Errors
/// Only where the file cannot be read or is not sound; what is wrong with the lines is in [`Streamed`].
pub(crate) fn stream(
    file: &File,
    directory: &Directory,
    from: u64,
    rules: &Rules,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Streamed, Error> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let lines = |member, longest| Lines::new(Reader::new(file, member), longest);
        let mut entries = ordered(
            scope,
            lines(&directory.entries, entry::MAX_BYTES),
            workers.min(MOST_WORKERS),
            |chunk| entries::check(chunk, rules),
        )?;
        let mut openings = directory
            .openings
            .as_ref()
            .map(|member| {
                let lines = lines(member, openings::LONGEST);
                ordered(scope, lines, workers.min(MOST_OPENING_WORKERS), openings::check)
            })
            .transpose()?;
        let total = directory.entries.size + directory.openings.as_ref().map_or(0, |member| member.size);
        let mut done = 0;
        let mut count = |length: u64| {
            done += length;
            progress(done, total);
        };

        let mut merge = Merge::default();
        let mut streamed = Streamed { chain: Ok(Chain::new(from)), openings: Ok(()) };
        while let Some(piece) = entries.next()? {
            count(piece.length);
            let (Some(found), Ok(chain)) = (piece.found, &mut streamed.chain) else { continue };
            match chain.join(found) {
                Err(failure) => {
                    streamed.chain = Err(failure);
                    entries.call_off(SOUND);
                }
                Ok(commitments) => {
                    if let (Some(openings), Ok(())) = (&mut openings, &streamed.openings) {
                        let more = || next_openings(openings, &mut count);
                        streamed.openings = failure_of(merge.advance(&commitments, more))?;
                    }
                }
            }
        }
        if let Some(openings) = &mut openings {
            if streamed.chain.is_ok() && streamed.openings.is_ok() {
                streamed.openings = failure_of(merge.finish(|| next_openings(openings, &mut count)))?;
            }
            if streamed.chain.is_err() || streamed.openings.is_err() {
                openings.call_off(SOUND);
            }
            while let Some(piece) = openings.next()? {
                count(piece.length);
            }
        }
        Ok(streamed)
    })
}

fn next_openings(
    openings: &mut Ordered<'_, openings::Found>,
    count: &mut impl FnMut(u64),
) -> Result<Option<openings::Found>, Error> {
    let piece = openings.next()?;
    if let Some(piece) = &piece {
        count(piece.length);
    }
    Ok(piece.and_then(|piece| piece.found))
}

fn failure_of(result: Result<(), Stop>) -> Result<Result<(), Failure>, Error> {
    match result {
        Ok(()) => Ok(Ok(())),
        Err(Stop::Failed(failure)) => Ok(Err(*failure)),
        Err(Stop::Read(error)) => Err(error),
    }
}

/// Reads the members that hold lines only to see whether they are sound, after something else has failed.
pub(crate) fn read_only(
    file: &File,
    directory: &Directory,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), Error> {
    let members: Vec<&Member> = [&directory.entries].into_iter().chain(&directory.openings).collect();
    let total = members.iter().map(|member| member.size).sum();
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let mut done = 0;
    for member in members {
        thread::scope(|scope| {
            let mut pieces = ordered(scope, Lines::new(Reader::new(file, member), 0), workers, |_| ())?;
            pieces.call_off(SOUND);
            while let Some(piece) = pieces.next()? {
                done += piece.length;
                progress(done, total);
            }
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}
