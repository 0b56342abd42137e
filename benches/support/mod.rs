//! What the benches share: tables, claims, percentiles, a directory.
// Each bench uses some of it.
#![allow(dead_code)]

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;

/// As in the program: what runs in the bench's process is measured as it runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A temporary directory whose parts the account of the embedded cluster can reach.
pub fn directory() -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("statusledger-bench-").tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))?;
    Ok(directory)
}

pub fn line(text: impl AsRef<str>) {
    // A reader that has gone is no reason to stop measuring.
    let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
}

/// The machine and what else it is doing, without which no figure means anything.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(1).collect::<String>();
    format!("{cores} cores; load average before the run {load} (0 is a quiet machine)")
}

/// Prints rows under a title, columns aligned: the first to the left, the others to the right.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(format!("\n{title}"));
    let show = |cells: Vec<&str>| {
        let mut out = String::from(" ");
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            out.push_str(&if i == 0 { format!(" {cell}{pad}") } else { format!("  {pad}{cell}") });
        }
        line(out.trim_end());
    };
    show(head.to_vec());
    for row in rows {
        show(row.iter().map(String::as_str).collect());
    }
}

/// Prints whether a figure reaches its target: `claim <name> <measured> <relation> <target> <pass|short>`.
pub fn claim(name: &str, measured: f64, relation: &str, target: f64) {
    let holds = if relation == ">=" { measured >= target } else { measured <= target };
    let verdict = if holds { "pass" } else { "short" };
    line(format!("claim {name} {} {relation} {} {verdict}", figure(measured), figure(target)));
}

/// A number with three digits that mean something.
pub fn figure(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == v.trunc() => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// A count with separators.
pub fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The middle of an odd number of values; of an even number the lower of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The value that `part` (0 to 1) of all lie at or below (nearest rank).
pub fn percentile(values: &[Duration], part: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Runs `main` on a runtime like the service's.
pub fn block_on<T>(main: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?
        .block_on(main)
}
