//! `people`: everybody on the instance, for whoever administers it.

use super::{Asking, Desk, Value, items, lines, plain, text};
use crate::cli::terminal::{Colour, Table, Yield, clean};
use crate::cli::words;
use crate::config::Settings;
use anyhow::Result;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

/// What to do with people.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists everybody on the instance.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Keeps somebody from signing in: their sessions end, and API keys that they made rest.
    Disable(Named),
    /// Lets somebody sign in again; their API keys hold again, sessions that ended do not come back.
    Enable(Named),
}

/// A person.
#[derive(Debug, Args)]
pub struct Named {
    #[command(flatten)]
    asking: Asking,
    /// The person, by address or id
    #[arg(value_name = "PERSON")]
    person: String,
}

/// Runs a command.
///
/// # Errors
/// If the instance refuses.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::List { asking } => {
            let desk = Desk::open(settings, &asking)?;
            let all = desk.list("/v1/people").await?;
            desk.show(&items(&all), || table(&all))
        }
        Command::Disable(named) => set(settings, &named, true).await,
        Command::Enable(named) => set(settings, &named, false).await,
    }
}

/// Disables somebody, or enables them again.
async fn set(settings: &Settings, named: &Named, disabled: bool) -> Result<u8> {
    let desk = Desk::open(settings, &named.asking)?;
    let id = super::one(desk.list("/v1/people").await?, &["email"], "person", &named.person)?.id;
    let change = json!({ "disabled": disabled });
    let after = desk.remote.change(Method::PATCH, &format!("/v1/people/{id}"), Some(&change)).await?;
    desk.show(&after, || {
        let who = clean(&named.person);
        let mut lines = vec![match disabled {
            true => format!("{who} is disabled: they are signed out everywhere, and cannot sign in"),
            false => format!("{who} is enabled: they can sign in again"),
        }];
        let keys = after["api_keys"].as_u64().unwrap_or_default();
        if disabled && keys > 0 {
            lines.push(format!(
                "API keys of theirs that open nothing meanwhile: {keys} (`api-keys rotate` what others need)"
            ));
        }
        lines
    })
}

fn table(all: &[Value]) -> Vec<String> {
    let mut table = Table::new(&[
        ("ADDRESS", Yield::End),
        ("NAME", Yield::End),
        ("OF THE INSTANCE", Yield::Never),
        ("API KEYS", Yield::Never),
        ("STATE", Yield::Never),
        ("ID", Yield::Never),
    ]);
    for person in all {
        let state = match text(person, "disabled_at") {
            "" => plain(format!("since {}", words::second(text(person, "created_at")))),
            at => (format!("disabled {}", words::second(at)), Colour::Red),
        };
        table.row(vec![
            plain(text(person, "email")),
            plain(text(person, "name")),
            plain(text(person, "instance_role")),
            plain(person["api_keys"].to_string()),
            state,
            plain(text(person, "user")),
        ]);
    }
    lines(&table, "nobody has signed in yet: `statusledger sign-in-link`")
}
