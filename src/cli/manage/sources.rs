//! `sources`.

use super::{Asking, Found, Place, Value, ago, items, lines, plain, secret, text};
use crate::cli::remote::Error;
use crate::cli::show;
use crate::cli::terminal::{Colour, Table, Yield, clean};
use crate::config::Settings;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, json};
use std::path::{Path, PathBuf};

/// What to do with sources.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists them, and how each fares.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Adds one. What its key may read is tried at once.
    #[command(subcommand)]
    Add(Add),
    /// Removes one and destroys its key. What it said stays in the ledger.
    Remove(Named),
    /// Asks a store for everything now.
    Look(Named),
    /// Gives one of a store another key, or its first. It keeps its id and what it knows.
    ReplaceKey(ReplaceKey),
    /// Sets what App Store Connect's own webhooks are signed with.
    WebhookSecret {
        #[command(flatten)]
        named: Named,
        /// The file with the secret, as given to App Store Connect, or `-`
        #[arg(value_name = "FILE", required_unless_present = "none")]
        file: Option<PathBuf>,
        /// Refuses its webhooks from now on
        #[arg(long, conflicts_with = "file")]
        none: bool,
    },
}

/// What to add.
#[derive(Debug, Subcommand)]
pub enum Add {
    /// An App Store Connect API key; prints the source's id.
    AppStore(AppStore),
    /// A Google Play service account; prints the source's id.
    GooglePlay(GooglePlay),
    /// Events of your own, posted to `/in/<source>`; prints the token to post with, shown this once.
    Inbound {
        #[command(flatten)]
        asking: Asking,
        /// What to call it, 1 to 100 characters
        #[arg(long)]
        name: String,
    },
}

