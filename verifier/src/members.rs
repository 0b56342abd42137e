//! Reading objects that have exactly their listed members, each of its shape.
//!
//! The messages name the place (`receipt.number`) and what it should be, never the value: a body may be seen by
//! people who may not see what is in it.

use crate::Hash;
use crate::encoding::{parse_base64_array, parse_hex};
use crate::json::{Object, Value};
use crate::time::Timestamp;

/// A document has not the shape that the formats give it; says what is wrong and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

/// The members of an object, at a place in a document.
#[derive(Clone, Copy)]
pub(crate) struct Members<'a> {
    object: &'a Object,
    /// What goes before a member's name in messages: `receipt.`, or nothing for the document itself.
    prefix: &'a str,
}

impl<'a> Members<'a> {
    /// The members of a value that must be an object with all of `required`, maybe some of `optional`, and no
    /// others.
    pub(crate) fn of(
        value: &'a Value,
        prefix: &'a str,
        required: &[&str],
        optional: &[&str],
    ) -> Result<Self, Malformed> {
        let place = if prefix.is_empty() { "the document" } else { prefix.trim_end_matches('.') };
        let object = value.as_object().ok_or_else(|| Malformed(format!("{place} is not an object")))?;
        if let Some(missing) = required.iter().find(|name| object.get(name).is_none()) {
            return Err(Malformed(format!("{prefix}{missing} is missing")));
        }
        let is_listed = |name: &str| required.contains(&name) || optional.contains(&name);
        if let Some((unlisted, _)) = object.iter().find(|(name, _)| !is_listed(name)) {
            let shown: String = unlisted.chars().take(64).collect();
            return Err(Malformed(format!("{place} has a member {shown:?} that the format does not have")));
        }
        Ok(Self { object, prefix })
    }

    /// The member, where it is there.
    pub(crate) fn optional(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name)
    }

    /// What a failure about this member says.
    pub(crate) fn malformed(&self, name: &str, what: &str) -> Malformed {
        Malformed(format!("{}{name} is not {what}", self.prefix))
    }

    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Malformed> {
        self.object.get(name).and_then(read).ok_or_else(|| self.malformed(name, what))
    }

    /// `v`, which is 1.
    pub(crate) fn version(&self) -> Result<(), Malformed> {
        self.read("v", "1", |value| (value.as_int() == Some(1)).then_some(()))
    }

    pub(crate) fn object(&self, name: &str) -> Result<&'a Object, Malformed> {
        self.read(name, "an object", Value::as_object)
    }

    pub(crate) fn array(&self, name: &str) -> Result<&'a [Value], Malformed> {
        self.read(name, "an array", Value::as_array)
    }

    pub(crate) fn string(&self, name: &str) -> Result<&'a str, Malformed> {
        self.read(name, "a string", Value::as_str)
    }

    /// A string that is not empty.
    pub(crate) fn id(&self, name: &str) -> Result<&'a str, Malformed> {
        self.read(name, "an id", |value| value.as_str().filter(|id| !id.is_empty()))
    }

    pub(crate) fn matching(
        &self,
        name: &str,
        what: &str,
        matches: impl FnOnce(&str) -> bool,
    ) -> Result<&'a str, Malformed> {
        self.read(name, what, |value| value.as_str().filter(|text| matches(text)))
    }

    pub(crate) fn uuid(&self, name: &str) -> Result<&'a str, Malformed> {
        self.matching(name, "a UUID in lowercase with hyphens", is_uuid)
    }

    pub(crate) fn instance(&self) -> Result<&'a str, Malformed> {
        self.matching("instance", "an instance name", is_instance_name)
    }

    /// An integer of at least `least`.
    pub(crate) fn integer(&self, name: &str, least: u64) -> Result<u64, Malformed> {
        let read = |value: &Value| value.as_u64().filter(|integer| *integer >= least);
        self.read(name, &format!("an integer of at least {least}"), read)
    }

    pub(crate) fn hash(&self, name: &str) -> Result<Hash, Malformed> {
        self.read(name, "64 lowercase hex digits", |value| value.as_str().and_then(parse_hex))
    }

    /// Base64 of exactly `N` bytes.
    pub(crate) fn binary<const N: usize>(&self, name: &str) -> Result<[u8; N], Malformed> {
        let what = format!("the padded base64 of {N} bytes");
        self.read(name, &what, |value| value.as_str().and_then(parse_base64_array))
    }

    pub(crate) fn time(&self, name: &str) -> Result<Timestamp, Malformed> {
        self.read(name, "a time", |value| value.as_str()?.parse().ok())
    }

    pub(crate) fn time_or_null(&self, name: &str) -> Result<Option<Timestamp>, Malformed> {
        self.read(name, "a time or null", |value| match value {
            Value::Null => Some(None),
            Value::String(text) => text.parse().ok().map(Some),
            _ => None,
        })
    }
}

/// A UUID of any version: lowercase hex digits with hyphens, 8-4-4-4-12.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// An instance name: a host name of `[a-z0-9.-]`, 1 to 253 characters.
pub(crate) fn is_instance_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

/// An entry's type: `[a-z0-9_]+(\.[a-z0-9_]+)*`.
pub(crate) fn is_entry_type(text: &str) -> bool {
    text.split('.').all(is_sealed_name)
}

/// The name of a sealed value: `[a-z0-9_]+`.
pub(crate) fn is_sealed_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}
