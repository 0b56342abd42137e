//! What there is to do: the difference between a file and a workspace. It is made before anything is done, from one
//! look at the workspace, and says nothing of what it cannot see (tokens, webhook secrets and a source's settings, which
//! the API never shows). Of a key it sees the fingerprint, and compares that with the one that the file's would have.

use super::file::{Destination, Source, Wanted};
use crate::cli::terminal::{Colour, Screen, clean};
use crate::source::Kind;
use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};

/// What is there: the items of the API's lists.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// The sources.
    pub sources: Vec<Value>,
    /// The destinations.
    pub destinations: Vec<Value>,
}

/// A member that is to be another.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which.
    pub member: &'static str,
    /// What it is; none where that is not shown.
    pub values: Option<(Value, Value)>,
}

/// What is done to a thing.
#[derive(Clone, Debug)]
pub enum Act {
    /// A source is added.
    AddSource(Source),
    /// An inbound source is removed and added anew, with another token.
    ReplaceSource(Source, String),
    /// A store's source gets the file's key.
    SetKey(Source, String),
    /// It gets the file's webhook secret.
    SetWebhookSecret(Source, String),
    /// A destination is added.
    AddDestination(Destination),
    /// A destination is changed.
    ChangeDestination(Destination, String, Vec<Difference>),
    /// A destination of that name and id goes.
    RemoveDestination(String, String),
    /// A source of that name and id goes.
    RemoveSource(String, String),
}

/// All of it, in the order in which it is done.
#[derive(Debug, Default)]
pub struct Plan {
    /// What is done.
    pub acts: Vec<Act>,
    /// What is there, is not in the file, and stays.
    pub others: Vec<String>,
    /// Sources whose keys were not compared: they are not where the file says.
    pub unseen: Vec<String>,
}

/// A member of an item as text.
fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item[name].as_str().unwrap_or_default()
}

/// An item's id, fit for a path.
///
/// # Errors
/// If it is none.
pub fn id(item: &Value) -> Result<String> {
    let id = text(item, "id");
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        bail!("the instance answers with something that is no id");
    }
    Ok(id.to_owned())
}

