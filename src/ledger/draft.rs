//! What is to be recorded: an entry before it has its place in the ledger.

use super::terms::Terms;
use crate::audit::Found;
use crate::id::{DestinationId, SourceId, UserId};
use sha2::{Digest, Sha256};
use statusledger_verify::json::{self, Object, Value};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// An entry is at most this many bytes (docs/receipt.md, "Ground rules").
pub const MAX_ENTRY: usize = 65_535;
/// Members of an entry besides `data`, at their longest: what is left for `data` itself.
const ENVELOPE: usize = 512;
/// The longest canonical `data`.
pub const MAX_DATA: usize = MAX_ENTRY - ENVELOPE;
/// The longest type that leaves the envelope its size.
const MAX_TYPE: usize = 128;

/// A draft that cannot become an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The type is not dotted lower-case words.
    #[error("\"{0}\" is not an entry type (lower-case words joined by dots, at most 128 bytes)")]
    Type(String),
    /// The data, canonical, is too long.
    #[error(
        "the entry's data has {0} bytes; at most {MAX_DATA} fit (what is long belongs into a sealed value)"
    )]
    TooLong(usize),
    /// A sealed value's name is not `[a-z0-9_]+`, or given twice.
    #[error("\"{0}\" cannot name a sealed value (a-z, 0-9 and _, each once)")]
    SealedName(String),
    /// A value that canonical JSON cannot carry.
    #[error("the value cannot be recorded: {0}")]
    Value(String),
}

/// The opening of a sealed value: canonical `{"salt":…,"value":…}`.
#[derive(Clone)]
pub struct Opening {
    /// The name in `data.sealed`.
    pub name: String,
    /// The canonical opening.
    pub canonical: Zeroizing<String>,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What routing looks at besides the type.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// The app it is about (a bundle id or package name).
    pub app: Option<String>,
    /// The source that said it.
    pub source: Option<SourceId>,
    /// The destination it is about, which it never notifies.
    pub about: Option<DestinationId>,
    /// The one destination it is for, whatever the filters say (a test event).
    pub only: Option<DestinationId>,
}

/// An idempotency key that is taken in the same transaction as the entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// The source it belongs to.
    pub source: SourceId,
    /// What the sender gave, 1 to 255 bytes.
    pub key: String,
    /// SHA-256 of the request body.
    pub body_hash: [u8; 32],
}

/// An entry before it has its place: everything that can be computed without the ledger's head.
#[derive(Clone, Debug)]
pub struct Draft {
    kind: Cow<'static, str>,
    data: String,
    openings: Vec<Opening>,
    /// What routing looks at.
    pub topic: Topic,
    /// Taken with it, where the sender gave one.
    pub idempotency: Option<IdempotencyKey>,
    /// An audit entry's: how it is found.
    pub audit: Option<Found>,
    /// What the request that it comes of asks of the transaction.
    pub terms: Terms,
    /// The count of the ledger's routes at which what allows it was looked up (`heads.routes`): recorded at no later one.
    pub allowed_at: Option<i64>,
    /// An audit entry's: the person who did it. What they are called is sealed with it when it is appended.
    pub person: Option<UserId>,
}

impl Draft {
    /// An entry of type `kind` (docs/events.md) with `data`, none of it sealed.
    ///
    /// # Errors
    /// If the type or the data is not of the form that docs/receipt.md asks for.
    pub fn new(kind: impl Into<Cow<'static, str>>, data: Object) -> Result<Self, Error> {
        Self::sealing(kind, data, Vec::new())
    }

    /// An entry some of whose values are sealed: `data.sealed` holds a salted hash of each.
    ///
    /// # Errors
    /// If the type, a name, a value or the data is not of the form that docs/receipt.md asks for.
    pub fn sealing(
        kind: impl Into<Cow<'static, str>>,
        mut data: Object,
        sealed: Vec<(&str, Value)>,
    ) -> Result<Self, Error> {
        let kind = kind.into();
        if !is_type(&kind) {
            return Err(Error::Type(kind.chars().take(160).collect()));
        }
        let mut openings = Vec::with_capacity(sealed.len());
        if !sealed.is_empty() {
            let mut hashes = Object::default();
            for (name, value) in sealed {
                let (hash, opening) = seal(name, &value)?;
                if hashes.insert(name.to_owned(), Value::String(hash)).is_some() {
                    return Err(Error::SealedName(name.to_owned()));
                }
                openings.push(opening);
            }
            data.insert("sealed".into(), Value::Object(hashes));
        }
        let data = Value::Object(data).canonical();
        if data.len() > MAX_DATA {
            return Err(Error::TooLong(data.len()));
        }
        // What we write must read back: depth and the like are judged by the reader's own parser. `data` stands one
        // level below the entry.
        json::parse_with_depth(data.as_bytes(), json::MAX_DEPTH - 1)
            .map_err(|e| Error::Value(e.to_string()))?;
        Ok(Self {
            kind,
            data,
            openings,
            topic: Topic::default(),
            idempotency: None,
            audit: None,
            terms: Terms::default(),
            allowed_at: None,
            person: None,
        })
    }

