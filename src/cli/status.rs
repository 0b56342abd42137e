//! `status`: how the apps stand.

use super::remote::{Connection, Error, Remote};
use super::terminal::{self, Colour, Screen, Table, Yield, clean};
use super::{show, words};
use crate::config::Settings;
use crate::source::Health;
use anyhow::{Result, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;
use time::OffsetDateTime;

/// Apps that are named to somebody who asked for one that is not known.
const NAMED: usize = 20;

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

/// A subject's state and how far it is, or its last one where it is there no more.
fn state(subject: &Subject) -> String {
    let state = words::how_far(&subject.state, &subject.facts, &subject.description);
    match subject.gone_at {
        Some(_) => format!("{state} (no longer visible)"),
        None => state,
    }
}

/// A source, as far as it is shown.
#[derive(Deserialize)]
struct Source {
    id: String,
    kind: String,
    name: String,
    health: String,
    health_detail: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    last_polled_at: Option<OffsetDateTime>,
}

impl Source {
    /// What there is to do about its health, in the service's words; none where there is nothing.
    fn advice(&self) -> Option<&'static str> {
        Health::deserialize(Value::String(self.health.clone())).ok()?.advice()
    }

    /// Whether it is a store's, and only told by it: without a key nobody asks, and it was never new.
    fn is_only_told(&self) -> bool {
        self.kind != "inbound" && self.last_polled_at.is_none() && self.health == "ok"
    }
}

impl Status {
    fn sources(&self) -> impl Iterator<Item = Source> {
        self.sources.iter().filter_map(|s| Source::deserialize(s).ok())
    }

    /// The stores, by the ids of their sources.
    pub(super) fn stores(&self) -> HashMap<String, &'static str> {
        self.sources().map(|s| (s.id, words::store(&s.kind))).collect()
    }
}

/// Says that no app is called one of `patterns`, and how those are called that are known.
///
/// # Errors
/// If the instance does not say.
pub(super) async fn unknown(remote: &Remote, status: &Status, patterns: &[String]) -> Result<String, Error> {
    let all = ask(remote, &status.workspace, &[], false).await?.apps;
    let known: Vec<String> = all.iter().take(NAMED).map(|a| clean(&a.app).into_owned()).collect();
    let mut names: Vec<String> = patterns.iter().map(|p| format!("\"{}\"", clean(p))).collect();
    let last = names.pop().unwrap_or_default();
    let names = if names.is_empty() { last } else { format!("{} or {last}", names.join(", ")) };
    let known = match all.len() {
        0 => "no app was seen yet".to_owned(),
        n if n > NAMED => format!("it has {} and {} more", known.join(", "), n - NAMED),
        _ => format!("it has {}", known.join(", ")),
    };
    Ok(format!("no app of the workspace \"{}\" is called {names}; {known}", clean(&status.name)))
}

/// Whether `pattern` names `app`, as the instance compares them.
fn is_named(app: &AppName, pattern: &str) -> bool {
    let pattern = pattern.to_lowercase();
    let fits = |text: &str| {
        let (text, mut parts) = (text.to_lowercase(), pattern.split('*'));
        let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
        for part in middle {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    };
    fits(&app.app) || app.name.as_deref().is_some_and(fits)
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
    let is_known = |pattern: &&String| apps.iter().any(|app| is_named(app, pattern));
    let missing: Vec<String> = args.apps.iter().filter(|p| !is_known(p)).cloned().collect();
    if !missing.is_empty() {
        let sentence = unknown(&remote, &status, &missing).await?;
        if apps.is_empty() {
            bail!("{sentence}");
        }
        show::note(format!("statusledger: {sentence}"));
    }
    let names: Names = apps.iter().filter_map(|a| Some((a.app.as_str(), a.name.as_deref()?))).collect();
    let name = |s: &Subject| names.get(s.app.as_str()).copied();
    status.subjects.sort_by(|a, b| order(a, b, name(a), name(b)));
    let lines = if args.json {
        vec![document(&status, &apps, &names)?]
    } else {
        if apps.is_empty() {
            show::note(format!("statusledger: no app was seen yet; {}", next_step(&status)));
        }
        table(&status, &names, args.all)
    };
    terminal::print(lines)?;
    Ok(u8::from(!missing.is_empty()))
}

/// What to do where no app was seen yet.
fn next_step(status: &Status) -> &'static str {
    if status.sources().any(|s| !words::store(&s.kind).is_empty()) {
        "the stores are being asked: `statusledger tail` shows what they say"
    } else {
        "add a store's key: `statusledger sources add app-store --help`, or `… add google-play --help`"
    }
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
    let stores = status.stores();
    // What belongs to no platform or track belongs to its store.
    let place = |s: &Subject| match words::place(&s.description) {
        place if place.is_empty() => stores.get(&s.source).copied().unwrap_or_default().to_owned(),
        place => place,
    };
    for s in &status.subjects {
        let name = names.get(s.app.as_str()).copied();
        table.row(vec![
            plain(s.app.clone()),
            plain(name.unwrap_or_default().to_owned()),
            plain(place(s)),
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
    let mut advice = Vec::new();
    // Nobody asks an inbound source, so it has no health.
    for source in status.sources().filter(|s| all || s.kind != "inbound") {
        let told = status.subjects.iter().filter(|s| s.source == source.id).map(|s| s.last_seen_at).max();
        let asked = match (source.last_polled_at, told) {
            (Some(at), _) => words::ago(status.at, at),
            (None, Some(at)) if source.is_only_told() => format!("told {}", words::ago(status.at, at)),
            (None, None) if source.is_only_told() => "only told".to_owned(),
            (None, _) => "never".to_owned(),
        };
        advice.push(source.advice());
        sources.row(vec![
            plain(source.name),
            (source.health.clone(), Colour::of_state(&source.health)),
            plain(asked),
            plain(source.health_detail.unwrap_or_default()),
        ]);
    }
    let mut lines = if table.is_empty() { Vec::new() } else { table.lines(screen) };
    if !sources.is_empty() {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let mut rows = sources.lines(screen).into_iter();
        lines.extend(rows.next());
        for (row, advice) in rows.zip(advice) {
            lines.push(row);
            let wrapped = advice.map(|advice| terminal::wrap(advice, screen.columns, "    "));
            lines.extend(wrapped.into_iter().flatten());
        }
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
        "sources": status.sources.iter().map(advised).collect::<Vec<_>>(),
    });
    Ok(terminal::json(&serde_json::to_string_pretty(&document)?))
}

/// A source as the instance gave it, with what there is to do about its health.
fn advised(source: &Value) -> Value {
    let advice = Source::deserialize(source).ok().and_then(|s| s.advice());
    let mut source = source.clone();
    if let Some(members) = source.as_object_mut() {
        members.entry("advice").or_insert_with(|| advice.into());
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_named_as_the_instance_names_it() {
        let app = AppName { app: "com.acme.weather".into(), name: Some("Acme Weather".into()) };
        for pattern in ["com.acme.weather", "COM.acme.*", "*", "acme weather", "*weather", "com.*.we*er"] {
            assert!(is_named(&app, pattern), "{pattern}");
        }
        for pattern in ["com.acme", "com_acme_weather", "weather", "com.*.x*", "*.acme", "weather*weather"] {
            assert!(!is_named(&app, pattern), "{pattern}");
        }
    }
}
