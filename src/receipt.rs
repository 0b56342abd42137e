//! The receipt: an entry, a proof that it stands in the ledger, and a signature. It is the notification's body.
//!
//! What the body says is a pure function of durable rows (the entry, the delivery, the tree, the keys), so it is the
//! same on every attempt and after every crash. Nothing leaves before our own verifier has passed it.

use crate::id::{DestinationId, LedgerId, ReceiptId};
use crate::keyring::{self, Snapshot};
use crate::ledger::draft::Opening;
use crate::ledger::{base64, hex};
use base64::Engine;
use statusledger_verify::check::Check;
use statusledger_verify::json::write_canonical_string;
use statusledger_verify::time::Timestamp;
use statusledger_verify::{Hash, Mode, receipt};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What the appending transaction fixed about a receipt.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The destination it is made for.
    pub destination: DestinationId,
    /// Which of the destination's deliveries it is, from 1.
    pub number: i64,
    /// How many of them are of earlier ledgers: the receipt's number is counted within its ledger.
    pub base: i64,
    /// Its id, also `webhook-id`.
    pub receipt: ReceiptId,
    /// The ledger of the entry.
    pub ledger: LedgerId,
    /// The entry's place.
    pub seq: u64,
    /// When it was issued, in microseconds since 1970.
    pub issued_at: i64,
    /// The size of the tree that the proof is in.
    pub tree_size: u64,
    /// The key that signs it.
    pub receipt_key: Hash,
    /// The key that signs the checkpoint.
    pub checkpoint_key: Hash,
    /// The signatures, where they were made before: from then on the body needs no private key.
    pub signatures: Option<Signatures>,
}

/// What a receipt's two keys signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// By the receipt key.
    pub receipt: [u8; 64],
    /// By the checkpoint key, over the checkpoint's text.
    pub checkpoint: [u8; 64],
}

/// A body, and the signatures in it.
#[derive(Debug)]
pub struct Made {
    /// Canonical JSON.
    pub body: String,
    /// Worth keeping: see [`Facts::signatures`].
    pub signatures: Signatures,
}

/// A receipt that cannot be made, or that our own verifier refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is not in the ring (any more).
    #[error(transparent)]
    Key(#[from] keyring::Error),
    /// Its time is none.
    #[error("the receipt's time {0} is outside the years 0 to 9999")]
    Time(i64),
    /// The stored entry is not of the form that we write.
    #[error("the stored entry {0} is not of the form that was written")]
    Entry(u64),
    /// The checkpoint's note is not one of ours.
    #[error("the checkpoint is not of the form that was written")]
    Note,
    /// Our own verifier refused it.
    #[error("the receipt does not verify ({check}): {detail}")]
    Refused {
        /// The failed check.
        check: Check,
        /// What is wrong and where.
        detail: String,
    },
}

impl Error {
    /// Whether another key or time of issue would mend it.
    #[must_use]
    pub const fn wants_reissue(&self) -> bool {
        matches!(
            self,
            Self::Key(keyring::Error::NoKey(_))
                | Self::Refused {
                    check: Check::KeyUnknown | Check::KeyRevoked | Check::KeyWindow | Check::Stale,
                    ..
                }
        )
    }
}

/// Makes the body: canonical JSON, verified as its recipient will. `note` is the signed checkpoint of
/// `facts.tree_size`, `hashes` the inclusion proof in it; `openings` are those that the destination may see, by name.
/// What is sent has to be fresh; what is shown again may be evidence of another time.
///
/// # Errors
/// If a key is missing, or the verifier refuses what came out.
pub fn body(
    ring: &Snapshot,
    facts: &Facts,
    entry: &str,
    hashes: &[Hash],
    note: &Note,
    openings: &[Opening],
    mode: Mode,
) -> Result<Made, Error> {
    let issued_at = Timestamp::from_unix_micros(facts.issued_at).ok_or(Error::Time(facts.issued_at))?;
    let (head, middle, tail) = split(entry).ok_or(Error::Entry(facts.seq))?;
    let start = format!(
        "{{\"destination\":\"{}\",\"id\":\"{}\",\"instance\":\"{}\",\"issued_at\":\"{issued_at}\",\"key_id\":\"{}\",\"number\":{}",
        facts.destination,
        facts.receipt,
        ring.instance(),
        hex(&facts.receipt_key),
        facts.number - facts.base,
    );
    let signed = format!("{head}{middle},\"receipt\":{start},\"v\":1}}{tail}");
    let signature = match &facts.signatures {
        Some(made) => made.receipt,
        None => ring.sign_receipt(&facts.receipt_key, signed.as_bytes())?,
    };

    let mut proof = format!("c2sp.org/tlog-proof@v1\nindex {}\n", facts.seq);
    for hash in hashes {
        proof.push_str(&base64(hash));
        proof.push('\n');
    }
    proof.push('\n');
    proof.push_str(&note.text);
    let mut quoted = Vec::with_capacity(proof.len() + 128);
    write_canonical_string(&proof, &mut quoted);
    let quoted = String::from_utf8_lossy(&quoted);

    let mut out = String::with_capacity(signed.len() + quoted.len() + 200);
    out.push_str(head);
    if !openings.is_empty() {
        let mut openings: Vec<&Opening> = openings.iter().collect();
        openings.sort_by(|a, b| a.name.cmp(&b.name));
        out.push_str(",\"openings\":{");
        for (i, opening) in openings.into_iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(out, "{comma}\"{}\":{}", opening.name, opening.canonical.as_str());
        }
        out.push('}');
    }
    let _ = write!(
        out,
        "{middle},\"receipt\":{start},\"proof\":{quoted},\"signature\":\"{}\",\"v\":1}}{tail}",
        base64(&signature)
    );

    let at = Timestamp::now().max(issued_at);
    let verified_checkpoint =
        (note.verified_under.load(Ordering::Acquire) == ring.serial()).then(|| Arc::clone(&note.text));
    let options = receipt::Options { at: Some(at), mode, verified_checkpoint, ..receipt::Options::default() };
    receipt::verify(out.as_bytes(), ring.trusted(), &options)
        .map_err(|f| Error::Refused { check: f.check, detail: f.detail })?;
    note.verified_under.store(ring.serial(), Ordering::Release);
    let checkpoint = note_signature(&note.text).ok_or(Error::Note)?;
    Ok(Made { body: out, signatures: Signatures { receipt: signature, checkpoint } })
}

/// A signed checkpoint, for all receipts of one tree.
#[derive(Debug)]
pub struct Note {
    text: Arc<str>,
    /// The serial of the key manifest that its signature was verified under last; 0: none.
    verified_under: AtomicI64,
}

impl Note {
    /// One that nobody has verified yet.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { text: text.into(), verified_under: AtomicI64::new(0) }
    }
}

/// The signature in a note of ours, which has one line: base64 of a key id of four bytes and the signature.
fn note_signature(note: &str) -> Option<[u8; 64]> {
    let line = note.trim_end_matches('\n').rsplit(' ').next()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(line).ok()?;
    bytes.get(4..)?.try_into().ok()
}

/// Splits a canonical entry around the places where `openings` and `receipt` stand in canonical order: before
/// `prev`, and before `seq`. Behind `data` no member of ours holds a quotation mark, so searching from the end is
/// exact.
fn split(entry: &str) -> Option<(&str, &str, &str)> {
    let seq = entry.rfind(",\"seq\":")?;
    let prev = entry[..seq].rfind(",\"prev\":")?;
    (seq - prev == ",\"prev\":\"\"".len() + 64).then(|| (&entry[..prev], &entry[prev..seq], &entry[seq..]))
}
