//! Answers: a line for people, an object for machines.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use statusledger_verify::check::{Check, Facts, Failure};
use statusledger_verify::encoding::hex;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::report::{Report, Subject};

use super::Outcome;

/// Writes answers, and remembers the worst of them.
pub(super) struct Answers {
    json: bool,
    outcome: Outcome,
}

impl Answers {
    /// Answers for people, or for machines too.
    pub(super) fn new(json: bool) -> Self {
        Self { json, outcome: Outcome::Verified }
    }

    /// How the run ended.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// A receipt or export verified.
    pub(super) fn report(&mut self, file: &Path, report: &Report) -> io::Result<()> {
        if self.json {
            let mut object = columns(file, &report.facts);
            set(&mut object, "ok", Value::Bool(true));
            set(&mut object, "verdict", text(report.verdict.name()));
            set(&mut object, "time", text(report.time.name()));
            return print(&Value::Object(object).canonical());
        }
        print(&format!("{}: {}", name(file), describe(report)))
    }

    /// Something without a verdict verified: a key manifest, or a part of a comparison.
    pub(super) fn verified(&mut self, file: &Path, facts: &Facts, what: &str) -> io::Result<()> {
        if self.json {
            let mut object = columns(file, facts);
            set(&mut object, "ok", Value::Bool(true));
            return print(&Value::Object(object).canonical());
        }
        print(&format!("{}: {}", name(file), printable(what)))
    }

    /// A file did not verify.
    pub(super) fn failure(&mut self, file: &Path, failure: &Failure) -> io::Result<()> {
        self.outcome = self.outcome.max(Outcome::Failed);
        if self.json {
            let mut object = columns(file, &failure.facts);
            set(&mut object, "failed_check", text(failure.check.name()));
            if let Some(seq) = failure.seq {
                set(&mut object, "seq", number(seq));
            }
            print(&Value::Object(object).canonical())?;
        }
        let place = failure.seq.or(failure.facts.seq).map_or(String::new(), |seq| format!(" (seq {seq})"));
        let line = format!("{}: {}{place}", name(file), printable(&failure.to_string()));
        writeln!(io::stderr().lock(), "{line}{}", known_as_of(&failure.facts))
    }

    /// Without a pin nothing is verified.
    pub(super) fn unpinned(&mut self, file: &Path) -> io::Result<()> {
        let detail = "there is no pin to verify it under (--pin KEY_ID@INSTANCE)";
        self.failure(file, &Failure::new(Check::Unpinned, detail))
    }

    /// A file could not be read. The run goes on with the others.
    pub(super) fn unread(&mut self, file: &Path, error: &super::Error) -> io::Result<()> {
        self.outcome = self.outcome.max(Outcome::Unread);
        if self.json {
            print(&Value::Object(columns(file, &Facts::default())).canonical())?;
        }
        super::complain(error);
        Ok(())
    }
}

/// The columns that every answer has; `ok` false and the others null until they are set.
fn columns(file: &Path, facts: &Facts) -> Object {
    let mut object = Object::new();
    set(&mut object, "file", Value::String(file.to_string_lossy().into_owned()));
    set(&mut object, "ok", Value::Bool(false));
    for (name, value) in [
        ("verdict", None),
        ("time", None),
        ("failed_check", None),
        ("seq", facts.seq.map(number)),
        ("instance", facts.instance.as_deref().map(text)),
        ("ledger", facts.ledger.as_deref().map(text)),
        ("key_id", facts.key_id.as_ref().map(|key_id| Value::String(hex(key_id)))),
        ("checkpoint_size", facts.checkpoint_size.map(number)),
        ("withheld", facts.withheld.map(number)),
        ("keys_serial", facts.keys_serial.map(number)),
    ] {
        set(&mut object, name, value.unwrap_or(Value::Null));
    }
    object
}

fn set(object: &mut Object, name: &str, value: Value) {
    object.insert(name.to_owned(), value);
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// A number, or null where JSON cannot carry it: only a forged checkpoint has such a size.
fn number(number: u64) -> Value {
    i64::try_from(number).map_or(Value::Null, Value::Int)
}

fn print(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

fn name(file: &Path) -> String {
    printable(&file.display().to_string())
}

/// A text without what would make a terminal do something: control characters and those that turn the direction of
/// writing.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// What a person wants to know of a thing that verified.
fn describe(report: &Report) -> String {
    let facts = &report.facts;
    let mut line = format!("{} (time: {}): ", report.verdict.name(), report.time.name());
    let log = format!(
        "ledger {} of {}",
        facts.ledger.as_deref().unwrap_or_default(),
        facts.instance.as_deref().unwrap_or_default()
    );
    let key = facts.key_id.as_ref().map(hex).unwrap_or_default();
    // Writing into a string does not fail.
    let _ = match &report.subject {
        Subject::Receipt { id, destination, number, issued_at, entry_type, timestamp } => write!(
            line,
            "{entry_type}, entry {} of {log}, recorded {timestamp}; {id}, number {number} for {destination}, \
             issued {issued_at} under key {key}",
            facts.seq.unwrap_or_default(),
        ),
        Subject::Export { from, to, count, exported_at, .. } => write!(
            line,
            "entries {from} to before {to} of {log}, {count} present, {} withheld; exported {exported_at} under \
             key {key}",
            facts.withheld.unwrap_or_default(),
        ),
    };
    let _ = write!(line, "; checkpoint of size {}", report.checkpoint.size);
    printable(&line) + &known_as_of(facts)
}

/// How far revocations are known.
pub(super) fn known_as_of(facts: &Facts) -> String {
    match (facts.keys_serial, facts.keys_issued_at) {
        (Some(serial), Some(issued_at)) => {
            format!("; revocations known as of manifest serial {serial}, issued {issued_at}")
        }
        _ => String::new(),
    }
}