/// The difference between `wanted` and `present`. Of the sources in `replaced` the keys are set anew.
///
/// # Errors
/// If it cannot be carried out: a source is of another kind, a filter names a source that will not be there, a key that is
/// to be compared cannot be used.
pub fn plan(wanted: &Wanted, present: &Present, replaced: &[String], prune: bool) -> Result<Plan> {
    let mut plan = Plan::default();
    // Names of sources whose id will be another.
    let mut moving = BTreeSet::new();
    for source in &wanted.sources {
        let Some(there) = present.sources.iter().find(|s| text(s, "name") == source.name) else {
            moving.insert(source.name.as_str());
            plan.acts.push(Act::AddSource(source.clone()));
            continue;
        };
        let kind = text(there, "kind");
        if kind != source.kind.name() {
            bail!(
                "{}: the source \"{}\" is there with the kind {}: remove it, or choose another name",
                source.spots.name(),
                source.name,
                clean(kind)
            );
        }
        let asked = replaced.contains(&source.name);
        if source.kind == Kind::Inbound {
            if asked {
                moving.insert(source.name.as_str());
                plan.acts.push(Act::ReplaceSource(source.clone(), id(there)?));
            }
            continue;
        }
        if source.has_key() {
            match is_other_key(source, there)? {
                Some(other) if other || asked => plan.acts.push(Act::SetKey(source.clone(), id(there)?)),
                None if asked => plan.acts.push(Act::SetKey(source.clone(), id(there)?)),
                None => plan.unseen.push(format!("\"{}\"", clean(&source.name))),
                Some(_) => {}
            }
        }
        if source.has_webhook_secret() && (asked || there["webhook_secret_set"] == false) {
            plan.acts.push(Act::SetWebhookSecret(source.clone(), id(there)?));
        }
    }
    let stays = |name: &str| {
        wanted.sources.iter().any(|s| s.name == name)
            || (!prune && present.sources.iter().any(|s| text(s, "name") == name))
    };
    for destination in &wanted.destinations {
        if let Some(i) = destination.sources.iter().position(|name| !stays(name)) {
            let at = destination.spots.of(&format!("filter.sources[{i}]"));
            bail!("{at}: filter.sources: there is no source \"{}\"", destination.sources[i]);
        }
        let Some(there) = present.destinations.iter().find(|d| text(d, "name") == destination.name) else {
            plan.acts.push(Act::AddDestination(destination.clone()));
            continue;
        };
        let mut differences = differences(destination, there, &present.sources);
        let moves = destination.sources.iter().any(|name| moving.contains(name.as_str()));
        if moves && !differences.iter().any(|d| d.member == "filter.sources") {
            differences.push(Difference { member: "filter.sources", values: None });
        }
        if !differences.is_empty() {
            plan.acts.push(Act::ChangeDestination(destination.clone(), id(there)?, differences));
        }
    }
    let unnamed = |items: &[Value], is_named: &dyn Fn(&str) -> bool| -> Result<Vec<(String, String)>> {
        let others = items.iter().filter(|item| !is_named(text(item, "name")));
        others.map(|item| Ok((text(item, "name").to_owned(), id(item)?))).collect()
    };
    let destinations =
        unnamed(&present.destinations, &|name| wanted.destinations.iter().any(|d| d.name == name))?;
    let sources = unnamed(&present.sources, &|name| wanted.sources.iter().any(|s| s.name == name))?;
    if prune {
        plan.acts.extend(destinations.into_iter().map(|(name, id)| Act::RemoveDestination(name, id)));
        plan.acts.extend(sources.into_iter().map(|(name, id)| Act::RemoveSource(name, id)));
    } else {
        plan.others.extend(sources.iter().map(|(name, _)| format!("source \"{}\"", clean(name))));
        plan.others.extend(destinations.iter().map(|(name, _)| format!("destination \"{}\"", clean(name))));
    }
    Ok(plan)
}

/// Whether a source has another key than the file, or none yet; none where that cannot be told.
fn is_other_key(source: &Source, there: &Value) -> Result<Option<bool>> {
    match there.get("key_fingerprint") {
        Some(Value::Null) => Ok(Some(true)),
        Some(Value::String(has)) => {
            let fingerprint = source.fingerprint(id(there)?.parse()?)?;
            Ok(fingerprint.map(|would| would != *has))
        }
        _ => Ok(None),
    }
}

/// The members in which a destination is not as it is to be.
#[must_use]
pub fn differences(wanted: &Destination, there: &Value, sources: &[Value]) -> Vec<Difference> {
    let names: HashMap<&str, &str> = sources.iter().map(|s| (text(s, "id"), text(s, "name"))).collect();
    let list = |name: &str| -> BTreeSet<String> {
        let items = there["filter"][name].as_array().into_iter().flatten().filter_map(Value::as_str);
        items.map(str::to_owned).collect()
    };
    let set = |list: &[String]| -> BTreeSet<String> { list.iter().cloned().collect() };
    let named = list("sources")
        .iter()
        .map(|id| names.get(id.as_str()).map_or(id.as_str(), |n| n).to_owned())
        .collect();
    let mut differences = Vec::new();
    let mut compare = |member, is: Value, shall: Value, shown: bool| {
        if is != shall {
            differences.push(Difference { member, values: shown.then_some((is, shall)) });
        }
    };
    compare("url", text(there, "url").into(), wanted.url.as_str().into(), !wanted.url_is_secret);
    for (member, is, shall) in [
        ("filter.types", list("types"), set(&wanted.filter.types)),
        ("filter.apps", list("apps"), set(&wanted.filter.apps)),
        ("filter.sources", named, set(&wanted.sources)),
    ] {
        compare(member, json!(is), json!(shall), true);
    }
    let first_seen = there["filter"]["first_seen"] == true;
    compare("filter.first_seen", first_seen.into(), wanted.filter.first_seen.into(), true);
    if let Some(openings) = wanted.openings {
        compare("openings", there["openings"].clone(), openings.into(), true);
    }
    compare("max_in_flight", there["max_in_flight"].clone(), wanted.max_in_flight.into(), true);
    if let Some(enabled) = wanted.enabled {
        compare("enabled", there["disabled_at"].is_null().into(), enabled.into(), true);
    }
    differences
}

