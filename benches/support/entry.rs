//! The entry that the benches of the ledger append.

use anyhow::Result;
use statusledger::ledger::Draft;
use statusledger_verify::json::{Object, Value};

/// A transition as a store source writes it: an entry of about 550 bytes.
pub fn draft(n: usize) -> Result<Draft> {
    let text = |s: &str| Value::String(s.to_owned());
    let object = |members: &[(&str, Value)]| {
        let mut object = Object::default();
        for (name, value) in members {
            object.insert((*name).to_owned(), value.clone());
        }
        object
    };
    let version = format!("4.{}.{}", n % 100, n % 7);
    let subject = object(&[
        ("app", text("com.example.ledger")),
        ("key", text("8a1d5f0c-6446-4195-9c1e-0c9a7a3b6f11")),
        ("kind", text("version")),
        ("platform", text("IOS")),
        ("version", text(&version)),
    ]);
    let observed = object(&[
        ("after", text("2026-11-02T03:00:00.000001Z")),
        ("before", text("2026-11-02T03:04:00.000001Z")),
    ]);
    let data = object(&[
        ("from", text("WAITING_FOR_REVIEW")),
        ("observed", Value::Object(observed)),
        ("subject", Value::Object(subject)),
        ("to", text("IN_REVIEW")),
    ]);
    Ok(Draft::new("store.version.transitioned", data)?)
}
