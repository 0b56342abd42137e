//! What each stored row has to be, given what stands before it.
//!
//! No column is trusted that another can be computed from. [`crate::doctor`] asks this of every row there is, one ledger
//! after another, and [`crate::self_audit`] of some rows at a time, all the time.

use super::hex;
use crate::id::LedgerId;
use crate::sealing::open_opening;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use statusledger_keys::envelope::DataKey;
use statusledger_verify::Hash;
use statusledger_verify::entry::sealed_hash;
use statusledger_verify::json::{self, Value};
use statusledger_verify::tree::leaf_hash;
use std::collections::HashMap;

/// Action, actor, outcome and targets of an audit entry.
pub type AuditFacts = (String, String, String, Vec<String>);

/// A row of `entries`.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place.
    pub seq: i64,
    /// The leaf hash that stands beside it.
    pub leaf: Vec<u8>,
    /// The type that stands beside it.
    pub kind: String,
    /// Its canonical JSON.
    pub entry: String,
}

/// What stands before an entry.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// The leaf hash of the entry before; zeros before the first.
    pub leaf: Hash,
    /// Its timestamp; empty before the first.
    pub time: String,
}

/// An entry that was checked.
#[derive(Debug)]
pub struct Checked {
    /// The leaf hash of its text.
    pub leaf: Hash,
    /// Its timestamp, as far as its text says one.
    pub time: Option<String>,
    /// The hashes of its sealed values, by name.
    pub sealed: HashMap<String, String>,
    /// Of an audit entry, what the index of audit entries has to say of it.
    pub audit: Option<AuditFacts>,
    /// What is wrong with it.
    pub wrong: Vec<String>,
}

impl Checked {
    /// What stands before the next entry.
    #[must_use]
    pub fn before_next(&self, before: Before) -> Before {
        Before { leaf: self.leaf, time: self.time.clone().unwrap_or(before.time) }
    }
}

/// Checks an entry against its place in `ledger`, behind `before`.
#[must_use]
pub fn entry(ledger: LedgerId, row: &Row, before: &Before) -> Checked {
    let leaf = leaf_hash(row.entry.as_bytes());
    let mut checked = Checked { leaf, time: None, sealed: HashMap::new(), audit: None, wrong: Vec::new() };
    if row.leaf != leaf {
        checked.wrong.push("its leaf column is not the hash of its text".into());
    }
    let value = match json::parse(row.entry.as_bytes()) {
        Ok(value) => value,
        Err(e) => {
            checked.wrong.push(format!("its text does not parse: {e}"));
            return checked;
        }
    };
    if row.kind.starts_with("audit.") {
        checked.audit = Some(audit_facts(&row.kind, &value));
    }
    if value.canonical() != row.entry {
        checked.wrong.push("its text is not canonical".into());
    }
    let Some(entry) = value.as_object() else {
        checked.wrong.push("its text is no object".into());
        return checked;
    };
    let text_of = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    if entry.get("seq").and_then(Value::as_int) != Some(row.seq) {
        checked.wrong.push("its text says another seq".into());
    }
    if text_of("ledger") != ledger.to_string() {
        checked.wrong.push("its text names another ledger".into());
    }
    if text_of("prev") != hex(&before.leaf) {
        checked.wrong.push("its prev is not the leaf of the entry before".into());
    }
    if text_of("type") != row.kind {
        checked.wrong.push("its type column is not the type in its text".into());
    }
    let time = text_of("timestamp");
    if time < before.time.as_str() {
        checked.wrong.push("it was recorded before the entry before it".into());
    }
    checked.time = Some(time.to_owned());
    let data = entry.get("data").and_then(Value::as_object);
    if let Some(hashes) = data.and_then(|d| d.get("sealed")).and_then(Value::as_object) {
        for (name, hash) in hashes.iter() {
            checked.sealed.insert(name.to_owned(), hash.as_str().unwrap_or_default().to_owned());
        }
    }
    checked
}

/// What an audit entry's text says of itself.
fn audit_facts(kind: &str, entry: &Value) -> AuditFacts {
    let data = entry.as_object().and_then(|e| e.get("data")).and_then(Value::as_object);
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = |v: Option<&Value>| text(v.and_then(Value::as_object).and_then(|o| o.get("id")));
    let targets = match data.and_then(|d| d.get("targets")) {
        Some(Value::Array(items)) => items.iter().map(|target| id(Some(target))).collect(),
        _ => Vec::new(),
    };
    let action = kind.trim_start_matches("audit.").to_owned();
    (action, id(data.and_then(|d| d.get("actor"))), text(data.and_then(|d| d.get("outcome"))), targets)
}

/// What is wrong with the opening of `name` of entry `seq`, if anything is; `hash` is what the entry has of it.
#[must_use]
pub fn opening(
    key: &DataKey,
    ledger: LedgerId,
    seq: u64,
    name: &str,
    sealed: &[u8],
    hash: Option<&str>,
) -> Option<String> {
    match open_opening(key, ledger, seq, name, sealed) {
        Err(_) => Some(format!("the opening of \"{name}\" does not decrypt")),
        Ok(opened) if hash.is_none() || hash_of(&opened).as_deref() != hash => {
            Some(format!("the opening of \"{name}\" is not that of the entry"))
        }
        Ok(_) => None,
    }
}

/// What an entry has of the value that this opens, hex.
fn hash_of(opening: &[u8]) -> Option<String> {
    let value = json::parse(opening).ok()?;
    let object = value.as_object()?;
    let salt: [u8; 32] = STANDARD.decode(object.get("salt")?.as_str()?).ok()?.try_into().ok()?;
    Some(hex(&sealed_hash(&salt, object.get("value")?.canonical().as_bytes())))
}
