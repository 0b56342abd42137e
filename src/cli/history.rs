//! `history`: what an app has been through.

use super::remote::{Connection, Remote};
use super::status::{self, AppName};
use super::tail::Page;
use super::terminal::{self, Colour, Screen, Table, Yield, clean};
use super::words::{self, Told};
use crate::config::Settings;
use crate::observation::KINDS;
use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    connection: Connection,
    /// The app: bundle id, package name, or what the store calls it; `*` stands for anything
    #[arg(value_name = "APP")]
    app: String,
    /// Only of these kinds
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(KINDS.iter().map(|(_, name)| *name)))]
    kinds: Vec<String>,
    /// Only what was recorded since: a day (2026-11-22), a time (RFC 3339), or an age (90m, 24h, 7d)
    #[arg(long, value_name = "WHEN", value_parser = words::when)]
    since: Option<OffsetDateTime>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// What belongs together: a version line of an app, a release on a track, or a subject that belongs to neither.
struct Line {
    app: String,
    name: String,
    description: Map<String, Value>,
    entries: Vec<Told>,
}

/// Shows what an app has been through.
///
/// # Errors
/// If there is no such app, or the instance does not say.
pub async fn run(settings: &Settings, args: HistoryArgs) -> Result<u8> {
    let remote = Remote::new(&args.connection, settings)?;
    let workspace = remote.workspace().await?;
    let status = status::ask(&remote, &workspace, std::slice::from_ref(&args.app), false).await?;
    if status.apps.is_empty() {
        bail!("{}", status::unknown(&remote, &status, std::slice::from_ref(&args.app)).await?);
    }
    let entries = entries(&remote, &workspace, &status.apps, &args).await?;
    let lines = lines(entries, &status.stores());
    let out = if args.json {
        let lines: Vec<Value> = lines.iter().map(of_line).collect();
        let document = json!({
            "workspace": { "id": status.workspace, "name": status.name },
            "apps": status.apps.iter().map(|a| json!({ "app": a.app, "name": a.name })).collect::<Vec<_>>(),
            "lines": lines,
        });
        vec![terminal::json(&serde_json::to_string_pretty(&document)?)]
    } else {
        text(&lines, &status.apps)
    };
    terminal::print(out)?;
    Ok(0)
}

