//! The program itself, as a child process.

use super::cluster::{noted, temporary};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The program under test.
const STATUSLEDGER: &str = env!("CARGO_BIN_EXE_statusledger");

fn command(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(STATUSLEDGER);
    // Nothing of the developer's shell reaches it but where programs are.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // Tests ask as fast as they can.
        .env("STATUSLEDGER_API__REQUESTS_PER_MINUTE", "1000000")
        .env("STATUSLEDGER_API__BURST", "100000")
        .envs(environment.iter().copied())
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub async fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(directory, arguments, environment).output().await.unwrap()
}

/// Starts a command that may have to be killed; it is when this is dropped.
pub fn spawn(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    command(directory, arguments, environment).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A `statusledger` that runs until it is killed.
pub struct Program {
    child: Child,
    note: PathBuf,
    /// Where it says that it serves.
    pub address: std::net::SocketAddr,
    /// The pin that it prints.
    pub pin: statusledger_verify::manifest::Pin,
}

impl Program {
    /// Starts it and waits until it says that it serves. What it logs goes to the file `log`, at its end.
    pub async fn start(
        directory: &Path,
        log: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child =
            command(directory, arguments, environment).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let note = noted(child.id().unwrap());
        std::fs::write(&note, "").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut address, mut pin) = (None, None);
        let read = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                match line.trim().split_once(char::is_whitespace) {
                    Some(("address", rest)) => {
                        address = rest.trim().strip_prefix("http://").and_then(|a| a.parse().ok());
                    }
                    Some(("pin", rest)) => pin = rest.trim().parse().ok(),
                    // The last that it prints.
                    Some(("token", _)) => break,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(super::DEADLINE, read).await.expect("the program serves in time");
        let told = || std::fs::read_to_string(log).unwrap();
        let address = address.unwrap_or_else(|| panic!("it does not serve: {}", told()));
        Self { child, note, address, pin: pin.unwrap() }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
        std::fs::remove_file(&self.note).unwrap();
    }

    /// Asks it to end and waits until it has; answers whether it ended well.
    pub async fn terminate(mut self) -> bool {
        use nix::sys::signal::{Signal, kill};
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        let status = tokio::time::timeout(super::DEADLINE, self.child.wait()).await.unwrap().unwrap();
        std::fs::remove_file(&self.note).unwrap();
        status.success()
    }
}

/// Where a node keeps everything, and its process while it runs. It has one address, however often it is started.
pub struct Place {
    pub directory: PathBuf,
    pub program: Option<Program>,
    port: u16,
}

impl Place {
    /// A place in a new directory of that name's beginning.
    pub fn new(name: &str) -> Self {
        Self { directory: temporary(name), program: None, port: 0 }
    }

    /// Starts `serve` or `up`, with more arguments than every node has.
    pub async fn start(&mut self, command: &str, more: &[&str], environment: &[(&str, &str)]) {
        let port = self.port.to_string();
        let all = [command, "--data-dir", ".", "--port", &port, "--instance", "status.example.com"];
        let log = self.directory.join("log");
        let program = Program::start(&self.directory, &log, &[&all, more].concat(), environment).await;
        self.port = program.address.port();
        self.program = Some(program);
    }
}

impl Drop for Place {
    /// What the node said last, where the test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(80)..].join("\n");
            eprintln!("{}:\n{last}", self.directory.display());
        }
    }
}
