//! Makes exports, right ones and others, from the formats alone: keys, ledger, manifest and zip are written here by
//! means of their own, so that the verifier is not tested against itself.
#![allow(dead_code, clippy::unwrap_used)]

pub mod reference;
pub mod zip;

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest, Sha256};
use statusledger_verify::encoding::{base64, hex};
use statusledger_verify::json::{Object, Value};
use statusledger_verify::manifest::Pin;
use statusledger_verify::{Hash, checkpoint};

pub const INSTANCE: &str = "ledger.example.org";
pub const LEDGER: &str = "0190c5a1-7c3e-7b1a-9d55-0a6d5e2f4b10";
pub const ISSUED_AT: &str = "2026-11-01T00:00:00.000000Z";
pub const EXPORTED_AT: &str = "2026-11-20T12:00:00.000000Z";

pub fn sha256(parts: &[&[u8]]) -> Hash {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

pub fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

pub fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap())
}

pub fn object<const N: usize>(members: [(&str, Value); N]) -> Object {
    let mut object = Object::new();
    for (name, value) in members {
        object.insert(name.to_owned(), value);
    }
    object
}

pub fn canonical(object: &Object) -> Vec<u8> {
    Value::Object(object.clone()).canonical().into_bytes()
}

/// Who signs: one key of each purpose.
pub struct Signer {
    pub instance: String,
    pub root: SigningKey,
    pub receipt: SigningKey,
    pub checkpoint: SigningKey,
}

pub fn key_id(key: &SigningKey) -> Hash {
    sha256(&[key.verifying_key().as_bytes()])
}

pub fn sign(key: &SigningKey, kind: &str, message: &[u8]) -> Value {
    let message = [b"statusledger/v1/", kind.as_bytes(), b"\n", message].concat();
    text(&base64(&key.sign(&message).to_bytes()))
}

impl Signer {
    pub fn new(seed: &[u8]) -> Self {
        let key = |purpose: &[u8]| SigningKey::from_bytes(&sha256(&[seed, purpose]));
        Self {
            instance: INSTANCE.to_owned(),
            root: key(b"root"),
            receipt: key(b"receipt"),
            checkpoint: key(b"checkpoint"),
        }
    }

    pub fn pin(&self) -> Pin {
        Pin { key_id: key_id(&self.root), instance: self.instance.clone() }
    }

    fn key(&self, key: &SigningKey, purpose: &str) -> Object {
        object([
            ("key_id", text(&hex(&key_id(key)))),
            ("public_key", text(&base64(key.verifying_key().as_bytes()))),
            ("purpose", text(purpose)),
            ("not_before", text("2026-10-01T00:00:00.000000Z")),
            ("not_after", Value::Null),
            ("verify_until", Value::Null),
            ("revoked_at", Value::Null),
        ])
    }

    /// The key manifest: root, receipt and checkpoint key, changed by `edit`, then signed.
    pub fn keys_json(&self, edit: impl FnOnce(&mut [Object; 3], &mut Object)) -> Vec<u8> {
        let mut root = self.key(&self.root, "root");
        let endorsed = canonical(&object([
            ("instance", text(&self.instance)),
            ("key_id", root.get("key_id").unwrap().clone()),
            ("not_before", root.get("not_before").unwrap().clone()),
            ("public_key", root.get("public_key").unwrap().clone()),
            ("purpose", text("root")),
        ]));
        root.insert("endorsed_by".to_owned(), root.get("key_id").unwrap().clone());
        root.insert("endorsement".to_owned(), sign(&self.root, "endorsement", &endorsed));
        let mut keys = [root, self.key(&self.receipt, "receipt"), self.key(&self.checkpoint, "checkpoint")];
        let mut manifest = object([
            ("v", int(1)),
            ("instance", text(&self.instance)),
            ("ledger", text("0190c5a1-0000-7000-8000-000000000000")),
            ("serial", int(7)),
            ("issued_at", text(ISSUED_AT)),
            ("expires", text("2027-01-30T00:00:00.000000Z")),
            ("key_id", text(&hex(&key_id(&self.root)))),
        ]);
        edit(&mut keys, &mut manifest);
        manifest.insert("keys".to_owned(), Value::Array(keys.map(Value::Object).to_vec()));
        let signature = sign(&self.root, "manifest", &canonical(&manifest));
        manifest.insert("signature".to_owned(), signature);
        canonical(&manifest)
    }

