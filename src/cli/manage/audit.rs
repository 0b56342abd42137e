//! `audit`: who did what, searched, and taken away in the forms of others.

use super::{Asking, Place, Value, lines, plain, pretty, text};
use crate::cli::aside::Aside;
use crate::cli::remote::Error;
use crate::cli::show;
use crate::cli::terminal::{self, Colour, Table, Yield};
use crate::cli::words;
use crate::config::Settings;
use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Entries of a page that is asked for, at most.
const PAGE: u64 = 1000;

/// What to do with the record.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Finds entries, newest first.
    Search {
        #[command(flatten)]
        asking: Asking,
        #[command(flatten)]
        of: Of,
        /// At most so many entries
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Only entries before this one: where the page before ended
        #[arg(long, value_name = "SEQ")]
        before: Option<u64>,
    },
    /// Takes entries away, oldest first. It is on the record, and proves nothing by itself: `export` does.
    Export {
        #[command(flatten)]
        asking: Asking,
        #[command(flatten)]
        of: Of,
        /// In which form
        #[arg(long, value_parser = PossibleValuesParser::new(["jsonl", "csv", "ocsf", "cef"]))]
        format: String,
        /// The file to write, which must not exist, or `-`
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Opens the sealed values: addresses, browsers, names
        #[arg(long)]
        openings: bool,
    },
}

/// Which entries.
#[derive(Debug, Args)]
pub struct Of {
    /// Only by this actor: key_…, usr_…, src_…, operator, system
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Only this action (`source.created`), or its beginning and `.*` (`source.*`)
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only what was done to this: its id
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// Only with this outcome
    #[arg(long, value_parser = PossibleValuesParser::new(["success", "denied", "failure"]))]
    outcome: Option<String>,
    /// Only since then: a day (2026-11-22), a time (RFC 3339), or an age (90m, 24h, 7d)
    #[arg(long, value_name = "WHEN", value_parser = words::when)]
    since: Option<OffsetDateTime>,
    /// Only before then
    #[arg(long, value_name = "WHEN", value_parser = words::when)]
    until: Option<OffsetDateTime>,
}

impl Of {
    /// It as parameters of a request.
    fn query(&self) -> Result<Vec<(&'static str, String)>> {
        let mut query = Vec::new();
        for (name, value) in [
            ("actor", &self.actor),
            ("action", &self.action),
            ("target", &self.target),
            ("outcome", &self.outcome),
        ] {
            query.extend(value.as_ref().map(|value| (name, value.clone())));
        }
        for (name, at) in [("since", self.since), ("until", self.until)] {
            if let Some(at) = at {
                query.push((name, at.format(&Rfc3339)?));
            }
        }
        Ok(query)
    }
}

/// Runs a command.
///
/// # Errors
/// If the instance refuses, or the file cannot be written.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::Search { asking, of, limit, before } => {
            let place = Place::open(settings, &asking).await?;
            let Found { items, names, next } = search(&place, &of, limit, before).await?;
            if asking.json() {
                let mut document = Map::new();
                document.insert("items".into(), items.into());
                document.insert("names".into(), names.into());
                document.extend(next.map(|next| ("next".to_owned(), next.into())));
                terminal::print([pretty(&document.into())?])?;
                return Ok(0);
            }
            terminal::print(table(&items, &names))?;
            if let Some(next) = next {
                show::note(format!("statusledger: there are older ones: go on with --before {next}"));
            }
            Ok(0)
        }
        Command::Export { asking, of, format, out, openings } => {
            let stdout = out == Path::new("-");
            if stdout && asking.json() {
                return Err(
                    Error::Usage("--json says what was written to a file; --out - prints it".into()).into()
                );
            }
            if stdout && std::io::stdout().is_terminal() {
                bail!("what others wrote is not printed on a terminal as it is: give --out a file");
            }
            // Before the instance is asked, and puts an export on the record that nobody gets.
            let aside = if stdout { None } else { Some(Aside::begin(&out, false)?) };
            let place = Place::open(settings, &asking).await?;
            let mut query = of.query()?;
            query.push(("format", format));
            if openings {
                query.push(("openings", "true".to_owned()));
            }
            let bytes = take_away(&place, &query, aside).await?;
            if !stdout {
                let name = out.display().to_string();
                let document = json!({ "file": name, "bytes": bytes });
                if asking.json() {
                    terminal::print([pretty(&document)?])?;
                } else {
                    show::note(format!("statusledger: {bytes} bytes were written to {name}"));
                }
            }
            Ok(0)
        }
    }
}

