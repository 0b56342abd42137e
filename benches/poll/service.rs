//! The service that polls: the real binary as a child, over its embedded cluster, spoken to over HTTP alone.

use crate::changes::Found;
use crate::world::TEAM;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgConnection};
use statusledger::config::Settings;
use statusledger::database::{attach, embedded};
use statusledger::id::WorkspaceId;
use statusledger_simulator::Simulator;
use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a child may take to serve, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// Apple's hour, less what a promise of an hour needs (the service's own defaults).
const HOT_S: f64 = 50.0;
pub const SETTLED_S: f64 = 3300.0;

/// A running service.
pub struct Service {
    child: Child,
    base: String,
    token: String,
    client: reqwest::Client,
    workspaces: Vec<WorkspaceId>,
    directory: TempDir,
}

/// What the service and its database took.
#[derive(Clone, Copy, Default)]
pub struct Used {
    /// Processor seconds of the service's process.
    pub service_s: f64,
    /// Processor seconds of the database's processes.
    pub database_s: f64,
    /// Peak resident memory of the service's process, MiB.
    pub service_mib: f64,
    /// Memory of the database's processes, what they share counted once, MiB.
    pub database_mib: f64,
}

impl Service {
    /// Starts `statusledger up` in a temporary directory, its intervals `factor` times shorter than its defaults.
    pub async fn start(factor: f64) -> Result<Self> {
        Self::start_in(crate::support::directory()?, factor, Vec::new()).await
    }

    /// The same in a directory that holds an instance with these workspaces already.
    pub async fn start_in(directory: TempDir, factor: f64, workspaces: Vec<WorkspaceId>) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_statusledger"))
            .args(["up", "--port", "0", "--instance", "bench.localhost", "--data-dir"])
            .arg(directory.path())
            .env("STATUSLEDGER_POLLING__ALLOW_OTHER_HOSTS", "true")
            .env("STATUSLEDGER_POLLING__TIME_SCALE", factor.to_string())
            .env("STATUSLEDGER_POLLING__INTERVAL_S", (HOT_S / factor).to_string())
            .env("STATUSLEDGER_POLLING__SETTLED_S", (SETTLED_S / factor).to_string())
            // The bench asks as fast as it can.
            .env("STATUSLEDGER_API__REQUESTS_PER_MINUTE", "1000000")
            .env("STATUSLEDGER_API__BURST", "100000")
            .env("STATUSLEDGER_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the service does not start")?;
        let mut lines = BufReader::new(child.stdout.take().context("it has an output")?).lines();
        let mut address = None;
        let announced = async {
            while let Some(line) = lines.next_line().await? {
                match line.trim().split_once(char::is_whitespace) {
                    Some(("address", rest)) => address = Some(rest.trim().to_owned()),
                    Some(("token", _)) => return Ok(()),
                    _ => {}
                }
            }
            bail!("the service ended before it served")
        };
        tokio::time::timeout(PATIENCE, announced).await.context("the service does not serve in time")??;
        let token = std::fs::read_to_string(directory.path().join("bootstrap-token"))?.trim().to_owned();
        Ok(Self {
            child,
            base: address.context("it names its address")?,
            token,
            client: reqwest::Client::builder().no_proxy().build()?,
            workspaces,
            directory,
        })
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let answer = self.client.post(url).bearer_auth(&self.token).json(&body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if !status.is_success() {
            bail!("POST {path} answered {status}: {}", body["detail"].as_str().unwrap_or_default());
        }
        Ok(body)
    }

    /// Makes a workspace with the simulated team's key.
    pub async fn watch(&mut self, simulator: &Simulator) -> Result<()> {
        let made = self.post("/v1/workspaces", json!({ "name": "bench" })).await?;
        let workspace = made["id"].as_str().context("the answer has an id")?.parse()?;
        self.workspaces.push(workspace);
        let key = simulator.app_store_key(TEAM).context("the team has a key")?;
        let source = json!({
            "kind": "app_store",
            "name": "bench",
            "credentials": {
                "key_id": key.key_id,
                "issuer_id": key.issuer_id,
                "private_key": key.private_key_pem.as_str(),
            },
            "base_url": simulator.app_store_base_url(),
        });
        self.post(&format!("/v1/workspaces/{workspace}/sources"), source).await?;
        Ok(())
    }

    async fn entries(&self, workspace: WorkspaceId, query: &str) -> Result<Value> {
        let url = format!("{}/v1/workspaces/{workspace}/entries?{query}", self.base);
        Ok(self.client.get(url).bearer_auth(&self.token).send().await?.error_for_status()?.json().await?)
    }

    /// Waits until so many subjects are known, however many workspaces they are in: as its database says, beside it.
    pub async fn has_subjects(&self, subjects: usize, patience: Duration) -> Result<()> {
        let mut beside = self.beside().await?;
        let mut known: i64 = 0;
        let all = async {
            while usize::try_from(known)? < subjects {
                tokio::time::sleep(Duration::from_millis(500)).await;
                known = sqlx::query_scalar("SELECT count(*) FROM subjects").fetch_one(&mut beside).await?;
            }
            anyhow::Ok(())
        };
        let waited = tokio::time::timeout(patience, all).await;
        waited.map_err(|_| anyhow::anyhow!("only {known} of {subjects} subjects were seen in time"))?
    }

