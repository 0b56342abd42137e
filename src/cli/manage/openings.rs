//! `openings`: what the sealed values of an entry are, each verified against the entry.

use super::{Asking, Place, Value, lines, plain};
use crate::cli::show;
use crate::cli::terminal::{Table, Yield, clean};
use crate::config::Settings;
use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use statusledger_verify::entry::sealed_hash;
use statusledger_verify::json;
use std::time::Duration;

/// Which entry.
#[derive(Debug, Args)]
pub struct OpeningsArgs {
    #[command(flatten)]
    asking: Asking,
    /// The entry, by its place in the ledger
    #[arg(value_name = "SEQ")]
    seq: u64,
}

/// Shows what the sealed values of an entry are.
///
/// # Errors
/// If the instance refuses, or says something else than the entry has sealed.
pub async fn run(settings: &Settings, args: OpeningsArgs) -> Result<u8> {
    let place = Place::open(settings, &args.asking).await?;
    let path = format!("{}/entries/{}", place.path, args.seq);
    let entry: Value = place.desk.remote.get(&path, &[], Duration::ZERO).await?;
    let document: Value = place.desk.remote.get(&format!("{path}/openings"), &[], Duration::ZERO).await?;
    let Some(openings) = document["openings"].as_object() else {
        return Err(place.desk.remote.unreadable("the answer has no openings").into());
    };
    for (name, opening) in openings {
        if !verifies(opening, entry["data"]["sealed"][name].as_str()) {
            bail!("the instance shows another {} than entry {} has sealed", clean(name), args.seq);
        }
    }
    let destroyed: Vec<&str> =
        document["destroyed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !destroyed.is_empty() && !args.asking.json() {
        show::note(format!("statusledger: destroyed for good: {}", clean(&destroyed.join(", "))));
    }
    place.desk.show(&document, || {
        let mut table = Table::new(&[("NAME", Yield::Never), ("VALUE", Yield::Never)]);
        for (name, opening) in openings {
            let value = &opening["value"];
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.row(vec![plain(name.clone()), plain(shown)]);
        }
        lines(&table, "the entry has nothing sealed that can be opened")
    })
}

/// Whether an opening is the one that the entry has the hash of.
fn verifies(opening: &Value, hash: Option<&str>) -> bool {
    let salt = opening["salt"].as_str().and_then(|salt| STANDARD.decode(salt).ok());
    let Some(salt) = salt.and_then(|salt| <[u8; 32]>::try_from(salt).ok()) else { return false };
    let Ok(value) = json::parse(opening["value"].to_string().as_bytes()) else { return false };
    let found = crate::ledger::hex(&sealed_hash(&salt, value.canonical().as_bytes()));
    hash == Some(found.as_str())
}