impl Act {
    /// `+` for what is added, `~` changed, `-` removed.
    const fn sign(&self) -> (char, &'static str, Colour) {
        match self {
            Self::AddSource(_) | Self::AddDestination(_) => ('+', "add", Colour::Green),
            Self::ReplaceSource(..) => ('~', "replace", Colour::Yellow),
            Self::SetKey(..) | Self::SetWebhookSecret(..) | Self::ChangeDestination(..) => {
                ('~', "change", Colour::Yellow)
            }
            Self::RemoveDestination(..) | Self::RemoveSource(..) => ('-', "remove", Colour::Red),
        }
    }

    fn thing(&self) -> (&'static str, &str) {
        match self {
            Self::AddSource(source)
            | Self::ReplaceSource(source, _)
            | Self::SetKey(source, _)
            | Self::SetWebhookSecret(source, _) => ("source", &source.name),
            Self::AddDestination(destination) | Self::ChangeDestination(destination, ..) => {
                ("destination", &destination.name)
            }
            Self::RemoveDestination(name, _) => ("destination", name),
            Self::RemoveSource(name, _) => ("source", name),
        }
    }

    /// It in a line: `~ destination "hook": max_in_flight 1 → 4`.
    #[must_use]
    pub fn line(&self) -> String {
        let (kind, name) = self.thing();
        let about = match self {
            Self::AddSource(source) => format!(" ({})", source.kind.name()),
            Self::AddDestination(destination) if !destination.url_is_secret => {
                format!(" to {}", destination.url)
            }
            Self::ReplaceSource(..) => ": token (it is removed, and added anew under another id)".to_owned(),
            Self::SetKey(..) => ": key".to_owned(),
            Self::SetWebhookSecret(..) => ": webhook secret".to_owned(),
            Self::ChangeDestination(_, _, differences) => {
                let all: Vec<String> = differences.iter().map(Difference::words).collect();
                format!(": {}", all.join(", "))
            }
            Self::AddDestination(_) | Self::RemoveDestination(..) | Self::RemoveSource(..) => String::new(),
        };
        clean(&format!("{} {kind} \"{name}\"{about}", self.sign().0)).into_owned()
    }

    /// The same in its colour.
    #[must_use]
    pub fn painted(&self, screen: Screen) -> String {
        screen.paint(self.sign().2, &self.line())
    }

    /// What it does, in a word: `add`, `change`, `replace` or `remove`.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        self.sign().1
    }

    /// It as a member of the document of `--json`.
    #[must_use]
    pub fn document(&self, done: bool) -> Value {
        let (kind, name) = self.thing();
        let mut changes = Map::new();
        if let Self::ChangeDestination(_, _, differences) = self {
            for difference in differences {
                let values = difference.values.as_ref();
                let value = values.map_or(Value::Null, |(is, shall)| json!({ "from": is, "to": shall }));
                changes.insert(difference.member.to_owned(), value);
            }
        }
        let unshown = match self {
            Self::SetKey(..) => Some("key"),
            Self::SetWebhookSecret(..) => Some("webhook_secret"),
            _ => None,
        };
        changes.extend(unshown.map(|member| (member.to_owned(), Value::Null)));
        json!({ "action": self.sign().1, "kind": kind, "name": name, "changes": changes, "done": done })
    }
}

impl Difference {
    fn words(&self) -> String {
        let plain = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => "all".to_owned(),
            Value::Array(items) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                items.join(",")
            }
            other => other.to_string(),
        };
        match &self.values {
            Some((is, shall)) => format!("{} {} → {}", self.member, plain(is), plain(shall)),
            None => self.member.to_owned(),
        }
    }
}
