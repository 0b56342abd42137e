//! The embedded Postgres, as root and (by running this binary again) as an ordinary user.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, getpgid};
use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, Connection, PgConnection};
use statusledger::database::embedded::{
    Cluster, Download, Error, NotDurable, Options, Status, check_durability, running,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

/// Longer than anything here takes; a test that waits this long fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Directly under `/tmp`, so that the socket's path stays short whatever `TMPDIR` says.
fn parent() -> TempDir {
    tempfile::Builder::new()
        .prefix("pg-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in("/tmp")
        .unwrap()
}

fn options(parent: &TempDir) -> Options {
    Options::new(parent.path().join("postgres"))
}

async fn connect(cluster: &Cluster) -> PgConnection {
    cluster.connect_options(cluster.superuser(), "postgres").connect().await.unwrap()
}

async fn scalar(connection: &mut PgConnection, query: &'static str) -> String {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

async fn keep(connection: &mut PgConnection, number: i32) {
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (number int)").execute(&mut *connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)").bind(number).execute(connection).await.unwrap();
}

async fn kept(connection: &mut PgConnection) -> Vec<i32> {
    sqlx::query_scalar("SELECT number FROM kept ORDER BY number").fetch_all(connection).await.unwrap()
}

fn pid(cluster: &Cluster) -> u32 {
    match *cluster.status().borrow() {
        Status::Running { pid } => pid,
        ref other => panic!("{other:?}"),
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap())
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Waits until the cluster runs with another postmaster than `before`.
async fn replaced(cluster: &Cluster, before: u32) -> u32 {
    let mut status = cluster.status();
    let another = status.wait_for(|status| matches!(status, Status::Running { pid } if *pid != before));
    match *tokio::time::timeout(PATIENCE, another).await.unwrap().unwrap() {
        Status::Running { pid } => pid,
        _ => unreachable!("that was waited for"),
    }
}

/// Until a process that is no child of ours is gone.
async fn gone(pid: u32) {
    let ended = async {
        while Path::new(&format!("/proc/{pid}/cwd")).read_link().is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

/// A command as the account that the cluster runs as.
fn as_account(cluster: &Cluster, program: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.current_dir("/");
    if let Some(user) = cluster.account().map(|name| User::from_name(name).unwrap().unwrap()) {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// The directory of the programs that run.
fn programs(cluster: &Cluster) -> PathBuf {
    let program = std::fs::read_link(format!("/proc/{}/exe", pid(cluster))).unwrap();
    program.parent().unwrap().to_owned()
}

async fn pg_ctl(cluster: &Cluster, arguments: &[&str]) {
    let output = as_account(cluster, &programs(cluster).join("pg_ctl"))
        .arg("-D")
        .arg(cluster.data_directory())
        .args(["-w", "-l", "/dev/null"])
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const ROLE: &str = "STATUSLEDGER_TEST_DIRECTORY";

/// This test binary as another process, running only `test`, with the cluster's directory in its environment.
/// A test that is run so plays another part.
fn again(test: &str, directory: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("{}::{test}", own_module())]).env(ROLE, directory);
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// The module's path as the test runner names it.
fn own_module() -> &'static str {
    module_path!().split_once("::").unwrap().1
}

fn part() -> Option<PathBuf> {
    std::env::var_os(ROLE).map(PathBuf::from)
}

/// Starts a cluster, says so, and waits to be killed.
async fn be_a_parent(directory: &Path) -> ! {
    let cluster = Cluster::start(Options::new(directory)).await.unwrap();
    let mut connection = connect(&cluster).await;
    keep(&mut connection, 1).await;
    connection.close().await.unwrap();
    let postmaster = pid(&cluster);
    writeln!(std::io::stdout().lock(), "\npostmaster {postmaster}").unwrap();
    std::future::pending().await
}

async fn line(child: &mut tokio::process::Child, prefix: &str) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.trim().to_owned();
            }
        }
        panic!("the other process ended without saying {prefix:?}");
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}

#[tokio::test]
async fn a_fresh_cluster_is_private_durable_and_keeps_its_data() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    assert!(!cluster.adopted());
    let mut connection = connect(&cluster).await;
    for (setting, value) in [
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("jit", "off"),
    ] {
        let found: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{setting}: {error}"));
        assert_eq!(found, value, "{setting}");
    }
    check_durability(&mut connection).await.unwrap();
    keep(&mut connection, 7).await;
    connection.close().await.unwrap();

    let directory = parent.path().join("postgres");
    let passage = if is_root() { 0o711 } else { 0o700 };
    assert_eq!(mode(&directory), passage);
    assert_eq!(mode(cluster.data_directory()), 0o700);
    assert_eq!(mode(cluster.socket_directory()), 0o700);
    assert_eq!(mode(&cluster.socket_directory().join(format!(".s.PGSQL.{}", cluster.port()))), 0o700);
    assert_eq!(mode(cluster.log_file()), 0o600);
    let process = std::fs::metadata(format!("/proc/{}", pid(&cluster))).unwrap();
    assert_ne!(process.uid(), 0);
    assert_eq!(process.uid(), std::fs::metadata(cluster.data_directory()).unwrap().uid());
    // A Ctrl-C reaches the foreground's process group; the server has its own.
    assert_eq!(getpgid(Some(raw(pid(&cluster)))).unwrap(), raw(pid(&cluster)));

    let postmaster = pid(&cluster);
    cluster.stop().await.unwrap();
    assert!(!Path::new(&format!("/proc/{postmaster}")).exists());

    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let mut connection = connect(&cluster).await;
    assert_eq!(kept(&mut connection).await, [7]);
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn after_kill_nine_of_its_parent_the_same_postmaster_is_adopted() {
    if let Some(directory) = part() {
        be_a_parent(&directory).await
    }
    let parent = parent();
    let directory = options(&parent).directory;
    let mut child =
        again("after_kill_nine_of_its_parent_the_same_postmaster_is_adopted", &directory).spawn().unwrap();
    let postmaster: u32 = line(&mut child, "postmaster ").await.parse().unwrap();

    // While it lives, nobody else gets the directory, and the refusal says who has it.
    match Cluster::start(options(&parent)).await {
        Err(Error::InUse { pid, .. }) => assert_eq!(pid, child.id()),
        other => panic!("{other:?}"),
    }
    child.kill().await.unwrap();

    let cluster = Cluster::start(options(&parent)).await.unwrap();
    assert!(cluster.adopted());
    assert_eq!(pid(&cluster), postmaster);
    let mut connection = connect(&cluster).await;
    assert_eq!(kept(&mut connection).await, [1]);
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
    gone(postmaster).await;
}

#[tokio::test]
async fn killing_the_parent_and_the_postmaster_loses_nothing_committed() {
    if let Some(directory) = part() {
        be_a_parent(&directory).await
    }
    let parent = parent();
    let directory = options(&parent).directory;
    let mut child =
        again("killing_the_parent_and_the_postmaster_loses_nothing_committed", &directory).spawn().unwrap();
    let postmaster: u32 = line(&mut child, "postmaster ").await.parse().unwrap();
    child.kill().await.unwrap();
    kill(raw(postmaster), Signal::SIGKILL).unwrap();

    let cluster = Cluster::start(options(&parent)).await.unwrap();
    assert_ne!(pid(&cluster), postmaster);
    let mut connection = connect(&cluster).await;
    assert_eq!(kept(&mut connection).await, [1]);
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_parent_killed_while_it_makes_the_cluster_leaves_nothing_that_is_used() {
    if let Some(directory) = part() {
        be_a_parent(&directory).await
    }
    let parent = parent();
    let directory = options(&parent).directory;
    let unfinished = || {
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("initialising-"))
    };
    let name = "a_parent_killed_while_it_makes_the_cluster_leaves_nothing_that_is_used";
    let mut child = again(name, &directory).spawn().unwrap();
    let begun = async {
        while unfinished().is_none_or(|path| !path.join("base").exists()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    child.kill().await.unwrap();

    // The orphaned initdb may still be at work.
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let mut connection = connect(&cluster).await;
    keep(&mut connection, 1).await;
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_postmaster_is_started_again() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let mut connection = connect(&cluster).await;
    keep(&mut connection, 1).await;
    for round in 2..4 {
        let before = pid(&cluster);
        kill(raw(before), Signal::SIGKILL).unwrap();
        replaced(&cluster, before).await;
        let mut connection = connect(&cluster).await;
        keep(&mut connection, round).await;
        connection.close().await.unwrap();
    }
    let mut connection = connect(&cluster).await;
    assert_eq!(kept(&mut connection).await, [1, 2, 3]);
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_by_somebody_else_is_followed() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    for mode in ["fast", "immediate", "fast"] {
        let before = pid(&cluster);
        // Fails if the supervisor gets in its way.
        pg_ctl(&cluster, &["restart", "-m", mode]).await;
        let after = replaced(&cluster, before).await;
        let started: u32 = std::fs::read_to_string(cluster.data_directory().join("postmaster.pid"))
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(after, started);
        connect(&cluster).await.close().await.unwrap();
    }
    let last = pid(&cluster);
    cluster.stop().await.unwrap();
    gone(last).await;
}

#[tokio::test]
async fn a_server_that_somebody_stopped_comes_back_and_can_be_stopped_while_it_is_away() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let before = pid(&cluster);
    pg_ctl(&cluster, &["stop", "-m", "fast"]).await;
    replaced(&cluster, before).await;
    connect(&cluster).await.close().await.unwrap();

    pg_ctl(&cluster, &["stop", "-m", "fast"]).await;
    let mut status = cluster.status();
    let away = status.wait_for(|status| matches!(status, Status::Restarting { .. }));
    tokio::time::timeout(PATIENCE, away).await.unwrap().unwrap();
    cluster.stop().await.unwrap();
    assert_eq!(*status.borrow(), Status::Stopped);
    assert!(!parent.path().join("postgres/data/postmaster.pid").exists());
}

#[tokio::test]
async fn a_detached_server_runs_on_and_a_dropped_one_stops() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let postmaster = pid(&cluster);
    cluster.detach().await;
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    assert!(cluster.adopted());
    assert_eq!(pid(&cluster), postmaster);
    drop(cluster);
    gone(postmaster).await;
}

#[tokio::test]
async fn a_start_right_after_a_drop_waits_for_the_shutdown() {
    let parent = parent();
    drop(Cluster::start(options(&parent)).await.unwrap());
    // The lock is free as soon as the supervisor has noticed.
    let again = async {
        loop {
            match Cluster::start(options(&parent)).await {
                Err(Error::InUse { .. }) => tokio::task::yield_now().await,
                result => return result.unwrap(),
            }
        }
    };
    let cluster = tokio::time::timeout(PATIENCE, again).await.unwrap();
    let mut status = cluster.status();
    let running = status.wait_for(|status| matches!(status, Status::Running { .. }));
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_has_lost_its_socket_is_replaced() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let before = pid(&cluster);
    let socket = cluster.socket_directory().join(format!(".s.PGSQL.{}", cluster.port()));
    cluster.detach().await;
    std::fs::remove_file(socket).unwrap();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    assert!(!cluster.adopted());
    gone(before).await;
    connect(&cluster).await.close().await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_command_joins_a_cluster_that_runs_and_starts_none() {
    let parent = parent();
    let directory = options(&parent).directory;
    assert!(running(&directory).is_none());
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let join = running(&directory).unwrap();
    join(cluster.superuser(), "postgres").connect().await.unwrap().close().await.unwrap();
    cluster.stop().await.unwrap();
    assert!(running(&directory).is_none());
}

#[tokio::test]
async fn stopping_does_not_wait_for_clients() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let mut connection = connect(&cluster).await;
    sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
    sqlx::query("CREATE TABLE never (x int)").execute(&mut connection).await.unwrap();
    tokio::time::timeout(PATIENCE, cluster.stop()).await.unwrap().unwrap();
    assert!(sqlx::query("COMMIT").execute(&mut connection).await.is_err());
}

#[tokio::test]
async fn a_server_that_ignores_a_fast_shutdown_is_stopped_all_the_same() {
    let parent = parent();
    let options = Options { stop_timeout: Duration::from_millis(300), ..options(&parent) };
    let cluster = Cluster::start(options).await.unwrap();
    let postmaster = pid(&cluster);
    let mut connection = connect(&cluster).await;
    let backend: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
    // A backend that cannot be told anything keeps a fast shutdown waiting; an immediate one kills it.
    kill(Pid::from_raw(backend), Signal::SIGSTOP).unwrap();
    tokio::time::timeout(PATIENCE, cluster.stop()).await.unwrap().unwrap();
    gone(postmaster).await;
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_living_stranger_does_not_keep_it_from_starting() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let data = cluster.data_directory().to_owned();
    let mut stranger =
        as_account(&cluster, Path::new("sleep")).arg("600").kill_on_drop(true).spawn().unwrap();
    // As a postmaster that was killed leaves it, in a container whose process numbers have begun again.
    let locks = [
        data.join("postmaster.pid"),
        cluster.socket_directory().join(format!(".s.PGSQL.{}.lock", cluster.port())),
    ];
    let texts = locks.each_ref().map(|path| std::fs::read_to_string(path).unwrap());
    cluster.stop().await.unwrap();
    for (path, text) in locks.iter().zip(texts) {
        let (_, rest) = text.split_once('\n').unwrap();
        std::fs::write(path, format!("{}\n{rest}", stranger.id().unwrap())).unwrap();
    }

    let cluster = Cluster::start(options(&parent)).await.unwrap();
    assert!(!cluster.adopted());
    cluster.stop().await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was left alone");
    stranger.kill().await.unwrap();
}

#[tokio::test]
async fn a_long_path_gets_a_private_socket_directory_elsewhere() {
    if let Some(directory) = part() {
        be_a_parent(&directory).await
    }
    let parent = parent();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = parent.path().join("x".repeat(60)).join("y".repeat(60)).join("postgres");
    let mut child =
        again("a_long_path_gets_a_private_socket_directory_elsewhere", &directory).spawn().unwrap();
    line(&mut child, "postmaster ").await;
    child.kill().await.unwrap();

    let cluster = Cluster::start(Options::new(&directory)).await.unwrap();
    assert!(cluster.adopted());
    let socket = cluster.socket_directory().to_owned();
    assert!(socket.starts_with("/tmp") && !socket.starts_with(&directory), "{socket:?}");
    assert_eq!(mode(&socket), 0o700);
    connect(&cluster).await.close().await.unwrap();
    let before = pid(&cluster);
    kill(raw(before), Signal::SIGKILL).unwrap();
    replaced(&cluster, before).await;
    connect(&cluster).await.close().await.unwrap();
    cluster.stop().await.unwrap();
    assert!(!socket.exists());

    // A recorded directory that somebody else has made meanwhile is not used.
    std::fs::create_dir(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(directory.join("socket-directory"), socket.as_os_str().as_encoded_bytes()).unwrap();
    let cluster = Cluster::start(Options::new(&directory)).await.unwrap();
    assert_ne!(cluster.socket_directory(), socket);
    cluster.stop().await.unwrap();
    std::fs::remove_dir(&socket).unwrap();
}

#[tokio::test]
async fn a_directory_that_is_not_ours_alone_is_refused() {
    let parent = parent();
    let directory = options(&parent).directory;
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    // Not a cluster.
    std::fs::create_dir(directory.join("data")).unwrap();
    std::fs::set_permissions(directory.join("data"), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(Cluster::start(options(&parent)).await, Err(Error::Unsafe { .. })));
    // A link to somewhere else.
    std::fs::remove_dir(directory.join("data")).unwrap();
    let elsewhere = self::parent();
    std::os::unix::fs::symlink(elsewhere.path(), directory.join("data")).unwrap();
    assert!(matches!(Cluster::start(options(&parent)).await, Err(Error::Unsafe { .. })));
    std::fs::remove_file(directory.join("data")).unwrap();
    // A socket directory that others can enter.
    std::fs::create_dir(directory.join("socket")).unwrap();
    std::fs::set_permissions(directory.join("socket"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Cluster::start(options(&parent)).await, Err(Error::Unsafe { .. })));
    if is_root() {
        std::os::unix::fs::chown(&directory, Some(65534), None).unwrap();
        assert!(matches!(Cluster::start(options(&parent)).await, Err(Error::Unsafe { .. })));
    }
}

#[tokio::test]
async fn as_root_a_path_that_the_account_cannot_reach_is_named_and_nothing_is_made() {
    if !is_root() {
        // An ordinary user's server runs as that user, who reaches what is theirs.
        return;
    }
    let parent = parent();
    let closed = parent.path().canonicalize().unwrap().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let close = |mode| std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode)).unwrap();

    // Above the data directory, nothing is ever opened.
    close(0o700);
    let below = closed.join("service");
    match Cluster::start(Options::new(below.join("postgres"))).await {
        Err(error @ Error::Unreachable { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&format!("{} does not let it through", closed.display())), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!below.exists());
    assert_eq!(mode(&closed), 0o700);

    // The data directory itself: not if something in it would become readable.
    std::fs::write(closed.join("secret"), "s").unwrap();
    std::fs::set_permissions(closed.join("secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    match Cluster::start(Options::new(closed.join("postgres"))).await {
        Err(error @ Error::Unreachable { .. }) => {
            assert!(error.to_string().contains("\"secret\""), "{error}")
        }
        other => panic!("{other:?}"),
    }
    assert!(!closed.join("postgres").exists());
    assert_eq!(mode(&closed), 0o700);

    // Otherwise it is, and to search only.
    std::fs::set_permissions(closed.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let cluster = Cluster::start(Options::new(closed.join("postgres"))).await.unwrap();
    assert_eq!(mode(&closed), 0o711);
    cluster.stop().await.unwrap();

    // Binaries that the account cannot reach are no use either.
    let copy = parent.path().join("programs");
    std::fs::create_dir(&copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o700)).unwrap();
    let options = Options { binaries: Some(copy), ..Options::new(parent.path().join("postgres")) };
    assert!(matches!(Cluster::start(options).await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn as_root_the_account_can_be_named() {
    if !is_root() {
        return;
    }
    let parent = parent();
    let options = |name: &str| Options { account: Some(name.to_owned()), ..options(&parent) };
    for name in ["no such account", "root"] {
        assert!(matches!(Cluster::start(options(name)).await, Err(Error::NoAccount(_))), "{name}");
    }
    let cluster = Cluster::start(options("nobody")).await.unwrap();
    assert_eq!(cluster.account(), Some("nobody"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(&cluster))).unwrap();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Groups:"), "");
    assert!(field("Uid:").split_whitespace().all(|uid| uid == "65534"));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn everything_here_holds_for_an_ordinary_user_too() {
    if !is_root() || part().is_some() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    // The build's directory may be closed to others.
    let place = parent();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = tokio::process::Command::new(&program)
        .arg(format!("{}::", own_module()))
        // What does not depend on who asks.
        .args(["--skip", "download", "--skip", "archive", "--skip", "setting", "--skip", "lose_commits"])
        .uid(nobody.uid.as_raw())
        .gid(nobody.gid.as_raw())
        .current_dir("/")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("test result: ok"), "{said}");
}

#[tokio::test]
async fn a_server_that_would_lose_commits_is_refused() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let mut connection = connect(&cluster).await;
    for setting in ["fsync", "full_page_writes"] {
        let change = |value: &str| format!("ALTER SYSTEM SET {setting} = {value}");
        for (value, durable) in [("off", false), ("on", true)] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(change(value))).execute(&mut connection).await.unwrap();
            sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
            // The running session takes the change over when it next gets a signal's attention.
            let seen = async {
                while scalar(&mut connection, shown(setting)).await != value {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, seen).await.unwrap();
            match check_durability(&mut connection).await {
                Ok(()) => assert!(durable),
                Err(NotDurable::Setting { setting: found, .. }) => assert!(!durable && found == setting),
                Err(other) => panic!("{other}"),
            }
        }
    }
    sqlx::query("CREATE ROLE hasty LOGIN").execute(&mut connection).await.unwrap();
    sqlx::query("ALTER ROLE hasty SET synchronous_commit = off").execute(&mut connection).await.unwrap();
    check_durability(&mut connection).await.unwrap();
    let mut hasty = cluster.connect_options("hasty", "postgres").connect().await.unwrap();
    assert!(matches!(check_durability(&mut hasty).await, Err(NotDurable::Setting { .. })));
    hasty.close().await.unwrap();
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

fn shown(setting: &str) -> &'static str {
    match setting {
        "fsync" => "SHOW fsync",
        _ => "SHOW full_page_writes",
    }
}

#[tokio::test]
async fn a_bad_setting_is_an_error_that_shows_the_servers_own_words() {
    let parent = parent();
    let settings = vec![("shared_buffers".to_owned(), "lots".to_owned())];
    match Cluster::start(Options { settings, ..options(&parent) }).await {
        Err(Error::Initdb(said)) | Err(Error::Start { tail: said, .. }) => {
            assert!(said.contains("shared_buffers"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    let settings = vec![("work_mem".to_owned(), "9MB".to_owned())];
    let cluster = Cluster::start(Options { settings, ..options(&parent) }).await.unwrap();
    let mut connection = connect(&cluster).await;
    assert_eq!(scalar(&mut connection, "SHOW work_mem").await, "9MB");
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

/// A directory with a `postgres` that says it is `version`, and an `initdb`.
fn pretended(version: &str) -> TempDir {
    let directory = parent();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["postgres", "initdb"] {
        let path = directory.path().join(program);
        std::fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

#[tokio::test]
async fn binaries_that_are_too_old_are_named_with_their_place() {
    let parent = parent();
    let old = pretended("14.9");
    let options = Options { binaries: Some(old.path().to_owned()), ..options(&parent) };
    let error = Cluster::start(options).await.unwrap_err().to_string();
    assert!(error.contains("14.9") && error.contains("15 or newer"), "{error}");
    assert!(error.contains(old.path().to_str().unwrap()), "{error}");
    let missing = Options { binaries: Some(parent.path().join("none")), ..self::options(&parent) };
    assert!(matches!(Cluster::start(missing).await, Err(Error::UnusableBinaries { .. })));
}

#[tokio::test]
async fn a_cluster_of_another_major_version_says_what_was_found_where() {
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let (data, version) = (cluster.data_directory().to_owned(), cluster.version());
    let place = programs(&cluster);
    cluster.stop().await.unwrap();
    std::fs::write(data.join("PG_VERSION"), "99\n").unwrap();
    let error = Cluster::start(options(&parent)).await.unwrap_err().to_string();
    assert!(error.contains("PostgreSQL 99 (the cluster's own"), "{error}");
    assert!(error.contains(&format!("{version} in {}", place.display())), "{error}");
}

/// A server that has `files`, by path, and answers anything else with 404.
async fn serve(files: Vec<(String, Vec<u8>)>) -> String {
    let files: std::collections::HashMap<_, _> = files.into_iter().collect();
    let files = std::sync::Arc::new(files);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(move |uri: axum::http::Uri| {
        let files = files.clone();
        async move { files.get(uri.path()).cloned().ok_or(axum::http::StatusCode::NOT_FOUND) }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

fn checksum(archive: &[u8]) -> String {
    Sha256::digest(archive).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compressed(build: impl FnOnce(&mut tar::Builder<flate2::write::GzEncoder<Vec<u8>>>)) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    archive.follow_symlinks(false);
    build(&mut archive);
    archive.into_inner().unwrap().finish().unwrap()
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

const VERSION: &str = "17.10.0";

fn name() -> String {
    format!("postgresql-{VERSION}-{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Serves `archive` with `checksum`, and asks for it.
async fn download(
    archive: Vec<u8>,
    checksum: String,
    pin: Option<String>,
    into: &Path,
) -> Result<PathBuf, Error> {
    let path = format!("/{VERSION}/{}.tar.gz", name());
    let base = serve(vec![(path.clone(), archive), (format!("{path}.sha256"), checksum.into_bytes())]).await;
    Download { base, version: VERSION.to_owned(), sha256: pin }.provide(into).await
}

/// The installed binaries as an archive of the kind that is downloaded.
fn installed(programs: &Path) -> Vec<u8> {
    compressed(|archive| {
        let top = name();
        for program in ["postgres", "initdb", "pg_ctl"] {
            archive.append_path_with_name(programs.join(program), format!("{top}/bin/{program}")).unwrap();
        }
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut link, format!("{top}/bin/postmaster"), "postgres").unwrap();
        for entry in std::fs::read_dir(programs.parent().unwrap().join("lib")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "so") {
                let file = path.file_name().unwrap().to_str().unwrap();
                archive.append_path_with_name(&path, format!("{top}/lib/{file}")).unwrap();
            }
        }
    })
}

#[tokio::test]
async fn downloaded_binaries_run_a_cluster() {
    let parent = parent();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let programs = programs(&cluster);
    cluster.stop().await.unwrap();

    let archive = installed(&programs);
    let sum = format!("{}  {}.tar.gz\n", checksum(&archive), name());
    let into = parent.path().join("binaries");
    let found = download(archive, sum, None, &into).await.unwrap();
    assert_eq!(found, into.join(name()).join("bin"));
    assert_eq!(mode(&found.join("postgres")), 0o755);
    assert_eq!(std::fs::read_link(found.join("postmaster")).unwrap(), Path::new("postgres"));
    // Nothing but what was asked for, and the next time nothing is asked at all.
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1);
    let nowhere = Download { base: "http://127.0.0.1:1".to_owned(), ..Download::default() };
    assert_eq!(nowhere.provide(&into).await.unwrap(), found);

    let options = Options { binaries: Some(found.clone()), ..Options::new(parent.path().join("another")) };
    let cluster = Cluster::start(options).await.unwrap();
    assert_eq!(self::programs(&cluster), found.canonicalize().unwrap());
    connect(&cluster).await.close().await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn where_nothing_is_installed_the_binaries_are_downloaded() {
    let name = "where_nothing_is_installed_the_binaries_are_downloaded";
    if let Some(directory) = part() {
        let download = Download { base: std::env::var("BASE").unwrap(), ..Download::default() };
        let without = Options { download: None, ..Options::new(&directory) };
        assert!(matches!(Cluster::start(without).await, Err(Error::NoBinaries { .. })));
        let with = Options { download: Some(download), ..Options::new(&directory) };
        let cluster = Cluster::start(with).await.unwrap();
        assert!(programs(&cluster).starts_with(&directory));
        cluster.stop().await.unwrap();
        return;
    }
    let parent = parent();
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    let programs = programs(&cluster);
    cluster.stop().await.unwrap();
    // In a mount namespace of its own, the installed ones are hidden.
    let hide = format!("mount -t tmpfs none {}", programs.parent().unwrap().display());
    let may = tokio::process::Command::new("unshare").args(["-m", "sh", "-c", &hide]).output().await;
    if !is_root() || !may.is_ok_and(|output| output.status.success()) {
        writeln!(std::io::stdout().lock(), "skipped: hiding the installed binaries needs a mount namespace")
            .unwrap();
        return;
    }
    let archive = installed(&programs);
    let path = format!("/{VERSION}/{}.tar.gz", self::name());
    let sum = checksum(&archive).into_bytes();
    let base = serve(vec![(path.clone(), archive), (format!("{path}.sha256"), sum)]).await;
    let directory = parent.path().canonicalize().unwrap().join("fresh");
    let output = tokio::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{hide} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("{}::{name}", own_module())])
        .env(ROLE, &directory)
        .env("BASE", base)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_download_that_is_not_what_was_promised_is_not_unpacked() {
    let parent = parent();
    let into = parent.path().join("binaries");
    let nothing = || std::fs::read_dir(&into).map_or(0, Iterator::count) == 0;
    let archive = compressed(|archive| {
        let mut program = header(tar::EntryType::Regular, 0o755, 1);
        archive.append_data(&mut program, "top/bin/postgres", &b"x"[..]).unwrap();
        archive.append_data(&mut program, "top/bin/initdb", &b"x"[..]).unwrap();
    });
    let sum = checksum(&archive);

    let other = checksum(b"something else");
    let result = download(archive.clone(), other.clone(), None, &into).await;
    assert!(
        matches!(&result, Err(Error::Checksum { expected, found, .. }) if *expected == other && *found == sum)
    );
    assert!(nothing());
    // Pinned: what the host itself says does not count.
    let result = download(archive.clone(), sum.clone(), Some(other), &into).await;
    assert!(matches!(result, Err(Error::Checksum { .. })));
    assert!(nothing());
    let cut = archive[..archive.len() / 2].to_vec();
    assert!(matches!(download(cut.clone(), sum.clone(), None, &into).await, Err(Error::Checksum { .. })));
    // Cut before it was summed: the archive itself is bad.
    let result = download(cut.clone(), checksum(&cut), None, &into).await;
    assert!(matches!(result, Err(Error::Archive { .. })), "{result:?}");
    assert!(nothing());
    for bad in ["", "<html>", "abcd"] {
        let result = download(archive.clone(), bad.to_owned(), None, &into).await;
        assert!(matches!(result, Err(Error::Download { .. })), "{bad:?}");
    }
    let absent = Download { base: serve(Vec::new()).await, ..Download::default() };
    assert!(matches!(absent.provide(&into).await, Err(Error::Download { .. })));
    assert!(nothing());
    assert!(download(archive, sum.to_uppercase(), None, &into).await.is_ok());
}

#[tokio::test]
async fn a_body_that_ends_early_is_not_an_archive() {
    let parent = parent();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let read = stream.read(&mut [0; 4096]).await.unwrap();
            assert!(read > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf").await.unwrap();
        }
    });
    let pin = Some(checksum(b"half"));
    let download = Download { base, version: VERSION.to_owned(), sha256: pin };
    assert!(matches!(download.provide(&parent.path().join("binaries")).await, Err(Error::Download { .. })));
}

#[tokio::test]
async fn nothing_in_an_archive_leads_outside() {
    type Build = Box<dyn FnOnce(&mut tar::Builder<flate2::write::GzEncoder<Vec<u8>>>)>;
    /// A name written as it is; the library itself would refuse to.
    fn raw_name(name: &str, kind: tar::EntryType, link: &str) -> tar::Header {
        let mut header = header(kind, 0o644, usize::from(kind == tar::EntryType::Regular));
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        header
    }
    fn file(name: &'static str) -> Build {
        Box::new(move |archive| {
            archive.append(&raw_name(name, tar::EntryType::Regular, ""), &b"x"[..]).unwrap()
        })
    }
    fn link(name: &'static str, target: &'static str, then: Option<&'static str>) -> Build {
        Box::new(move |archive| {
            archive.append(&raw_name(name, tar::EntryType::Symlink, target), &b""[..]).unwrap();
            if let Some(then) = then {
                archive.append(&raw_name(then, tar::EntryType::Regular, ""), &b"x"[..]).unwrap();
            }
        })
    }
    fn kind(kind: tar::EntryType) -> Build {
        Box::new(move |archive| archive.append(&raw_name("top/x", kind, "top/y"), &b""[..]).unwrap())
    }
    let cases: Vec<(&str, Build)> = vec![
        ("up", file("top/../../escaped")),
        ("up at once", file("../escaped")),
        ("absolute", file("/tmp/statusledger-escaped")),
        ("link up", link("top/bin", "../..", None)),
        ("link absolute", link("top/bin", "/tmp", None)),
        ("link down then up", link("top/a/b/l", "c/../../../../x", None)),
        ("through a link", link("top/l", "bin", Some("top/l/file"))),
        ("onto a link", link("top/file", "bin/y", Some("top/file"))),
        ("hard link", kind(tar::EntryType::Link)),
        ("device", kind(tar::EntryType::Char)),
        ("pipe", kind(tar::EntryType::Fifo)),
        ("no programs", file("top/readme")),
    ];
    for (name, build) in cases {
        let parent = parent();
        let into = parent.path().join("binaries");
        let archive = compressed(build);
        let sum = checksum(&archive);
        let result = download(archive, sum, None, &into).await;
        assert!(matches!(result, Err(Error::Archive { .. } | Error::Io { .. })), "{name}: {result:?}");
        assert_eq!(std::fs::read_dir(&into).unwrap().count(), 0, "{name}");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1, "{name}");
    }
    assert!(!Path::new("/tmp/statusledger-escaped").exists());
}

#[tokio::test]
async fn of_processes_that_start_at_once_one_wins() {
    if let Some(directory) = part() {
        let said = match Cluster::start(Options::new(&directory)).await {
            Ok(cluster) => {
                let said = format!("won {}", pid(&cluster));
                cluster.detach().await;
                said
            }
            Err(Error::InUse { .. }) => "lost".to_owned(),
            Err(error) => panic!("{error}"),
        };
        writeln!(std::io::stdout().lock(), "\n{said}").unwrap();
        return;
    }
    let parent = parent();
    let directory = options(&parent).directory;
    let children: Vec<_> = (0..4)
        .map(|_| again("of_processes_that_start_at_once_one_wins", &directory).spawn().unwrap())
        .collect();
    let mut postmasters = std::collections::HashSet::new();
    for child in children {
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success() && output.status.signal().is_none());
        let said = String::from_utf8(output.stdout).unwrap();
        if let Some(winner) = said.lines().find_map(|line| line.strip_prefix("won ")) {
            postmasters.insert(winner.to_owned());
        } else {
            assert!(said.contains("lost"), "{said}");
        }
    }
    // One makes it; whoever comes after that one has let go adopts the same.
    assert_eq!(postmasters.len(), 1);
    let cluster = Cluster::start(options(&parent)).await.unwrap();
    assert!(cluster.adopted());
    cluster.stop().await.unwrap();
}
