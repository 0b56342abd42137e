//! `doctor`.

use super::{Where, show};
use crate::config::Settings;
use crate::database::{Database, attach};
use crate::delivery::Outbox;
use crate::doctor;
use crate::id::LedgerId;
use crate::instance::Instance;
use crate::key_encryption::KeyEncryption;
use crate::ledger::checkpoint::SignedTree;
use crate::ledger::continued::{Acceptance, Outcome};
use crate::ledger::history::{self, Disagreement, Fate, Kind};
use crate::ledger::seen_heads::{self, SeenHeads};
use crate::node::NodeDirectory;
use crate::sealing::DataKeys;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use statusledger_keys::ring::RootFile;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::str::FromStr;

/// What `doctor` is asked.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub(super) place: Where,
    /// Says which ledgers lack entries that were signed; with --lost for each, begins a new ledger in its place
    #[arg(long)]
    accept_loss: bool,
    /// A loss to accept: the ledger's id and the entries that were signed, as --accept-loss alone prints them
    #[arg(long, value_name = "LEDGER:SIZE", requires = "accept_loss")]
    lost: Vec<Lost>,
    /// What another node handed out: the file `heads` of its data directory
    #[arg(long, value_name = "FILE", requires = "accept_loss")]
    heads: Vec<PathBuf>,
    /// The file of an offline root, where the instance's own ledger is concerned
    #[arg(long, value_name = "FILE", requires = "accept_loss")]
    root: Option<PathBuf>,
}

/// A loss, as it is confirmed: what is lost is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lost {
    ledger: LedgerId,
    size: u64,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.ledger, self.size)
    }
}

impl FromStr for Lost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a ledger's id, a colon and a number of entries");
        let (ledger, size) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { ledger: ledger.parse().map_err(|_| wrong())?, size: size.parse().map_err(|_| wrong())? })
    }
}

/// Verifies everything stored, or accepts a loss.
///
/// # Errors
/// If it cannot be looked at.
pub async fn run(settings: &Settings, args: DoctorArgs) -> Result<u8> {
    let attached = attach::attach(settings).await?;
    let done = async {
        if Instance::read(&attached.database).await?.is_none() {
            bail!("the database holds no instance yet; `up` or `serve` makes one");
        }
        if args.accept_loss {
            accept_loss(settings, &attached.database, &args).await
        } else {
            examine(settings, &attached.database).await
        }
    }
    .await;
    attached.close().await?;
    done
}

/// Refuses, where this directory's node cannot tell whether the database has lost what it handed out.
///
/// # Errors
/// If it cannot, or the database does not answer.
pub(super) async fn refuse_doubtful(settings: &Settings, database: &Database) -> Result<()> {
    match &doubtful(settings, database).await?[..] {
        [] => Ok(()),
        found => bail!("the database may not hold the history that was signed: {}", found.join("; ")),
    }
}

/// What this directory's node cannot tell of.
async fn doubtful(settings: &Settings, database: &Database) -> Result<Vec<String>> {
    let path = settings.data_dir.join("heads");
    let left = seen_heads::read(&path).with_context(|| format!("cannot read {}", path.display()))?.intended;
    let unknown = |(ledger, tree, fate)| (fate == Fate::Unknown).then(|| history::maybe(ledger, tree));
    Ok(history::fates(database, &left).await?.into_iter().filter_map(unknown).collect())
}

async fn examine(settings: &Settings, database: &Database) -> Result<u8> {
    let keys = KeyEncryption::load(settings, &settings.instance, database).await?;
    let data_keys = DataKeys::new(database.clone(), keys);
    let seen = SeenHeads::join(&settings.data_dir.join("heads"))?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} entries {eta}")?);
    let examined = doctor::examine(database, &data_keys, &seen, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let examined = examined?;
    let doubtful = doubtful(settings, database).await?;
    for finding in examined.findings.iter().map(ToString::to_string).chain(doubtful.iter().cloned()) {
        show::note(finding);
    }
    let findings = examined.findings.len() + doubtful.len();
    show::line(format!(
        "{} ledgers, {} entries, {} openings, {} deliveries: {}",
        examined.ledgers,
        examined.entries,
        examined.openings,
        examined.deliveries,
        match findings {
            0 => "all as it was written".to_owned(),
            1 => "1 finding".to_owned(),
            n => format!("{n} findings"),
        }
    ));
    Ok(u8::from(findings > 0))
}

