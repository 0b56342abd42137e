//! `keys`.

use super::{KeysCommand, RootCommand, Where, show};
use crate::audit::Act;
use crate::config::Settings;
use crate::database::{Database, attach};
use crate::delivery::Outbox;
use crate::instance::{Instance, Opened};
use crate::key_encryption::KeyEncryption;
use crate::key_encryption::rewrap::{self, Done, Progress, Target};
use crate::keyring;
use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use statusledger_keys::key_id::KeyId;
use statusledger_keys::ring::{Change, Ring, RingError, RootFile, Rotation};
use statusledger_verify::time::Timestamp;
use std::path::Path;
use std::time::Duration;

/// Runs a `keys` command.
///
/// # Errors
/// If the ring refuses.
pub async fn run(mut settings: Settings, command: KeysCommand) -> Result<u8> {
    let place: &Where = match &command {
        KeysCommand::List { place, .. }
        | KeysCommand::Rotate { place, .. }
        | KeysCommand::Revoke { place, .. }
        | KeysCommand::Pin { place }
        | KeysCommand::Rewrap { place, .. }
        | KeysCommand::Root(RootCommand::Export { place, .. })
        | KeysCommand::Export { place, .. } => place,
    };
    place.apply(&mut settings);
    let attached = attach::attach(&settings).await?;
    let done = with_database(&settings, &attached.database, command).await;
    attached.close().await?;
    done
}

async fn with_database(settings: &Settings, database: &Database, command: KeysCommand) -> Result<u8> {
    if Instance::read(database).await?.is_none() {
        bail!("the database holds no instance yet; `up` or `serve` makes one");
    }
    // A command hands nothing to lanes: what it records is delivered by the nodes.
    let (outbox, _) = Outbox::new();
    let encryption = KeyEncryption::load(settings, &settings.instance, database).await?;
    let opened = Instance::open(database, encryption.clone(), None, None, outbox).await?;
    if !matches!(command, KeysCommand::List { .. } | KeysCommand::Pin { .. } | KeysCommand::Export { .. }) {
        super::doctor::check_history(settings, database).await?;
    }
    match command {
        KeysCommand::List { json, .. } => list(&opened, json),
        KeysCommand::Pin { .. } => show::line(opened.keyring.current().pin().to_string()),
        KeysCommand::Export { out, .. } => {
            let manifest = opened.keyring.current().manifest().to_string();
            match out {
                None => show::line(manifest),
                Some(path) => std::fs::write(&path, manifest)
                    .with_context(|| format!("cannot write {}", path.display()))?,
            }
        }
        KeysCommand::Rotate { only, root, .. } => {
            let what = match only.as_deref() {
                None => What::Rotate(Rotation::Both),
                Some("receipt") => What::Rotate(Rotation::Receipt),
                Some("checkpoint") => What::Rotate(Rotation::Checkpoint),
                Some("root") => What::RotateRoot,
                Some(other) => bail!("--only takes receipt, checkpoint or root, not \"{other}\""),
            };
            let lent = root.as_deref().map(read_root).transpose()?;
            change(&opened, lent.as_ref(), &what, root.as_deref()).await?;
        }
        KeysCommand::Revoke { key_id, root, .. } => {
            let key_id: KeyId =
                key_id.parse().map_err(|_| anyhow!("\"{key_id}\" is not a key's id (64 hex digits)"))?;
            let lent = root.as_deref().map(read_root).transpose()?;
            change(&opened, lent.as_ref(), &What::Revoke(key_id), None).await?;
        }
        KeysCommand::Rewrap { to_file, wait, .. } => {
            // The parser takes exactly one of the two.
            let target = to_file.map_or(Target::Kms, Target::File);
            rewrapped(&rewrap_with_bar(&opened, &encryption, &target, Duration::from_secs(wait)).await?);
        }
        KeysCommand::Root(RootCommand::Export { file, .. }) => {
            if file.exists() {
                bail!("{} exists already", file.display());
            }
            change(&opened, None, &What::ExportRoot, Some(&file)).await?;
            show::line(format!(
                "the root's private key is in {} and nowhere else: keep it offline, with a copy",
                file.display()
            ));
        }
    }
    Ok(0)
}