    pub fn checkpoint(&self, ledger: &str, size: u64, root: &Hash) -> Vec<u8> {
        let origin = format!("{}/{ledger}", self.instance);
        let text = format!("{origin}\n{size}\n{}\n", base64(root));
        let key_id = checkpoint::note_key_id(&origin, self.checkpoint.verifying_key().as_bytes());
        let signature = self.checkpoint.sign(text.as_bytes()).to_bytes();
        format!("{text}\n{}", checkpoint::signature_line(&origin, key_id, &signature)).into_bytes()
    }
}

/// RFC 6962, section 2.1, as it is written there.
pub fn tree_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1], &tree_root(left), &tree_root(right)])
        }
    }
}

pub fn leaf(line: &[u8]) -> Hash {
    sha256(&[&[0], line])
}

/// A ledger and all its openings.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Canonical entries.
    pub lines: Vec<Vec<u8>>,
    pub kinds: Vec<String>,
    pub openings: Vec<Object>,
}

impl Ledger {
    /// `count` entries of a few types, every fifth with two sealed values.
    pub fn of(count: u64) -> Self {
        let mut ledger = Self::default();
        for seq in 0..count {
            let kind = ["store.version.transitioned", "build.processed", "audit.login"][seq as usize % 3];
            let sealed: &[(&str, Value)] = &[
                ("email", text("ünï@example.org")),
                (
                    "payload",
                    Value::Array(vec![int(seq), Value::Null, Value::Object(object([("a", int(1))]))]),
                ),
            ];
            ledger.append(kind, if seq % 5 == 0 { sealed } else { &[] });
        }
        ledger
    }

    pub fn append(&mut self, kind: &str, sealed: &[(&str, Value)]) {
        let seq = self.lines.len() as u64;
        let mut data = object([("app", text("6446048195")), ("to", text("\u{201c}READY\u{201d} \n"))]);
        if !sealed.is_empty() {
            let mut hashes = Object::new();
            for (name, value) in sealed {
                let salt = sha256(&[b"salt", &seq.to_be_bytes(), name.as_bytes()]);
                let hash = sha256(&[&[2], &salt, value.canonical().as_bytes()]);
                hashes.insert((*name).to_owned(), text(&hex(&hash)));
                self.openings.push(object([
                    ("name", text(name)),
                    ("salt", text(&base64(&salt))),
                    ("seq", int(seq)),
                    ("value", value.clone()),
                ]));
            }
            data.insert("sealed".to_owned(), Value::Object(hashes));
        }
        let entry = object([
            ("v", int(1)),
            ("ledger", text(LEDGER)),
            ("seq", int(seq)),
            ("prev", text(&hex(&self.lines.last().map_or([0; 32], |line| leaf(line))))),
            (
                "timestamp",
                text(&format!(
                    "2026-11-02T{:02}:{:02}:{:02}.000004Z",
                    3 + seq / 3600,
                    seq / 60 % 60,
                    seq % 60
                )),
            ),
            ("nonce", text(&base64(&sha256(&[&seq.to_be_bytes()])[..16]))),
            ("type", text(kind)),
            ("data", Value::Object(data)),
        ]);
        self.lines.push(canonical(&entry));
        self.kinds.push(kind.to_owned());
    }

    pub fn leaves(&self) -> Vec<Hash> {
        self.lines.iter().map(|line| leaf(line)).collect()
    }
}

