//! Verifies an export as often as asked, with nothing around the library, and prints what it took.
//!
//!     cargo run --release -p statusledger-verify --example verify_export -- FILE PIN [TIMES]
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use statusledger_verify::export::{self, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, pin, times @ ..] = &arguments[..] else {
        return Err("usage: verify_export FILE PIN [TIMES]".into());
    };
    let times: u32 = times.first().map_or(Ok(1), |times| times.parse())?;
    let pin = pin.parse()?;
    let megabytes = std::fs::metadata(file)?.len() as f64 / 1e6;
    let mut out = std::io::stdout().lock();
    for _ in 0..times {
        let start = Instant::now();
        let answer = export::verify(Path::new(file), &pin, None, &Options::default(), &|_, _| ());
        let seconds = start.elapsed().as_secs_f64();
        match answer {
            Ok(report) => writeln!(out, "{} of {:?}", report.verdict.name(), report.subject)?,
            Err(error) => writeln!(out, "{error}")?,
        }
        writeln!(out, "{seconds:.3} s, {:.0} MB/s", megabytes / seconds)?;
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        writeln!(out, "{}", peak.unwrap_or("peak memory unknown"))?;
    }
    Ok(())
}
