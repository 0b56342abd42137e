//! Makes receipts, checkpoints, proofs and policies, right ones and others, from the formats alone. Keys, ledgers and
//! exports are `export_support`'s.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

#[path = "../export_support/mod.rs"]
pub mod export_support;

use std::path::PathBuf;

use ed25519_dalek::{Signer as _, SigningKey};
pub use export_support::{
    Export, INSTANCE, LEDGER, Ledger, Signer, canonical, int, key_id, leaf, object, sha256, sign, text,
    tree_root,
};
use statusledger_verify::Hash;
use statusledger_verify::checkpoint::{
    self, cosignature_key_id, cosignature_line, cosignature_message, signature_line,
};
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::json::{Object, Value};
use statusledger_verify::manifest::{KeyManifest, TrustedKeys};
use statusledger_verify::time::Timestamp;

pub const DESTINATION: &str = "0190c5a1-1111-7000-8000-000000000001";
pub const OTHER_LEDGER: &str = "0190c5a1-2222-7000-8000-000000000002";
pub const RECEIPT_ISSUED_AT: &str = "2026-11-20T12:00:00.000000Z";
/// A time at which everything made here is fresh.
pub const AT: &str = "2026-11-21T00:00:00.000000Z";

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The directory of the shared vectors; says so and answers none where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let path = std::env::var_os("STATUSLEDGER_SHARED").map_or_else(default, PathBuf::from).join(path);
    if !path.exists() {
        eprintln!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}

/// RFC 6962, section 2.1.1: the path of a leaf, from its sibling up.
pub fn inclusion_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut path, sibling) = if index < split {
        (inclusion_path(index, left), tree_root(right))
    } else {
        (inclusion_path(index - split, right), tree_root(left))
    };
    path.push(sibling);
    path
}

/// RFC 6962, section 2.1.2: the proof that the tree of the leaves extends the one of the first `from`.
pub fn consistency_path(from: usize, leaves: &[Hash]) -> Vec<Hash> {
    fn subproof(from: usize, leaves: &[Hash], is_known: bool) -> Vec<Hash> {
        if from == leaves.len() {
            return if is_known { Vec::new() } else { vec![tree_root(leaves)] };
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        let (mut path, sibling) = if from <= split {
            (subproof(from, left, is_known), tree_root(right))
        } else {
            (subproof(from - split, right, false), tree_root(left))
        };
        path.push(sibling);
        path
    }
    if from == 0 { Vec::new() } else { subproof(from, leaves, true) }
}

/// A witness, by the name of its lines.
pub struct Witness {
    pub name: String,
    pub key: SigningKey,
}

impl Witness {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), key: SigningKey::from_bytes(&sha256(&[b"witness", name.as_bytes()])) }
    }

    pub fn key_id(&self) -> [u8; 4] {
        cosignature_key_id(&self.name, self.key.verifying_key().as_bytes())
    }

    /// C2SP signed-note: the verifier key of type 0x04.
    pub fn verifier_key(&self) -> String {
        let material = [&[4], &self.key.verifying_key().as_bytes()[..]].concat();
        format!("{}+{:08x}+{}", self.name, u32::from_be_bytes(self.key_id()), base64(&material))
    }

    /// The witness' line under a checkpoint (all of it or its text).
    pub fn line(&self, checkpoint: &str, unix_seconds: u64) -> String {
        let text = note_text(checkpoint);
        let signature = self.key.sign(&cosignature_message(unix_seconds, text)).to_bytes();
        cosignature_line(&self.name, self.key_id(), unix_seconds, &signature)
    }
}

/// What is signed of a checkpoint.
pub fn note_text(checkpoint: &str) -> &str {
    checkpoint.split_once("\n\n").map_or(checkpoint, |(text, _)| &checkpoint[..text.len() + 1])
}

/// The log's own line.
pub fn log_line(key: &SigningKey, name: &str, text: &str) -> String {
    let key_id = checkpoint::note_key_id(name, key.verifying_key().as_bytes());
    signature_line(name, key_id, &key.sign(text.as_bytes()).to_bytes())
}

/// A policy of these witnesses, each named by its key name, with such a quorum line at the end.
pub fn policy(witnesses: &[&Witness], rest: &str) -> String {
    let lines =
        witnesses.iter().map(|witness| format!("witness {} {}\n", witness.name, witness.verifier_key()));
    lines.collect::<String>() + rest
}

/// Who signs, and a ledger of 20 entries; seq 10 and 15 have sealed values.
pub struct World {
    pub signer: Signer,
    pub ledger: Ledger,
}

impl Default for World {
    fn default() -> Self {
        Self { signer: Signer::new(b"an instance"), ledger: Ledger::of(20) }
    }
}

impl World {
    pub fn keys_json(&self) -> Vec<u8> {
        self.signer.keys_json(|_, _| ())
    }

    pub fn keys(&self) -> TrustedKeys {
        self.trust(&self.keys_json())
    }

    pub fn trust(&self, keys_json: &[u8]) -> TrustedKeys {
        KeyManifest::parse(keys_json).unwrap().trust(&self.signer.pin()).unwrap()
    }

