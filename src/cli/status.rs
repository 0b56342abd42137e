//! `status`: how the apps stand.

use super::remote::{Connection, Error, Remote};
use super::terminal::{self, Colour, Screen, Table, Yield};
use super::{show, words};
use crate::config::Settings;
use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;
use time::OffsetDateTime;

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    connection: Connection,
    /// Only these apps: bundle id, package name, or what the store calls it; `*` stands for anything
    #[arg(value_name = "APP")]
    apps: Vec<String>,
    /// Also what is settled: replaced versions, processed builds, finished reviews
    #[arg(long)]
    all: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// The API's answer, as far as it is read here.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) workspace: String,
    pub(super) name: String,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    size: u64,
    sources: Vec<Value>,
    pub(super) apps: Vec<AppName>,
    subjects: Vec<Subject>,
    next: Option<String>,
}

/// An app, and what the store calls it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AppName {
    pub(super) app: String,
    pub(super) name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Subject {
    app: String,
    kind: String,
    id: String,
    source: String,
    description: Map<String, Value>,
    state: String,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    last_seen_at: OffsetDateTime,
    seq: u64,
    facts: Map<String, Value>,
    #[serde(with = "time::serde::rfc3339::option")]
    gone_at: Option<OffsetDateTime>,
}

/// A subject's state, or its last one where it is there no more.
fn state(subject: &Subject) -> String {
    match subject.gone_at {
        Some(_) => format!("{} (no longer visible)", subject.state),
        None => subject.state.clone(),
    }
}

#[derive(Deserialize)]
struct Source {
    kind: String,
    name: String,
    health: String,
    health_detail: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_polled_at: Option<OffsetDateTime>,
}

/// Asks for the status of `workspace`, page by page (one, unless there are more than 10,000 subjects).
///
/// # Errors
/// If it is not answered.
pub(super) async fn ask(
    remote: &Remote,
    workspace: &str,
    apps: &[String],
    all: bool,
) -> Result<Status, Error> {
    let path = format!("/v1/workspaces/{workspace}/status");
    let mut query: Vec<(&str, &str)> = apps.iter().map(|app| ("app", app.as_str())).collect();
    if all {
        query.push(("all", "true"));
    }
    let mut status: Status = remote.get(&path, &query, Duration::ZERO).await?;
    while let Some(next) = status.next.take() {
        let mut query = query.clone();
        query.push(("after", &next));
        let more: Status = remote.get(&path, &query, Duration::ZERO).await?;
        status.subjects.extend(more.subjects);
        status.next = more.next;
    }
    Ok(status)
}

/// Shows how the apps stand.
///
/// # Errors
/// If the instance does not say.
pub async fn run(settings: &Settings, args: StatusArgs) -> Result<u8> {
    let remote = Remote::new(&args.connection, settings)?;
    let workspace = remote.workspace().await?;
    let mut status = ask(&remote, &workspace, &args.apps, args.all).await?;
    let apps = std::mem::take(&mut status.apps);
    let names: Names = apps.iter().filter_map(|a| Some((a.app.as_str(), a.name.as_deref()?))).collect();
    let name = |s: &Subject| names.get(s.app.as_str()).copied();
    status.subjects.sort_by(|a, b| order(a, b, name(a), name(b)));
    let lines = if args.json {
        vec![document(&status, &apps, &names)?]
    } else {
        if apps.is_empty() {
            let what = if args.apps.is_empty() { "no app was seen yet" } else { "no app is called that" };
            show::note(format!("statusledger: {what}"));
        }
        table(&status, &names, args.all)
    };
    terminal::print(lines)?;
    Ok(0)
}

/// What the store calls an app, by its id.
type Names<'a> = HashMap<&'a str, &'a str>;

