//! `demo`: everything working, for whoever wants to see it.
//!
//! Both stores are simulated over real HTTP; everything else is the real thing: embedded Postgres, polling, ledger,
//! receipts, webhooks, and a receiver that verifies each receipt under the pin.

mod made;

use super::receiver::{Proven, Receiver};
use super::words::Told;
use super::{export, remote, serve, show};
use crate::access::Gate;
use crate::config::Settings;
use crate::database::{attach, embedded};
use crate::id::WorkspaceId;
use crate::ledger::Writer;
use crate::ledger::export::{Exporter, Request};
use crate::node::Node;
use anyhow::{Context, Result, anyhow, bail};
use made::Made;
use serde_json::json;
use statusledger_simulator::{Options, Scenario, Simulator};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Seconds between two sweeps: the simulated days pass in seconds.
const INTERVAL_S: f64 = 0.25;
/// How long nothing may be proven before the demo says that something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the demo.
///
/// # Errors
/// If a part of it does not start, or nothing is proven for a minute.
pub async fn run(
    mut settings: Settings,
    events: Option<u64>,
    data_dir: Option<PathBuf>,
    port: Option<u16>,
) -> Result<u8> {
    let started = Instant::now();
    let temporary = match data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("statusledger-demo-").tempdir()?),
    };
    let directory =
        data_dir.or_else(|| Some(temporary.as_ref()?.path().to_owned())).context("a directory was made")?;
    settings.data_dir.clone_from(&directory);
    settings.port = port.unwrap_or(0);
    settings.polling.interval_s = INTERVAL_S;
    settings.polling.settled_s = INTERVAL_S;
    settings.polling.allow_other_hosts = true;
    settings.delivery.allow_http = true;
    settings.delivery.allow_networks = vec!["127.0.0.0/8".into()];
    settings.check()?;
    let mut made = Made::before(&directory);
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    if directory.join("receipts").exists() {
        bail!(
            "{} holds an earlier demo; name another directory (`up` serves what that one recorded; its stores are gone)",
            directory.display()
        );
    }
    show::line("statusledger demo: both stores are simulated, everything else is real");
    // Making the stores' keys takes as long as starting the database: both at once. They are kept, so that `up`
    // finds sources whose keys are still keys.
    let stores = directory.join("stores");
    made.stores = match std::fs::DirBuilder::new().mode(0o700).create(&stores) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
        result => result.map(|()| true).with_context(|| format!("cannot make {}", stores.display()))?,
    };
    let keys = Options { keys: Some(stores), ..Options::default() };
    let simulator = tokio::spawn(Simulator::start(Scenario::demo(), keys));
    let simulated = simulator.abort_handle();
    let shown = async {
        let attached = attach::start(&settings).await?;
        let shown = show(&settings, events, attached.database, simulator, started).await;
        attach::stop(attached.cluster).await?;
        shown
    };
    if let Err(e) = shown.await {
        simulated.abort();
        let in_use = matches!(e.downcast_ref(), Some(embedded::Error::InUse { .. }));
        made.remove(in_use);
        return Err(e);
    }
    show::line(match temporary {
        None => format!("  kept      receipts/, ledger-*.zip, keys.json, pins in {}", directory.display()),
        Some(temporary) => {
            let words = format!(
                "  removed   {}; `{} demo --data-dir DIR` keeps receipts/, ledger-*.zip, keys.json, pins",
                directory.display(),
                program()
            );
            temporary.close().context("the temporary directory is not removed")?;
            words
        }
    });
    Ok(0)
}

/// This program, as whoever started it can start it again from where they stand: without a path where the shell found it
/// by its name alone.
fn program() -> String {
    let name = std::env::args().next().filter(|name| !name.is_empty());
    name.map_or_else(|| "statusledger".to_owned(), |name| quoted(&name))
}

/// An argument as a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./+=:@,%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

type Starting = tokio::task::JoinHandle<Result<Simulator, statusledger_simulator::SimulatorError>>;

async fn show(
    settings: &Settings,
    events: Option<u64>,
    database: crate::database::Database,
    simulator: Starting,
    started: Instant,
) -> Result<()> {
    let directory = &settings.data_dir;
    let name = (settings.instance != Settings::default().instance).then_some(settings.instance.as_str());
    // As `up` leaves it, before anybody is served: whoever watches can ask from another terminal.
    let token_file = directory.join(remote::TOKEN_FILE);
    let first = async |writer: &Writer, gate: &Gate| serve::ensure_token(writer, gate, &token_file).await;
    let name = Some(name.unwrap_or("demo.localhost"));
    let (node, _) = Node::start_with(settings, name, database, first).await?;
    let simulator = simulator.await??;
    let (receiver, receiver_address, mut proven) =
        Receiver::start(directory.join("receipts"), events).await?;
    let pin = node.keyring.current().pin();
    receiver.trust(pin.clone(), format!("http://{}/.well-known/statusledger-keys.json", node.address));
    std::fs::write(directory.join("pins"), format!("{pin}\n"))?;
    let address_file = directory.join(remote::ADDRESS_FILE);
    let result = async {
        let token = std::fs::read_to_string(&token_file)
            .with_context(|| format!("cannot read {}", token_file.display()))?;
        serve::leave_address(&node, &address_file)?;
        let api = Api {
            base: format!("http://{}", node.address),
            token: token.trim().to_owned(),
            client: reqwest::Client::builder().no_proxy().build()?,
        };
        let mut workspaces = Vec::new();
        for team in simulator.app_store_teams() {
            workspaces.push(api.set_up(&team, &simulator, &receiver, receiver_address).await?);
        }
        show::line(format!("  serving   http://{}", node.address));
        show::line(format!("  pin       {pin}"));
        show::line(format!("  data      {}", directory.display()));
        let team = simulator.app_store_teams().into_iter().next().unwrap_or_default();
        show::line(format!(
            "  try       {} status --data-dir {} --workspace {}",
            program(),
            quoted(&directory.display().to_string()),
            quoted(&team)
        ));
        watch(&mut proven, events, started).await?;
        Ok::<_, anyhow::Error>(workspaces)
    }
    .await;
    // Only a convenience: who finds it asks nobody.
    let _ = std::fs::remove_file(&address_file);
    let (keyring, seen, data_keys) =
        (node.keyring.clone(), node.seen_heads.clone(), node.writer.data_keys().clone());
    let exports = match &result {
        Ok(workspaces) => {
            let exporter = Exporter { database: node.database.clone(), keyring, data_keys, seen };
            leave(&exporter, directory, workspaces).await
        }
        Err(_) => Ok(()),
    };
    simulator.shutdown().await;
    node.stop().await;
    result?;
    exports
}

