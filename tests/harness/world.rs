//! A database and a node over it.

use super::api::{Api, Workspace};
use super::cluster::{CONNECTIONS, TestDatabase, temporary};
use statusledger::config::Settings;
use statusledger::doctor::{self, Finding};
use statusledger::node::Node;
use statusledger_verify::manifest::{KeyManifest, Pin, TrustedKeys};
use std::path::{Path, PathBuf};

/// The settings of a node in `directory` that need no waiting: a free port, loopback, quick retries.
pub fn quick(directory: &Path) -> Settings {
    let mut settings = Settings {
        instance: "status.example.com".into(),
        data_dir: directory.to_owned(),
        port: 0,
        database_connections: CONNECTIONS,
        ..Settings::default()
    };
    settings.delivery.allow_http = true;
    settings.delivery.allow_networks = vec!["127.0.0.0/8".into()];
    settings.delivery.schedule_s = std::iter::once(0.0).chain([0.05; 9]).collect();
    settings.delivery.jitter = 0.0;
    settings.delivery.breaker_failures = 1000;
    // Tests ask as fast as they can; tests/api.rs has the limits.
    settings.api.requests_per_minute = 1_000_000;
    settings.api.burst = 100_000;
    settings.polling.interval_s = 0.1;
    settings.polling.settled_s = 0.1;
    settings.polling.allow_other_hosts = true;
    // It would note what tests do to the database in the instance's ledger; tests/self_audit.rs has it on.
    settings.self_audit.entries_per_second = 0;
    settings
}

/// A database with a node over it, and a client of the node's.
pub struct World {
    pub database: TestDatabase,
    pub settings: Settings,
    pub api: Api,
    node: Option<Node>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// One whose settings are not quite the quick ones.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let database = TestDatabase::create().await;
        let mut settings = quick(&temporary("node"));
        change(&mut settings);
        let node = start(&settings, &database).await.unwrap();
        let token = node.bootstrap_key().await.unwrap();
        let api = Api::new(node.address, &token);
        // The same address after a restart.
        settings.port = node.address.port();
        Self { database, settings, api, node: Some(node) }
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub async fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
    }

    /// Starts the node again.
    ///
    /// # Errors
    /// If it refuses.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.node = Some(start(&self.settings, &self.database).await?);
        Ok(())
    }

    /// A second node over the same database, with a directory of its own.
    pub async fn another(&self) -> (Node, Api) {
        let mut settings = self.settings.clone();
        settings.key_encryption_key_file = Some(self.settings.key_encryption_key_path());
        settings.data_dir = temporary("node");
        settings.port = 0;
        let node = start(&settings, &self.database).await.unwrap();
        let api = self.api.at(node.address);
        (node, api)
    }

    pub async fn workspace(&self, name: &str) -> Workspace {
        self.api.workspace(name).await
    }

    pub fn pin(&self) -> Pin {
        self.node().keyring.current().pin()
    }

    /// The manifest as it is served now.
    pub async fn manifest(&self) -> Vec<u8> {
        self.api.get("/.well-known/statusledger-keys.json").await.expect(200).body.to_vec()
    }

    /// What that makes trusted under the pin.
    pub async fn trusted(&self) -> TrustedKeys {
        KeyManifest::parse(&self.manifest().await).unwrap().trust(&self.pin()).unwrap()
    }

    /// What doctor finds.
    pub async fn doctor(&self) -> Vec<Finding> {
        let node = self.node();
        doctor::examine(&node.database, node.writer.data_keys(), &node.seen_heads, |_, _| {})
            .await
            .unwrap()
            .findings
    }

    /// Asks for an export and keeps it in a file.
    pub async fn export(&self, workspace: &Workspace, query: &str) -> PathBuf {
        let answer = self.api.get(&workspace.at(&format!("/export{query}"))).await.expect(200);
        let file = temporary("export").join("ledger.zip");
        std::fs::write(&file, &answer.body).unwrap();
        file
    }

    /// That all is as it was written: doctor finds nothing, and a whole export of each workspace verifies.
    #[track_caller]
    pub fn assert_whole<'a>(&'a self, workspaces: &'a [&Workspace]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let findings = self.doctor().await;
            assert!(findings.is_empty(), "at {caller}: {findings:?}");
            for workspace in workspaces {
                let file = self.export(workspace, "?openings=true").await;
                super::verify_export(&file, &self.pin()).unwrap_or_else(|e| panic!("at {caller}: {e}"));
            }
        }
    }
}

async fn start(settings: &Settings, database: &TestDatabase) -> anyhow::Result<Node> {
    Node::start(settings, Some(&settings.instance), database.open().await).await
}