/// App by app, platform by platform, the newest version first, and to each version what belongs to it.
fn order(a: &Subject, b: &Subject, name_a: Option<&str>, name_b: Option<&str>) -> Ordering {
    let called = |s: &Subject, name: Option<&str>| name.unwrap_or(&s.app).to_lowercase();
    let rank = |s: &Subject| {
        let place = words::place(&s.description);
        let known = ["iOS", "macOS", "tvOS", "visionOS", "Play production"];
        (known.iter().position(|p| *p == place).unwrap_or(known.len()), place)
    };
    let version = |s: &Subject| words::version(&s.description);
    let newest = match (version(a), version(b)) {
        (Some(a), Some(b)) => words::compare_versions(&b, &a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    let kind = |s: &Subject| (!matches!(s.kind.as_str(), "version" | "release"), s.kind.clone());
    called(a, name_a)
        .cmp(&called(b, name_b))
        .then_with(|| a.app.cmp(&b.app))
        .then_with(|| rank(a).cmp(&rank(b)))
        .then(newest)
        .then_with(|| kind(a).cmp(&kind(b)))
        .then_with(|| b.since.cmp(&a.since))
        .then_with(|| a.id.cmp(&b.id))
}

fn table(status: &Status, names: &Names<'_>, all: bool) -> Vec<String> {
    let screen = Screen::stdout();
    let mut table = Table::new(&[
        ("APP", Yield::Beginning),
        ("NAME", Yield::Whole),
        ("PLATFORM", Yield::End),
        ("VERSION", Yield::End),
        ("STATE", Yield::End),
        ("SINCE", Yield::Never),
    ]);
    let plain = |text: String| (text, Colour::Plain);
    for s in &status.subjects {
        let name = names.get(s.app.as_str()).copied();
        table.row(vec![
            plain(s.app.clone()),
            plain(name.unwrap_or_default().to_owned()),
            plain(words::place(&s.description)),
            plain(words::line(&s.kind, &s.id, &s.description)),
            (state(s), Colour::of_state(&s.state)),
            plain(words::ago(status.at, s.since)),
        ]);
    }
    let mut sources = Table::new(&[
        ("SOURCE", Yield::End),
        ("HEALTH", Yield::Never),
        ("LAST ASKED", Yield::Never),
        ("DETAIL", Yield::End),
    ]);
    let read = status.sources.iter().filter_map(|s| Source::deserialize(s).ok());
    // Nobody asks an inbound source, so it has no health.
    for source in read.filter(|s| all || s.kind != "inbound") {
        sources.row(vec![
            plain(source.name),
            (source.health.clone(), Colour::of_state(&source.health)),
            plain(source.last_polled_at.map_or("never".into(), |at| words::ago(status.at, at))),
            plain(source.health_detail.unwrap_or_default()),
        ]);
    }
    let mut lines = if table.is_empty() { Vec::new() } else { table.lines(screen) };
    if !sources.is_empty() {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(sources.lines(screen));
    }
    lines
}

/// The document of `--json` (docs/operations.md).
fn document(status: &Status, apps: &[AppName], names: &Names<'_>) -> Result<String> {
    let rfc3339 = |at: OffsetDateTime| at.format(&time::format_description::well_known::Rfc3339);
    let mut subjects = Vec::with_capacity(status.subjects.len());
    for s in &status.subjects {
        let member = |name: &str| words::text(&s.description, name);
        subjects.push(json!({
            "app": s.app,
            "name": names.get(s.app.as_str()),
            "kind": s.kind,
            "id": s.id,
            "source": s.source,
            "platform": member("platform"),
            "version": member("version"),
            "build": member("build"),
            "track": member("track"),
            "release": member("release"),
            "state": s.state,
            "since": rfc3339(s.since)?,
            "last_seen_at": rfc3339(s.last_seen_at)?,
            "seq": s.seq,
            "description": s.description,
            "facts": s.facts,
            "gone_at": s.gone_at.map(rfc3339).transpose()?,
        }));
    }
    let document = json!({
        "workspace": { "id": status.workspace, "name": status.name },
        "at": rfc3339(status.at)?,
        "entries": status.size,
        "apps": apps.iter().map(|n| json!({ "app": n.app, "name": n.name })).collect::<Vec<_>>(),
        "subjects": subjects,
        "sources": status.sources,
    });
    Ok(terminal::json(&serde_json::to_string_pretty(&document)?))
}