    /// The receipt of an entry in the tree of the first `size`.
    pub fn draft(&self, seq: usize, size: usize) -> Draft {
        let parsed = statusledger_verify::json::parse(&self.ledger.lines[seq]).unwrap();
        let mut openings = Object::new();
        for opening in &self.ledger.openings {
            if opening.get("seq").unwrap().as_u64() == Some(seq as u64) {
                let name = opening.get("name").unwrap().as_str().unwrap();
                let (salt, value) = (opening.get("salt").unwrap(), opening.get("value").unwrap());
                let opening = object([("salt", salt.clone()), ("value", value.clone())]);
                openings.insert(name.to_owned(), Value::Object(opening));
            }
        }
        let leaves = self.ledger.leaves()[..size].to_vec();
        Draft {
            entry: parsed.as_object().unwrap().clone(),
            openings: (!openings.is_empty()).then_some(Value::Object(openings)),
            receipt: object([
                ("v", int(1)),
                ("instance", text(&self.signer.instance)),
                ("id", text(&format!("rcpt_0190c5a1-0000-7000-8000-{seq:012}"))),
                ("destination", text(DESTINATION)),
                ("number", int(seq as u64 + 1)),
                ("issued_at", text(RECEIPT_ISSUED_AT)),
                ("key_id", text(&hex(&key_id(&self.signer.receipt)))),
            ]),
            origin: format!("{}/{LEDGER}", self.signer.instance),
            seq,
            leaves,
            key: self.signer.receipt.clone(),
            kind: "receipt",
            checkpoint_key: self.signer.checkpoint.clone(),
        }
    }

    /// The right body of an entry.
    pub fn body(&self, seq: usize, size: usize) -> Vec<u8> {
        canonical(&self.draft(seq, size).finish())
    }
}

/// A receipt to be changed before it is signed.
#[derive(Clone)]
pub struct Draft {
    pub entry: Object,
    pub openings: Option<Value>,
    /// Without `signature` and `proof`.
    pub receipt: Object,
    pub origin: String,
    pub seq: usize,
    /// Of the whole tree; the entry's own is put in when the receipt is made.
    pub leaves: Vec<Hash>,
    pub key: SigningKey,
    pub kind: &'static str,
    pub checkpoint_key: SigningKey,
}

impl Draft {
    pub fn with(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self
    }

    fn leaves(&self) -> Vec<Hash> {
        let mut leaves = self.leaves.clone();
        leaves[self.seq] = leaf(&canonical(&self.entry));
        leaves
    }

    pub fn checkpoint(&self) -> String {
        let root = tree_root(&self.leaves());
        let text = format!("{}\n{}\n{}\n", self.origin, self.leaves.len(), base64(&root));
        format!("{text}\n{}", log_line(&self.checkpoint_key, &self.origin, &text))
    }

    /// The proof without its checkpoint.
    pub fn path(&self) -> String {
        let hashes = inclusion_path(self.seq, &self.leaves());
        let lines: String = hashes.iter().map(|hash| base64(hash) + "\n").collect();
        format!("c2sp.org/tlog-proof@v1\nindex {}\n{lines}", self.seq)
    }

    pub fn proof(&self) -> String {
        format!("{}\n{}", self.path(), self.checkpoint())
    }

    pub fn finish(&self) -> Object {
        self.finish_with(&self.proof())
    }

    pub fn finish_with(&self, proof: &str) -> Object {
        let mut body = self.entry.clone();
        body.insert("receipt".to_owned(), Value::Object(self.receipt.clone()));
        let mut receipt = self.receipt.clone();
        receipt.insert("signature".to_owned(), sign(&self.key, self.kind, &canonical(&body)));
        receipt.insert("proof".to_owned(), text(proof));
        body.insert("receipt".to_owned(), Value::Object(receipt));
        if let Some(openings) = &self.openings {
            body.insert("openings".to_owned(), openings.clone());
        }
        body
    }
}

/// Changes a member of an object within an object.
pub fn edit(object: &mut Object, path: &[&str], value: Value) {
    let [name, rest @ ..] = path else { unreachable!("a path has a name") };
    if rest.is_empty() {
        object.insert((*name).to_owned(), value);
        return;
    }
    let Some(Value::Object(mut inner)) = object.remove(name) else { unreachable!("{name} is an object") };
    edit(&mut inner, rest, value);
    object.insert((*name).to_owned(), Value::Object(inner));
}

/// Takes a member of an object within an object out.
pub fn remove(object: &mut Object, path: &[&str]) {
    let [name, rest @ ..] = path else { unreachable!("a path has a name") };
    if rest.is_empty() {
        object.remove(name).unwrap();
        return;
    }
    let Some(Value::Object(mut inner)) = object.remove(name) else { unreachable!("{name} is an object") };
    remove(&mut inner, rest);
    object.insert((*name).to_owned(), Value::Object(inner));
}

/// `depth` arrays around a scalar.
pub fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Int(1), |inner, _| Value::Array(vec![inner]))
}
