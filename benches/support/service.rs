//! The service under load: the real binary as a child, over its embedded cluster, spoken to over HTTP alone.
// Each bench uses some of it.
#![allow(dead_code)]

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use statusledger::id::{SourceId, WorkspaceId};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a child may take to serve, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service.
pub struct Service {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    token: String,
    client: reqwest::Client,
    /// The pin it prints.
    pub pin: String,
    directory: TempDir,
}

/// A workspace with an inbound source and a destination for what comes in there.
pub struct Line {
    /// The destination's secret.
    pub secret: String,
    /// The destination's id.
    pub destination: String,
    /// The source's path.
    pub path: String,
    /// The source's token.
    pub token: String,
    /// The destination's path in the API.
    destination_path: String,
}

/// A workspace's source, behind which stand many destinations.
pub struct Fan {
    /// The source's path.
    pub path: String,
    /// The source's token.
    pub token: String,
}

impl Service {
    /// Starts `statusledger up` in a temporary directory; loopback and plain http are allowed to destinations.
    pub async fn start() -> Result<Self> {
        Self::start_in(crate::support::directory()?).await
    }

    /// The same in a directory that may hold an instance already.
    pub async fn start_in(directory: TempDir) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_statusledger"))
            .args(["up", "--port", "0", "--instance", "bench.localhost", "--data-dir"])
            .arg(directory.path())
            .env("STATUSLEDGER_DELIVERY__ALLOW_HTTP", "true")
            .env("STATUSLEDGER_DELIVERY__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")
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
        let (mut address, mut pin) = (None, None);
        let announced = async {
            while let Some(line) = lines.next_line().await? {
                match line.trim().split_once(char::is_whitespace) {
                    Some(("address", rest)) => {
                        address = rest.trim().strip_prefix("http://").map(str::to_owned)
                    }
                    Some(("pin", rest)) => pin = Some(rest.trim().to_owned()),
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
            address: address.context("it names its address")?.parse()?,
            token,
            client: reqwest::Client::builder().no_proxy().build()?,
            pin: pin.context("it names its pin")?,
            directory,
        })
    }

    /// The key manifest, as anyone reads it.
    pub async fn keys(&self) -> Result<Vec<u8>> {
        let url = format!("http://{}/.well-known/statusledger-keys.json", self.address);
        Ok(self.client.get(url).send().await?.error_for_status()?.bytes().await?.to_vec())
    }

    /// Its data directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The answer to a GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let url = format!("http://{}{path}", self.address);
        let answer = self.client.get(url).bearer_auth(&self.token).send().await?;
        let (status, body) = (answer.status(), answer.bytes().await?);
        anyhow::ensure!(
            status.is_success(),
            "GET {path} answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        // A checkpoint is a note, not JSON.
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Makes a workspace.
    pub async fn workspace(&self, name: &str) -> Result<WorkspaceId> {
        let made = self.post("/v1/workspaces", json!({ "name": name })).await?;
        Ok(made["id"].as_str().context("a workspace has an id")?.parse()?)
    }

    /// Makes a source of events.
    pub async fn source(&self, workspace: WorkspaceId) -> Result<SourceId> {
        let wanted = json!({ "kind": "inbound", "name": "bench" });
        let made = self.post(&format!("/v1/workspaces/{workspace}/sources"), wanted).await?;
        Ok(made["id"].as_str().context("a source has an id")?.parse()?)
    }

    /// Resident memory of the service's own process (MiB), without its Postgres.
    pub fn resident(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next())?;
        Some(resident.parse::<f64>().ok()? / 1024.0)
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let url = format!("http://{}{path}", self.address);
        let answer = self.client.post(url).bearer_auth(&self.token).json(&body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if !status.is_success() {
            bail!("POST {path} answered {status}: {}", body["detail"].as_str().unwrap_or_default());
        }
        Ok(body)
    }

    /// Makes a workspace, its source, and a destination at `url`.
    pub async fn line(&self, name: &str, url: &str, max_in_flight: u32) -> Result<Line> {
        let text = |value: &Value, name: &str| {
            value[name].as_str().map(str::to_owned).with_context(|| format!("the answer has a {name}"))
        };
        let workspace = text(&self.post("/v1/workspaces", json!({ "name": name })).await?, "id")?;
        let base = format!("/v1/workspaces/{workspace}");
        let source =
            self.post(&format!("{base}/sources"), json!({ "kind": "inbound", "name": "bench" })).await?;
        let wanted = json!({
            "name": "bench",
            "url": url,
            "filter": { "types": ["event.received"] },
            "max_in_flight": max_in_flight,
        });
        let destination = self.post(&format!("{base}/destinations"), wanted).await?;
        let id = text(&destination, "id")?;
        Ok(Line {
            secret: text(&destination, "secret")?,
            path: format!("/in/{}", text(&source, "id")?),
            token: text(&source, "token")?,
            destination_path: format!("{base}/destinations/{id}"),
            destination: id,
        })
    }

    /// Makes a workspace with a source and a destination for each of `urls`, each of which wants all that comes in there.
    pub async fn fan(&self, name: String, urls: &[String]) -> Result<Fan> {
        let workspace = self.workspace(&name).await?;
        let base = format!("/v1/workspaces/{workspace}");
        let source =
            self.post(&format!("{base}/sources"), json!({ "kind": "inbound", "name": "bench" })).await?;
        let mut at_once = tokio::task::JoinSet::new();
        for (n, url) in urls.iter().enumerate() {
            let wanted =
                json!({ "name": format!("{n}"), "url": url, "filter": { "types": ["event.received"] } });
            let address = format!("http://{}{base}/destinations", self.address);
            let request = self.client.post(address).bearer_auth(&self.token).json(&wanted);
            at_once.spawn(async move { request.send().await?.error_for_status().map(drop) });
            if at_once.len() >= 4 {
                at_once.join_next().await.transpose()?.transpose()?;
            }
        }
        while let Some(made) = at_once.join_next().await {
            made??;
        }
        let text = |name: &str| {
            source[name].as_str().map(str::to_owned).with_context(|| format!("a source has a {name}"))
        };
        Ok(Fan { path: format!("/in/{}", text("id")?), token: text("token")? })
    }

    /// Posts an event to a source.
    pub async fn event(&self, fan: &Fan, body: String) -> Result<()> {
        let url = format!("http://{}{}", self.address, fan.path);
        self.client.post(url).bearer_auth(&fan.token).body(body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Switches a destination off.
    pub async fn disable(&self, line: &Line) -> Result<()> {
        let url = format!("http://{}{}", self.address, line.destination_path);
        let change = json!({ "enabled": false });
        self.client.patch(url).bearer_auth(&self.token).json(&change).send().await?.error_for_status()?;
        Ok(())
    }

    /// Processor seconds and peak memory (MiB) of the service's own process so far.
    pub fn used(&self) -> Option<(f64, f64)> {
        let pid = self.child.id()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name in parentheses; user and system time are fields 14 and 15, in hundredths on Linux.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next())?;
        Some((ticks / 100.0, peak.parse::<f64>().ok()? / 1024.0))
    }

    /// Stops it as an operator does; its cluster stops with it.
    pub async fn stop(self) -> Result<()> {
        self.stop_keeping().await.map(drop)
    }

    /// The same, and leaves what it kept.
    pub async fn stop_keeping(mut self) -> Result<TempDir> {
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
