//! What manages an instance, here or elsewhere, over its API.
//!
//! Standard output has what a script wants (a secret that is shown once, else an id, else a sentence or a table), or
//! with `--json` the instance's answer as one document; sentences beside that go to standard error. A secret that is
//! *given* comes from a file or standard input, since `ps` shows arguments to everybody.

pub mod api_keys;
pub mod audit;
pub mod destinations;
pub mod members;
pub mod openings;
pub mod people;
pub mod secret;
pub mod sources;
pub mod workspaces;

use super::remote::{Connection, Error, Remote};
use super::terminal::{self, Colour, Screen, Table, clean};
use super::{show, words};
use crate::config::Settings;
use anyhow::{Result, bail};
use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whom to ask, and in which shape to answer.
#[derive(Debug, Args, Clone, Default)]
pub struct Asking {
    #[command(flatten)]
    connection: Connection,
    /// One JSON document: what the instance answers
    #[arg(long)]
    json: bool,
}

impl Asking {
    /// Whom to ask.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The same shape of answer, from somebody else.
    #[must_use]
    pub fn with(self, connection: Connection) -> Self {
        Self { connection, ..self }
    }

    /// Whether a document is asked for.
    #[must_use]
    pub const fn json(&self) -> bool {
        self.json
    }
}

/// A page of a list of the API's.
#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next: Option<String>,
}

/// An instance that can be asked, and how its answers are shown.
pub struct Desk {
    remote: Remote,
    json: bool,
}

/// A workspace of an instance.
pub struct Place {
    desk: Desk,
    path: String,
}

impl Desk {
    /// Where the arguments say.
    ///
    /// # Errors
    /// If the address is none, or there is no token.
    pub fn open(settings: &Settings, asking: &Asking) -> Result<Self> {
        Ok(Self { remote: Remote::new(&asking.connection, settings)?, json: asking.json })
    }

    /// The items of a list, of all its pages.
    ///
    /// # Errors
    /// If the instance does not say.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        let mut page: Page = self.remote.get(path, &[], Duration::ZERO).await?;
        let mut items = page.items;
        while let Some(next) = page.next {
            page = self.remote.get(path, &[("cursor", &next)], Duration::ZERO).await?;
            if page.items.is_empty() {
                return Err(self.remote.unreadable("a page of a list has nothing on it"));
            }
            items.append(&mut page.items);
        }
        Ok(items)
    }

    /// Shows `document`, or what it is for people.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub fn show(&self, document: &Value, lines: impl FnOnce() -> Vec<String>) -> Result<u8> {
        let lines = if self.json { vec![pretty(document)?] } else { lines() };
        terminal::print(lines)?;
        Ok(0)
    }

    /// Shows what was made, whose member `secret` is shown this once: alone, so that it can be piped. `sentence` goes
    /// beside it.
    ///
    /// # Errors
    /// If there is none, or nobody took it.
    pub fn show_once(&self, document: &Value, secret: &str, sentence: &str) -> Result<u8> {
        let Some(text) = document[secret].as_str() else {
            return Err(self.remote.unreadable(format!("the answer has no {secret}")).into());
        };
        show::note(format!("statusledger: {sentence}; what is printed is shown this once"));
        let line = if self.json { pretty(document)? } else { clean(text).into_owned() };
        if !terminal::print([line])? {
            bail!("nobody took what was printed, and it is not shown again");
        }
        Ok(0)
    }
}

impl Place {
    /// The workspace that the arguments name.
    ///
    /// # Errors
    /// If it does not exist, or none was named and there are several.
    pub async fn open(settings: &Settings, asking: &Asking) -> Result<Self> {
        let desk = Desk::open(settings, asking)?;
        let path = format!("/v1/workspaces/{}", desk.remote.workspace().await?);
        Ok(Self { desk, path })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The items of one of its lists.
    ///
    /// # Errors
    /// If the instance does not say.
    pub async fn list(&self, list: &str) -> Result<Vec<Value>, Error> {
        self.desk.list(&format!("{}/{list}", self.path)).await
    }

    /// Changes something of it.
    ///
    /// # Errors
    /// If the instance refuses.
    pub async fn change(&self, method: Method, rest: &str, body: Option<&Value>) -> Result<Value, Error> {
        self.desk.remote.change(method, &format!("{}/{rest}", self.path), body).await
    }

    /// The ids of the requests that have changed something of it.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        self.desk.remote.changed()
    }

