//! Receipts: a notification's body, from its bytes to a verdict.
//!
//! [`Receipt::parse`] does the checks that need nothing but the body (R1, R2), [`Receipt::verify`] the others;
//! [`verify`] is both. Whoever verifies many bodies reads the key manifest once and keeps its
//! [`TrustedKeys`]: then a body costs its hashing and two signature verifications.

use crate::check::{Check, Facts, Failure, Findings};
use crate::checkpoint::{self, Cosignature, SignedCheckpoint};
use crate::encoding::hex;
use crate::entry::{self, Entry, sealed_hash};
use crate::json::{self, MAX_SEALED_DEPTH, Object, Value, write_canonical_string};
use crate::manifest::{Key, Revoked, TrustedKeys};
use crate::members::{Malformed, Members, is_sealed_name, is_uuid};
use crate::policy::Policy;
use crate::proof::Proof;
use crate::report::{Mode, Report, Subject, TimeSource, Verdict};
use crate::signature::{self, Kind};
use crate::time::Timestamp;
use crate::tree;

/// The largest body, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

const MEMBERS: &[&str] =
    &["destination", "id", "instance", "issued_at", "key_id", "number", "proof", "signature", "v"];

/// What is asked of a receipt.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ledger that it has to be of.
    pub ledger: Option<String>,
    /// The destination that it has to be for.
    pub destination: Option<String>,
    /// The time at which freshness is judged; now, where there is none.
    pub at: Option<Timestamp>,
    /// How fresh it has to be.
    pub mode: Mode,
    /// Who has to have cosigned its checkpoint.
    pub policy: Option<Policy>,
    /// Whether revoked keys count.
    pub revoked: Revoked,
    /// A signed checkpoint, byte for byte, whose signature the caller has verified under these keys already: many receipts
    /// are of one tree, and their checkpoint need not be verified for each. Counts only where there is no policy.
    pub verified_checkpoint: Option<std::sync::Arc<str>>,
}

impl Default for Options {
    /// Fresh now, of any ledger and for any destination, without witnesses.
    fn default() -> Self {
        Self {
            ledger: None,
            destination: None,
            at: None,
            mode: Mode::Fresh,
            policy: None,
            revoked: Revoked::Refused,
            verified_checkpoint: None,
        }
    }
}

/// Verifies a body under the keys of a trusted manifest.
///
/// # Errors
/// The first check that failed, in the order of formats.md.
pub fn verify(body: &[u8], keys: &TrustedKeys, options: &Options) -> Result<Report, Failure> {
    Receipt::parse(body)?.verify(keys, options)
}

/// A body of the right shape, of which nothing is verified yet.
#[derive(Clone, Debug)]
pub struct Receipt {
    body: Object,
    ledger: String,
    seq: u64,
    timestamp: Timestamp,
    entry_type: String,
    instance: String,
    id: String,
    destination: String,
    number: u64,
    issued_at: Timestamp,
    key_id: crate::Hash,
    signature: [u8; 64],
    /// The canonical entry.
    leaf: Vec<u8>,
}

impl Receipt {
    /// Reads a body: the checks R1 and R2.
    ///
    /// # Errors
    /// [`Check::Json`] or [`Check::Members`].
    pub fn parse(input: &[u8]) -> Result<Self, Failure> {
        let failure = |detail: String| Failure::new(Check::Json, format!("the body is refused: {detail}"));
        if input.len() > MAX_BYTES {
            return Err(failure(format!("more than {MAX_BYTES} bytes")));
        }
        let document = json::parse(input).map_err(|error| failure(error.to_string()))?;
        let mut leaf = Vec::new();
        if let Some(body) = document.as_object() {
            if let Some(name) = too_deep_opening(body) {
                return Err(failure(format!(
                    "openings.{name}.value has more than {MAX_SEALED_DEPTH} levels"
                )));
            }
            body.write_canonical_without(&["openings", "receipt"], &mut leaf);
            if leaf.len() > entry::MAX_BYTES {
                return Err(failure(format!("the entry has more than {} bytes", entry::MAX_BYTES)));
            }
        }
        let read = Self::read(document, leaf);
        read.map_err(|Malformed(detail)| Failure::new(Check::Members, detail))
    }

