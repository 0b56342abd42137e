//! The service that polls: the real binary as a child, over its embedded cluster, spoken to over HTTP alone.

use crate::changes::Found;
use crate::world::TEAM;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
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
const SETTLED_S: f64 = 3300.0;

/// A running service.
pub struct Service {
    child: Child,
    base: String,
    token: String,
    client: reqwest::Client,
    workspace: String,
    _directory: TempDir,
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
        let directory = crate::support::directory()?;
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
            workspace: String::new(),
            _directory: directory,
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
        self.workspace = made["id"].as_str().context("the answer has an id")?.to_owned();
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
        self.post(&format!("/v1/workspaces/{}/sources", self.workspace), source).await?;
        Ok(())
    }

    async fn entries(&self, query: &str) -> Result<Value> {
        let url = format!("{}/v1/workspaces/{}/entries?{query}", self.base, self.workspace);
        Ok(self.client.get(url).bearer_auth(&self.token).send().await?.error_for_status()?.json().await?)
    }

    /// Waits until so many subjects have been seen for the first time.
    pub async fn has_seen(&self, subjects: usize) -> Result<()> {
        let mut seen = HashSet::new();
        let mut from = 0;
        let all = async {
            loop {
                let page = self.entries(&format!("from={from}&limit=1000&wait=1&type=store.*")).await?;
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

    /// Everything that it found to have changed.
    pub async fn found(&self) -> Result<Found> {
        let mut found = Found::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let page = self.entries(&format!("from={at}&limit=1000&type=store.*")).await?;
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
        Ok(found)
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

    /// Stops it as an operator does; its cluster stops with it.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        }
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .context("the service does not stop in time")??;
        anyhow::ensure!(status.success(), "the service ended with {status}");
        Ok(())
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
