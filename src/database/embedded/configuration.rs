//! `postgresql.conf` and `pg_hba.conf`, written whole at every start.

use std::path::Path;

use super::account::Account;
use super::{Error, PORT, directory};

/// For a small server that shares its machine with the service. Nothing here trades durability for speed.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    // The pools of one node (up to 30 connections), a second node's, and a person's.
    ("max_connections", "60"),
    ("shared_buffers", "128MB"),
    // Larger than the largest batch's WAL, so that a committing backend need not write out others' pages.
    ("wal_buffers", "16MB"),
    ("min_wal_size", "128MB"),
    ("max_wal_size", "2GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "on"),
    // Plans that were made while a table was small are made anew when it has been analyzed: soon after the first burst.
    ("autovacuum_naptime", "15s"),
    // Short statements only, whose plans compilation never pays for.
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("datestyle", "iso, mdy"),
    ("lc_messages", "C"),
    ("password_encryption", "scram-sha-256"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    // To standard error, which is a file that the supervisor keeps short.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("log_min_messages", "warning"),
    // Statements and the details of their errors hold values; values are nobody's business in a log.
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
    ("log_checkpoints", "off"),
    ("cluster_name", "statusledger"),
];

/// On macOS `fsync` leaves the data in the drive's cache.
const PLATFORM: &[(&str, &str)] =
    if cfg!(target_os = "macos") { &[("wal_sync_method", "fsync_writethrough")] } else { &[] };

const ACCESS: &str = "\
# Written by statusledger at every start.
# The socket and its directory are closed to every other account; see docs/operations.md.
local all all trust
local replication all trust
";

/// Writes both files into the cluster at `data`.
pub(super) fn write(
    data: &Path,
    socket_directory: &Path,
    extra: &[(String, String)],
    account: &Account,
) -> Result<(), Error> {
    let text = text(socket_directory, extra)?;
    directory::write(&data.join("postgresql.conf"), text.as_bytes(), account)?;
    directory::write(&data.join("pg_hba.conf"), ACCESS.as_bytes(), account)
}

fn text(socket_directory: &Path, extra: &[(String, String)]) -> Result<String, Error> {
    let socket = socket_directory.to_string_lossy();
    let port = PORT.to_string();
    let fixed = [("unix_socket_directories", socket.as_ref()), ("port", port.as_str())];
    let mut text =
        String::from("# Written by statusledger at every start; change it by the service's settings.\n");
    let ours = SETTINGS.iter().chain(PLATFORM).copied();
    let theirs = extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // The last one wins in Postgres: where the server listens is not for changing.
    for (name, value) in ours.chain(theirs).chain(fixed) {
        let named = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
        if !named || name.to_ascii_lowercase().starts_with("include") || value.bytes().any(|byte| byte < b' ')
        {
            return Err(Error::Setting(format!("{name} = {value}")));
        }
        // Inside quotes Postgres knows two escapes: '' and the backslash.
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        text.push_str(&format!("{name} = '{value}'\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn extra(name: &str, value: &str) -> Result<String, Error> {
        text(Path::new("/d/socket"), &[(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_setting_cannot_smuggle_in_another_line() {
        assert!(extra("work_mem", "4MB'\nfsync = 'off").is_err());
        assert!(extra("work_mem\nfsync", "off").is_err());
        assert!(extra("include", "/etc/passwd").is_err());
        assert!(extra("Include_Dir", "/etc").is_err());
        assert!(extra("", "x").is_err());
        let quoted = extra("my.path", r"a\'b").unwrap();
        assert!(quoted.contains("my.path = 'a\\\\''b'\n"), "{quoted}");
    }

    #[test]
    fn where_it_listens_is_not_for_changing() {
        let text = extra("unix_socket_directories", "/tmp").unwrap();
        let last = text.lines().rfind(|line| line.starts_with("unix_socket_directories")).unwrap();
        assert_eq!(last, "unix_socket_directories = '/d/socket'");
    }

    #[test]
    fn nothing_is_traded_for_durability() {
        let text = text(Path::new("/d/socket"), &[]).unwrap();
        for name in ["fsync", "full_page_writes", "synchronous_commit"] {
            assert!(text.contains(&format!("\n{name} = 'on'\n")));
        }
    }
}
