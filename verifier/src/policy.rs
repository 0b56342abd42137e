//! Witness policies: a C2SP `tlog-policy`, of which the `log` lines are ignored.
//!
//! The logs are known from the key manifest; the policy says which witnesses' cosignatures make a checkpoint one
//! that others have seen too. It is the customer's own file: where it is malformed, nothing is verified.

use std::collections::{HashMap, HashSet};

use crate::checkpoint::{Cosignature, cosignature_key_id, is_key_name};
use crate::encoding::parse_base64;
use crate::proof::parse_decimal;
use crate::signature::{self, PublicKey};

/// The signature type of a witness' key (C2SP `tlog-cosignature`, Ed25519).
const WITNESS_TYPE: u8 = 0x04;

/// The name that is predefined for a quorum of nobody.
const NONE: &[u8] = b"none";

/// A witness: the name and key of its signature lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The key name of its lines.
    pub name: String,
    /// The key id of its lines.
    pub key_id: [u8; 4],
    /// Its key.
    pub public_key: PublicKey,
}

/// Who has to have cosigned a checkpoint.
#[derive(Clone, Debug)]
pub struct Policy {
    witnesses: Vec<Witness>,
    /// Witnesses and groups in the order of the file, so that a group's members stand before it.
    nodes: Vec<Node>,
    /// Index of a node; none is the quorum `none`.
    quorum: Option<usize>,
}

#[derive(Clone, Debug)]
enum Node {
    /// Index of a witness.
    Witness(usize),
    /// Indexes of nodes, and how many of them are needed.
    Group { threshold: usize, members: Vec<usize> },
}

/// A text is not a policy; says which line and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An octet that the format does not allow.
    #[error("line {line} has a control character")]
    ControlCharacter {
        /// The line, the first being 1.
        line: usize,
    },
    /// A line that is none of the format's.
    #[error("line {line} is not {expected}")]
    Line {
        /// The line, the first being 1.
        line: usize,
        /// What would be right.
        expected: &'static str,
    },
    /// A name that is defined twice, or the predefined one.
    #[error("line {line} defines a name that is taken")]
    NameTaken {
        /// The line, the first being 1.
        line: usize,
    },
    /// A name that no line before defines.
    #[error("line {line} uses a name that no line before it defines")]
    UnknownName {
        /// The line, the first being 1.
        line: usize,
    },
    /// A name that is already a member of a group.
    #[error("line {line} has a member that is in a group already")]
    MemberTwice {
        /// The line, the first being 1.
        line: usize,
    },
    /// A witness' key is not a vkey of type 0x04 whose id is right.
    #[error("line {line} has no witness key of the form NAME+ID+KEY, type 0x04")]
    VerifierKey {
        /// The line, the first being 1.
        line: usize,
    },
    /// A witness' key is refused.
    #[error("line {line}: {source}")]
    Key {
        /// The line, the first being 1.
        line: usize,
        /// Why.
        source: signature::Error,
    },
    /// Two witnesses have one key.
    #[error("line {line} has the key of an earlier witness")]
    KeyTwice {
        /// The line, the first being 1.
        line: usize,
    },
    /// There is not exactly one quorum line.
    #[error("there is not exactly one quorum line")]
    Quorum,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Where it is not one, has no quorum, or has a witness whose key is not a sound one of type 0x04.
    pub fn parse(input: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::default();
        for (index, line) in input.split(|byte| *byte == b'\n').enumerate() {
            reader.line(index + 1, line)?;
        }
        let quorum = reader.quorum.ok_or(Error::Quorum)?;
        Ok(Self { witnesses: reader.witnesses, nodes: reader.nodes, quorum })
    }

    /// The witnesses, in the order of the file.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Whether the quorum is `none`, which is met without any cosignature.
    pub fn is_quorum_none(&self) -> bool {
        self.quorum.is_none()
    }

    /// Whether these cosignatures, verified under this policy, meet the quorum.
    pub fn is_met_by<'a>(&self, cosignatures: impl IntoIterator<Item = &'a Cosignature>) -> bool {
        let present: HashSet<usize> =
            cosignatures.into_iter().map(|cosignature| cosignature.witness).collect();
        let mut met: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            met.push(match node {
                Node::Witness(witness) => present.contains(witness),
                Node::Group { threshold, members } => {
                    members.iter().filter(|member| met[**member]).count() >= *threshold
                }
            });
        }
        self.quorum.is_none_or(|quorum| met[quorum])
    }
}

