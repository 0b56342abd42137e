//! A proxy before the database's socket that does what networks and power cuts do: it is slow, it swallows everything, it
//! lets a process be killed right before or right after a write is durable.

use super::cluster::{TestDatabase, temporary};
use sqlx::postgres::PgConnectOptions;
use statusledger::database::roles;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// When a process is held: the write is not durable and never will be, or it is and the process has not heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// What befalls what passes.
#[derive(Default)]
struct State {
    /// The statement whose commit is waited for, and which side of it.
    trap: Mutex<Option<(String, Moment)>>,
    /// Pause before anything passes, either way.
    delay: Mutex<Duration>,
    hits: watch::Sender<usize>,
    swallow: watch::Sender<bool>,
}

/// The proxy. It ends with the test's runtime.
pub struct Between {
    /// The directory of its socket.
    pub directory: PathBuf,
    state: Arc<State>,
}

impl Between {
    /// A proxy before the database.
    pub async fn new(database: &TestDatabase) -> Self {
        Self::before(&database.options(roles::SERVICE))
    }

    /// A proxy before the server that these options lead to.
    pub fn before(options: &PgConnectOptions) -> Self {
        let name = format!(".s.PGSQL.{}", options.get_port());
        let behind = options.get_socket().unwrap().join(&name);
        let directory = temporary("between");
        let listener = UnixListener::bind(directory.join(name)).unwrap();
        let state = Arc::new(State::default());
        tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass_on(client, behind.clone(), Arc::clone(&state)));
                }
            }
        });
        Self { directory, state }
    }

    /// Holds whoever executes a statement with that in it, before or after it is committed. Once.
    pub fn trap(&self, statement: &str, moment: Moment) {
        *self.state.trap.lock().unwrap() = Some((statement.to_owned(), moment));
    }

    /// Waits until somebody is held, for the `count`th time.
    pub async fn hit(&self, count: usize) {
        let mut hits = self.state.hits.subscribe();
        let hit = hits.wait_for(|hits| *hits >= count);
        tokio::time::timeout(super::DEADLINE, hit).await.expect("somebody comes to the trap").unwrap();
    }

    /// Waits so long before anything passes.
    pub fn delay(&self, by: Duration) {
        *self.state.delay.lock().unwrap() = by;
    }

    /// Lets nothing pass any more, and says nothing; or lets everything pass again, also what came meanwhile, as a network
    /// does that was away.
    pub fn swallow(&self, all: bool) {
        self.state.swallow.send_replace(all);
    }
}

async fn message(from: &mut (impl AsyncRead + Unpin), typed: bool) -> std::io::Result<(Option<u8>, Vec<u8>)> {
    let kind = if typed { Some(from.read_u8().await?) } else { None };
    let length = from.read_u32().await?;
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// The text up to the next zero, and what comes after it.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|b| *b == 0).unwrap();
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 1..])
}

/// Waits until the other end is gone, whatever it still says.
async fn until_gone(from: &mut (impl AsyncRead + Unpin)) {
    let mut nothing = [0; 4096];
    while matches!(from.read(&mut nothing).await, Ok(1..)) {}
}

async fn pass_on(client: UnixStream, socket: PathBuf, state: Arc<State>) -> std::io::Result<()> {
    let server = UnixStream::connect(socket).await?;
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let (mute, muted) = watch::channel(false);
    let answers = tokio::spawn({
        let state = Arc::clone(&state);
        async move {
            let (mut chunk, mut silent) = (vec![0; 64 << 10], state.swallow.subscribe());
            loop {
                let Ok(read @ 1..) = server_read.read(&mut chunk).await else { return };
                if *muted.borrow() {
                    // The end of what was asked: ReadyForQuery.
                    if read >= 6 && chunk[read - 6..read - 1] == [b'Z', 0, 0, 0, 5] {
                        state.hits.send_modify(|hits| *hits += 1);
                    }
                    continue;
                }
                let pause = *state.delay.lock().unwrap();
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                drop(silent.wait_for(|all| !*all).await);
                if client_write.write_all(&chunk[..read]).await.is_err() {
                    return;
                }
            }
        }
    });
    let mut silent = state.swallow.subscribe();
    let requests = async {
        let (mut prepared, mut typed, mut in_transaction, mut armed) = (HashMap::new(), false, false, false);
        loop {
            let (kind, body) = message(&mut client_read, typed).await?;
            typed = true;
            let mut statement = None;
            match kind {
                Some(b'Q') => statement = Some(text(&body).0),
                Some(b'P') => {
                    let (name, rest) = text(&body);
                    prepared.insert(name, text(rest).0);
                }
                Some(b'B') => {
                    let (_, rest) = text(&body);
                    statement = prepared.get(&text(rest).0).cloned();
                }
                _ => {}
            }
            if let Some(statement) = statement {
                let committing = statement == "COMMIT";
                let sprung = {
                    let mut trap = state.trap.lock().unwrap();
                    let matches =
                        trap.as_ref().is_some_and(|(wanted, _)| statement.contains(wanted.as_str()));
                    let sprung = matches && !in_transaction || armed && committing;
                    armed |= matches;
                    if sprung { trap.take() } else { None }
                };
                in_transaction = statement.starts_with("BEGIN")
                    || in_transaction && !committing && !statement.starts_with("ROLLBACK");
                match sprung {
                    Some((_, Moment::Before)) => {
                        state.hits.send_modify(|hits| *hits += 1);
                        until_gone(&mut client_read).await;
                        return Ok(());
                    }
                    Some((_, Moment::After)) => drop(mute.send_replace(true)),
                    None => {}
                }
            }
            let pause = *state.delay.lock().unwrap();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            drop(silent.wait_for(|all| !*all).await);
            if let Some(kind) = kind {
                server_write.write_u8(kind).await?;
            }
            server_write.write_u32(body.len() as u32 + 4).await?;
            server_write.write_all(&body).await?;
        }
    };
    let ended: std::io::Result<()> = requests.await;
    answers.abort();
    ended
}
