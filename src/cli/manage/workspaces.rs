//! `workspaces`.

use super::{Asking, Desk, Value, ago, items, lines, plain, text};
use crate::cli::remote::Error;
use crate::cli::show;
use crate::cli::terminal::{Table, Yield, clean};
use crate::config::Settings;
use anyhow::Result;
use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

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
}

/// Runs a command.
///
/// # Errors
/// If the instance refuses.
pub async fn run(settings: &Settings, command: Command) -> Result<u8> {
    match command {
        Command::List { asking } => {
            let desk = Desk::open(settings, &asking)?;
            let all: Result<super::List, Error> =
                desk.remote.get("/v1/workspaces", &[], Duration::ZERO).await;
            let all = all?.items;
            desk.show(&items(&all), || table(&all))
        }
        Command::Create { asking, name } => {
            let desk = Desk::open(settings, &asking)?;
            let made =
                desk.remote.change(Method::POST, "/v1/workspaces", Some(&json!({ "name": name }))).await?;
            show::note(format!("statusledger: the workspace \"{}\" was made", clean(&name)));
            desk.show(&made, || vec![clean(text(&made, "id")).into_owned()])
        }
    }
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
        let own = if workspace["own"] == true { "the instance's own" } else { "" };
        table.row(vec![
            plain(text(workspace, "name")),
            plain(text(workspace, "id")),
            plain(text(workspace, "ledger")),
            plain(ago(workspace, "created_at")),
            plain(own),
        ]);
    }
    lines(&table, "there is no workspace yet: `statusledger workspaces create NAME`")
}
