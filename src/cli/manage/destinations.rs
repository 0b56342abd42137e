//! `destinations`.

use super::{Asking, Place, Value, items, lines, plain, secret, text};
use crate::cli::remote::Error;
use crate::cli::show;
use crate::cli::terminal::{Colour, Table, Yield, clean};
use crate::config::Settings;
use anyhow::Result;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, json};
use std::path::PathBuf;

/// What to do with destinations.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists them.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Adds one; prints its `whsec_` secret, shown this once.
    Add {
        #[command(flatten)]
        asking: Asking,
        /// What to call it, 1 to 100 characters
        #[arg(long)]
        name: String,
        #[command(flatten)]
        to: Address,
        #[command(flatten)]
        wants: Wants,
    },
    /// Changes one; what is not given stays.
    Update {
        #[command(flatten)]
        named: Named,
        /// What to call it from now on
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        to: Address,
        #[command(flatten)]
        wants: Wants,
        /// Wants everything again but first sights
        #[arg(long, conflicts_with_all = ["types", "apps", "sources", "first_seen"])]
        no_filter: bool,
        /// Takes notifications again
        #[arg(long)]
        enable: bool,
        /// Takes none any more
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
    },
    /// Removes one. Its deliveries and attempts stay.
    Remove(Named),
    /// Sends a test event to one alone.
    Test(Named),
    /// Gives one a new secret, which is printed this once; the one before stays valid for 24 hours.
    RotateSecret(Named),
    /// Makes deliveries again, settled or not, under the same numbers and ids.
    Redeliver {
        #[command(flatten)]
        named: Named,
        /// The first number
        #[arg(value_name = "FROM", value_parser = clap::value_parser!(i64).range(1..))]
        from: i64,
        /// The last number [default: the first]
        #[arg(value_name = "TO", value_parser = clap::value_parser!(i64).range(1..))]
        to: Option<i64>,
    },
}

/// Where to.
#[derive(Debug, Args)]
pub struct Address {
    /// Where to send: https, and a public address, unless the instance allows more
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// The same from a file, or `-`: for an address that holds a token
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_file: Option<PathBuf>,
}

/// What is wanted, and how.
#[derive(Debug, Args)]
pub struct Wants {
    /// Only entries of these types: whole, or a beginning that ends in `.*` (`store.*`)
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only about these apps, by bundle id or package name
    #[arg(long = "app", value_name = "APP", value_delimiter = ',')]
    apps: Vec<String>,
    /// Only from these sources, by name or id
    #[arg(long = "source", value_name = "SOURCE")]
    sources: Vec<String>,
    /// Also the first sight of each subject
    #[arg(long)]
    first_seen: bool,
    /// Whether notifications carry the openings of sealed values [default: whether the key may take them away, ledger:export]
    #[arg(long, value_name = "BOOL")]
    openings: Option<bool>,
    /// Attempts at once, at most (1 to 256) [default: 1, strictly in order]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=256))]
    max_in_flight: Option<i32>,
}

/// A destination of a workspace.
#[derive(Debug, Args)]
pub struct Named {
    #[command(flatten)]
    asking: Asking,
    /// The destination, by name or id
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

impl Address {
    fn read(&self) -> Result<Option<String>> {
        match (&self.to, &self.to_file) {
            (Some(url), _) => Ok(Some(url.clone())),
            (None, Some(file)) => Ok(Some(secret::read_line("address", file)?.as_str().to_owned())),
            (None, None) => Ok(None),
        }
    }
}

impl Wants {
    /// The filter that was asked for, in the place of what `before` has of it; none where nothing was asked for.
    async fn filter(&self, place: &Place, before: Option<&Value>) -> Result<Option<Value>> {
        let asked =
            !self.types.is_empty() || !self.apps.is_empty() || !self.sources.is_empty() || self.first_seen;
        if !asked {
            return Ok(None);
        }
        let mut filter = before.and_then(Value::as_object).cloned().unwrap_or_default();
        for (name, list) in [("types", &self.types), ("apps", &self.apps)] {
            if !list.is_empty() {
                filter.insert(name.into(), json!(list));
            }
        }
        if !self.sources.is_empty() {
            let mut ids = Vec::with_capacity(self.sources.len());
            for source in &self.sources {
                ids.push(place.find("sources", "source", source).await?.id);
            }
            filter.insert("sources".into(), json!(ids));
        }
        if self.first_seen {
            filter.insert("first_seen".into(), true.into());
        }
        Ok(Some(filter.into()))
    }