/// Leaves what a verifier needs: the keys and a whole export of each workspace.
async fn leave(exporter: &Exporter, directory: &Path, workspaces: &[WorkspaceId]) -> Result<()> {
    std::fs::write(directory.join("keys.json"), exporter.keyring.current().manifest().as_bytes())?;
    for workspace in workspaces {
        let request = Request {
            ledger: None,
            workspace: *workspace,
            from: 0,
            to: None,
            types: None,
            openings: false,
            exported_by: "cli".into(),
        };
        let prepared =
            exporter.prepare(request.clone()).await?.ok_or_else(|| anyhow!("a workspace is gone"))?;
        let out = directory.join(format!("ledger-{}.zip", prepared.ledger()));
        export::write(exporter, request, &out).await?;
    }
    Ok(())
}

/// Prints what is proven until it is enough.
async fn watch(
    proven: &mut mpsc::UnboundedReceiver<Proven>,
    events: Option<u64>,
    started: Instant,
) -> Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut count = 0;
    while events.is_none_or(|n| count < n) {
        let next = tokio::select! {
            next = tokio::time::timeout(PATIENCE, proven.recv()) => next,
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
        };
        let Ok(Some(next)) = next else {
            bail!("nothing was proven for {} seconds", PATIENCE.as_secs());
        };
        count += 1;
        if count == 1 {
            show::line(format!(
                "  first     verified receipt after {:.1} s",
                started.elapsed().as_secs_f64()
            ));
        }
        show::line(sentence(&next));
    }
    show::line(format!("{count} receipts verified"));
    Ok(())
}

/// A proven transition as a person likes to read it.
fn sentence(proven: &Proven) -> String {
    let body: serde_json::Value = serde_json::from_str(&proven.body.canonical()).unwrap_or_default();
    let number = &body["receipt"]["number"];
    let name = body["data"]["subject"]["name"].as_str().unwrap_or_default();
    let told = Told::of(&body);
    let (seq, what, change) = told.map_or_else(Default::default, |t| (t.seq, t.subject(), t.change().0));
    format!(
        "  ✓ {:<18} {name:<18} {what:<36} {change}   [entry {seq}, receipt {number}, tree of {}]",
        proven.workspace, proven.checkpoint_size
    )
}

/// The demo's own way to the API: what a person would do with curl.
struct Api {
    base: String,
    token: String,
    client: reqwest::Client,
}

impl Api {
    async fn post(&self, path: &str, body: serde_json::Value) -> Result<serde_json::Value> {
        let response = self
            .client
            .post(format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .json(&body)
            .send()
            .await?;
        let status = response.status();
        let answer: serde_json::Value = response.json().await?;
        if !status.is_success() {
            bail!("POST {path} answered {status}: {}", answer["detail"].as_str().unwrap_or_default());
        }
        Ok(answer)
    }

    /// Makes a team's workspace, its sources and its destination.
    async fn set_up(
        &self,
        team: &str,
        simulator: &Simulator,
        receiver: &Receiver,
        receiver_address: std::net::SocketAddr,
    ) -> Result<WorkspaceId> {
        let workspace = self.post("/v1/workspaces", json!({ "name": team })).await?;
        let id = workspace["id"].as_str().context("a workspace has an id")?.to_owned();
        let path = format!("/v1/workspaces/{id}");
        let hook = team.to_lowercase().replace(' ', "-");
        let destination = self
            .post(
                &format!("{path}/destinations"),
                json!({
                    "name": "demo receiver",
                    "url": format!("http://{receiver_address}/hooks/{hook}"),
                    "filter": { "types": ["store.*"] },
                }),
            )
            .await?;
        receiver.expect(
            &hook,
            team,
            destination["id"].as_str().unwrap_or_default(),
            destination["secret"].as_str().unwrap_or_default(),
        );
        if let Some(key) = simulator.app_store_key(team) {
            let source = json!({
                "kind": "app_store",
                "name": "App Store Connect (simulated)",
                "credentials": {
                    "key_id": key.key_id,
                    "issuer_id": key.issuer_id,
                    "private_key": key.private_key_pem.as_str(),
                },
                "base_url": simulator.app_store_base_url(),
            });
            self.post(&format!("{path}/sources"), source).await?;
        }
        if let Some(account) = simulator.google_service_account_json(team) {
            let source = json!({
                "kind": "google_play",
                "name": "Google Play (simulated)",
                "service_account": serde_json::from_str::<serde_json::Value>(&account)?,
                "publisher_url": simulator.publisher_base_url(),
                "reporting_url": simulator.reporting_base_url(),
            });
            self.post(&format!("{path}/sources"), source).await?;
        }
        Ok(id.parse()?)
    }
}
