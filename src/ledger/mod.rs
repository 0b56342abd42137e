//! The ledger: a workspace's append-only, hash-chained log.
//!
//! [`append`] is the only writer. It serves two kinds of caller: a group commit for what needs no more than an entry
//! (inbound events), and a transaction that holds the head's lock for what changes other rows too (a transition and
//! its subject, a mutation and its audit entry). Both end in one SQL function, which compares the head that the
//! batch was built on with the head that is, so `seq` is dense and `prev` is the leaf before under any concurrency.
//!
//! [`draft`] is an entry before it has its place, [`tree`] finds the nodes of a proof, [`checkpoint`] signs what is
//! durable, [`seen_heads`] remembers on this node what was signed, [`history`] compares that with what there is, [`continued`] goes
//! on after a loss that was accepted, [`read`] and [`pages`] show it, [`openings`] what was sealed,
//! [`waiting`] tells who waits that there is more, [`export`] streams the file that proves itself. [`terms`] are what a
//! request asks of the transaction that carries it out. [`check`] says what a stored row has to be.

pub mod append;
pub mod batch;
pub mod check;
pub mod checkpoint;
pub mod continued;
pub mod draft;
pub mod export;
pub mod history;
pub mod openings;
pub mod pages;
pub mod read;
pub mod seen_heads;
pub mod terms;
pub mod tree;
pub mod waiting;

pub use append::{Locked, Writer, unix_micros};
pub use draft::Draft;

use base64::Engine;

/// Standard base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)] as char);
        out.push(DIGITS[usize::from(b & 15)] as char);
    }
    out
}

/// Fills `out` from the operating system.
///
/// # Panics
/// If the operating system has no randomness to give: nothing this program does would be safe without.
pub(crate) fn fill_random(out: &mut [u8]) {
    getrandom::fill(out).expect("the operating system gives random bytes");
}
