//! The commands. Each ends with an exit code: 0 done, 1 refused or found wanting, 2 not understood.

mod apply;
mod aside;
mod connection;
mod demo;
mod doctor;
mod export;
mod history;
mod keys;
mod manage;
mod receiver;
mod remote;
pub mod serve;
mod show;
mod sign_in;
mod status;
mod tail;
mod terminal;
mod words;

pub use terminal::clean;

use crate::config::Settings;
use crate::id::LedgerId;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Watches app store status and keeps it in a ledger that proves itself.
#[derive(Debug, Parser)]
#[command(name = "statusledger", version, about)]
pub struct Cli {
    /// A TOML file of settings (see docs/operations.md).
    #[arg(long, global = true, value_name = "FILE", env = "STATUSLEDGER_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows everything working: both stores simulated, two workspaces, a receiver that verifies.
    Demo(DemoArgs),
    /// Serves over an embedded Postgres in the data directory.
    Up(UpArgs),
    /// Serves over a Postgres of the operator's.
    Serve(ServeArgs),
    /// Brings a database's schema up to this version, as its owner.
    Migrate(MigrateArgs),
    /// Makes a one-time link that signs somebody in, for an hour.
    SignInLink(sign_in::LinkArgs),
    /// Lists, rotates and revokes the keys that the instance signs with (keys for the API: `api-keys`).
    ///
    /// These work on the instance's database, beside a node or without one. The keys that people and programs
    /// authenticate with are another matter, and are managed over the API: see `api-keys`.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Writes a workspace's ledger to a file that proves itself, over the API or, without a node, from the database.
    Export(ExportArgs),
    /// Verifies everything stored, row by row.
    ///
    /// With --accept-loss, which is for a database that lacks entries already signed: says what is missing and, with
    /// --lost for each ledger, begins a new ledger in its place. No node may run.
    Doctor(doctor::DoctorArgs),
    /// Shows how the apps stand, over the API of an instance here or elsewhere.
    Status(status::StatusArgs),
    /// Prints what happens, as it happens, over the API of an instance here or elsewhere.
    Tail(tail::TailArgs),
    /// Shows what an app has been through, over the API of an instance here or elsewhere.
    History(history::HistoryArgs),
    /// Lists, makes, changes and ends workspaces, over the API.
    #[command(subcommand)]
    Workspaces(manage::workspaces::Command),
    /// Lists, adds, changes and removes what is watched, over the API.
    #[command(subcommand)]
    Sources(manage::sources::Command),
    /// Lists, adds and changes what is notified, over the API.
    #[command(subcommand)]
    Destinations(manage::destinations::Command),
    /// Lists, makes and ends the keys that the API is asked with (the instance's signing keys: `keys`).
    #[command(subcommand)]
    ApiKeys(manage::api_keys::Command),
    /// Lists, invites and changes a workspace's members, over the API.
    #[command(subcommand)]
    Members(manage::members::Command),
    /// Lists everybody on the instance, keeps somebody out and lets them in again, over the API.
    #[command(subcommand)]
    People(manage::people::Command),
    /// Searches who did what, and takes it away, over the API.
    #[command(subcommand)]
    Audit(manage::audit::Command),
    /// Shows what the sealed values of an entry are, over the API; that is on the record.
    Openings(manage::openings::OpeningsArgs),
    /// Makes a workspace's sources and destinations what a file says, over the API.
    Apply(apply::ApplyArgs),
}

/// Which data a command is about.
#[derive(Debug, Args, Clone, Default)]
pub struct Where {
    /// The node's directory.
    #[arg(long, value_name = "DIR", env = "STATUSLEDGER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The service's address of an operator's database; without it, the embedded one.
    #[arg(long, value_name = "URL", env = "STATUSLEDGER_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The worker's address of that database.
    #[arg(long, value_name = "URL", env = "STATUSLEDGER_WORKER_DATABASE_URL", hide_env_values = true)]
    pub worker_database_url: Option<String>,
}