    /// The same, about `app`.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.topic.app = Some(app.into());
        self
    }

    /// The same, said by `source`.
    #[must_use]
    pub fn source(mut self, source: SourceId) -> Self {
        self.topic.source = Some(source);
        self
    }

    /// The same, about `destination`, which it does not notify.
    #[must_use]
    pub fn about(mut self, destination: DestinationId) -> Self {
        self.topic.about = Some(destination);
        self
    }

    /// The same, for `destination` alone.
    #[must_use]
    pub fn only(mut self, destination: DestinationId) -> Self {
        self.topic.only = Some(destination);
        self
    }

    /// The same, to be found so.
    #[must_use]
    pub fn audit(mut self, found: Found) -> Self {
        self.audit = Some(found);
        self
    }

    /// The same, to be recorded on these terms or not at all.
    #[must_use]
    pub fn on(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    /// The same, done by that person.
    #[must_use]
    pub fn by(mut self, person: UserId) -> Self {
        self.person = Some(person);
        self
    }

    /// The same, with one more sealed value.
    ///
    /// # Errors
    /// If it cannot be recorded, is there already, or does not fit.
    pub fn sealing_too(mut self, name: &str, value: &Value) -> Result<Self, Error> {
        let (hash, opening) = seal(name, value)?;
        let data = json::parse(self.data.as_bytes()).map_err(|e| Error::Value(e.to_string()))?;
        let Value::Object(mut data) = data else { return Err(Error::Value("it is no object".into())) };
        let mut sealed = match data.remove("sealed") {
            Some(Value::Object(sealed)) => sealed,
            _ => Object::default(),
        };
        if sealed.insert(name.to_owned(), Value::String(hash)).is_some() {
            return Err(Error::SealedName(name.to_owned()));
        }
        data.insert("sealed".into(), Value::Object(sealed));
        self.data = Value::Object(data).canonical();
        if self.data.len() > MAX_DATA {
            return Err(Error::TooLong(self.data.len()));
        }
        self.openings.push(opening);
        Ok(self)
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its canonical `data`.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    /// The openings of its sealed values.
    #[must_use]
    pub fn openings(&self) -> &[Opening] {
        &self.openings
    }

    /// Bytes it takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.data.len() + ENVELOPE + self.openings.iter().map(|o| o.canonical.len()).sum::<usize>()
    }
}

/// Whether `kind` is an entry's type: dotted lower-case words.
#[must_use]
pub fn is_type(kind: &str) -> bool {
    kind.len() <= MAX_TYPE && kind.split('.').all(|word| !word.is_empty() && word.bytes().all(is_name_byte))
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'
}

/// `SHA-256(0x02 || salt[32] || canonical(value))` under a fresh salt, and the opening that shows it.
fn seal(name: &str, value: &Value) -> Result<(String, Opening), Error> {
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name_byte) {
        return Err(Error::SealedName(name.chars().take(80).collect()));
    }
    let canonical = Zeroizing::new(value.canonical());
    json::parse_with_depth(canonical.as_bytes(), json::MAX_SEALED_DEPTH)
        .map_err(|e| Error::Value(e.to_string()))?;
    let mut salt = [0_u8; 32];
    super::fill_random(&mut salt);
    let mut hash = Sha256::new();
    hash.update([0x02]);
    hash.update(salt);
    hash.update(canonical.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let opening = format!("{{\"salt\":\"{}\",\"value\":{}}}", super::base64(&salt), canonical.as_str());
    Ok((super::hex(&hash), Opening { name: name.to_owned(), canonical: Zeroizing::new(opening) }))
}
