//! `export`.

use super::{ExportArgs, show};
use crate::audit::Act;
use crate::config::Settings;
use crate::database::{Database, attach};
use crate::delivery::Outbox;
use crate::id::WorkspaceId;
use crate::key_encryption::KeyEncryption;
use crate::keyring::Keyring;
use crate::ledger::Writer;
use crate::ledger::checkpoint::SeenHeads;
use crate::ledger::export::{self, Exporter, Request};
use crate::sealing::DataKeys;
use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::path::Path;

/// Writes an export.
///
/// # Errors
/// If there is no such workspace, or the file cannot be written.
pub async fn run(settings: &Settings, args: ExportArgs) -> Result<u8> {
    let attached = attach::attach(settings).await?;
    let done = export(settings, &attached.database, args).await;
    attached.close().await?;
    done
}

/// What exports are made from, for a command beside (or without) a running node.
///
/// # Errors
/// If the keys do not open.
pub async fn exporter(settings: &Settings, database: &Database) -> Result<Exporter> {
    let keys = KeyEncryption::load(settings, &settings.instance, database).await?;
    Ok(Exporter {
        database: database.clone(),
        keyring: Keyring::load(database.clone(), keys.clone()).await?,
        data_keys: DataKeys::new(database.clone(), keys),
        seen: SeenHeads::join(&settings.data_dir.join("heads"))?,
    })
}

/// Finds a workspace by id or name.
///
/// # Errors
/// If there is none.
pub async fn find_workspace(database: &Database, named: &str) -> Result<WorkspaceId> {
    let id = named.parse::<WorkspaceId>().ok();
    sqlx::query_scalar!(
        r#"SELECT workspace_id AS "id: WorkspaceId" FROM workspaces WHERE workspace_id = $1 OR name = $2"#,
        id.map(WorkspaceId::uuid),
        named
    )
    .fetch_optional(&database.worker)
    .await?
    .ok_or_else(|| anyhow!("there is no workspace \"{named}\""))
}

async fn export(settings: &Settings, database: &Database, args: ExportArgs) -> Result<u8> {
    let exporter = exporter(settings, database).await?;
    let workspace = find_workspace(database, &args.workspace).await?;
    let request = Request {
        workspace,
        from: args.from,
        to: args.to,
        types: args.types,
        openings: args.openings,
        exported_by: "operator".into(),
    };
    write(&exporter, request, &args.out).await
}

/// Writes an export to `out`, which must not exist, with progress where somebody watches.
///
/// # Errors
/// If the file exists or cannot be written, or the range lies outside the ledger.
pub async fn write(exporter: &Exporter, request: Request, out: &Path) -> Result<u8> {
    let (from, workspace, openings) = (request.from, request.workspace, request.openings);
    let types = request.types.clone();
    let prepared = exporter.prepare(request).await?.ok_or_else(|| anyhow!("there is no such workspace"))?;
    if out.exists() {
        bail!("{} exists already", out.display());
    }
    // A history that is not the one that was signed is shown, and nothing is added to it.
    if prepared.disagreement().is_none() {
        let (outbox, _) = Outbox::new();
        let (database, keyring) = (exporter.database.clone(), exporter.keyring.clone());
        let writer = Writer::new(database, keyring, exporter.data_keys.clone(), None, outbox);
        let of = export::Of { from, to: prepared.to(), types: types.as_deref(), openings, format: None };
        export::record(&writer, &Act::operator(), workspace, of)
            .await
            .context("the export cannot be put on the record")?;
    }
    // Written aside and renamed: a crash leaves no file that looks whole.
    let aside = out.with_extension("zip.part");
    let file = File::create(&aside).with_context(|| format!("cannot write {}", aside.display()))?;
    let bar = ProgressBar::new(prepared.to() - from);
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} entries {eta}")?);
    let shown = bar.clone();
    let written =
        exporter.write(&prepared, std::io::BufWriter::new(file), move |done| shown.set_position(done)).await;
    bar.finish_and_clear();
    let file = written?.into_inner().map_err(|e| anyhow!("{}", e.error()))?;
    file.sync_all()?;
    std::fs::rename(&aside, out).with_context(|| format!("cannot write {}", out.display()))?;
    if let Some(why) = prepared.disagreement() {
        show::note(format!(
            "the history in the database is not the one that was signed, and was not signed anew: {why}"
        ));
        return Ok(1);
    }
    Ok(0)
}
