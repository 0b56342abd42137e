//! An instance over an embedded cluster of its own.
// Each bench uses some of it.
#![allow(dead_code)]

use crate::support;
use anyhow::Result;
use statusledger::config::Settings;
use statusledger::database::attach::{self, Attached};
use statusledger::delivery::{Handoffs, Outbox};
use statusledger::instance::{Instance, Opened};
use statusledger::key_encryption::KeyEncryption;
use tempfile::TempDir;

/// The instance, without a node: nothing polls, nothing sends.
pub struct Ground {
    pub attached: Attached,
    pub opened: Opened,
    /// Removed once the cluster has stopped.
    directory: TempDir,
    /// Nothing comes out of it where there is no destination; held so that the outbox stays open.
    _handoffs: Handoffs,
}

impl Ground {
    pub async fn start() -> Result<Self> {
        let directory = support::directory()?;
        let settings = Settings { data_dir: directory.path().to_owned(), ..Settings::default() };
        let attached = attach::start(&settings).await?;
        let (outbox, handoffs) = Outbox::new();
        let keys = KeyEncryption::load(&settings, "bench.localhost", &attached.database).await?;
        let opened = Instance::open(&attached.database, keys, Some("bench.localhost"), None, outbox).await?;
        Ok(Self { attached, opened, directory, _handoffs: handoffs })
    }

    pub async fn stop(self) -> Result<()> {
        self.attached.close().await
    }

    /// Stops it, and keeps its directory: for the service itself.
    pub async fn stop_keeping(self) -> Result<TempDir> {
        self.attached.close().await?;
        Ok(self.directory)
    }
}