async fn rewrap_with_bar(
    opened: &Opened,
    keys: &KeyEncryption,
    target: &Target,
    wait: Duration,
) -> Result<Done> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{msg} {bar:40} {human_pos}/{human_len} keys {eta}")?);
    let done = rewrap::rewrap(opened, keys, target, wait, |progress| match progress {
        Progress::Waiting(nodes) => bar.set_message(format!("waiting for {nodes} nodes to hold the new key")),
        Progress::Rewrapping(done, total) => {
            bar.set_message("re-wrapping");
            bar.set_length(total);
            bar.set_position(done);
        }
    })
    .await;
    bar.finish_and_clear();
    Ok(done?)
}

fn rewrapped(done: &Done) {
    if done.old.is_empty() {
        show::line(format!("everything is under key-encryption key {} already", done.key));
        return;
    }
    show::line(format!(
        "re-wrapped {} data keys and {} signing keys; everything is under key-encryption key {} now",
        done.data_keys, done.signing_keys, done.key
    ));
    for old in &done.old {
        show::line(format!(
            "nothing is under {old} any more: take it from the nodes, and keep it with older backups"
        ));
    }
}

enum What {
    Rotate(Rotation),
    RotateRoot,
    Revoke(KeyId),
    ExportRoot,
}

fn read_root(path: &Path) -> Result<RootFile> {
    RootFile::read(path).with_context(|| format!("{} is not a usable root file", path.display()))
}

/// Makes a change of the ring. A root that leaves the ring is written, and flushed, before the change is committed:
/// it is the only copy.
async fn change(
    opened: &Opened,
    lent: Option<&RootFile>,
    what: &What,
    root_file: Option<&Path>,
) -> Result<()> {
    let events = opened
        .keyring
        .change(&opened.writer, &Act::operator(), opened.instance.workspace, |ring: &Ring, now: Timestamp| {
            let lent_ring;
            let ring = match lent {
                Some(file) => {
                    lent_ring = ring.with_root(file)?;
                    &lent_ring
                }
                None => ring,
            };
            let change = make(ring, what, now)?;
            if let Some(file) = &change.root_file {
                let path = match (what, root_file) {
                    // The next root of an offline root rests beside it, under a name of its own.
                    (What::RotateRoot, Some(path)) => {
                        let id = file.key_id().to_string();
                        path.with_file_name(format!("root-{}.key", &id[..16]))
                    }
                    (_, Some(path)) => path.to_owned(),
                    (_, None) => {
                        return Err(keyring::Error::Manifest("no file was named for the root".into()));
                    }
                };
                file.write(&path)?;
                show::line(format!("the private key of root {} is in {}", file.key_id(), path.display()));
            }
            let events = change.events.clone();
            let broken = change.broken_pins.clone();
            Ok((change, (events, broken)))
        })
        .await?;
    let (events, broken) = events;
    for event in &events {
        let key = event.data.get("key_id").and_then(|v| v.as_str()).unwrap_or_default();
        let purpose = event.data.get("purpose").and_then(|v| v.as_str()).unwrap_or_default();
        show::line(format!("{} {purpose} {key}", event.event_type.as_str()));
    }
    for pin in &broken {
        show::note(format!(
            "customers who pinned {pin} need the new pin: {}",
            opened.keyring.current().pin()
        ));
    }
    Ok(())
}

fn make(ring: &Ring, what: &What, now: Timestamp) -> Result<Change, RingError> {
    match what {
        What::Rotate(rotation) => ring.rotate(*rotation, now),
        What::RotateRoot => ring.rotate_root(now),
        What::Revoke(key_id) => ring.revoke(*key_id, now),
        What::ExportRoot => ring.export_root(),
    }
}

fn list(opened: &Opened, json: bool) {
    let snapshot = opened.keyring.current();
    if json {
        show::line(&**snapshot.manifest());
        return;
    }
    let ring = snapshot.ring();
    show::line(format!(
        "instance {}  serial {}  issued {}  expires {}",
        ring.instance(),
        ring.serial(),
        ring.issued_at(),
        ring.expires()
    ));
    for key in ring.keys() {
        let state = match (&key.revoked_at, &key.not_after) {
            (Some(at), _) => format!("revoked {at}"),
            (None, Some(at)) => format!("retired {at}"),
            (None, None) => "current".to_owned(),
        };
        let held = if ring.holds_private(key.key_id) { "" } else { "  (private half not held)" };
        show::line(format!(
            "{}  {:<10}  from {}  {state}{held}",
            key.key_id,
            key.purpose.to_string(),
            key.not_before
        ));
    }
}
