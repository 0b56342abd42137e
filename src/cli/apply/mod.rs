//! `apply`: makes a workspace's sources and destinations what a file says.
//!
//! Everything that can be found wrong without changing anything is found first: the file, what it names, what is there.
//! Then the changes are made one by one, additions before removals, so that nothing goes unwatched in between; the
//! first that is refused ends it, and what was made and what was not is said. Applied again, it goes on where it ended. At
//! its end, a run puts itself on the record (`audit.configuration.applied`).

mod file;
mod plan;
mod raw;
mod spots;
mod work;

use super::manage::{Asking, Place, pretty};
use super::remote::Error;
use super::show;
use super::terminal::{self, Screen, clean};
use crate::config::Settings;
use anyhow::{Context, Result};
use clap::Args;
use plan::{Act, Present};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Requests that one entry takes: more changes leave several entries.
const REQUESTS: usize = 1000;

/// What to apply, and how.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    asking: Asking,
    /// The file (docs/operations.md, "Configuration in a file")
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Shows what would change, and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Removes the sources and destinations that the file does not name
    #[arg(long)]
    prune: bool,
    /// Gives this source the file's key and webhook secret, seen to be others or not (an inbound source is removed and
    /// added under another id, with another token)
    #[arg(long, value_name = "SOURCE")]
    replace_keys: Vec<String>,
    /// The key of this source may be of another account than the one whose apps it knows, or not tell
    #[arg(long, value_name = "SOURCE")]
    other_account: Vec<String>,
}

/// Applies a file.
///
/// # Errors
/// If the file is wrong (then nothing was changed), or the instance refuses a change.
pub async fn run(settings: &Settings, args: ApplyArgs) -> Result<u8> {
    let wanted = file::read(&args.file)?;
    let place = place(settings, &args, wanted.workspace.as_deref()).await?;
    let present =
        Present { sources: place.list("sources").await?, destinations: place.list("destinations").await? };
    let named = [("--replace-keys", &args.replace_keys), ("--other-account", &args.other_account)];
    for (flag, names) in named {
        if let Some(name) = names.iter().find(|name| !wanted.sources.iter().any(|s| s.name == **name)) {
            let name = clean(name);
            return Err(Error::Usage(format!("{flag}: the file has no source \"{name}\"")).into());
        }
    }
    let plan = plan::plan(&wanted, &present, &args.replace_keys, args.prune || wanted.prune)?;
    let (acts, planned) = (plan.acts.len(), planned(&plan.acts));
    let screen = Screen::stdout();
    if !args.asking.json() {
        terminal::print(plan.acts.iter().map(|act| act.painted(screen)))?;
    }
    if !plan.others.is_empty() {
        let names = plan.others.join(", ");
        show::note(format!("statusledger: not in the file, and left alone (--prune removes them): {names}"));
    }
    if !plan.unseen.is_empty() {
        let names = plan.unseen.join(", ");
        show::note(format!(
            "statusledger: not compared, since their keys are not where the file says: {names}"
        ));
    }
    // Every secret is read, and room made for each that comes, before anything is changed.
    let prepare = |act| work::prepare(act, &args.other_account);
    let jobs = plan.acts.into_iter().map(prepare).collect::<Result<Vec<_>>>()?;
    if args.dry_run {
        let undone = jobs.iter().map(|job| job.act.document(false)).collect();
        return end(&place, &args, undone, &format!("{}; nothing was changed", changes(acts, "to make")));
    }
    let mut work = work::Work::new(&place, &present);
    let mut jobs = jobs.into_iter();
    let mut made = Vec::with_capacity(acts);
    while let Some(job) = jobs.next() {
        let act = job.act.clone();
        if let Err(e) = work.carry_out(job).await {
            let mut documents: Vec<Value> = made.iter().map(|act: &Act| act.document(true)).collect();
            let undone: Vec<Act> = std::iter::once(act).chain(jobs.map(|job| job.act)).collect();
            documents.extend(undone.iter().map(|act| act.document(false)));
            let lines: Vec<String> = undone.iter().map(Act::line).collect();
            show::note(format!(
                "statusledger: {} of {acts} made; not made: {}",
                made.len(),
                lines.join(", ")
            ));
            if args.asking.json() {
                end(&place, &args, documents, "")?;
            }
            if let Err(unrecorded) = record(&place, &wanted.sha256, &planned, false).await {
                show::note(format!("statusledger: and that it was tried is not on the record: {unrecorded}"));
            }
            return Err(e);
        }
        show::note(format!("statusledger: made: {}", act.line()));
        made.push(act);
    }
    let documents = made.iter().map(|act| act.document(true)).collect();
    let code = end(&place, &args, documents, &changes(acts, "made"))?;
    record(&place, &wanted.sha256, &planned, true)
        .await
        .context("it was applied, but that is not on the record")?;
    Ok(code)
}

/// How many acts there are, by what they do.
fn planned(acts: &[Act]) -> Value {
    let count = |verb: &str| acts.iter().filter(|act| act.verb() == verb).count();
    let verbs = ["add", "change", "replace", "remove"];
    verbs.iter().map(|verb| ((*verb).to_owned(), Value::from(count(verb)))).collect::<Map<_, _>>().into()
}

/// Puts on the record that the file was applied, and which requests were its changes.
async fn record(place: &Place, sha256: &str, planned: &Value, complete: bool) -> Result<(), Error> {
    let requests = place.changed();
    let mut chunks: Vec<&[String]> = requests.chunks(REQUESTS).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for requests in chunks {
        let body =
            json!({ "sha256": sha256, "planned": planned, "complete": complete, "requests": requests });
        place.change(Method::POST, "configurations", Some(&body)).await?;
    }
    Ok(())
}

/// The workspace that the file names, or the arguments.
async fn place(settings: &Settings, args: &ApplyArgs, named: Option<&str>) -> Result<Place> {
    let mut asking = args.asking.clone();
    if let Some(named) = named {
        if asking.connection().workspace().is_some_and(|given| given != named) {
            let sentence = "the file names another workspace than --workspace";
            return Err(Error::Usage(sentence.into()).into());
        }
        let connection = asking.connection().in_workspace(named);
        asking = asking.with(connection);
    }
    Place::open(settings, &asking).await
}

/// `3 changes made`.
fn changes(count: usize, what: &str) -> String {
    match count {
        0 => "nothing to change".to_owned(),
        1 => format!("1 change {what}"),
        n => format!("{n} changes {what}"),
    }
}

/// Shows what came of it.
fn end(place: &Place, args: &ApplyArgs, documents: Vec<Value>, sentence: &str) -> Result<u8> {
    let document = json!({ "workspace": place.id(), "dry_run": args.dry_run, "changes": documents });
    let line = if args.asking.json() { pretty(&document)? } else { sentence.to_owned() };
    terminal::print([line])?;
    Ok(0)
}
