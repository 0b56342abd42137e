//! One private cluster for the process, a database for each test.
//!
//! Statics are not dropped in Rust and a process can be killed, so the end of the cluster is not ours: a small shell
//! waits for the other end of a pipe that only this process holds, and cleans up when that is gone, however it went.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use statusledger::database::embedded::{Cluster, Error, Options};
use statusledger::database::{self, Database, roles};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Mutex;

/// The database that each test's is a copy of: migrated, empty.
const TEMPLATE: &str = "template_statusledger";
/// Connections of a node's pool: several nodes run at once.
pub const CONNECTIONS: u32 = 6;

/// Ends whatever still runs in the directory `$1` and removes it, when standard input ends.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
root=$1
ours() { [ ! -e "/proc/$1/cwd" ] || case "$(readlink "/proc/$1/cwd")" in "$root"*) true ;; *) false ;; esac; }
for file in "$root"/processes/*; do
    pid=${file##*/}
    if [ -e "$file" ] && kill -0 "$pid" 2>/dev/null && ours "$pid"; then kill -KILL "$pid"; fi
done
for disk in "$root"/*/disk; do if [ -d "$disk" ]; then umount -l "$disk" 2>/dev/null; fi; done
find "$root" -name postmaster.pid 2>/dev/null | while read -r file; do
    pid=$(head -n 1 "$file")
    if kill -0 "$pid" 2>/dev/null && ours "$pid"; then
        kill -QUIT "$pid"
        left=100
        while kill -0 "$pid" 2>/dev/null && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
    fi
done
rm -rf "$root"
"#;

struct Server {
    cluster: Cluster,
    root: PathBuf,
    runtime: Handle,
    /// A copy of the template fails while another is being made.
    copying: Mutex<()>,
    _runtime: Runtime,
    /// Its standard input is what the watchdog waits on.
    _watchdog: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    // On a thread of its own: whoever comes first stands in a runtime already.
    std::thread::spawn(start).join().expect("the tests' cluster starts")
});
static COUNT: AtomicU64 = AtomicU64::new(0);

fn start() -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut refused = None;
    for parent in [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()] {
        let root = tempfile::Builder::new().prefix("slt-").tempdir_in(&parent).unwrap().keep();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o711)).unwrap();
        std::fs::create_dir(root.join("processes")).unwrap();
        let watchdog = watch(&root);
        let mut options = Options::new(root.join("postgres"));
        options.settings.push(("max_connections".into(), "400".into()));
        match runtime.block_on(Cluster::start(options)) {
            Ok(cluster) => {
                runtime.block_on(prepare(&cluster, TEMPLATE));
                let handle = runtime.handle().clone();
                let (copying, _runtime, _watchdog) = (Mutex::new(()), runtime, watchdog);
                return Server { cluster, root, runtime: handle, copying, _runtime, _watchdog };
            }
            // Postgres's account cannot get there: the next place.
            Err(e @ Error::Unreachable { .. }) => refused = Some(e),
            Err(e) => panic!("{e}"),
        }
    }
    panic!("{}", refused.unwrap());
}

fn watch(root: &Path) -> Child {
    Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(root)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for us; it has work to do after it.
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Makes the roles and a migrated database of that name in a cluster.
pub async fn prepare(cluster: &Cluster, name: &str) {
    let mut superuser = cluster.connect_options(cluster.superuser(), "postgres").connect().await.unwrap();
    roles::ensure(&mut superuser).await.unwrap();
    let owner = roles::OWNER;
    for statement in [format!("CREATE ROLE {owner} LOGIN"), format!("CREATE DATABASE {name} OWNER {owner}")] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
    }
    database::migrate(cluster.connect_options(owner, name)).await.unwrap();
    superuser.close().await.unwrap();
}

/// A new directory of that name's beginning, gone when the tests have ended.
pub fn temporary(name: &str) -> PathBuf {
    let directory = SERVER.root.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&directory).unwrap();
    directory
}

/// Where a started process is noted, so that it ends with the tests.
pub fn noted(pid: u32) -> PathBuf {
    SERVER.root.join("processes").join(pid.to_string())
}

/// A database of a test's own, dropped with it.
pub struct TestDatabase {
    /// Its name in the cluster.
    pub name: String,
}

impl TestDatabase {
    /// A migrated, empty one.
    pub async fn create() -> Self {
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let _copying = SERVER.copying.lock().await;
        let statement = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {}", roles::OWNER);
        let mut superuser = connect("postgres").await;
        sqlx::query(AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
        superuser.close().await.unwrap();
        Self { name }
    }

    /// How to connect to it as `role`.
    pub fn options(&self, role: &str) -> PgConnectOptions {
        SERVER.cluster.connect_options(role, &self.name).disable_statement_logging()
    }

    /// Its address for a command line, as `role`.
    pub fn url(&self, role: &str) -> String {
        let socket = SERVER.cluster.socket_directory().to_str().unwrap();
        format!("postgres:///{}?host={}&user={role}&sslmode=disable", self.name, socket)
    }

    /// The pools of a node.
    pub async fn open(&self) -> Database {
        let as_role = |role| self.options(role);
        Database::open(as_role(roles::SERVICE), as_role(roles::WORKER), CONNECTIONS).await.unwrap()
    }

    /// Whoever may do everything: the attacker with the database's password.
    pub async fn superuser(&self) -> PgConnection {
        connect(&self.name).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        SERVER.runtime.spawn(async move {
            let mut superuser = connect("postgres").await;
            // What is left goes with the cluster.
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            let _ = sqlx::query(AssertSqlSafe(drop)).execute(&mut superuser).await;
        });
    }
}

async fn connect(database: &str) -> PgConnection {
    let superuser = SERVER.cluster.superuser();
    SERVER.cluster.connect_options(superuser, database).disable_statement_logging().connect().await.unwrap()
}
