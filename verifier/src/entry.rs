//! An entry of a ledger, and what it seals.

use sha2::{Digest, Sha256};

use crate::Hash;
use crate::encoding::parse_hex;
use crate::json::Value;
use crate::members::{Malformed, Members, is_entry_type, is_sealed_name};
use crate::time::Timestamp;

/// The largest entry, in canonical bytes.
pub const MAX_BYTES: usize = 65_535;

/// The members of an entry.
pub(crate) const MEMBERS: &[&str] = &["data", "ledger", "nonce", "prev", "seq", "timestamp", "type", "v"];

/// What stands in `data.sealed` for a value: `SHA-256(0x02 || salt || canonical(value))`.
pub fn sealed_hash(salt: &[u8; 32], canonical_value: &[u8]) -> Hash {
    Sha256::new().chain_update([2]).chain_update(salt).chain_update(canonical_value).finalize().into()
}

/// The members of an entry that a verification needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) ledger: &'a str,
    pub(crate) seq: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) entry_type: &'a str,
}

impl<'a> Entry<'a> {
    /// Reads the members that an entry shares with a body.
    pub(crate) fn read(members: &Members<'a>) -> Result<Self, Malformed> {
        members.version()?;
        let ledger = members.uuid("ledger")?;
        let seq = members.integer("seq", 0)?;
        let prev = members.hash("prev")?;
        if seq == 0 && prev != [0; 32] {
            return Err(members.malformed("prev", "64 zeros, as it is for seq 0"));
        }
        let timestamp = members.time("timestamp")?;
        members.binary::<16>("nonce")?;
        let entry_type = members.matching("type", "an entry type", is_entry_type)?;
        members.object("data")?.get("sealed").map_or(Ok(()), check_sealed)?;
        Ok(Self { ledger, seq, timestamp, entry_type })
    }
}

/// `data.sealed`: names to hex hashes.
fn check_sealed(value: &Value) -> Result<(), Malformed> {
    let sealed = value.as_object().ok_or_else(|| Malformed("data.sealed is not an object".to_owned()))?;
    for (name, hash) in sealed.iter() {
        if !is_sealed_name(name) {
            return Err(Malformed("data.sealed has a name that is not [a-z0-9_]+".to_owned()));
        }
        if hash.as_str().and_then(parse_hex).is_none() {
            return Err(Malformed(format!("data.sealed.{name} is not 64 lowercase hex digits")));
        }
    }
    Ok(())
}
