//! `manifest.json`: what the export says it is.

use crate::check::{Check, Failure};
use crate::json;
use crate::members::{Malformed, Members, is_entry_type};
use crate::time::Timestamp;
use crate::{Facts, Hash};

/// Bytes that an export's manifest may have. The formats give no limit; this is far above a list of all types.
pub(super) const MAX_BYTES: u64 = 1 << 20;

const MEMBERS: &[&str] = &[
    "count",
    "exported_at",
    "exported_by",
    "filter",
    "from",
    "instance",
    "key_id",
    "ledger",
    "left",
    "root",
    "signature",
    "to",
    "v",
];

/// An export's manifest of the right shape (E2), of which nothing is trusted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) instance: String,
    pub(super) ledger: String,
    /// The export covers `from <= seq < to`.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) root: Hash,
    /// Entries that are not left out.
    pub(super) count: u64,
    /// The types kept.
    pub(super) filter: Option<Vec<String>>,
    /// The perfect subtrees before `from`, largest first.
    pub(super) left: Vec<Hash>,
    pub(super) exported_at: Timestamp,
    pub(super) key_id: Hash,
    pub(super) signature: [u8; 64],
    /// What the signature is over: the canonical manifest without `signature`.
    pub(super) signed: Vec<u8>,
}

impl Manifest {
    /// Reads a manifest; `None` stands for one that is too large to be read.
    pub(super) fn parse(input: Option<&[u8]>) -> Result<Self, Failure> {
        let read = match input {
            Some(input) => Self::read(input),
            None => Err(Malformed(format!("it has more than {MAX_BYTES} bytes"))),
        };
        read.map_err(|Malformed(detail)| Failure::new(Check::Members, format!("manifest.json: {detail}")))
    }

    fn read(input: &[u8]) -> Result<Self, Malformed> {
        let document = json::parse(input).map_err(|error| Malformed(error.to_string()))?;
        let members = Members::of(&document, "", MEMBERS, &[])?;
        members.version()?;
        members.id("exported_by")?;
        let (from, to) = (members.integer("from", 0)?, members.integer("to", 0)?);
        if from > to {
            return Err(members.malformed("to", "at least from"));
        }
        let mut signed = Vec::with_capacity(input.len());
        document
            .as_object()
            .expect("the members were read")
            .write_canonical_without(&["signature"], &mut signed);
        Ok(Self {
            instance: members.instance()?.to_owned(),
            ledger: members.uuid("ledger")?.to_owned(),
            from,
            to,
            root: members.hash("root")?,
            count: members.integer("count", 0)?,
            filter: members.entry_types_or_null("filter")?,
            left: members.hashes("left")?,
            exported_at: members.time("exported_at")?,
            key_id: members.hash("key_id")?,
            signature: members.binary("signature")?,
            signed,
        })
    }

    /// What the manifest says of the file.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            instance: Some(self.instance.clone()),
            ledger: Some(self.ledger.clone()),
            key_id: Some(self.key_id),
            ..Facts::default()
        }
    }
}

impl Members<'_> {
    fn entry_types_or_null(&self, name: &str) -> Result<Option<Vec<String>>, Malformed> {
        let Some(json::Value::Array(_)) = self.optional(name) else {
            return match self.optional(name) {
                Some(json::Value::Null) => Ok(None),
                _ => Err(self.malformed(name, "a list of types or null")),
            };
        };
        let kind = |value: &json::Value| value.as_str().filter(|kind| is_entry_type(kind)).map(str::to_owned);
        let types: Option<Vec<String>> = self.array(name)?.iter().map(kind).collect();
        types.map(Some).ok_or_else(|| self.malformed(name, "a list of types or null"))
    }

    fn hashes(&self, name: &str) -> Result<Vec<Hash>, Malformed> {
        let hash = |value: &json::Value| value.as_str().and_then(crate::encoding::parse_hex);
        let hashes: Option<Vec<Hash>> = self.array(name)?.iter().map(hash).collect();
        hashes.ok_or_else(|| self.malformed(name, "a list of hashes"))
    }
}
