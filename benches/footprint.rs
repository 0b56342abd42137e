//! Footprint: what a node takes while nothing happens.
//!
//!     cargo bench --bench footprint [-- --rounds N --idle S]
//!
//! The real binary with its embedded defaults. Memory is what the service's own process has resident after it has been
//! idle, its Postgres apart. The time to ready is that of `statusledger serve` on a cluster that runs already, from the
//! start of the process to the first `/readyz` that says so, asked for every millisecond; beside it stands what `up`
//! takes with a cluster that it has to start. The binary is the one that `cargo build --release` makes.
#![allow(clippy::cast_precision_loss)]

#[path = "support/service.rs"]
mod service;
mod support;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use service::Service;
use statusledger::config::Settings;
use statusledger::database::{attach, embedded, roles};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{claim, line, median, table};
use tokio::process::{Child, Command};

#[derive(Parser)]
struct Arguments {
    /// Starts of each kind.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds that the service is left alone before its memory is looked at.
    #[arg(long, default_value_t = 20.0)]
    idle: f64,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    support::block_on(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> Result<()> {
    line(format!("footprint: {}", support::machine()));
    let service = Service::start().await?;
    let measured = measure(&service, &arguments).await;
    let directory = service.stop_keeping().await?;
    let (idle, ready) = measured?;

    let mut cold = Vec::new();
    let mut directory = directory;
    for _ in 0..arguments.rounds.clamp(1, 3) {
        let started = Instant::now();
        let service = Service::start_in(directory).await?;
        cold.push(started.elapsed().as_secs_f64() * 1e3);
        directory = service.stop_keeping().await?;
    }
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_statusledger"))?.len() as f64 / f64::from(1 << 20);
    table(
        "",
        &["", ""],
        &[
            vec![format!("resident after {} s idle", arguments.idle), format!("{idle:.1} MiB")],
            vec![
                format!("ready, on a running cluster (median of {})", arguments.rounds),
                format!("{ready:.0} ms"),
            ],
            vec!["ready, with the cluster's own start".into(), format!("{:.0} ms", median(&cold))],
            vec!["binary".into(), format!("{binary:.1} MiB")],
        ],
    );
    line("");
    claim("footprint.idle_mib", idle, "<=", 60.0);
    claim("footprint.ready_ms", ready, "<=", 1000.0);
    claim("footprint.binary_mib", binary, "<=", 40.0);
    Ok(())
}

async fn measure(service: &Service, arguments: &Arguments) -> Result<(f64, f64)> {
    // Some work first, so that what a node keeps once it has worked is counted.
    let workspace = service.workspace("footprint").await?;
    for _ in 0..50 {
        service.get(&format!("/v1/workspaces/{workspace}/entries")).await?;
    }
    tokio::time::sleep(Duration::from_secs_f64(arguments.idle)).await;
    let idle = service.resident().context("the service's memory can be read (Linux only)")?;

    // A second node of the same instance, on the cluster that the first one runs.
    let settings = Settings { data_dir: service.directory().to_owned(), ..Settings::default() };
    let options = embedded::running(&attach::directory(&settings)).context("the cluster runs")?;
    let address = |role: &str| {
        use sqlx::ConnectOptions;
        options(role, attach::DATABASE).to_url_lossy().to_string()
    };
    let (as_service, as_worker) = (address(roles::SERVICE), address(roles::WORKER));
    let second = support::directory()?;
    let mut ready = Vec::new();
    for _ in 0..arguments.rounds.max(1) {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let started = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_statusledger"))
            .args(["serve", "--listen", "127.0.0.1", "--port", &port.to_string(), "--data-dir"])
            .arg(second.path())
            .args(["--database-url", &as_service, "--worker-database-url", &as_worker])
            .env("STATUSLEDGER_KEY_ENCRYPTION_KEY_FILE", service.directory().join("key-encryption-key"))
            .env("STATUSLEDGER_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("the service does not start")?;
        until_ready(port).await?;
        ready.push(started.elapsed().as_secs_f64() * 1e3);
        stop(child).await?;
    }
    Ok((idle, median(&ready)))
}

/// Asks until it says that it is ready.
async fn until_ready(port: u16) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:{port}/readyz");
    let asking = async {
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.context("the service is not ready in time")
}

async fn stop(mut child: Child) -> Result<()> {
    let pid = child.id().context("it runs")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.context("it does not stop in time")??;
    ensure!(status.success(), "the service ended with {status}");
    Ok(())
}
