//! `workspaces`.

use super::{Asking, Desk, Value, ago, items, lines, plain, text};
use crate::cli::remote::Error;
use crate::cli::show;
use crate::cli::terminal::{Colour, Table, Yield, clean};
use crate::cli::words;
use crate::config::Settings;
use anyhow::Result;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, json};

/// What to do with workspaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists those that the token has a part in.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Makes a workspace; prints its id. Needs a token of the instance, as `up` makes it.
    Create {
        #[command(flatten)]
        asking: Asking,
        /// What to call it, 1 to 100 characters
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Changes one; what is not given stays.
    Update {
        #[command(flatten)]
        named: Named,
        /// What to call it from now on, 1 to 100 characters
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Whether its owners and administrators have to sign in with a passkey
        #[arg(long, value_name = "BOOL")]
        require_passkey: Option<bool>,
    },
    /// Asks for one's end: after the waiting period its secrets and openings are destroyed; its entries stay.
    Delete(Named),
    /// Calls its end off.
    Restore(Named),
}

/// A workspace.
#[derive(Debug, Args)]
pub struct Named {
    #[command(flatten)]
    asking: Asking,
    /// The workspace, by name or id
    #[arg(value_name = "WORKSPACE")]
    which: String,
}

/// Runs a command.
///
/// # Errors
/// If the instance refuses.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::List { asking } => {
            let desk = Desk::open(settings, &asking)?;
            let all = all(&desk).await?;
            desk.show(&items(&all), || table(&all))
        }
        Command::Create { asking, name } => {
            let desk = Desk::open(settings, &asking)?;
            let made =
                desk.remote.change(Method::POST, "/v1/workspaces", Some(&json!({ "name": name }))).await?;
            show::note(format!("statusledger: the workspace \"{}\" was made", clean(&name)));
            desk.show(&made, || vec![clean(text(&made, "id")).into_owned()])
        }
        Command::Update { named, name, require_passkey } => {
            let mut change = Map::new();
            change.extend(name.map(|name| ("name".to_owned(), name.into())));
            change.extend(require_passkey.map(|passkey| ("passkey_required".to_owned(), passkey.into())));
            if change.is_empty() {
                return Err(Error::Usage("say what shall change; see --help".into()).into());
            }
            let (desk, path) = find(settings, &named).await?;
            let after = desk.remote.change(Method::PATCH, &path, Some(&change.into())).await?;
            done(&desk, &named, &after, "changed")
        }
        Command::Delete(named) => {
            let (desk, path) = find(settings, &named).await?;
            let after = desk.remote.change(Method::DELETE, &path, None).await?;
            let at = words::second(text(&after, "delete_after"));
            let shown = done(&desk, &named, &after, &format!("asked to end: {at} UTC"));
            let id = clean(text(&after, "id"));
            show::note(format!(
                "statusledger: until then `statusledger workspaces restore {id}` calls it off"
            ));
            shown
        }
        Command::Restore(named) => {
            let (desk, path) = find(settings, &named).await?;
            let after = desk.remote.change(Method::POST, &format!("{path}/restore"), None).await?;
            done(&desk, &named, &after, "restored: it does not end")
        }
    }
}

async fn all(desk: &Desk) -> Result<Vec<Value>, Error> {
    desk.list("/v1/workspaces").await
}

async fn find(settings: &Settings, named: &Named) -> Result<(Desk, String)> {
    named.asking.connection().of_no_workspace()?;
    let desk = Desk::open(settings, &named.asking)?;
    let id = super::one(all(&desk).await?, &["name"], "workspace", &named.which)?.id;
    Ok((desk, format!("/v1/workspaces/{id}")))
}

/// Says what became of a workspace.
fn done(desk: &Desk, named: &Named, document: &Value, what: &str) -> Result<u8> {
    desk.show(document, || vec![format!("the workspace \"{}\" was {what}", clean(&named.which))])
}

fn table(all: &[Value]) -> Vec<String> {
    let mut table = Table::new(&[
        ("NAME", Yield::End),
        ("ID", Yield::Never),
        ("LEDGER", Yield::Whole),
        ("MADE", Yield::Never),
        ("", Yield::Never),
    ]);
    for workspace in all {
        let what = match (workspace["own"] == true, text(workspace, "delete_after")) {
            (true, _) => ("the instance's own".to_owned(), Colour::Plain),
            (false, "") if workspace["passkey_required"] == true => {
                ("passkey required".to_owned(), Colour::Plain)
            }
            (false, "") => (String::new(), Colour::Plain),
            (false, _) if workspace["deleted_at"].is_string() => ("ended".to_owned(), Colour::Dim),
            (false, at) => (format!("ends {}", words::second(at)), Colour::Red),
        };
        table.row(vec![
            plain(text(workspace, "name")),
            plain(text(workspace, "id")),
            plain(text(workspace, "ledger")),
            plain(ago(workspace, "created_at")),
            what,
        ]);
    }
    lines(&table, "there is no workspace yet: `statusledger workspaces create NAME`")
}