/// How a node serves.
#[derive(Debug, Args, Clone, Default)]
pub struct Serving {
    /// The port to listen on; 0 takes a free one.
    #[arg(long)]
    pub port: Option<u16>,
    /// The address to listen on.
    #[arg(long)]
    pub listen: Option<std::net::IpAddr>,
    /// The instance's name, a host name; fixed at the first start.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Writes an administrator's token to this file (mode 0600), unless a valid one is in it.
    #[arg(long, value_name = "FILE")]
    pub bootstrap_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Stops by itself after this many verified receipts.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    /// Where everything is kept (default: a temporary directory, removed at the end).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port to listen on (default: a free one).
    #[arg(long)]
    port: Option<u16>,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// The node's directory.
    #[arg(long, value_name = "DIR", env = "STATUSLEDGER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    serving: Serving,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    serving: Serving,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// The owner's address of the database.
    #[arg(long, value_name = "URL", env = "STATUSLEDGER_OWNER_DATABASE_URL", hide_env_values = true)]
    owner_database_url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Lists the keys of the newest manifest.
    List {
        #[command(flatten)]
        place: Where,
        /// The manifest itself, as it is served.
        #[arg(long)]
        json: bool,
    },
    /// Replaces keys by new ones; the old verify for 90 days more.
    Rotate {
        #[command(flatten)]
        place: Where,
        /// Only this key: `receipt`, `checkpoint`, or `root`.
        #[arg(long, value_name = "PURPOSE")]
        only: Option<String>,
        /// The file of an offline root.
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
    },
    /// Declares a key compromised: nothing by it counts any more, whatever its date.
    Revoke {
        #[command(flatten)]
        place: Where,
        /// The key's id.
        key_id: String,
        /// The file of an offline root.
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
    },
    /// Prints the pin to give to customers: `KEY_ID@INSTANCE`.
    Pin {
        #[command(flatten)]
        place: Where,
    },
    /// Replaces the key-encryption key while nodes serve; run again after a crash, it does the rest.
    #[command(group = clap::ArgGroup::new("to").required(true))]
    Rewrap {
        #[command(flatten)]
        place: Where,
        /// The file of the new key, which every node holds already (key_encryption_key_other_files).
        #[arg(long, value_name = "FILE", group = "to")]
        to_file: Option<PathBuf>,
        /// A new key, wrapped by the KMS key of the settings (kms.key).
        #[arg(long, group = "to")]
        to_kms: bool,
        /// How many seconds the serving nodes get to hold the new key. One that died counts as serving for 30.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
    },
    /// The root key.
    #[command(subcommand)]
    Root(RootCommand),
    /// Writes the newest key manifest.
    Export {
        #[command(flatten)]
        place: Where,
        /// The file (default: standard output).
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum RootCommand {
    /// Takes the root offline: its private half goes to the file and leaves the ring. It is the only copy.
    Export {
        #[command(flatten)]
        place: Where,
        /// The file to write, which must not exist.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The instance's address [env: STATUSLEDGER_URL] [default: the node of the data directory, if one runs]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The file with the token [env: STATUSLEDGER_TOKEN_FILE, or the token itself in STATUSLEDGER_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The node's directory; without a node over it, its database is read [env: STATUSLEDGER_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Reads an operator's database instead: the service's address of it [env: STATUSLEDGER_DATABASE_URL]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The worker's address of that database [env: STATUSLEDGER_WORKER_DATABASE_URL]
    #[arg(long, value_name = "URL")]
    worker_database_url: Option<String>,
    /// The workspace, by name or id [env: STATUSLEDGER_WORKSPACE]
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Option<String>,
    /// The ledger, by id: one that was followed by another after an accepted loss [default: the one that is written to]
    #[arg(long, value_name = "LEDGER")]
    ledger: Option<LedgerId>,
    /// The file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The first entry
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One past the last entry [default: the end]
    #[arg(long)]
    to: Option<u64>,
    /// Only entries of these types, separated by commas
    #[arg(long, value_delimiter = ',')]
    types: Option<Vec<String>>,
    /// The openings of sealed values go with it
    #[arg(long)]
    openings: bool,
    /// One JSON document: the file, and how many bytes it has
    #[arg(long)]
    json: bool,
}

impl Where {
    fn apply(&self, settings: &mut Settings) {
        if let Some(dir) = &self.data_dir {
            settings.data_dir.clone_from(dir);
        }
        if self.database_url.is_some() {
            settings.database_url.clone_from(&self.database_url);
        }
        if self.worker_database_url.is_some() {
            settings.worker_database_url.clone_from(&self.worker_database_url);
        }
    }
}

impl Serving {
    /// The instance's name, where the operator gave one.
    fn apply(&self, settings: &mut Settings) -> Result<Option<String>> {
        if let Some(port) = self.port {
            settings.port = port;
        }
        if let Some(listen) = self.listen {
            settings.listen = listen;
        }
        let default = Settings::default().instance;
        let name =
            self.instance.clone().or_else(|| Some(settings.instance.clone()).filter(|n| *n != default));
        if let Some(name) = &name {
            settings.instance.clone_from(name);
            settings.check()?;
        }
        Ok(name)
    }
}

/// Runs a command and gives its exit code.
///
/// # Errors
/// What `main` prints in one sentence.
pub async fn run(cli: Cli) -> Result<u8> {
    let mut settings = Settings::load(cli.config.as_deref())?;
    match cli.command {
        Command::Demo(args) => demo::run(settings, args.events, args.data_dir, args.port).await,
        Command::Up(args) => {
            Where { data_dir: args.data_dir, ..Where::default() }.apply(&mut settings);
            let name = args.serving.apply(&mut settings)?;
            serve::up(&settings, name.as_deref(), args.serving.bootstrap_token_file).await
        }
        Command::Serve(args) => {
            args.place.apply(&mut settings);
            let name = args.serving.apply(&mut settings)?;
            serve::serve(&settings, name.as_deref(), args.serving.bootstrap_token_file).await
        }
        Command::Migrate(args) => {
            if args.owner_database_url.is_some() {
                settings.owner_database_url = args.owner_database_url;
            }
            serve::migrate(&settings).await
        }
        Command::SignInLink(args) => sign_in::link(settings, args).await,
        Command::Keys(command) => keys::run(settings, command).await,
        Command::Export(args) => understood(export::run(settings, args).await),
        Command::Doctor(args) => {
            args.place.apply(&mut settings);
            doctor::run(&settings, args).await
        }
        Command::Status(args) => understood(status::run(&settings, args).await),
        Command::Tail(args) => understood(tail::run(&settings, args).await),
        Command::History(args) => understood(history::run(&settings, args).await),
        Command::Workspaces(command) => understood(manage::workspaces::run(&settings, command).await),
        Command::Sources(command) => understood(manage::sources::run(&settings, command).await),
        Command::Destinations(command) => understood(manage::destinations::run(&settings, command).await),
        Command::ApiKeys(command) => understood(manage::api_keys::run(&settings, command).await),
        Command::Members(command) => understood(manage::members::run(&settings, command).await),
        Command::People(command) => understood(manage::people::run(&settings, command).await),
        Command::Audit(command) => understood(manage::audit::run(&settings, command).await),
        Command::Openings(args) => understood(manage::openings::run(&settings, args).await),
        Command::Apply(args) => understood(apply::run(&settings, args).await),
    }
}

/// A command that was used in a way that cannot be meant ends as one that the parser refuses.
fn understood(ended: Result<u8>) -> Result<u8> {
    match ended {
        Err(e) if matches!(e.downcast_ref(), Some(remote::Error::Usage(_))) => {
            show::note(format!("statusledger: {e}"));
            Ok(2)
        }
        ended => ended,
    }
}