    fn insert(&self, body: &mut Map<String, Value>) {
        if let Some(openings) = self.openings {
            body.insert("openings".into(), openings.into());
        }
        if let Some(most) = self.max_in_flight {
            body.insert("max_in_flight".into(), most.into());
        }
    }
}

/// Runs a command.
///
/// # Errors
/// If the instance refuses.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::List { asking } => {
            let place = Place::open(settings, &asking).await?;
            let all = place.list("destinations").await?;
            let sources = if all.iter().any(|d| d["filter"]["sources"].is_array()) {
                place.list("sources").await?
            } else {
                Vec::new()
            };
            place.desk.show(&items(&all), || table(&all, &sources))
        }
        Command::Add { asking, name, to, wants } => {
            let Some(url) = to.read()? else {
                return Err(Error::Usage("say where to with --to URL or --to-file FILE".into()).into());
            };
            let place = Place::open(settings, &asking).await?;
            let mut body = Map::new();
            body.insert("name".into(), name.clone().into());
            body.insert("url".into(), url.into());
            body.extend(wants.filter(&place, None).await?.map(|filter| ("filter".to_owned(), filter)));
            wants.insert(&mut body);
            let made = place.change(Method::POST, "destinations", Some(&body.into())).await?;
            let (name, id) = (clean(&name), clean(text(&made, "id")));
            place.desk.show_once(&made, "secret", &format!("the destination \"{name}\" was made: {id}"))
        }
        Command::Update { named, name, to, wants, no_filter, enable, disable } => {
            let url = to.read()?;
            let (place, found) = find(settings, &named).await?;
            let mut body = Map::new();
            body.extend(name.map(|name| ("name".to_owned(), name.into())));
            body.extend(url.map(|url| ("url".to_owned(), url.into())));
            let filter = wants.filter(&place, Some(&found.item["filter"])).await?;
            body.extend(filter.map(|filter| ("filter".to_owned(), filter)));
            if no_filter {
                body.insert("filter".into(), json!({}));
            }
            wants.insert(&mut body);
            if enable || disable {
                body.insert("enabled".into(), enable.into());
            }
            if body.is_empty() {
                return Err(Error::Usage("say what shall change; see --help".into()).into());
            }
            let path = format!("destinations/{}", found.id);
            let after = place.change(Method::PATCH, &path, Some(&body.into())).await?;
            show_done(&place, &named, &after, "changed")
        }
        Command::Remove(named) => {
            let (place, found) = find(settings, &named).await?;
            place.change(Method::DELETE, &format!("destinations/{}", found.id), None).await?;
            show_done(&place, &named, &json!({ "id": found.id, "done": "removed" }), "removed")
        }
        Command::Test(named) => {
            let (place, found) = find(settings, &named).await?;
            let path = format!("destinations/{}/test", found.id);
            let tested = place.change(Method::POST, &path, None).await?;
            let what = format!("sent a test event: entry {}", tested["seq"]);
            show_done(&place, &named, &tested, &what)
        }
        Command::RotateSecret(named) => {
            let (place, found) = find(settings, &named).await?;
            let path = format!("destinations/{}/rotate-secret", found.id);
            let made = place.change(Method::POST, &path, None).await?;
            let name = clean(&named.destination);
            let sentence = format!("\"{name}\" has a new secret; the one before holds for 24 hours more");
            place.desk.show_once(&made, "secret", &sentence)
        }
        Command::Redeliver { named, from, to } => {
            let (place, found) = find(settings, &named).await?;
            let path = format!("destinations/{}/redeliver", found.id);
            let range = json!({ "from": from, "to": to.unwrap_or(from) });
            let made = place.change(Method::POST, &path, Some(&range)).await?;
            let what = match made["count"].as_u64() {
                Some(1) => "sent 1 delivery again".to_owned(),
                count => format!("sent {} deliveries again", count.unwrap_or_default()),
            };
            show_done(&place, &named, &made, &what)
        }
    }
}

async fn find(settings: &Settings, named: &Named) -> Result<(Place, super::Found)> {
    let place = Place::open(settings, &named.asking).await?;
    let found = place.find("destinations", "destination", &named.destination).await?;
    Ok((place, found))
}

/// Says what became of a destination.
fn show_done(place: &Place, named: &Named, document: &Value, what: &str) -> Result<u8> {
    if let Some(why) = document["disabled_reason"].as_str() {
        show::note(format!("statusledger: it takes nothing at present: {}", clean(why)));
    }
    place
        .desk
        .show(document, || vec![format!("the destination \"{}\" was {what}", clean(&named.destination))])
}

/// A filter in words.
fn wanted(filter: &Value, sources: &[Value]) -> String {
    let list = |name: &str| -> Vec<&str> {
        filter[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let mut words = vec![list("types").join(","), list("apps").join(",")];
    let named =
        |id: &str| sources.iter().find(|s| text(s, "id") == id).map_or(id, |s| text(s, "name")).to_owned();
    words.push(list("sources").into_iter().map(named).collect::<Vec<_>>().join(","));
    if filter["first_seen"] == true {
        words.push("first sights too".to_owned());
    }
    words.retain(|word| !word.is_empty());
    if words.is_empty() { "everything".to_owned() } else { words.join("; ") }
}

fn table(all: &[Value], sources: &[Value]) -> Vec<String> {
    let mut table = Table::new(&[
        ("NAME", Yield::End),
        ("TO", Yield::End),
        ("WANTS", Yield::End),
        ("AT ONCE", Yield::Never),
        ("STATE", Yield::Never),
        ("SENT", Yield::Never),
        ("ID", Yield::Never),
    ]);
    for destination in all {
        let state = match destination["disabled_reason"].as_str() {
            Some(why) => (format!("disabled: {why}"), Colour::Red),
            None if destination["disabled_at"].is_string() => ("disabled".to_owned(), Colour::Red),
            None => ("enabled".to_owned(), Colour::Green),
        };
        table.row(vec![
            plain(text(destination, "name")),
            plain(text(destination, "url")),
            plain(wanted(&destination["filter"], sources)),
            plain(destination["max_in_flight"].to_string()),
            state,
            plain(destination["last_number"].to_string()),
            plain(text(destination, "id")),
        ]);
    }
    lines(&table, "there is no destination yet: `statusledger destinations add --help`")
}