/// The apps' entries, oldest first. They are read from the newest down, so that reading can end at `since`.
async fn entries(
    remote: &Remote,
    workspace: &str,
    apps: &[AppName],
    args: &HistoryArgs,
) -> Result<Vec<Told>> {
    let path = format!("/v1/workspaces/{workspace}/entries");
    let types: Vec<String> = args.kinds.iter().map(|kind| format!("store.{kind}.*")).collect();
    let types = if types.is_empty() { "store.*".to_owned() } else { types.join(",") };
    let mut told = Vec::new();
    // So many apps as one filter takes.
    for apps in apps.chunks(50) {
        let apps: Vec<&str> = apps.iter().map(|a| a.app.as_str()).collect();
        let apps = apps.join(",");
        let mut from = None::<u64>;
        'pages: loop {
            let at = from.map(|from| from.to_string());
            let mut query =
                vec![("type", types.as_str()), ("app", &apps), ("reverse", "true"), ("limit", "1000")];
            query.extend(at.as_ref().map(|at| ("from", at.as_str())));
            let page: Page = remote.get(&path, &query, Duration::ZERO).await?;
            for entry in page.items.iter().filter_map(Told::of) {
                let recorded = OffsetDateTime::parse(&entry.timestamp, &Rfc3339)?;
                if args.since.is_some_and(|since| recorded < since) {
                    break 'pages;
                }
                told.push(entry);
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
    }
    told.sort_by_key(|entry| entry.seq);
    Ok(told)
}

/// Groups entries, which are oldest first; the groups are in the order of their first entries. A subject belongs
/// where its last entry says, since a build is seen before its version is known.
fn lines(entries: Vec<Told>, stores: &HashMap<String, &'static str>) -> Vec<Line> {
    let empty = Map::new();
    let subject = |told: &Told| told.data.get("subject").and_then(Value::as_object).unwrap_or(&empty).clone();
    let key = |told: &Told| {
        let (kind, subject) = (told.of_store().map_or("", |(kind, _)| kind), subject(told));
        let id = words::text(&subject, "id").unwrap_or_default().to_owned();
        let app = told.app.clone().unwrap_or_default();
        let store = words::text(&told.data, "source").and_then(|source| stores.get(source)).copied();
        // What belongs to no platform or track belongs to its store.
        let place = match words::place(&subject) {
            place if place.is_empty() => store.unwrap_or_default().to_owned(),
            place => place,
        };
        let name = words::version(&subject).unwrap_or_else(|| words::line(kind, &id, &subject));
        let line = format!("{place} {name}").trim().to_owned();
        ((app.clone(), kind.to_owned(), id), (app, line))
    };
    let mut of: HashMap<_, _> = HashMap::new();
    for told in &entries {
        let (subject, line) = key(told);
        of.insert(subject, line);
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    for told in entries {
        let (id, line) = key(&told);
        let line = of.get(&id).cloned().unwrap_or(line);
        let at = *places.entry(line.clone()).or_insert_with(|| {
            lines.push(Line { app: line.0, name: line.1, description: Map::new(), entries: Vec::new() });
            lines.len() - 1
        });
        lines[at].description = subject(&told);
        lines[at].entries.push(told);
    }
    // App by app, in the order in which they were first seen.
    let mut first: HashMap<String, usize> = HashMap::new();
    for line in &lines {
        let next = first.len();
        first.entry(line.app.clone()).or_insert(next);
    }
    lines.sort_by_key(|line| first.get(&line.app).copied());
    lines
}

fn of_line(line: &Line) -> Value {
    let member = |name: &str| words::text(&line.description, name);
    let entries: Vec<Value> = line
        .entries
        .iter()
        .map(|told| {
            let (kind, what) = told.of_store().unwrap_or_default();
            let member = |name: &str| told.data.get(name).cloned().unwrap_or(Value::Null);
            let subject = told.data.get("subject").and_then(Value::as_object);
            json!({
                "seq": told.seq,
                "recorded_at": told.timestamp,
                "kind": kind,
                "id": subject.and_then(|s| words::text(s, "id")),
                "what": what,
                "from": member("from"),
                "to": member("to"),
                "changed": member("changed"),
                "last_seen_before_at": member("last_seen_before_at"),
                "seen_at": member("seen_at"),
                "store_at": member("store_at"),
                "via": member("via"),
                "source": member("source"),
            })
        })
        .collect();
    json!({
        "app": line.app,
        "line": line.name,
        "platform": member("platform"),
        "version": member("version"),
        "track": member("track"),
        "release": member("release"),
        "entries": entries,
    })
}

fn text(lines: &[Line], apps: &[AppName]) -> Vec<String> {
    let screen = Screen::stdout();
    let mut out: Vec<String> = Vec::new();
    let mut app = None;
    for line in lines {
        if !out.is_empty() {
            out.push(String::new());
        }
        if app != Some(&line.app) {
            app = Some(&line.app);
            let name = apps.iter().find(|a| a.app == line.app).and_then(|a| a.name.as_deref());
            let name = name.map(|name| format!("  {}", clean(name))).unwrap_or_default();
            out.push(format!("{}{name}", clean(&line.app)));
        }
        out.push(clean(&line.name).into_owned());
        let mut table = Table::new(&[
            ("NOT YET AT", Yield::Never),
            ("SEEN AT", Yield::Never),
            ("OF", Yield::End),
            ("CHANGE", Yield::End),
            ("VIA", Yield::Never),
            ("STORE SAYS", Yield::Whole),
            ("ENTRY", Yield::Never),
        ]);
        for told in &line.entries {
            let time = |name: &str| {
                (words::text(&told.data, name).map(words::second).unwrap_or_default(), Colour::Plain)
            };
            let empty = Map::new();
            let subject = told.data.get("subject").and_then(Value::as_object).unwrap_or(&empty);
            let kind = told.of_store().map_or("", |(kind, _)| kind);
            let build = words::text(subject, "build")
                .filter(|_| kind.starts_with("build") || kind.starts_with("beta_"));
            let of = format!("{} {}", kind.replace('_', " "), build.unwrap_or_default()).trim().to_owned();
            table.row(vec![
                time("last_seen_before_at"),
                time("seen_at"),
                (of, Colour::Plain),
                told.change(),
                (told.via().to_owned(), Colour::Plain),
                time("store_at"),
                (told.seq.to_string(), Colour::Dim),
            ]);
        }
        let narrow = Screen { columns: screen.columns.map(|c| c.saturating_sub(2)), ..screen };
        out.extend(table.lines(narrow).into_iter().map(|line| format!("  {line}")));
    }
    if out.is_empty() {
        super::show::note("statusledger: nothing was recorded of it then");
    }
    out
}
