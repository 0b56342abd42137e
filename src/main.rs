//! The command line; see [`statusledger::cli`].

use clap::Parser;
use statusledger::cli::{self, Cli};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Half of what an event costs in allocations with the C library's own (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = match std::env::var("STATUSLEDGER_LOG") {
        Err(_) => Targets::new().with_default(Level::WARN).with_target("statusledger", Level::INFO),
        Ok(told) => match told.parse::<Targets>() {
            Ok(filter) => filter,
            Err(e) => {
                return fail(&anyhow::anyhow!(
                    "STATUSLEDGER_LOG is no filter like \"warn,statusledger=debug\": {e}"
                ));
            }
        },
    };
    let writer = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(writer).init();
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
