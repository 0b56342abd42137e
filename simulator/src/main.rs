//! `statusledger-simulator`: both stores on a port of 127.0.0.1.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use statusledger_simulator::keys::write_private;
use statusledger_simulator::{Options, Scenario, Simulator};

/// App Store Connect and Google Play as their wire protocols are, scripted by a scenario.
#[derive(Parser)]
#[command(name = "statusledger-simulator", version)]
struct Arguments {
    /// The scenario, in TOML or (where the name ends in .json) JSON; the demo's where there is none
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// The port on 127.0.0.1; 0 is any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Scenario seconds a real second, before the scenario's own
    #[arg(long)]
    speed: Option<f64>,
    /// The directory that keeps the stores' private keys and gets the service account files
    #[arg(long, default_value = "data/simulator-keys")]
    keys: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let scenario = match &arguments.scenario {
        Some(path) => Scenario::load(path)?,
        None => Scenario::demo(),
    };
    std::fs::create_dir_all(&arguments.keys)
        .with_context(|| format!("cannot make the directory {}", arguments.keys.display()))?;
    let keys = arguments.keys.clone();
    let options = Options { port: arguments.port, speed: arguments.speed, keys: Some(keys) };
    let simulator = Simulator::start(scenario, options).await?;
    describe(&simulator, &arguments.keys)?;
    tokio::signal::ctrl_c().await.context("cannot wait for the signal to stop")?;
    simulator.shutdown().await;
    Ok(())
}

/// Says where everything is, and writes the service account files, which name the port.
fn describe(simulator: &Simulator, keys: &std::path::Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {}", simulator.app_store_base_url())?;
    for team in simulator.app_store_teams() {
        let Some(key) = simulator.app_store_key(&team) else { continue };
        let file = keys.join(format!("AuthKey_{}.p8", key.key_id));
        writeln!(
            out,
            "App Store Connect, {team}: key {} issuer {} in {}",
            key.key_id,
            key.issuer_id,
            file.display()
        )?;
    }
    for account in simulator.google_play_accounts() {
        let Some(json) = simulator.google_service_account_json(&account) else { continue };
        let file = keys.join(format!("{account}.json"));
        write_private(&file, &json).with_context(|| format!("cannot write {}", file.display()))?;
        writeln!(out, "Google Play, {account}: {}", file.display())?;
    }
    out.flush()?;
    Ok(())
}
