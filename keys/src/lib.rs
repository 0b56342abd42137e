//! All that touches secret bytes.
//!
//! Takes states and gives new states plus what to store: no database, no network, no clock of its own.
//!
//! - [`key_encryption`]: the one secret a node holds outside the database, and where it comes from
//! - [`held_keys`]: several of them at once, while one replaces another
//! - [`sealing`]: the ciphertext format
//! - [`envelope`]: data keys, and values sealed for the place they stand in
//! - [`signing`]: Ed25519 keys that sign only what their purpose allows
//! - [`ring`]: the instance's keys through their lives: made, rotated, revoked, destroyed; the key manifest
//! - [`key_id`], [`secret_file`]: the id of a signing key; files that only their owner can use
//!
//! Secrets lie on the heap in memory that is wiped when freed; what the compiler spills to the stack while it
//! computes is beyond that. No `Debug`, `Display` or error of this crate shows a secret.

pub mod envelope;
pub mod held_keys;
pub mod key_encryption;
pub mod key_id;
pub mod ring;
pub mod sealing;
#[cfg(test)]
mod secrecy;
pub mod secret_file;
pub mod signing;
