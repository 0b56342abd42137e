//! The command line; see [`statusledger::cli`].

use clap::Parser;
use statusledger::cli::{self, Cli};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("STATUSLEDGER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,statusledger=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e.into()),
    };
    match runtime.block_on(cli::run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(e) => fail(&e),
    }
}

/// One sentence on standard error, with nothing in it that a terminal obeys.
fn fail(e: &anyhow::Error) -> ExitCode {
    let mut sentence = String::new();
    for cause in e.chain().map(ToString::to_string) {
        // Many errors say their cause themselves.
        if !sentence.contains(&cause) {
            let colon = if sentence.is_empty() { "" } else { ": " };
            sentence = format!("{sentence}{colon}{cause}");
        }
    }
    // What files, servers and stores say can be part of it.
    let lines: Vec<_> = sentence.lines().map(cli::clean).collect();
    let _ = writeln!(std::io::stderr().lock(), "statusledger: {}", lines.join("\n"));
    ExitCode::FAILURE
}
