//! A proxy before the database's socket that does what networks and power cuts do: it is slow, it swallows everything, it
//! loses a client that the server works on for, it lets a process be killed right before or right after a write is durable.

use super::cluster::TestDatabase;
use super::wire::{self, Requests};
use sqlx::postgres::PgConnectOptions;
use statusledger::database::roles;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
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
    /// Whoever executes a statement with that in it is cut off.
    cut: watch::Sender<Option<String>>,
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
        let state = Arc::new(State::default());
        let directory = wire::proxy(options, {
            let state = Arc::clone(&state);
            move |client, server| pass_on(client, server, Arc::clone(&state))
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

    /// Closes the connections of whoever waits for a statement with that in it, on their side only: the server knows
    /// nothing of it and goes on.
    pub fn cut(&self, statement: &str) {
        self.state.cut.send_replace(Some(statement.to_owned()));
    }
}

/// How one connection stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// What the server says is heard here and goes no further.
    Muted,
    /// The client's side is closed.
    Cut,
}

/// Whether that is the end of what the server says to what it was asked: ReadyForQuery.
fn is_answered(said: &[u8]) -> bool {
    said.len() >= 6 && said[said.len() - 6..said.len() - 1] == [b'Z', 0, 0, 0, 5]
}

/// Passes on what the server says, until it or the client is gone; notes in `asked` what is answered.
async fn answers(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    asked: Arc<Mutex<Option<String>>>,
    state: Arc<State>,
) {
    let (mut chunk, mut silent) = (vec![0; 64 << 10], state.swallow.subscribe());
    let mut to = Some(to);
    loop {
        let read = tokio::select! {
            read = from.read(&mut chunk) => read,
            Ok(_) = way.wait_for(|way| *way == Way::Cut), if to.is_some() => {
                to = None;
                continue;
            }
        };
        let Ok(read @ 1..) = read else { return };
        let said = &chunk[..read];
        if is_answered(said) {
            *asked.lock().unwrap() = None;
            if *way.borrow() == Way::Muted {
                state.hits.send_modify(|hits| *hits += 1);
            }
        }
        if *way.borrow() != Way::Open {
            continue;
        }
        let pause = *state.delay.lock().unwrap();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        drop(silent.wait_for(|all| !*all).await);
        if let Some(to) = &mut to
            && to.write_all(said).await.is_err()
        {
            return;
        }
    }
}

async fn pass_on(client: UnixStream, server: UnixStream, state: Arc<State>) -> std::io::Result<()> {
    let (client_read, client_write) = client.into_split();
    let (server_read, mut server_write) = server.into_split();
    let (way, asked) = (watch::Sender::new(Way::Open), Arc::new(Mutex::new(None)));
    let answers = tokio::spawn(answers(
        server_read,
        client_write,
        way.subscribe(),
        Arc::clone(&asked),
        Arc::clone(&state),
    ));
    let mut cuts = state.cut.subscribe();
    let cut = async {
        loop {
            let Ok(()) = cuts.changed().await else { return std::future::pending().await };
            let (whom, asked) = (cuts.borrow_and_update(), asked.lock().unwrap());
            if whom.as_deref().zip(asked.as_deref()).is_some_and(|(whom, asked)| asked.contains(whom)) {
                return;
            }
        }
    };
    let requests = requests(client_read, &mut server_write, &way, &asked, &state);
    tokio::select! {
        ended = requests => {
            answers.abort();
            ended
        }
        () = cut => {
            way.send_replace(Way::Cut);
            // The server's side stays, and is heard, for as long as the server likes.
            let _ = answers.await;
            Ok(())
        }
    }
}

/// Passes on what the client says, until it is gone or held.
async fn requests(
    client: OwnedReadHalf,
    server: &mut OwnedWriteHalf,
    way: &watch::Sender<Way>,
    asked: &Mutex<Option<String>>,
    state: &State,
) -> std::io::Result<()> {
    let mut silent = state.swallow.subscribe();
    let (mut requests, mut in_transaction, mut armed) = (Requests::new(client), false, false);
    loop {
        let message = requests.next().await?;
        if let Some(statement) = &message.statement {
            let committing = statement == "COMMIT";
            let sprung = {
                let mut trap = state.trap.lock().unwrap();
                let matches = trap.as_ref().is_some_and(|(wanted, _)| statement.contains(wanted.as_str()));
                let sprung = matches && !in_transaction || armed && committing;
                armed |= matches;
                if sprung { trap.take() } else { None }
            };
            in_transaction = statement.starts_with("BEGIN")
                || in_transaction && !committing && !statement.starts_with("ROLLBACK");
            match sprung {
                Some((_, Moment::Before)) => {
                    state.hits.send_modify(|hits| *hits += 1);
                    requests.until_gone().await;
                    return Ok(());
                }
                Some((_, Moment::After)) => drop(way.send_replace(Way::Muted)),
                None => {}
            }
            *asked.lock().unwrap() = Some(statement.clone());
        }
        let pause = *state.delay.lock().unwrap();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        drop(silent.wait_for(|all| !*all).await);
        message.pass_on(server).await?;
    }
}