/// What a search finds.
#[derive(Default)]
struct Found {
    /// Entries, newest first.
    items: Vec<Value>,
    /// What those who act are called, by id, as far as the instance tells.
    names: Map<String, Value>,
    /// Before which the next ones are.
    next: Option<u64>,
}

/// Up to `limit` entries.
async fn search(place: &Place, of: &Of, limit: u64, mut before: Option<u64>) -> Result<Found> {
    #[derive(Deserialize)]
    struct Page {
        items: Vec<Value>,
        #[serde(default)]
        names: Map<String, Value>,
        next: Option<u64>,
    }
    let of = of.query()?;
    let mut found = Found::default();
    loop {
        let left = limit - found.items.len() as u64;
        let mut query: Vec<(&str, String)> = of.clone();
        query.push(("limit", left.min(PAGE).to_string()));
        query.push(("names", "true".to_owned()));
        query.extend(before.map(|before| ("before", before.to_string())));
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = format!("{}/audit", place.path);
        let page: Page = place.desk.remote.get(&path, &query, Duration::ZERO).await?;
        let got = page.items.len() as u64;
        found.items.extend(page.items);
        found.names.extend(page.names);
        before = page.next;
        // An instance that gives more than it was asked for, or nothing and a next, would be asked for ever.
        if before.is_none() || got == 0 || found.items.len() as u64 >= limit {
            found.next = before;
            return Ok(found);
        }
    }
}

/// Writes an export as it comes, to its file or to standard output.
async fn take_away(place: &Place, query: &[(&'static str, String)], mut aside: Option<Aside>) -> Result<u64> {
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut file = place.desk.remote.file(&format!("{}/audit/export", place.path), &query).await?;
    let mut bytes = 0;
    while let Some(chunk) = file.chunk().await? {
        match &mut aside {
            Some(aside) => aside.file().write_all(&chunk).context("cannot write the export")?,
            None => std::io::stdout().lock().write_all(&chunk).context("nobody took what was printed")?,
        }
        bytes += chunk.len() as u64;
    }
    match aside {
        Some(aside) => aside.finish()?,
        None => std::io::stdout().lock().flush().context("nobody took what was printed")?,
    }
    Ok(bytes)
}

fn table(items: &[Value], names: &Map<String, Value>) -> Vec<String> {
    let mut table = Table::new(&[
        ("WHEN", Yield::Never),
        ("WHO", Yield::Never),
        ("NAME", Yield::End),
        ("DID", Yield::End),
        ("OUTCOME", Yield::Never),
        ("TO", Yield::End),
        ("THROUGH", Yield::Never),
        ("SEQ", Yield::Never),
    ]);
    for entry in items {
        let data = &entry["data"];
        let outcome = match (text(data, "outcome"), text(data, "reason")) {
            ("success", _) => ("success".to_owned(), Colour::Green),
            (outcome, "") => (outcome.to_owned(), Colour::Red),
            (outcome, reason) => (format!("{outcome}: {reason}"), Colour::Red),
        };
        let targets: Vec<&str> =
            data["targets"].as_array().into_iter().flatten().map(|target| text(target, "id")).collect();
        let who = text(&data["actor"], "id");
        table.row(vec![
            plain(words::second(text(entry, "timestamp"))),
            plain(who),
            plain(names.get(who).and_then(Value::as_str).unwrap_or_default()),
            plain(text(entry, "type").trim_start_matches("audit.")),
            outcome,
            plain(targets.join(" ")),
            plain(text(data, "surface")),
            plain(entry["seq"].to_string()),
        ]);
    }
    lines(&table, "nothing of that is on the record")
}
