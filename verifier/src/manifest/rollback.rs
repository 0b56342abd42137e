//! What a newer key manifest may not take back.

use super::{Key, KeyManifest};
use crate::check::{Check, Failure};
use crate::encoding::hex;
use crate::time::Timestamp;

/// Verifies that a manifest takes nothing back that an older one said. Both are to be trusted first.
///
/// A key whose purpose or start is another counts as having disappeared: a key has one purpose, and its window's
/// start is what endorsements are over.
///
/// # Errors
/// [`Check::Rollback`] where the serial falls, a key disappears, or a `not_after`, `verify_until` or `revoked_at`
/// that was set is another.
pub fn compare(old: &KeyManifest, new: &KeyManifest) -> Result<(), Failure> {
    let failure = |detail: String| Err(Failure::new(Check::Rollback, detail));
    if new.serial < old.serial {
        return failure(format!("the serial falls from {} to {}", old.serial, new.serial));
    }
    for before in &old.keys {
        let key_id = hex(&before.key_id);
        let is_same = |now: &&Key| now.purpose == before.purpose && now.not_before == before.not_before;
        let Some(now) = new.key(&before.key_id).filter(is_same) else {
            return failure(format!(
                "the {} key {key_id} of serial {} disappeared",
                before.purpose, old.serial
            ));
        };
        for (name, before, now) in [
            ("not_after", before.not_after, now.not_after),
            ("verify_until", before.verify_until, now.verify_until),
            ("revoked_at", before.revoked_at, now.revoked_at),
        ] {
            let Some(set) = before.filter(|_| before != now) else { continue };
            let now = now.as_ref().map_or("null", Timestamp::as_str);
            return failure(format!("{name} of the key {key_id} was {set} and is {now}"));
        }
    }
    Ok(())
}
