//! `export`.

use super::aside::Aside;
use super::remote::{Connection, Error, Remote, ambiguous};
use super::{ExportArgs, show, terminal};
use crate::audit::Act;
use crate::config::Settings;
use crate::database::{Database, Seen, attach};
use crate::delivery::Outbox;
use crate::id::WorkspaceId;
use crate::key_encryption::KeyEncryption;
use crate::keyring::Keyring;
use crate::ledger::Writer;
use crate::ledger::export::{Exporter, Request};
use crate::ledger::seen_heads::SeenHeads;
use crate::sealing::DataKeys;
use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// How often the count of bytes is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Writes an export: over the API of an instance that is named or runs over the data directory, else from the database.
///
/// # Errors
/// If there is no such workspace, or the file cannot be written.
pub async fn run(mut settings: Settings, args: ExportArgs) -> Result<u8> {
    if args.url.is_some() && args.database_url.is_some() {
        return Err(Error::Usage("give --url or --database-url, not both".into()).into());
    }
    let elsewhere = std::env::var_os("STATUSLEDGER_URL").is_some_and(|url| !url.is_empty());
    let connection = Connection::to(
        args.url.clone(),
        args.token_file.clone(),
        args.data_dir.clone(),
        args.workspace.clone(),
    );
    if args.url.is_some() || (elsewhere && args.data_dir.is_none() && args.database_url.is_none()) {
        let remote = Remote::new(&connection, &settings)?;
        let workspace = remote.workspace().await?;
        return download(&remote, &workspace, &args).await?;
    }
    settings.data_dir = args.data_dir.clone().unwrap_or(settings.data_dir);
    let database_is_meant =
        args.database_url.is_some() || (args.data_dir.is_none() && settings.database_url.is_some());
    settings.database_url = args.database_url.clone().or(settings.database_url);
    settings.worker_database_url = args.worker_database_url.clone().or(settings.worker_database_url);
    if !database_is_meant && settings.data_dir.join(super::remote::ADDRESS_FILE).exists() {
        // A node that was killed leaves its address, and one may serve whose token is elsewhere: then the database is
        // read, as without a node.
        if let Ok(remote) = Remote::new(&connection, &settings)
            && let Ok(workspace) = remote.workspace().await
        {
            match download(&remote, &workspace, &args).await {
                Err(Error::Refused { status: 503, .. } | Error::Unreachable { .. }) => {}
                done => return done?,
            }
        }
    }
    let attached = attach::attach(&settings).await?;
    let done = export(&settings, &attached.database, args).await;
    attached.close().await?;
    done
}

/// Streams an export to its file. The outer error is the instance's, before the first byte.
async fn download(remote: &Remote, workspace: &str, args: &ExportArgs) -> Result<Result<u8>, Error> {
    // Before the instance is asked, and puts an export on the record that nobody gets.
    let aside = match Aside::begin(&args.out, false) {
        Ok(aside) => aside,
        Err(e) => return Ok(Err(e)),
    };
    let (from, to) = (args.from.to_string(), args.to.map(|to| to.to_string()));
    let types = args.types.as_ref().map(|types| types.join(","));
    let mut query = vec![("from", from.as_str())];
    query.extend(to.as_ref().map(|to| ("to", to.as_str())));
    query.extend(types.as_ref().map(|types| ("types", types.as_str())));
    if args.openings {
        query.push(("openings", "true"));
    }
    let ledger = args.ledger.map(|ledger| ledger.to_string());
    query.extend(ledger.as_ref().map(|ledger| ("ledger", ledger.as_str())));
    let file = remote.file(&format!("/v1/workspaces/{workspace}/export"), &query).await?;
    Ok(tokio::select! {
        written = take(file, aside) => written.and_then(|bytes| told(args, bytes)),
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted; nothing was kept")),
    })
}

/// Writes what comes; answers how much it was. A connection that breaks leaves no file.
async fn take(mut file: super::remote::File, mut aside: Aside) -> Result<u64> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}")?);
    bar.enable_steady_tick(SHOW_EVERY);
    while let Some(chunk) = file.chunk().await? {
        aside.file().write_all(&chunk).context("cannot write the export")?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    aside.finish()?;
    Ok(bar.position())
}

