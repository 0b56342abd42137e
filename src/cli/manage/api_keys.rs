//! `api-keys`: the keys that people and programs ask the API with. (`keys` are those that the instance signs with.)

use super::{Asking, Place, Value, ago, is_past, items, lines, plain, text};
use crate::access::scope::Scope;
use crate::cli::terminal::{Colour, Table, Yield, clean};
use crate::cli::words;
use crate::config::Settings;
use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists them, ended ones too.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Makes one; prints its text, shown this once.
    Create {
        #[command(flatten)]
        asking: Asking,
        /// What to call it, 1 to 100 characters
        #[arg(long)]
        name: String,
        /// What it is for: `read`, `write`, `admin`, or narrower ones; no more than the asking key has
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', required = true,
              value_parser = PossibleValuesParser::new(Scope::all().map(|(scope, _)| scope.name())))]
        scopes: Vec<String>,
        /// When it ends by itself: in so long (24h, 90d), on a day (2027-01-31), or at a time (RFC 3339)
        #[arg(long, value_name = "WHEN", value_parser = ahead)]
        expires: Option<OffsetDateTime>,
        /// It reaches every workspace (only in the instance's own workspace)
        #[arg(long)]
        instance: bool,
    },
    /// Replaces one by a new one, whose text is printed this once; the old one holds a while longer.
    Rotate {
        #[command(flatten)]
        named: Named,
        /// How long the old one still holds (0s to 30d)
        #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span)]
        overlap: time::Duration,
    },
    /// Ends one at once.
    Revoke(Named),
}

/// An API key of a workspace.
#[derive(Debug, Args)]
pub struct Named {
    #[command(flatten)]
    asking: Asking,
    /// The key, by id, or by name where only one that holds is called so
    #[arg(value_name = "KEY")]
    key: String,
}

/// A span as people give it.
fn span(text: &str) -> Result<time::Duration, String> {
    words::span(text).ok_or_else(|| "a span like 90m, 24h or 7d".into())
}

/// A point in time that is to come.
fn ahead(text: &str) -> Result<OffsetDateTime, String> {
    let later = words::span(text).and_then(|span| OffsetDateTime::now_utc().checked_add(span));
    later
        .or_else(|| OffsetDateTime::parse(text, &Rfc3339).ok())
        .or_else(|| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).ok())
        .ok_or_else(|| "a span (24h, 90d), a day (2027-01-31) or a time (RFC 3339)".into())
}

/// Whether a key is good for nothing any more.
fn is_over(key: &Value) -> bool {
    is_past(key, "revoked_at") || is_past(key, "expires_at")
}

/// Runs a command.
///
/// # Errors
/// If the instance refuses.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::List { asking } => {
            let place = Place::open(settings, &asking).await?;
            let all = place.list("keys").await?;
            place.desk.show(&items(&all), || table(&all))
        }
        Command::Create { asking, name, scopes, expires, instance } => {
            let mut body = json!({ "name": name, "scopes": scopes, "instance": instance });
            if let Some(at) = expires {
                body["expires_at"] = at.format(&Rfc3339)?.into();
            }
            let place = Place::open(settings, &asking).await?;
            let made = place.change(Method::POST, "keys", Some(&body)).await?;
            let (name, id) = (clean(&name), clean(text(&made, "id")));
            place.desk.show_once(&made, "token", &format!("the API key \"{name}\" was made: {id}"))
        }
        Command::Rotate { named, overlap } => {
            let (place, id) = find(settings, &named).await?;
            let body = json!({ "overlap_s": overlap.whole_seconds() });
            let made = place.change(Method::POST, &format!("keys/{id}/rotate"), Some(&body)).await?;
            let new = clean(text(&made, "id"));
            let sentence =
                format!("{id} was replaced by {new}, and holds for {} s more", overlap.whole_seconds());
            place.desk.show_once(&made, "token", &sentence)
        }
        Command::Revoke(named) => {
            let (place, id) = find(settings, &named).await?;
            place.change(Method::DELETE, &format!("keys/{id}"), None).await?;
            place.desk.show(&json!({ "id": id, "done": "revoked" }), || {
                vec![format!("the API key {id} was revoked")]
            })
        }
    }
}

async fn find(settings: &Settings, named: &Named) -> Result<(Place, String)> {
    let place = Place::open(settings, &named.asking).await?;
    let all = place.list("keys").await?;
    // Ended ones keep their names, and are not meant by them.
    let all = all.into_iter().filter(|key| text(key, "id") == named.key || !is_over(key)).collect();
    let id = super::one(all, &["name"], "API key", &named.key)?.id;
    Ok((place, id))
}

/// Who made a key, in words: a key of this list by its name.
fn maker(all: &[Value], created_by: &str) -> String {
    let key = all.iter().find(|key| text(key, "id") == created_by);
    key.map_or_else(|| created_by.to_owned(), |key| format!("key \"{}\"", text(key, "name")))
}

fn table(all: &[Value]) -> Vec<String> {
    let mut table = Table::new(&[
        ("NAME", Yield::End),
        ("SCOPES", Yield::End),
        ("STATE", Yield::Never),
        ("EXPIRES", Yield::Never),
        ("LAST USED", Yield::Never),
        ("MADE BY", Yield::End),
        ("ID", Yield::Never),
    ]);
    for key in all {
        let scopes: Vec<&str> =
            key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let state = if is_past(key, "revoked_at") {
            ("revoked", Colour::Dim)
        } else if is_past(key, "expires_at") {
            ("expired", Colour::Dim)
        } else if key["suspended"] == true {
            // It is refused, until whoever made it is let in again.
            ("suspended", Colour::Yellow)
        } else {
            ("holds", Colour::Green)
        };
        // A key that was rotated ends when its overlap is over.
        let ends = ["revoked_at", "expires_at"].iter().find_map(|name| key[*name].as_str());
        table.row(vec![
            plain(text(key, "name")),
            plain(scopes.join(",")),
            (state.0.to_owned(), state.1),
            plain(ends.map_or_else(|| "never".to_owned(), words::second)),
            plain(ago(key, "last_used_at")),
            plain(maker(all, text(key, "created_by"))),
            plain(text(key, "id")),
        ]);
    }
    lines(&table, "there is no API key yet: `statusledger api-keys create --help`")
}