/// The members of an export, to be changed before it is written.
#[derive(Clone)]
pub struct Export {
    /// Without line feeds.
    pub lines: Vec<Vec<u8>>,
    pub openings: Option<Vec<Vec<u8>>>,
    pub checkpoint: Vec<u8>,
    pub keys: Vec<u8>,
    /// Without `signature`.
    pub manifest: Object,
}

impl Export {
    /// Exports `from..to`, only the types of `filter` where there is one, with openings where asked for.
    pub fn of(
        signer: &Signer,
        ledger: &Ledger,
        (from, to): (usize, usize),
        filter: Option<&[&str]>,
        openings: bool,
    ) -> Self {
        let leaves = ledger.leaves();
        let kept = |seq: &usize| filter.is_none_or(|kinds| kinds.contains(&ledger.kinds[*seq].as_str()));
        let line = |seq: usize| {
            if kept(&seq) {
                return ledger.lines[seq].clone();
            }
            canonical(&object([("leaf", text(&hex(&leaves[seq]))), ("seq", int(seq as u64))]))
        };
        let root = tree_root(&leaves[..to]);
        let mut left = Vec::new();
        let mut start = 0;
        for height in (0..usize::BITS).rev() {
            if from >> height & 1 == 1 {
                left.push(text(&hex(&tree_root(&leaves[start..start + (1 << height)]))));
                start += 1 << height;
            }
        }
        let types = |kinds: &[&str]| Value::Array(kinds.iter().map(|kind| text(kind)).collect());
        let manifest = object([
            ("v", int(1)),
            ("instance", text(&signer.instance)),
            ("ledger", text(LEDGER)),
            ("from", int(from as u64)),
            ("to", int(to as u64)),
            ("root", text(&hex(&root))),
            ("count", int((from..to).filter(kept).count() as u64)),
            ("filter", filter.map_or(Value::Null, types)),
            ("left", Value::Array(left)),
            ("exported_at", text(EXPORTED_AT)),
            ("exported_by", text("usr_1")),
            ("key_id", text(&hex(&key_id(&signer.receipt)))),
        ]);
        let is_open = |opening: &&Object| {
            let seq = opening.get("seq").unwrap().as_u64().unwrap() as usize;
            (from..to).contains(&seq) && kept(&seq)
        };
        Self {
            lines: (from..to).map(line).collect(),
            openings: openings.then(|| ledger.openings.iter().filter(is_open).map(canonical).collect()),
            checkpoint: signer.checkpoint(LEDGER, to as u64, &root),
            keys: signer.keys_json(|_, _| ()),
            manifest,
        }
    }

    pub fn set(&mut self, name: &str, value: Value) {
        self.manifest.insert(name.to_owned(), value);
    }

    /// `manifest.json`, signed.
    pub fn manifest_json(&self, signer: &Signer) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        let signature = sign(&signer.receipt, "export", &canonical(&manifest));
        manifest.insert("signature".to_owned(), signature);
        canonical(&manifest)
    }

    /// The members of the zip, in order.
    pub fn members(&self, signer: &Signer) -> Vec<(String, Vec<u8>)> {
        let lines = |lines: &[Vec<u8>]| lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect();
        let mut members = vec![("entries.jsonl".to_owned(), lines(&self.lines))];
        members.extend(self.openings.as_ref().map(|openings| ("openings.jsonl".to_owned(), lines(openings))));
        members.push(("checkpoint".to_owned(), self.checkpoint.clone()));
        members.push(("keys.json".to_owned(), self.keys.clone()));
        members.push(("manifest.json".to_owned(), self.manifest_json(signer)));
        members
    }

    /// The whole file, stored.
    pub fn zip(&self, signer: &Signer) -> Vec<u8> {
        zip::write(
            &self.members(signer).into_iter().map(|(n, d)| zip::Member::stored(&n, d)).collect::<Vec<_>>(),
        )
    }
}