/// Says what was written, to whoever asked for a document.
fn told(args: &ExportArgs, bytes: u64) -> Result<u8> {
    if args.json {
        let document = serde_json::json!({ "file": args.out.display().to_string(), "bytes": bytes });
        terminal::print([terminal::json(&serde_json::to_string_pretty(&document)?)])?;
    } else {
        show::note(format!("statusledger: {bytes} bytes were written to {}", args.out.display()));
    }
    Ok(0)
}

/// What exports are made from, for a command beside (or without) a running node.
///
/// # Errors
/// If the keys do not open, or the database may lack what this directory's node handed out.
pub async fn exporter(settings: &Settings, database: &Database) -> Result<Exporter> {
    // (What it is known to lack is found when it is prepared.)
    super::doctor::refuse_doubtful(settings, database).await?;
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
/// If there is none, or several are called that.
pub async fn find_workspace(database: &Database, named: &str) -> Result<WorkspaceId> {
    let id = named.parse::<WorkspaceId>().ok();
    let mut tx = database.workspaces(Seen::All).await?;
    let called = sqlx::query_scalar!(
        r#"SELECT workspace_id AS "id: WorkspaceId" FROM workspaces
            WHERE workspace_id = $1 OR $1 IS NULL AND name = $2 ORDER BY created_at, workspace_id"#,
        id.map(WorkspaceId::uuid),
        named
    )
    .fetch_all(&mut *tx)
    .await?;
    match called[..] {
        [] => Err(anyhow!("there is no workspace \"{named}\"")),
        [id] => Ok(id),
        _ => Err(Error::Usage(ambiguous(named, called.iter().map(ToString::to_string))).into()),
    }
}

async fn export(settings: &Settings, database: &Database, args: ExportArgs) -> Result<u8> {
    let Some(workspace) = args.workspace.clone().or_else(|| std::env::var("STATUSLEDGER_WORKSPACE").ok())
    else {
        return Err(Error::Usage("name the workspace with --workspace".into()).into());
    };
    // Before the keys: whoever misnames one need not have them.
    let workspace = find_workspace(database, &workspace).await?;
    let exporter = exporter(settings, database).await?;
    let request = Request {
        workspace,
        ledger: args.ledger,
        from: args.from,
        to: args.to,
        types: args.types.clone(),
        openings: args.openings,
        exported_by: "operator".into(),
    };
    let code = write(&exporter, request, &args.out).await?;
    told(&args, std::fs::metadata(&args.out)?.len())?;
    Ok(code)
}

/// Writes an export to `out`, which must not exist, with progress where somebody watches.
///
/// # Errors
/// If the file exists or cannot be written, or the range lies outside the ledger.
pub async fn write(exporter: &Exporter, request: Request, out: &Path) -> Result<u8> {
    let (from, openings) = (request.from, request.openings);
    let prepared = exporter.prepare(request).await?.ok_or_else(|| anyhow!("there is no such workspace"))?;
    let aside = Aside::begin(out, false)?;
    let (outbox, _) = Outbox::new();
    let (database, keyring) = (exporter.database.clone(), exporter.keyring.clone());
    let writer = Writer::new(database, keyring, exporter.data_keys.clone(), None, outbox);
    prepared.record(&writer, &Act::operator()).await.context("the export cannot be put on the record")?;
    let file = aside.handle()?;
    let bar = ProgressBar::new(prepared.to() - from);
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} entries {eta}")?);
    let shown = bar.clone();
    let written =
        exporter.write(&prepared, std::io::BufWriter::new(file), move |done| shown.set_position(done)).await;
    bar.finish_and_clear();
    written?.into_inner().map_err(|e| anyhow!("{}", e.error()))?;
    aside.finish()?;
    if let Some(why) = prepared.disagreement() {
        let sealed = if openings { "; sealed values were not opened" } else { "" };
        show::note(format!(
            "the history in the database is not the one that was signed, and was not signed anew{sealed}: {why}"
        ));
        return Ok(1);
    }
    Ok(0)
}