/// What the lines so far have defined.
#[derive(Default)]
struct Reader<'a> {
    witnesses: Vec<Witness>,
    nodes: Vec<Node>,
    /// Names are octets: two spellings of one character are two names.
    names: HashMap<&'a [u8], usize>,
    members: HashSet<usize>,
    keys: HashSet<[u8; 32]>,
    quorum: Option<Option<usize>>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, number: usize, line: &'a [u8]) -> Result<(), Error> {
        if line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7F) {
            return Err(Error::ControlCharacter { line: number });
        }
        let mut items = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|item| !item.is_empty());
        let Some(keyword) = items.next() else { return Ok(()) };
        let items: Vec<&[u8]> = items.collect();
        match (keyword, &items[..]) {
            ([b'#', ..], _) | (b"log", [_] | [_, _]) => Ok(()),
            (b"log", _) => Err(Error::Line { line: number, expected: "log VKEY [URL]" }),
            (b"witness", [name, key] | [name, key, _]) => self.witness(number, name, key),
            (b"witness", _) => Err(Error::Line { line: number, expected: "witness NAME VKEY [URL]" }),
            (b"group", [name, threshold, members @ ..]) => self.group(number, name, threshold, members),
            (b"quorum", [name]) => self.quorum(number, name),
            (b"quorum", _) => Err(Error::Line { line: number, expected: "quorum NAME" }),
            (b"group", _) => Err(Error::Line { line: number, expected: GROUP }),
            _ => Err(Error::Line { line: number, expected: "a log, witness, group or quorum line" }),
        }
    }

    fn define(&mut self, line: usize, name: &'a [u8], node: Node) -> Result<(), Error> {
        if name == NONE || self.names.insert(name, self.nodes.len()).is_some() {
            return Err(Error::NameTaken { line });
        }
        self.nodes.push(node);
        Ok(())
    }

    fn witness(&mut self, line: usize, name: &'a [u8], key: &[u8]) -> Result<(), Error> {
        let witness = read_verifier_key(line, key)?;
        if !self.keys.insert(*witness.public_key.bytes()) {
            return Err(Error::KeyTwice { line });
        }
        self.witnesses.push(witness);
        self.define(line, name, Node::Witness(self.witnesses.len() - 1))
    }

    fn group(
        &mut self,
        line: usize,
        name: &'a [u8],
        threshold: &[u8],
        members: &[&[u8]],
    ) -> Result<(), Error> {
        let mut indexes = Vec::with_capacity(members.len());
        for member in members {
            let index = *self.names.get(member).ok_or(Error::UnknownName { line })?;
            if !self.members.insert(index) {
                return Err(Error::MemberTwice { line });
            }
            indexes.push(index);
        }
        let threshold = match threshold {
            b"any" => 1,
            b"all" => indexes.len(),
            digits => {
                let number = std::str::from_utf8(digits).ok().and_then(parse_decimal);
                number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
            }
        };
        if !(1..=indexes.len()).contains(&threshold) {
            return Err(Error::Line { line, expected: GROUP });
        }
        self.define(line, name, Node::Group { threshold, members: indexes })
    }

    fn quorum(&mut self, line: usize, name: &[u8]) -> Result<(), Error> {
        if self.quorum.is_some() {
            return Err(Error::Quorum);
        }
        let node =
            if name == NONE { None } else { Some(*self.names.get(name).ok_or(Error::UnknownName { line })?) };
        self.quorum = Some(node);
        Ok(())
    }
}

/// What a group line looks like.
const GROUP: &str = "group NAME any|all|K MEMBER…, with K from 1 to the number of members";

/// Reads a C2SP `signed-note` verifier key: `<name>+<8 hex digits>+<base64 of type and key>`.
fn read_verifier_key(line: usize, key: &[u8]) -> Result<Witness, Error> {
    let malformed = || Error::VerifierKey { line };
    let key = std::str::from_utf8(key).map_err(|_| malformed())?;
    let mut parts = key.splitn(3, '+');
    let (Some(name), Some(id), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed());
    };
    let material = parse_base64(material).ok_or_else(malformed)?;
    let [WITNESS_TYPE, public_key @ ..] = &material[..] else { return Err(malformed()) };
    let public_key: &[u8; 32] = public_key.try_into().map_err(|_| malformed())?;
    let key_id = cosignature_key_id(name, public_key);
    let is_named = id.len() == 8 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_key_name(name) || !is_named || u32::from_str_radix(id, 16) != Ok(u32::from_be_bytes(key_id)) {
        return Err(malformed());
    }
    let public_key = PublicKey::from_bytes(public_key).map_err(|source| Error::Key { line, source })?;
    Ok(Witness { name: name.to_owned(), key_id, public_key })
}