    /// Plans what is settled for some time within its interval at another speed, each key by itself: as those of keys that
    /// were added over an hour are, and not all at once.
    pub async fn spread(&self, factor: f64) -> Result<()> {
        let mut beside = self.beside().await?;
        sqlx::query(
            "UPDATE polls p SET due_at = CASE WHEN hot THEN now() ELSE now() + u * $1 * interval '1 second' END
               FROM (SELECT source_id, random() AS u FROM sources) phase WHERE p.source_id = phase.source_id",
        )
        .bind(SETTLED_S / factor)
        .execute(&mut beside)
        .await?;
        sqlx::query(
            "UPDATE sources s SET next_poll_at = (SELECT min(due_at) FROM polls p WHERE p.source_id = s.source_id)",
        )
        .execute(&mut beside)
        .await?;
        Ok(())
    }

    /// A connection to its database, beside it.
    async fn beside(&self) -> Result<PgConnection> {
        let settings = Settings { data_dir: self.directory.path().to_owned(), ..Settings::default() };
        let connect = embedded::running(&attach::directory(&settings)).context("its database runs")?;
        Ok(connect(embedded::SUPERUSER, attach::DATABASE).connect().await?)
    }

    /// How many entries each of its workspaces has.
    pub async fn sizes(&self) -> Result<Vec<u64>> {
        let mut sizes = Vec::with_capacity(self.workspaces.len());
        for workspace in &self.workspaces {
            let page = self.entries(*workspace, "from=0&limit=1").await?;
            sizes.push(page["size"].as_u64().context("a page has a size")?);
        }
        Ok(sizes)
    }

    /// Waits until so many subjects of the one workspace have been seen for the first time.
    pub async fn has_seen(&self, subjects: usize) -> Result<()> {
        let mut seen = HashSet::new();
        let mut from = 0;
        let all = async {
            loop {
                let query = format!("from={from}&limit=1000&wait=1&type=store.*");
                let page = self.entries(self.workspaces[0], &query).await?;
                for entry in page["items"].as_array().context("a page has items")? {
                    seen.insert(entry["data"]["subject"].to_string());
                }
                if seen.len() >= subjects {
                    return anyhow::Ok(());
                }
                from = page["next"].as_u64().or(page["size"].as_u64()).context("a page has a size")?;
            }
        };
        let waited = tokio::time::timeout(2 * PATIENCE, all).await;
        waited.map_err(|_| anyhow::anyhow!("only {} of {subjects} subjects were seen in time", seen.len()))?
    }

    /// Everything that it found to have changed, from these entries of its workspaces on.
    pub async fn found(&self, from: &[u64]) -> Result<Found> {
        let mut found = Found::new();
        for (workspace, from) in self.workspaces.iter().zip(from) {
            self.found_in(*workspace, *from, &mut found).await?;
        }
        Ok(found)
    }

    async fn found_in(&self, workspace: WorkspaceId, from: u64, found: &mut Found) -> Result<()> {
        let mut from = Some(from);
        while let Some(at) = from {
            let page = self.entries(workspace, &format!("from={at}&limit=1000&type=store.*")).await?;
            for entry in page["items"].as_array().context("a page has items")? {
                if !entry["type"].as_str().is_some_and(|kind| kind.ends_with(".transitioned")) {
                    continue;
                }
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (data, subject) = (&entry["data"], &entry["data"]["subject"]);
                let at = OffsetDateTime::parse(&text(&entry["timestamp"]), &Rfc3339)?;
                found
                    .entry((text(&subject["kind"]), text(&subject["id"])))
                    .or_default()
                    .push((at, text(&data["to"])));
            }
            from = page["next"].as_u64();
        }
        Ok(())
    }

    /// What it and its database took so far.
    pub fn used(&self) -> Result<Used> {
        let pid = self.child.id().context("the service runs")?;
        let (service_s, _) = processor(pid).context("the service's time can be read")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next());
        let mut used = Used {
            service_s,
            service_mib: peak.context("the service's memory can be read")?.parse::<f64>()? / 1024.0,
            ..Used::default()
        };
        for child in descendants(pid) {
            let Some((own, ended)) = processor(child) else { continue };
            // What its ended children took is the postmaster's to tell.
            used.database_s += own + ended;
            let rollup = std::fs::read_to_string(format!("/proc/{child}/smaps_rollup")).unwrap_or_default();
            let pss = rollup.lines().find_map(|l| l.strip_prefix("Pss:")?.split_whitespace().next());
            used.database_mib += pss.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0;
        }
        Ok(used)
    }

    /// Stops it and starts it again, at another speed.
    pub async fn again(self, factor: f64) -> Result<Self> {
        let workspaces = self.workspaces.clone();
        let directory = self.stop().await?;
        Self::start_in(directory, factor, workspaces).await
    }

    /// Stops it as an operator does; its cluster stops with it, and its directory stays.
    pub async fn stop(mut self) -> Result<TempDir> {
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        }
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .context("the service does not stop in time")??;
        anyhow::ensure!(status.success(), "the service ended with {status}");
        Ok(self.directory)
    }
}

/// Processor seconds of a process, and of its children that have ended.
fn processor(pid: u32) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name in parentheses: user and system time are fields 14 and 15, of ended children 16 and 17, in
    // hundredths on Linux.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    let ticks: Vec<f64> = fields.filter_map(|f| f.parse().ok()).collect();
    let [user, system, ended_user, ended_system] = ticks[..] else { return None };
    Some(((user + system) / 100.0, (ended_user + ended_system) / 100.0))
}

/// The processes below one.
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent: u32| (pid, parent)));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}