    fn read(document: Value, leaf: Vec<u8>) -> Result<Self, Malformed> {
        let required = [entry::MEMBERS, &["receipt"]].concat();
        let members = Members::of(&document, "", &required, &["openings"])?;
        let entry = Entry::read(&members)?;
        let receipt = members.optional("receipt").expect("it is a required member");
        let receipt = Members::of(receipt, "receipt.", MEMBERS, &[])?;
        receipt.version()?;
        let is_id = |id: &str| id.strip_prefix("rcpt_").is_some_and(is_uuid);
        receipt.string("proof")?;
        if let Some(openings) = members.optional("openings") {
            check_openings(openings)?;
        }
        Ok(Self {
            ledger: entry.ledger.to_owned(),
            seq: entry.seq,
            timestamp: entry.timestamp,
            entry_type: entry.entry_type.to_owned(),
            instance: receipt.instance()?.to_owned(),
            id: receipt.matching("id", "rcpt_ and a UUID", is_id)?.to_owned(),
            destination: receipt.id("destination")?.to_owned(),
            number: receipt.integer("number", 1)?,
            issued_at: receipt.time("issued_at")?,
            key_id: receipt.hash("key_id")?,
            signature: receipt.binary("signature")?,
            body: match document {
                Value::Object(body) => body,
                _ => unreachable!("its members were read"),
            },
            leaf,
        })
    }

    /// The entry's `seq`.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What the body says of itself.
    pub fn facts(&self) -> Facts {
        Facts {
            seq: Some(self.seq),
            instance: Some(self.instance.clone()),
            ledger: Some(self.ledger.clone()),
            key_id: Some(self.key_id),
            ..Facts::default()
        }
    }

    /// Verifies the body under the keys of a trusted manifest: the checks R4 to R17.
    ///
    /// # Errors
    /// The first check that failed, in the order of formats.md; what failed after `key_revoked` or `stale` is in
    /// [`Failure::also`].
    pub fn verify(&self, keys: &TrustedKeys, options: &Options) -> Result<Report, Failure> {
        let mut facts = self.facts();
        facts.keys_serial = Some(keys.manifest().serial);
        facts.keys_issued_at = Some(keys.manifest().issued_at);
        let mut findings = Findings::new();
        match self.run(keys, options, &mut facts, &mut findings) {
            Err(failure) => Err(findings.end_with(failure).with_facts(&facts)),
            Ok((checkpoint, cosignatures)) => {
                findings.finish().map_err(|failure| failure.with_facts(&facts))?;
                Ok(self.report(checkpoint, &cosignatures, options, facts))
            }
        }
    }

    fn run(
        &self,
        keys: &TrustedKeys,
        options: &Options,
        facts: &mut Facts,
        findings: &mut Findings,
    ) -> Result<(checkpoint::Checkpoint, Vec<Cosignature>), Failure> {
        let key = self.check_names(keys, options)?;
        let revoked_at = key.revoked_at.filter(|_| options.revoked == Revoked::Refused);
        if let Some(revoked_at) = revoked_at {
            findings.note(
                Check::KeyRevoked,
                format!("the key {} was revoked at {revoked_at}", hex(&self.key_id)),
            );
        }
        self.check_times(key, keys, options, findings)?;
        let message = signature::message(Kind::Receipt, &self.signed_bytes());
        key.public_key.verify(&message, &self.signature).map_err(|error| {
            Failure::new(Check::Signature, format!("receipt.signature by {}: {error}", hex(&self.key_id)))
        })?;
        let (proof, signed) = self.read_proof()?;
        let checkpoint = signed.checkpoint().clone();
        facts.checkpoint_size = Some(checkpoint.size);
        let origin = checkpoint::origin(&self.instance, &self.ledger);
        if checkpoint.origin != origin {
            return Err(Failure::new(Check::Origin, format!("the checkpoint is not of {origin}")));
        }
        let known = options.policy.is_none()
            && options.verified_checkpoint.as_deref().is_some_and(|known| *known == *proof.checkpoint);
        let cosignatures = if known {
            Vec::new()
        } else {
            let signatures = signed
                .verify(keys, options.policy.as_ref(), options.revoked)
                .map_err(|error| Failure::new(Check::CheckpointSignature, error.to_string()))?;
            signatures.cosignatures
        };
        self.check_inclusion(&proof, &checkpoint)?;
        self.check_openings()?;
        if let Some(policy) = &options.policy {
            if !policy.is_met_by(&cosignatures) {
                let detail = format!("{} of its witnesses cosigned, no quorum", cosignatures.len());
                return Err(Failure::new(Check::Policy, detail));
            }
            let is_evidence = options.mode == Mode::Evidence;
            if revoked_at.is_some_and(|revoked_at| {
                is_evidence && self.was_witnessed_before(revoked_at, policy, &cosignatures)
            }) {
                findings.withdraw(Check::KeyRevoked);
            }
        }
        Ok((checkpoint, cosignatures))
    }

