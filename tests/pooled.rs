//! The service through PgBouncer in transaction mode, over fewer server connections than the nodes open: whatever a session
//! keeps belongs to somebody else a moment later.

use crate::harness::{Api, Receiver, TestDatabase, eventually, noted, quick, run, temporary, verify_export};
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use statusledger::database::{Database, roles};
use statusledger::doctor;
use statusledger::node::Node;
use statusledger_simulator::Step;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Connections of a node's pools, each: three times what the pooler has for both nodes and roles.
const CONNECTIONS: u32 = 12;
/// Server connections of a role.
const SERVER_CONNECTIONS: u32 = 6;

/// The program, where it is installed.
fn program() -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|p| std::env::split_paths(&p).map(|dir| dir.join("pgbouncer")).collect::<Vec<_>>());
    in_path.chain(["/usr/sbin/pgbouncer".into()]).find(|path| path.is_file())
}

/// A pooler before a test's database. It ends with this.
struct Pooler {
    directory: PathBuf,
    child: Child,
    note: PathBuf,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_file(&self.note);
    }
}

impl Pooler {
    async fn start(program: &Path, database: &TestDatabase) -> Self {
        let directory = temporary("pooler");
        let behind = database.options(roles::SERVICE);
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
        write("users", format!("\"{}\" \"\"\n\"{}\" \"\"\n", roles::SERVICE, roles::WORKER));
        write(
            "pgbouncer.ini",
            format!(
                "[databases]\n{name} = host={host} port={port} dbname={name}\n[pgbouncer]\nlisten_port = 6432\n\
                 unix_socket_dir = {here}\nauth_type = trust\nauth_file = {here}/users\npool_mode = transaction\n\
                 default_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 200\n",
                name = database.name,
                host = behind.get_socket().unwrap().display(),
                port = behind.get_port(),
                here = directory.display(),
            ),
        );
        let mut command = if nix::unistd::geteuid().is_root() {
            // It does not run as root; the cluster's socket lets its own account in.
            let owner = std::fs::metadata(behind.get_socket().unwrap()).unwrap();
            let (user, group) = (owner.uid(), owner.gid());
            nix::unistd::chown(&directory, Some(user.into()), Some(group.into())).unwrap();
            let mut command = Command::new("setpriv");
            let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
            command.args([&user, &group, "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = command
            .arg(directory.join("pgbouncer.ini"))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let note = noted(child.id().unwrap());
        std::fs::write(&note, "").unwrap();
        let pooler = Self { directory, child, note };
        eventually("the pooler accepts connections", || async {
            pooler.options(database, roles::WORKER).connect().await.ok().map(drop)
        })
        .await;
        pooler
    }

    fn options(&self, database: &TestDatabase, role: &str) -> PgConnectOptions {
        database.options(role).socket(&self.directory).port(6432).extra_float_digits(None)
    }

    async fn open(&self, database: &TestDatabase) -> Database {
        let as_role = |role| self.options(database, role);
        Database::open_pooled(as_role(roles::SERVICE), as_role(roles::WORKER), CONNECTIONS).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_work_through_pgbouncer_in_transaction_mode() {
    const EVENTS: usize = 300;
    let Some(program) = program() else {
        eprintln!(
            "skipped: two_nodes_work_through_pgbouncer_in_transaction_mode: pgbouncer is not installed"
        );
        return;
    };
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(&program, &database).await;
    let first_settings = quick(&temporary("node"));
    let mut second_settings = quick(&temporary("node"));
    second_settings.key_encryption_key_file = Some(first_settings.key_encryption_key_path());
    let name = Some(first_settings.instance.as_str());
    let first = Node::start(&first_settings, name, pooler.open(&database).await).await.unwrap();
    let second = Node::start(&second_settings, name, pooler.open(&database).await).await.unwrap();
    let api = Api::new(first.address, &first.bootstrap_key().await.unwrap());
    let pin = first.keyring.current().pin();
    let receiver = Receiver::start(pin.clone(), &api.base).await;
    let workspace = api.workspace("pooled").await;
    let source = workspace.inbound("events").await;
    let filter = json!({ "filter": { "types": ["event.*", "store.*"] }, "max_in_flight": 8 });
    let destination = workspace.destination(&receiver, "hook", filter).await;
    let simulator = crate::sources::simulator().await;
    let [apple, _] = crate::sources::requests(&simulator);
    api.post(&workspace.at("/sources"), apple).await.expect(201);

    // Events at both doors, and everything else that the API does, at once.
    let mut tasks = JoinSet::new();
    for n in 0..EVENTS {
        let mut source = source.clone();
        if n % 2 == 1 {
            source.api = api.at(second.address);
        }
        tasks.spawn(async move {
            source.event(format!("event {n}")).await;
        });
    }
    for n in 0..20 {
        let api = api.at(if n % 2 == 0 { first.address } else { second.address });
        let path = workspace.path.clone();
        tasks.spawn(async move {
            let key = json!({ "name": format!("key {n}"), "scopes": ["ledger:read"] });
            let made = api.post(&format!("{path}/keys"), key).await.expect(201).json();
            let mut reader = api;
            reader.token = made["token"].as_str().unwrap().to_owned();
            for rest in ["/entries?limit=50", "/checkpoint", "/proofs/inclusion?seq=0", "/entries/0"] {
                reader.get(&format!("{path}{rest}")).await.expect(200);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    eventually("the first sight", || async {
        (workspace.entries_of("store.version.first_seen").await.len() == 1).then_some(())
    })
    .await;
    let step = Step::VersionState { id: "v100".into(), state: "WAITING_FOR_REVIEW".into() };
    simulator.apply(step).unwrap();
    let hooks = receiver.taken("hook", EVENTS + 1).await;
    receiver.assert_all_verified();
    assert!(hooks.iter().any(|hook| hook.kind == "store.version.transitioned"));
    destination.settled(EVENTS + 1, "delivered").await;
    let entries = workspace.entries().await;
    assert!(entries.iter().enumerate().all(|(n, e)| e["seq"] == n), "seq is dense");
    assert_eq!(entries.iter().filter(|e| e["type"] == "event.received").count(), EVENTS);
    let examined = doctor::examine(&first.database, first.writer.data_keys(), &first.seen_heads, |_, _| {});
    assert_eq!(examined.await.unwrap().findings, []);
    // A command through the pooler, as its settings say.
    let url = |role: &str| {
        format!("postgres:///{}?host={}&port=6432&user={role}", database.name, pooler.directory.display())
    };
    let (service, worker) = (url(roles::SERVICE), url(roles::WORKER));
    let arguments =
        ["doctor", "--data-dir", ".", "--database-url", &service, "--worker-database-url", &worker];
    let environment = [("STATUSLEDGER_DATABASE_POOLED", "true")];
    let told = run(&first_settings.data_dir, &arguments, &environment).await;
    let line = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && line.contains("all as it was written"), "{line} {told:?}");
    let answer = api.at(second.address).get(&workspace.at("/export?openings=true")).await.expect(200);
    let file = temporary("export").join("ledger.zip");
    std::fs::write(&file, &answer.body).unwrap();
    verify_export(&file, &pin).unwrap();
    first.stop().await;
    second.stop().await;
}