/// An App Store Connect API key.
#[derive(Debug, Args)]
pub struct AppStore {
    #[command(flatten)]
    asking: Asking,
    /// What to call it, 1 to 100 characters
    #[arg(long)]
    name: String,
    /// The private key as it was downloaded (AuthKey_….p8), or `-`; without it the store is not asked, it only tells
    #[arg(long, value_name = "FILE", required_unless_present = "webhook_secret", requires = "key_id")]
    p8: Option<PathBuf>,
    /// The key's id
    #[arg(long, value_name = "ID", requires = "p8")]
    key_id: Option<String>,
    /// The team's issuer id; none for an individual key
    #[arg(long, value_name = "ID", requires = "p8")]
    issuer_id: Option<String>,
    /// The file with what the store's own webhooks are signed with, or `-`
    #[arg(long, value_name = "FILE")]
    webhook_secret: Option<PathBuf>,
    /// Another address of the store, for simulators, where the instance allows that
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

/// A Google Play service account.
#[derive(Debug, Args)]
pub struct GooglePlay {
    #[command(flatten)]
    asking: Asking,
    /// What to call it, 1 to 100 characters
    #[arg(long)]
    name: String,
    /// The service account's JSON file as Google gave it, or `-`
    #[arg(long, value_name = "FILE")]
    service_account: PathBuf,
    /// Reads rollouts too, which opens edits and so ends those of whoever else uses the account
    #[arg(long, requires = "dedicated_account")]
    rollout_by_edits: bool,
    /// With it: the account's client_email, as a sign that nothing else uses it
    #[arg(long, value_name = "EMAIL", requires = "rollout_by_edits")]
    dedicated_account: Option<String>,
    /// Another address of the publisher API, for simulators, where the instance allows that
    #[arg(long, value_name = "URL")]
    publisher_url: Option<String>,
    /// Another address of the reporting API, likewise
    #[arg(long, value_name = "URL")]
    reporting_url: Option<String>,
}

/// Another key.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("key").required(true))]
pub struct ReplaceKey {
    #[command(flatten)]
    named: Named,
    /// App Store Connect: the private key as it was downloaded (AuthKey_….p8), or `-`
    #[arg(long, value_name = "FILE", group = "key", requires = "key_id")]
    p8: Option<PathBuf>,
    /// The key's id
    #[arg(long, value_name = "ID", requires = "p8")]
    key_id: Option<String>,
    /// The team's issuer id; none for an individual key
    #[arg(long, value_name = "ID", requires = "p8")]
    issuer_id: Option<String>,
    /// Google Play: the service account's JSON file as Google gave it, or `-`
    #[arg(long, value_name = "FILE", group = "key")]
    service_account: Option<PathBuf>,
    /// Where the source reads rollouts: the account's client_email, as a sign that nothing else uses it
    #[arg(long, value_name = "EMAIL", requires = "service_account")]
    dedicated_account: Option<String>,
    /// Takes it though it is not of the account whose apps the source knows, or does not tell
    #[arg(long)]
    other_account: bool,
}

/// A source of a workspace.
#[derive(Debug, Args)]
pub struct Named {
    #[command(flatten)]
    asking: Asking,
    /// The source, by name or id
    #[arg(value_name = "SOURCE")]
    source: String,
}

/// Runs a command.
///
/// # Errors
/// If a secret cannot be read, or the instance refuses.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::List { asking } => {
            let place = Place::open(settings, &asking).await?;
            let all = place.list("sources").await?;
            place.desk.show(&items(&all), || table(&all))
        }
        Command::Add(Add::AppStore(args)) => {
            let body = app_store(&args)?;
            added(&Place::open(settings, &args.asking).await?, &body).await
        }
        Command::Add(Add::GooglePlay(args)) => {
            let body = google_play(&args)?;
            added(&Place::open(settings, &args.asking).await?, &body).await
        }
        Command::Add(Add::Inbound { asking, name }) => {
            let place = Place::open(settings, &asking).await?;
            let made = place
                .change(Method::POST, "sources", Some(&json!({ "kind": "inbound", "name": name })))
                .await?;
            let (name, id) = (clean(&name), clean(text(&made, "id")));
            let sentence = format!("the source \"{name}\" was made: post to /in/{id} with its token");
            place.desk.show_once(&made, "token", &sentence)
        }
        Command::Remove(named) => {
            let (place, id) = find(settings, &named).await?;
            place.change(Method::DELETE, &format!("sources/{id}"), None).await?;
            done(&place, &named, &id, "removed")
        }
        Command::Look(named) => {
            let place = Place::open(settings, &named.asking).await?;
            let Found { id, item } = place.find("sources", "source", &named.source).await?;
            if item["key_fingerprint"].is_null() {
                bail!(
                    "the source \"{}\" is only told: it has no store key to ask with",
                    clean(text(&item, "name"))
                );
            }
            place.change(Method::POST, &format!("sources/{id}/look"), None).await?;
            done(&place, &named, &id, "asked for everything now")
        }
        Command::ReplaceKey(args) => {
            let body = new_key(&args)?;
            let (place, id) = find(settings, &args.named).await?;
            let after = place.change(Method::PUT, &format!("sources/{id}/key"), Some(&body)).await?;
            report(&after);
            place.desk.show(&after, || {
                vec![format!("the source \"{}\" was given the key", clean(&args.named.source))]
            })
        }
        Command::WebhookSecret { named, file, none: _ } => {
            let secret = file.map(|file| secret::read_line("webhook secret", &file)).transpose()?;
            let (place, id) = find(settings, &named).await?;
            let body = json!({ "secret": secret.as_ref().map(|s| s.as_str()) });
            place.change(Method::PUT, &format!("sources/{id}/webhook-secret"), Some(&body)).await?;
            let now = if secret.is_some() {
                show::note(format!("statusledger: its webhooks go to /in/{id}/app-store-connect"));
                "given its webhook secret"
            } else {
                "left without a webhook secret"
            };
            done(&place, &named, &id, now)
        }
    }
}

async fn find(settings: &Settings, named: &Named) -> Result<(Place, String)> {
    let place = Place::open(settings, &named.asking).await?;
    let id = place.find("sources", "source", &named.source).await?.id;
    Ok((place, id))
}

/// Says what became of a source.
fn done(place: &Place, named: &Named, id: &str, what: &str) -> Result<u8> {
    let document = json!({ "id": id, "done": what });
    place.desk.show(&document, || vec![format!("the source \"{}\" was {what}", clean(&named.source))])
}

fn app_store(args: &AppStore) -> Result<Value> {
    secret::once_from_stdin(&[args.p8.as_ref(), args.webhook_secret.as_ref()])?;
    let mut body = Map::new();
    body.insert("kind".into(), "app_store".into());
    body.insert("name".into(), args.name.clone().into());
    if let (Some(file), Some(key_id)) = (&args.p8, &args.key_id) {
        body.insert("credentials".into(), credentials(file, key_id, args.issuer_id.as_deref())?);
    }
    if let Some(file) = &args.webhook_secret {
        let secret = secret::read_line("webhook secret", file)?;
        body.insert("webhook_secret".into(), secret.as_str().into());
    }
    if let Some(url) = &args.base_url {
        body.insert("base_url".into(), url.clone().into());
    }
    Ok(body.into())
}