    /// R4 to R7.
    fn check_names<'a>(&self, keys: &'a TrustedKeys, options: &Options) -> Result<&'a Key, Failure> {
        let instance = &keys.manifest().instance;
        if self.instance != *instance {
            let detail = format!("the receipt is of {}, the key manifest of {instance}", self.instance);
            return Err(Failure::new(Check::Instance, detail));
        }
        if let Some(asked) = options.ledger.as_ref().filter(|asked| **asked != self.ledger) {
            let detail = format!("the receipt is of the ledger {}, not {asked}", self.ledger);
            return Err(Failure::new(Check::Ledger, detail));
        }
        if options.destination.as_ref().is_some_and(|asked| *asked != self.destination) {
            return Err(Failure::new(Check::Destination, "the receipt is for another destination"));
        }
        keys.receipt_key(&self.key_id).ok_or_else(|| {
            let serial = keys.manifest().serial;
            let detail =
                format!("the key manifest of serial {serial} has no receipt key {}", hex(&self.key_id));
            Failure::new(Check::KeyUnknown, detail)
        })
    }

    /// R9 and R10.
    fn check_times(
        &self,
        key: &Key,
        keys: &TrustedKeys,
        options: &Options,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        if !key.window_contains(self.issued_at) {
            let end = key.not_after.map_or("now on".to_owned(), |end| end.to_string());
            let detail = format!(
                "receipt.issued_at {} is outside the key's window, {} to {end}",
                self.issued_at, key.not_before
            );
            return Err(Failure::new(Check::KeyWindow, detail));
        }
        if options.mode == Mode::Fresh {
            let at = options.at.unwrap_or_else(Timestamp::now);
            let expires = keys.manifest().expires;
            if let Some(until) = key.verify_until.filter(|until| at > *until) {
                findings.note(Check::Stale, format!("the key's verify_until {until} is past at {at}"));
            } else if at > expires {
                findings.note(Check::Stale, format!("the key manifest's expires {expires} is past at {at}"));
            }
        }
        Ok(())
    }

    /// What the signature is over: the body without `openings`, `receipt.proof` and `receipt.signature`.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.leaf.len() + 512);
        for (name, value) in self.body.iter().filter(|(name, _)| *name != "openings") {
            out.push(if out.is_empty() { b'{' } else { b',' });
            write_canonical_string(name, &mut out);
            out.push(b':');
            match value {
                Value::Object(receipt) if name == "receipt" => {
                    receipt.write_canonical_without(&["proof", "signature"], &mut out);
                }
                other => other.write_canonical(&mut out),
            }
        }
        out.push(b'}');
        out
    }

    /// R12.
    fn read_proof(&self) -> Result<(Proof, SignedCheckpoint), Failure> {
        let failure = |detail: String| Failure::new(Check::Proof, detail);
        let receipt = self.body.get("receipt").and_then(Value::as_object);
        let text = receipt.and_then(|receipt| receipt.get("proof")).and_then(Value::as_str);
        let text = text.expect("the proof was read as a string");
        let proof = Proof::parse(text).map_err(|error| failure(error.to_string()))?;
        if proof.index != self.seq {
            return Err(failure(format!(
                "the proof is of index {}, the entry of seq {}",
                proof.index, self.seq
            )));
        }
        let signed = SignedCheckpoint::parse(proof.checkpoint.as_bytes())
            .map_err(|error| failure(error.to_string()))?;
        Ok((proof, signed))
    }

    /// R15.
    fn check_inclusion(&self, proof: &Proof, checkpoint: &checkpoint::Checkpoint) -> Result<(), Failure> {
        let leaf = tree::leaf_hash(&self.leaf);
        tree::verify_inclusion(proof.index, checkpoint.size, &leaf, &proof.hashes, &checkpoint.root)
            .map_err(|error| Failure::new(Check::Inclusion, error.to_string()))
    }

    /// R16.
    fn check_openings(&self) -> Result<(), Failure> {
        let Some(openings) = self.body.get("openings").and_then(Value::as_object) else { return Ok(()) };
        let sealed = self.body.get("data").and_then(Value::as_object).and_then(|data| data.get("sealed"));
        let sealed = sealed.and_then(Value::as_object);
        for (name, opening) in openings.iter() {
            let Some(hash) = sealed.and_then(|sealed| sealed.get(name)).and_then(Value::as_str) else {
                return Err(Failure::new(Check::Openings, format!("openings.{name} is not in data.sealed")));
            };
            let members = Members::of(opening, "", OPENING_MEMBERS, &[]);
            let members = members.expect("the openings' members were read");
            let salt = members.binary::<32>("salt").expect("the openings' salts were read");
            let value = members.optional("value").expect("it is a required member");
            let mut canonical = Vec::new();
            value.write_canonical(&mut canonical);
            if hex(&sealed_hash(&salt, &canonical)) != hash {
                let detail = format!("openings.{name} does not hash to data.sealed.{name}");
                return Err(Failure::new(Check::Openings, detail));
            }
        }
        Ok(())
    }

    /// Whether the policy is met by cosignatures from before a time, so that the receipt existed by then.
    ///
    /// A quorum of nobody says nothing about a time, and whoever signs after the revocation cannot borrow older
    /// cosignatures of the same log with a receipt that does not even claim to be older.
    fn was_witnessed_before(&self, time: Timestamp, policy: &Policy, cosignatures: &[Cosignature]) -> bool {
        let is_before = |cosignature: &&Cosignature| {
            let seconds = i64::try_from(cosignature.unix_seconds).ok();
            let micros = seconds.and_then(|seconds| seconds.checked_mul(1_000_000));
            micros.is_some_and(|micros| micros < time.unix_micros())
        };
        self.issued_at < time
            && !policy.is_quorum_none()
            && policy.is_met_by(cosignatures.iter().filter(is_before))
    }

    fn report(
        &self,
        checkpoint: checkpoint::Checkpoint,
        cosignatures: &[Cosignature],
        options: &Options,
        facts: Facts,
    ) -> Report {
        Report {
            verdict: if options.policy.is_some() { Verdict::Witnessed } else { Verdict::Included },
            time: if cosignatures.is_empty() { TimeSource::Claimed } else { TimeSource::Witnessed },
            facts,
            checkpoint,
            subject: Subject::Receipt {
                id: self.id.clone(),
                destination: self.destination.clone(),
                number: self.number,
                issued_at: self.issued_at,
                entry_type: self.entry_type.clone(),
                timestamp: self.timestamp,
            },
        }
    }
}

const OPENING_MEMBERS: &[&str] = &["salt", "value"];

/// The name of an opening whose value has too many levels. What else is wrong with openings is for R2 to say.
fn too_deep_opening(body: &Object) -> Option<&str> {
    let openings = body.get("openings")?.as_object()?;
    let is_too_deep = |opening: &Value| {
        let value = opening.as_object().and_then(|opening| opening.get("value"));
        value.is_some_and(|value| value.depth() > MAX_SEALED_DEPTH)
    };
    openings.iter().find(|(_, opening)| is_too_deep(opening)).map(|(name, _)| name)
}

fn check_openings(value: &Value) -> Result<(), Malformed> {
    let openings = value.as_object().ok_or_else(|| Malformed("openings is not an object".to_owned()))?;
    if openings.is_empty() {
        return Err(Malformed("openings is empty; it is absent rather than empty".to_owned()));
    }
    for (name, opening) in openings.iter() {
        if !is_sealed_name(name) {
            return Err(Malformed("openings has a name that is not [a-z0-9_]+".to_owned()));
        }
        let prefix = format!("openings.{name}.");
        Members::of(opening, &prefix, OPENING_MEMBERS, &[])?.binary::<32>("salt")?;
    }
    Ok(())
}
