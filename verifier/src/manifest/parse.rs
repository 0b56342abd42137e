//! Reading a key manifest: its shape, and the rules that need no signature.

use std::collections::HashSet;

use super::{Key, KeyManifest, MAX_BYTES, MAX_KEYS, MAX_VALIDITY_DAYS, Purpose, SECONDS_PER_DAY};
use crate::check::{Check, Failure};
use crate::json::{self, Value};
use crate::members::{Malformed, Members};
use crate::signature::PublicKey;

const MEMBERS: &[&str] =
    &["expires", "instance", "issued_at", "key_id", "keys", "ledger", "serial", "signature", "v"];

const KEY_MEMBERS: &[&str] =
    &["key_id", "not_after", "not_before", "public_key", "purpose", "revoked_at", "verify_until"];

const ENDORSEMENT_MEMBERS: &[&str] = &["endorsed_by", "endorsement"];

impl KeyManifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Check::Manifest`] where it is not at most 1 MiB of canonical JSON's restricted kind with exactly the
    /// members of the format, ids are not unique or not the hashes of their keys, a key is weak or malformed, a
    /// window is reversed, `verify_until` is not what the table says, or `expires` is not at most 100 days after
    /// `issued_at`.
    pub fn parse(input: &[u8]) -> Result<Self, Failure> {
        Self::read(input).map_err(|Malformed(detail)| {
            Failure::new(Check::Manifest, format!("the key manifest is not one: {detail}"))
        })
    }

    fn read(input: &[u8]) -> Result<Self, Malformed> {
        if input.len() > MAX_BYTES {
            return Err(Malformed(format!("it has more than {MAX_BYTES} bytes")));
        }
        let document = json::parse(input).map_err(|error| Malformed(error.to_string()))?;
        let members = Members::of(&document, "", MEMBERS, &[])?;
        members.version()?;
        let issued_at = members.time("issued_at")?;
        let expires = members.time("expires")?;
        let is_in_time = issued_at
            .plus_seconds(MAX_VALIDITY_DAYS * SECONDS_PER_DAY)
            .is_none_or(|latest| (issued_at..=latest).contains(&expires));
        if !is_in_time {
            let detail = format!("expires is not within {MAX_VALIDITY_DAYS} days after issued_at");
            return Err(Malformed(detail));
        }
        let values = members.array("keys")?;
        if values.len() > MAX_KEYS {
            return Err(Malformed(format!("it has more than {MAX_KEYS} keys")));
        }
        let keys = values.iter().enumerate().map(|(index, value)| read_key(index, value));
        let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
        let mut ids = HashSet::new();
        if let Some(index) = keys.iter().position(|key| !ids.insert(key.key_id)) {
            return Err(Malformed(format!("keys[{index}] has the key_id of an earlier key")));
        }
        let mut signed = Vec::with_capacity(input.len());
        document
            .as_object()
            .expect("the members were read")
            .write_canonical_without(&["signature"], &mut signed);
        Ok(Self {
            instance: members.instance()?.to_owned(),
            ledger: members.uuid("ledger")?.to_owned(),
            serial: members.integer("serial", 1)?,
            issued_at,
            expires,
            keys,
            key_id: members.hash("key_id")?,
            signature: members.binary("signature")?,
            signed,
        })
    }
}

fn read_key(index: usize, value: &Value) -> Result<Key, Malformed> {
    let prefix = format!("keys[{index}].");
    // Roots have an endorsement, others have none; which it is, is known after the purpose.
    let members = Members::of(value, &prefix, KEY_MEMBERS, ENDORSEMENT_MEMBERS)?;
    let purpose = match members.string("purpose")? {
        "root" => Purpose::Root,
        "receipt" => Purpose::Receipt,
        "checkpoint" => Purpose::Checkpoint,
        _ => return Err(members.malformed("purpose", "root, receipt or checkpoint")),
    };
    let public_key = PublicKey::from_bytes(&members.binary("public_key")?)
        .map_err(|error| Malformed(format!("{prefix}public_key is refused: {error}")))?;
    let key_id = members.hash("key_id")?;
    if key_id != public_key.key_id() {
        return Err(members.malformed("key_id", "the SHA-256 of public_key"));
    }
    let not_before = members.time("not_before")?;
    let not_after = members.time_or_null("not_after")?;
    if not_after.is_some_and(|end| end < not_before) {
        return Err(members.malformed("not_after", "after not_before"));
    }
    let revoked_at = members.time_or_null("revoked_at")?;
    let verify_until = members.time_or_null("verify_until")?;
    // That a rotation sets it to 90 days after `not_after` is the signer's duty; that it never changes once set is
    // what a holder of an older manifest sees (`rollback`), so any date is read here.
    let fits_state = match (purpose, not_after) {
        (Purpose::Root, _) | (_, None) => verify_until.is_none(),
        // Nothing by a revoked key counts, so it needs no date up to which it would.
        (_, Some(_)) => verify_until.is_some() || revoked_at.is_some(),
    };
    if !fits_state {
        let what = "what its key's state asks for (null while current and for roots, else a time)";
        return Err(members.malformed("verify_until", what));
    }
    let (endorsed_by, endorsement) = match purpose {
        Purpose::Root => (Some(members.hash("endorsed_by")?), Some(members.binary("endorsement")?)),
        Purpose::Receipt | Purpose::Checkpoint => {
            for name in ENDORSEMENT_MEMBERS {
                // A writer that gives every key the same members may say that there is none.
                if members.optional(name).is_some_and(|value| *value != Value::Null) {
                    return Err(Malformed(format!("{prefix}{name} is there, but the key is no root")));
                }
            }
            (None, None)
        }
    };
    Ok(Key {
        key_id,
        public_key,
        purpose,
        not_before,
        not_after,
        verify_until,
        revoked_at,
        endorsed_by,
        endorsement,
    })
}