/// Credentials of App Store Connect, as the API takes them.
fn credentials(file: &Path, key_id: &str, issuer_id: Option<&str>) -> Result<Value> {
    let private_key = secret::read("private key", file)?;
    Ok(json!({ "key_id": key_id, "issuer_id": issuer_id, "private_key": private_key.as_str() }))
}

/// A service account, as the API takes it.
fn service_account(file: &Path) -> Result<Value> {
    let account = secret::read("service account", file)?;
    // What the parser found there may be a part of the key: only where it is, is told.
    serde_json::from_str(&account)
        .map_err(|e| anyhow::anyhow!("line {}, column {}", e.line(), e.column()))
        .context("the service account is not the JSON that Google gave")
}

/// The request that gives a source another key.
fn new_key(args: &ReplaceKey) -> Result<Value> {
    let mut body = match (&args.p8, &args.key_id, &args.service_account) {
        (Some(file), Some(key_id), _) => {
            let credentials = credentials(file, key_id, args.issuer_id.as_deref())?;
            json!({ "kind": "app_store", "credentials": credentials })
        }
        (_, _, Some(file)) => {
            let account = service_account(file)?;
            json!({ "kind": "google_play", "service_account": account, "dedicated_account": args.dedicated_account })
        }
        _ => return Err(Error::Usage("give --p8 and --key-id, or --service-account".into()).into()),
    };
    body["other_account"] = args.other_account.into();
    Ok(body)
}

fn google_play(args: &GooglePlay) -> Result<Value> {
    let account = service_account(&args.service_account)?;
    let mut body = json!({ "kind": "google_play", "name": args.name, "service_account": account });
    if args.rollout_by_edits {
        body["rollout_by_edits"] = true.into();
    }
    for (name, value) in [
        ("dedicated_account", &args.dedicated_account),
        ("publisher_url", &args.publisher_url),
        ("reporting_url", &args.reporting_url),
    ] {
        if let Some(value) = value {
            body[name] = value.clone().into();
        }
    }
    Ok(body)
}

/// Makes a store's source, and says what its key may read.
async fn added(place: &Place, body: &Value) -> Result<u8> {
    let made = place.change(Method::POST, "sources", Some(body)).await?;
    let id = clean(text(&made, "id"));
    show::note(format!("statusledger: the source \"{}\" was made", clean(text(&made, "name"))));
    report(&made);
    if body.get("webhook_secret").is_some() {
        show::note(format!("statusledger: App Store Connect's webhooks go to /in/{id}/app-store-connect"));
    }
    place.desk.show(&made, || vec![id.clone().into_owned()])
}

/// Says what a new source's key may not read, and what whoever gave it should know.
pub fn report(made: &Value) {
    let reads = made["access"]["reads"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |outcome: &str| -> Vec<String> {
        reads
            .iter()
            .filter(|r| r["outcome"] == outcome)
            .map(|r| clean(text(r, "what")).into_owned())
            .collect()
    };
    let readable = of("readable");
    if !readable.is_empty() {
        show::note(format!("  readable: {}", readable.join(", ")));
    }
    for read in reads.iter().filter(|r| matches!(text(r, "outcome"), "refused" | "failed")) {
        let (what, outcome, detail) = (text(read, "what"), text(read, "outcome"), text(read, "detail"));
        show::note(format!("  {outcome}: {} ({})", clean(what), clean(detail)));
    }
    let untried = of("nothing_to_try");
    if !untried.is_empty() {
        show::note(format!("  nothing to try it with: {}", untried.join(", ")));
    }
    for warning in made["access"]["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        show::note(format!("  mind: {}", clean(warning)));
    }
}

fn table(all: &[Value]) -> Vec<String> {
    let mut table = Table::new(&[
        ("NAME", Yield::End),
        ("KIND", Yield::Never),
        ("HEALTH", Yield::Never),
        ("LAST ASKED", Yield::Never),
        ("ID", Yield::Never),
    ]);
    for source in all {
        let kind = text(source, "kind");
        let health = text(source, "health");
        let (health, asked) = if kind == "inbound" {
            (plain(""), plain(""))
        } else {
            ((health.to_owned(), Colour::of_state(health)), plain(ago(source, "last_polled_at")))
        };
        table.row(vec![plain(text(source, "name")), plain(kind), health, asked, plain(text(source, "id"))]);
    }
    lines(&table, "there is no source yet: `statusledger sources add --help`")
}
