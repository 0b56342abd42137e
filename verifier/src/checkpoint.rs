//! Checkpoints: a C2SP `tlog-checkpoint` is a C2SP `signed-note` that names a log's size and root.

mod signed;

pub(crate) use signed::is_key_name;
pub use signed::{Cosignature, Error, MAX_SIGNATURES, ParseError, Signatures, SignedCheckpoint};

use sha2::{Digest, Sha256};

use crate::Hash;
use crate::encoding::base64;

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: `<instance>/<ledger>`.
    pub origin: String,
    /// How many entries the tree has.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed: `<origin>\n<size>\n<base64 root>\n`.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, base64(&self.root))
    }
}

/// The origin of a ledger's log.
pub fn origin(instance: &str, ledger: &str) -> String {
    format!("{instance}/{ledger}")
}

/// The id of a log's key in a signature line: `SHA-256(name || 0x0A || 0x01 || public key)[:4]`.
pub fn note_key_id(name: &str, public_key: &[u8; 32]) -> [u8; 4] {
    typed_key_id(name, 0x01, public_key)
}

/// The id of a witness' key in a signature line (C2SP `tlog-cosignature`): the same with type 0x04.
pub fn cosignature_key_id(name: &str, public_key: &[u8; 32]) -> [u8; 4] {
    typed_key_id(name, 0x04, public_key)
}

fn typed_key_id(name: &str, signature_type: u8, public_key: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', signature_type])
        .chain_update(public_key)
        .finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// What a witness signs over a checkpoint's text (C2SP `tlog-cosignature`, Ed25519).
pub fn cosignature_message(unix_seconds: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {unix_seconds}\n{text}").into_bytes()
}

/// A signature line: `— <name> base64(keyid || signature)\n`.
pub fn signature_line(name: &str, key_id: [u8; 4], signature: &[u8; 64]) -> String {
    note_line(name, key_id, signature)
}

/// A witness' line: `— <name> base64(keyid || time[8] || signature)\n`.
pub fn cosignature_line(name: &str, key_id: [u8; 4], unix_seconds: u64, signature: &[u8; 64]) -> String {
    note_line(name, key_id, &[&unix_seconds.to_be_bytes()[..], signature].concat())
}

fn note_line(name: &str, key_id: [u8; 4], signature: &[u8]) -> String {
    format!("\u{2014} {name} {}\n", base64(&[&key_id[..], signature].concat()))
}
