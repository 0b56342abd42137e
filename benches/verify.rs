//! Verify: a whole export beside plain hashing of the same file, and one receipt.
//!
//!     cargo bench --bench verify [-- --entries N --rounds N]
//!
//! The export is the service's own: the entries are appended to an embedded instance and written by its exporter,
//! once, into the target directory, where the next run finds them. Each contender is a process of its own over a file
//! in the page cache, timed from its start to its end; ours is this program again, calling the library.

#[path = "support/ground.rs"]
mod ground;
mod support;

use anyhow::{Context, Result, bail};
use clap::Parser;
use ground::Ground;
use statusledger::id::{DestinationId, ReceiptId, WorkspaceId};
use statusledger::ledger::append::unix_micros;
use statusledger::ledger::export::{Exporter, Request};
use statusledger::ledger::seen_heads::SeenHeads;
use statusledger::ledger::tree::{self, Stored};
use statusledger::ledger::{Draft, read};
use statusledger::receipt::{self, Facts};
use statusledger::workspace;
use statusledger_verify::Mode;
use statusledger_verify::json::{Object, Value};
use statusledger_verify::manifest::{KeyManifest, Pin};
use statusledger_verify::time::Timestamp;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{claim, count, figure, line, median, percentile, table};

#[derive(Parser)]
struct Arguments {
    /// Entries of the export.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Verifies this made export and prints what it took: the bench's own child.
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A made export and what belongs to it, in a directory of its own.
struct Made(PathBuf);

impl Made {
    fn export(&self) -> PathBuf {
        self.0.join("export.zip")
    }

    fn pin(&self) -> Result<Pin> {
        Ok(std::fs::read_to_string(self.0.join("pin"))?.parse()?)
    }

    /// When it was made: freshness is judged at that time, however old the file has become.
    fn at(&self) -> Result<Timestamp> {
        let micros = std::fs::read_to_string(self.0.join("made-at"))?.parse()?;
        Timestamp::from_unix_micros(micros).context("made-at is no time")
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(directory) = &arguments.child {
        return verify_export(&Made(directory.clone()));
    }
    line(format!("verify: {}", support::machine()));
    let (large, small) = (made(arguments.entries)?, made((arguments.entries / 10).max(1))?);
    measure(&large, &small, &arguments)
}

/// What the child does: the library's call, then its peak memory.
fn verify_export(made: &Made) -> Result<()> {
    use statusledger_verify::export::{self, Options};
    let options = Options { at: Some(made.at()?), ..Options::default() };
    let report = export::verify(&made.export(), &made.pin()?, None, &options, &|_, _| ());
    let report = report.map_err(|e| anyhow::anyhow!("the export does not verify: {e}"))?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next());
    line(format!("{} {}", report.verdict.name(), peak.unwrap_or("0")));
    Ok(())
}

/// The export of `entries` entries: found, or made.
fn made(entries: u64) -> Result<Made> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = Made(root.join(format!("bench-verify-{entries}")));
    if made.0.join("whole").exists() {
        return Ok(made);
    }
    // Left behind by a run that was stopped.
    if made.0.exists() {
        std::fs::remove_dir_all(&made.0)?;
    }
    std::fs::create_dir_all(&made.0)?;
    line(format!("making an export of {} entries in {}", count(entries as f64), made.0.display()));
    support::block_on(make(&made.0, entries))?;
    std::fs::write(made.0.join("whole"), "")?;
    Ok(made)
}

async fn make(directory: &Path, entries: u64) -> Result<()> {
    let ground = Ground::start().await?;
    let written = fill(&ground, directory, entries).await;
    ground.stop().await?;
    written
}

fn draft(n: u64) -> Result<Draft> {
    let text = |s: &str| Value::String(s.to_owned());
    let mut data = Object::default();
    data.insert("app".into(), text("com.example.ledger"));
    data.insert("from".into(), text("WAITING_FOR_REVIEW"));
    data.insert("note".into(), text("Ledger für alle"));
    data.insert("number".into(), Value::Int(n as i64));
    data.insert("observed_after".into(), text("2026-11-02T03:00:00.000001Z"));
    data.insert("observed_before".into(), text("2026-11-02T03:04:00.000001Z"));
    data.insert("to".into(), text("IN_REVIEW"));
    Ok(Draft::new("store.version.transitioned", data)?)
}