    /// The item of `list` that is called so, or has that id.
    ///
    /// # Errors
    /// If there is none, or there are several.
    pub async fn find(&self, list: &str, what: &str, given: &str) -> Result<Found> {
        one(self.list(list).await?, &["name"], what, given)
    }
}

/// An item that was looked for.
pub struct Found {
    /// Its id, fit for a path.
    pub id: String,
    /// The item.
    pub item: Value,
}

/// The only one of `items` with the id `given`, or with `given` in one of `members`.
fn one(items: Vec<Value>, members: &[&str], what: &str, given: &str) -> Result<Found> {
    let id = |item: &Value| item["id"].as_str().or_else(|| item["user"].as_str()).map(str::to_owned);
    // An id goes into paths.
    let is_plain =
        |id: &String| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let all = items.into_iter().filter_map(|item| Some(Found { id: id(&item).filter(is_plain)?, item }));
    let (mut with_id, others): (Vec<Found>, Vec<Found>) = all.partition(|found| found.id == given);
    if let Some(found) = with_id.pop() {
        return Ok(found);
    }
    // Addresses are compared as the service compares them.
    let address = given.trim().to_lowercase();
    let is_called = |found: &Found| {
        members.iter().any(|m| match found.item[*m].as_str() {
            Some(email) if *m == "email" => email.trim().to_lowercase() == address,
            name => name == Some(given),
        })
    };
    let mut called: Vec<Found> = others.into_iter().filter(is_called).collect();
    let given = clean(given);
    match called.len() {
        0 => bail!("there is no {what} \"{given}\""),
        1 => Ok(called.remove(0)),
        _ => {
            let ids: Vec<&str> = called.iter().map(|found| found.id.as_str()).collect();
            let all = ids.join(", ");
            let article = if what.starts_with(['A', 'a', 'i']) { "an" } else { "a" };
            let words = format!("several are called \"{given}\": give the id of {article} {what}: {all}");
            Err(Error::Usage(words).into())
        }
    }
}

/// `document` for standard output.
///
/// # Errors
/// If it is none.
pub fn pretty(document: &Value) -> Result<String> {
    Ok(terminal::json(&serde_json::to_string_pretty(document)?))
}

/// What a list is as a document.
fn items(items: &[Value]) -> Value {
    json!({ "items": items })
}

/// A member as text; empty where it is absent or `null`.
fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_default()
}

/// How long ago a member's time was; `never` where there is none.
fn ago(of: &Value, name: &str) -> String {
    let at = of[name].as_str().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
    at.map_or_else(|| "never".to_owned(), |at| words::ago(OffsetDateTime::now_utc(), at))
}

/// Whether a member's time has passed.
fn is_past(of: &Value, name: &str) -> bool {
    let at = of[name].as_str().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
    at.is_some_and(|at| at <= OffsetDateTime::now_utc())
}

/// A table's lines, or the sentence where it has no row.
fn lines(table: &Table, nothing: &str) -> Vec<String> {
    if table.is_empty() {
        show::note(format!("statusledger: {nothing}"));
        return Vec::new();
    }
    table.lines(Screen::stdout())
}

/// A cell in no colour.
fn plain(text: impl Into<String>) -> (String, Colour) {
    (text.into(), Colour::Plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_found_however_they_are_written_and_names_as_they_are() {
        let all = || {
            vec![json!({ "id": "inv_1", "email": "Ana@Example.com" }), json!({ "id": "inv_2", "name": "CI" })]
        };
        let find = |given: &str| one(all(), &["email", "name"], "invitation", given).map(|found| found.id);
        assert_eq!(find(" ana@example.COM").unwrap(), "inv_1");
        assert_eq!(find("CI").unwrap(), "inv_2");
        assert!(find("ci").is_err());
    }
}