/// The largest trees that this node and those of the other files handed out, or may have.
async fn remembered(
    settings: &Settings,
    database: &Database,
    others: &[PathBuf],
) -> Result<HashMap<LedgerId, SignedTree>> {
    let own = settings.data_dir.join("heads");
    let mut all: HashMap<LedgerId, SignedTree> = HashMap::new();
    for path in std::iter::once(&own).chain(others) {
        if path != &own && !path.is_file() {
            bail!("{} is not there", path.display());
        }
        let heads = seen_heads::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let fates = history::fates(database, &heads.intended).await?;
        let doubtful = fates
            .into_iter()
            .filter_map(|(ledger, tree, fate)| (fate != Fate::Never).then_some((ledger, tree)));
        for (ledger, tree) in heads.seen.into_iter().chain(doubtful) {
            let largest = all.entry(ledger).or_insert(tree);
            if tree.size > largest.size {
                *largest = tree;
            }
        }
    }
    Ok(all)
}

/// Refuses to change anything where the database does not hold what this directory's node signed.
///
/// # Errors
/// If it does not, or does not answer.
pub(super) async fn check_history(settings: &Settings, database: &Database) -> Result<()> {
    let found = history::compare(database, &remembered(settings, database, &[]).await?).await?.found;
    if !found.is_empty() {
        bail!(
            "the database does not hold the history that was signed; run `statusledger doctor`: {}",
            history::told(&found)
        );
    }
    Ok(())
}

/// What of a loss is confirmed: the largest tree that was signed.
fn lost(found: &Disagreement) -> Option<Lost> {
    let tree = found.signed.filter(|_| found.kind != Kind::Damaged)?;
    Some(Lost { ledger: found.ledger, size: tree.size })
}

async fn accept_loss(settings: &Settings, database: &Database, args: &DoctorArgs) -> Result<u8> {
    // Nobody serves from this directory meanwhile, nor starts to.
    let _directory = NodeDirectory::open(&settings.data_dir)
        .context("a loss is accepted while no node runs: stop them all first")?;
    let keys = KeyEncryption::load(settings, &settings.instance, database).await?;
    let (outbox, _) = Outbox::new();
    let opened = Instance::open(database, keys.clone(), None, None, outbox).await?;
    let found = history::compare(database, &remembered(settings, database, &args.heads).await?).await?.found;
    for disagreement in &found {
        show::note(disagreement.to_string());
    }
    if found.is_empty() {
        if !args.lost.is_empty() {
            bail!("nothing that was signed is missing: there is no loss to accept");
        }
        show::line("nothing that was signed is missing");
        return Ok(0);
    }
    let missing: BTreeSet<Lost> = found.iter().filter_map(lost).collect();
    if missing.len() < found.len() {
        bail!("tables contradict each other (above): that is no loss to be accepted; restore the database");
    }
    if args.lost.is_empty() {
        let confirm: String = missing.iter().map(|lost| format!(" --lost {lost}")).collect();
        show::line(
            "Look for the missing entries first: a standby, the WAL archive, the server that failed. What is",
        );
        show::line(
            "accepted as lost stays lost: receipts of it go on to verify, but nobody can show the entries",
        );
        show::line("again. To go on without them, in a new ledger for each:");
        show::line(format!("  statusledger doctor --accept-loss{confirm}"));
        return Ok(1);
    }
    let confirmed: BTreeSet<Lost> = args.lost.iter().copied().collect();
    if confirmed != missing {
        let list = |set: &BTreeSet<Lost>| set.iter().map(Lost::to_string).collect::<Vec<_>>().join(", ");
        bail!("missing is {}, but confirmed was {}; nothing is done", list(&missing), list(&confirmed));
    }
    let root = args.root.as_deref().map(RootFile::read).transpose().map_err(|e| anyhow!("{e}"))?;
    let acceptance = Acceptance {
        writer: &opened.writer,
        instance: &opened.instance,
        key_encryption: &keys,
        root: root.as_ref(),
    };
    for disagreement in in_order(&found, &opened.instance) {
        let ledger = disagreement.ledger;
        match acceptance.accept(disagreement).await.with_context(|| format!("ledger {ledger}"))? {
            Outcome::Continued { by, given_up: 0 } => {
                show::line(format!("ledger {ledger} is closed; ledger {by} goes on"));
            }
            Outcome::Continued { by, given_up } => show::line(format!(
                "ledger {ledger} is closed, {given_up} deliveries of its other history are given up; ledger {by} goes on"
            )),
            Outcome::Recorded => show::line(format!("ledger {ledger}: its loss is on record")),
        }
    }
    Ok(0)
}

/// The instance's own ledger first: what is recorded of the others may stand in it.
fn in_order<'a>(found: &'a [Disagreement], instance: &Instance) -> Vec<&'a Disagreement> {
    let mut ordered: Vec<&Disagreement> = found.iter().collect();
    ordered.sort_by_key(|d| d.workspace != Some(instance.workspace));
    ordered
}