async fn fill(ground: &Ground, directory: &Path, entries: u64) -> Result<()> {
    const CALLERS: u64 = 2000;
    let (writer, database) = (&ground.opened.writer, &ground.attached.database);
    let (id, ledger) =
        workspace::create(writer, &statusledger::audit::Act::operator(), "bench", None).await?;
    // The workspace's own first entry is one of them.
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..CALLERS.min(entries) {
        let writer = writer.clone();
        tasks.spawn(async move {
            for n in (caller..entries - 1).step_by(CALLERS as usize) {
                writer.append(id, draft(n)?).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let heads = tempfile::tempdir()?;
    let seen = SeenHeads::open(&heads.path().join("heads"))?;
    let exporter = Exporter {
        database: database.clone(),
        keyring: ground.opened.keyring.clone(),
        data_keys: writer.data_keys().clone(),
        seen: seen.clone(),
    };
    let request = Request {
        workspace: id,
        ledger: None,
        from: 0,
        to: None,
        types: None,
        openings: false,
        exported_by: "cli".into(),
    };
    let prepared = exporter.prepare(request).await?.context("the workspace is there")?;
    let started = Instant::now();
    let file = exporter.write(&prepared, File::create(directory.join("export.zip"))?, |_| ()).await?;
    file.sync_all()?;
    line(format!("the exporter wrote {} entries/s", count(entries as f64 / started.elapsed().as_secs_f64())));
    let body = receipt_body(ground, &seen, id, entries / 2).await?;
    std::fs::write(directory.join("receipt.json"), body)?;
    let ring = ground.opened.keyring.current();
    std::fs::write(directory.join("keys.json"), ring.manifest().as_bytes())?;
    std::fs::write(directory.join("pin"), ring.pin().to_string())?;
    std::fs::write(directory.join("made-at"), unix_micros().to_string())?;
    anyhow::ensure!(prepared.ledger() == ledger, "another ledger was exported");
    Ok(())
}

/// The receipt of entry `seq` in the whole tree.
async fn receipt_body(ground: &Ground, seen: &SeenHeads, id: WorkspaceId, seq: u64) -> Result<String> {
    let (database, ring) = (&ground.attached.database, ground.opened.keyring.current());
    let (ledger, tree, note) = read::checkpoint(database, &ground.opened.keyring, seen, id, None, None)
        .await?
        .context("the workspace is there")?;
    let mut tx = database.workspace(id).await?;
    let path = tree::inclusion(seq, tree.size)?;
    let stored = Stored::read(&mut tx, id, ledger, path.clone()).await?;
    let entry: String = sqlx::query_scalar(
        "SELECT entry FROM entries WHERE workspace_id = $1 AND ledger_id = $2 AND seq = $3",
    )
    .bind(id.uuid())
    .bind(ledger.uuid())
    .bind(seq as i64)
    .fetch_one(&mut *tx)
    .await?;
    let facts = Facts {
        base: 0,
        destination: DestinationId::new(),
        number: 1,
        receipt: ReceiptId::new(),
        ledger,
        seq,
        issued_at: unix_micros(),
        tree_size: tree.size,
        receipt_key: ring.receipt_key_id(),
        checkpoint_key: ring.checkpoint_key_id(),
        signatures: None,
    };
    Ok(receipt::body(
        &ring,
        &facts,
        &entry,
        &stored.hashes(&path)?,
        &receipt::Note::new(note),
        &[],
        Mode::Fresh,
    )?
    .body)
}

const OURS: &str = "statusledger-verify";
const SHA256SUM: &str = "sha256sum";
const OPENSSL: &str = "openssl dgst -sha256";

/// Runs a contender once; seconds, and what it printed.
fn timed(name: &str, made: &Made) -> Result<Option<(f64, String)>> {
    let mut command = match name {
        OURS => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--child").arg(&made.0);
            command
        }
        SHA256SUM => {
            let mut command = Command::new("sha256sum");
            command.arg(made.export());
            command
        }
        _ => {
            let mut command = Command::new("openssl");
            command.args(["dgst", "-sha256"]).arg(made.export());
            command
        }
    };
    let started = Instant::now();
    let output = match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("{name} ended with {}", output.status);
    }
    Ok(Some((seconds, String::from_utf8_lossy(&output.stdout).trim().to_owned())))
}

fn measure(large: &Made, small: &Made, arguments: &Arguments) -> Result<()> {
    let bytes = std::fs::metadata(large.export())?.len() as f64;
    let entry = bytes / arguments.entries as f64;
    // Into the page cache, for all alike.
    std::io::copy(&mut File::open(large.export())?, &mut std::io::sink())?;
    let names = [OURS, SHA256SUM, OPENSSL];
    let mut times: [Vec<f64>; 3] = Default::default();
    let mut peaks = Vec::new();
    let peak_of = |said: &str| -> Result<f64> {
        let (verdict, kib) = said.split_once(' ').context("the child says two words")?;
        // The best there is without witnesses.
        anyhow::ensure!(verdict == "included", "the export is {verdict}");
        Ok(kib.parse::<f64>()? / 1024.0)
    };
    for round in 0..arguments.rounds.max(1) {
        let mut turns = [0, 1, 2];
        turns.rotate_left(round % 3);
        for turn in turns {
            let Some((seconds, said)) = timed(names[turn], large)? else { continue };
            times[turn].push(seconds);
            if turn == 0 {
                peaks.push(peak_of(&said)?);
            }
        }
    }
    let small_peak = timed(OURS, small)?.map(|(_, said)| peak_of(&said)).transpose()?.unwrap_or_default();
    let beside =
        |than: usize| median(&times[0].iter().zip(&times[than]).map(|(a, b)| a / b).collect::<Vec<_>>());
    let rows: Vec<Vec<String>> = (0..3)
        .map(|i| {
            if times[i].is_empty() {
                return vec![names[i].into(), "not installed".into()];
            }
            let middle = median(&times[i]);
            let ratio = if i == 0 { String::new() } else { figure(beside(i)) };
            vec![
                names[i].into(),
                format!("{middle:.3} s"),
                format!("{:.0} MB/s", bytes / 1e6 / middle),
                ratio,
            ]
        })
        .collect();
    table(
        &format!(
            "whole export of {} entries ({:.0} MB, stored zip, {entry:.0} bytes an entry), {} rounds (medians)",
            count(arguments.entries as f64),
            bytes / 1e6,
            arguments.rounds.max(1)
        ),
        &["", "wall time", "rate", "ours takes as much times"],
        &rows,
    );
    let peak = median(&peaks);
    table(
        "peak resident memory of the verification",
        &["entries", "MiB"],
        &[
            vec![count(arguments.entries as f64), figure(peak)],
            vec![count((arguments.entries / 10) as f64), figure(small_peak)],
        ],
    );
    let receipt = receipt_us(large)?;
    line("");
    line(format!("sha256sum's wall time, times {} (at most 1.5 is asked for)", figure(beside(1))));
    claim("verify.openssl_ratio", beside(2), "<=", 2.5);
    claim("verify.memory_mib", peak, "<=", 256.0);
    claim("verify.receipt_us", receipt, "<=", 300.0);
    Ok(())
}

/// One receipt as a library call, the manifest read before; the median in microseconds.
fn receipt_us(made: &Made) -> Result<f64> {
    use statusledger_verify::receipt::{Options, verify};
    let failed = |f: statusledger_verify::Failure| anyhow::anyhow!("{}: {}", f.check, f.detail);
    let body = std::fs::read(made.0.join("receipt.json"))?;
    let keys = std::fs::read(made.0.join("keys.json"))?;
    let pin = made.pin()?;
    let keys = KeyManifest::parse(&keys).and_then(|m| m.trust(&pin)).map_err(failed)?;
    let options = Options { at: Some(made.at()?), ..Options::default() };
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..3000 {
        let started = Instant::now();
        verify(&body, &keys, &options).map_err(failed)?;
        times.push(started.elapsed());
    }
    let us = |part| percentile(&times, part).as_secs_f64() * 1e6;
    table(
        "one receipt, as a library call with the manifest already read (3,000 times, one thread)",
        &["", "p50", "p99"],
        &[vec![
            format!("a body of {} bytes", count(body.len() as f64)),
            format!("{:.0} us", us(0.5)),
            format!("{:.0} us", us(0.99)),
        ]],
    );
    Ok(us(0.5))
}
