//! That nothing this crate can print holds a secret.

#![allow(clippy::unwrap_used)]

use std::fmt::{Debug, Display};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use statusledger_verify::time::Timestamp;

use crate::envelope::{Cell, DataKey};
use crate::key_encryption::{KeyEncryptionKey, KeyEncryptionSource};
use crate::key_id::KeyId;
use crate::ring::{Ring, RootFile, Rotation};
use crate::signing::{Checkpoint, KeyPurpose, Receipt, SigningKey};

/// Secrets, and what was printed while they were in use.
#[derive(Default)]
struct Printed {
    secrets: Vec<[u8; 32]>,
    output: String,
}

impl Printed {
    fn debug(&mut self, value: &dyn Debug) {
        self.output += &format!("{value:?}\n{value:#?}\n");
    }

    fn error<E: Debug + Display>(&mut self, error: E) {
        self.debug(&error);
        self.output += &format!("{error}\n");
    }

    /// Any six bytes in a row of any secret, in the ways in which bytes get printed.
    fn leak(&self) -> Option<String> {
        let output = self.output.replace([' ', '\n'], "");
        let forms = |secret: &[u8; 32]| {
            let mut forms: Vec<String> = Vec::new();
            for window in secret.windows(6) {
                let join = |format: &dyn Fn(&u8) -> String, separator| {
                    window.iter().map(format).collect::<Vec<_>>().join(separator)
                };
                forms.push(join(&|byte| format!("{byte:02x}"), ""));
                forms.push(join(&|byte| format!("{byte:02X}"), ""));
                forms.push(join(&|byte| byte.to_string(), ","));
                forms.push(window.escape_ascii().to_string());
            }
            forms.extend(secret[..30].chunks(6).map(|chunk| STANDARD.encode(chunk)));
            forms
        };
        self.secrets.iter().flat_map(forms).find(|form| output.contains(form.as_str()))
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn the_detector_finds_each_form() {
    let secret: [u8; 32] = std::array::from_fn(|at| at as u8 * 5 + 13);
    for print in [
        |secret: &[u8; 32]| format!("{secret:?}"),
        |secret: &[u8; 32]| format!("{secret:#?}"),
        |secret: &[u8; 32]| format!("{secret:02x?}").replace(", ", ""),
        |secret: &[u8; 32]| STANDARD.encode(secret),
        |secret: &[u8; 32]| secret[10..].escape_ascii().to_string(),
    ] {
        let printed = Printed { secrets: vec![secret], output: print(&secret) };
        assert!(printed.leak().is_some(), "{}", printed.output);
    }
    let printed = Printed { secrets: vec![secret], output: STANDARD.encode([7; 32]) };
    assert_eq!(printed.leak(), None);
}

#[test]
fn no_debug_display_or_error_holds_a_secret() {
    let mut printed = Printed::default();
    let kek = KeyEncryptionKey::generate().unwrap();
    let other_kek = KeyEncryptionKey::generate().unwrap();
    let data_key = DataKey::generate([1; 16]).unwrap();
    printed.secrets.extend([*kek.sealing().bytes(), *other_kek.sealing().bytes()]);
    printed.secrets.push(*data_key.secret());

    let encoded = STANDARD.encode(kek.sealing().bytes());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, format!("{encoded}x")).unwrap();
    printed.debug(&KeyEncryptionSource::Value(encoded.clone().into()));
    printed.debug(&(&kek, kek.id(), &data_key));
    printed.error(KeyEncryptionSource::File(path.clone()).load().unwrap_err());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    printed.error(KeyEncryptionSource::CreatedFile(path).load().unwrap_err());
    printed.error(KeyEncryptionSource::Value(format!("{encoded}x").into()).load().unwrap_err());

    let plaintext: [u8; 32] = std::array::from_fn(|at| at as u8 * 3 + 100);
    printed.secrets.push(plaintext);
    let cell = Cell { table: "source", row: &[b"1"], column: "secret" };
    let sealed = data_key.seal(&cell, &plaintext).unwrap();
    printed.error(data_key.open(&Cell { row: &[b"2"], ..cell }, &sealed).unwrap_err());
    printed.error(DataKey::generate([1; 16]).unwrap().open(&cell, &sealed).unwrap_err());
    let wrapped = data_key.wrap(&kek).unwrap();
    printed.error(DataKey::unwrap(&other_kek, [1; 16], &wrapped).unwrap_err());
    printed.error(DataKey::unwrap(&kek, [2; 16], &wrapped).unwrap_err());

    let now = at("2026-11-22T01:02:03.000004Z");
    let created = Ring::create("status.example.com", "0f0e0d0c-0b0a-4908-8706-050403020100", now).unwrap();
    let ring = created.ring.clone();
    printed.debug(&created);
    printed.secrets.push(*ring.receipt_key().secret());
    printed.secrets.push(*ring.checkpoint_key().secret());
    let rotated = ring.rotate(Rotation::Both, now).unwrap();
    printed.secrets.push(*rotated.ring.receipt_key().secret());
    let exported = rotated.ring.export_root().unwrap();
    let file = exported.root_file.as_ref().unwrap();
    printed.secrets.push(*file.key.secret());
    let (receipt, checkpoint): (&SigningKey<Receipt>, &SigningKey<Checkpoint>) =
        (ring.receipt_key(), ring.checkpoint_key());
    printed.debug(&(receipt, checkpoint, &file.key, file, &rotated, &exported));
    printed.debug(&(ring.keys(), ring.pin(), ring.due(now), &exported.events));
    let mut stored = ring.to_stored(&kek).unwrap();
    printed.debug(&(&stored, created.to_stored(&kek).unwrap(), exported.to_stored(&kek).unwrap()));

    let text = file.to_text();
    printed.error(RootFile::from_text(&text[1..]).unwrap_err());
    printed.error(RootFile::from_text(&text.replace('=', "")).unwrap_err());
    let other_id = KeyId([7; 32]).to_string();
    printed.error(RootFile::from_text(&text.replace(&file.key_id().to_string(), &other_id)).unwrap_err());
    let other = Ring::create("other.example.com", "0f0e0d0c-0b0a-4908-8706-050403020100", now).unwrap();
    printed.error(other.ring.with_root(file).unwrap_err());
    printed.error(exported.ring.rotate(Rotation::Both, now).unwrap_err());
    printed.error(ring.rotate(Rotation::Both, at("2026-11-22T01:02:03.000003Z")).unwrap_err());
    printed.error(ring.destroy(ring.current(KeyPurpose::Root).key_id).unwrap_err());
    printed.error(ring.receipt_key_by_id(checkpoint.key_id()).unwrap_err());
    printed.error(Ring::from_stored(&stored, &other_kek).unwrap_err());
    stored.keys[1].ciphertext = stored.keys[0].ciphertext.clone();
    printed.error(Ring::from_stored(&stored, &kek).unwrap_err());
    stored.keys[1].ciphertext = None;
    printed.error(Ring::from_stored(&stored, &kek).unwrap_err());

    assert_eq!(printed.secrets.len(), 8);
    assert!(printed.output.len() > 10_000);
    assert_eq!(printed.leak(), None, "{}", printed.output);
}
