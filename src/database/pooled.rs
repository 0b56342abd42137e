//! Through a pooler that gives a server connection away with every transaction (PgBouncer in transaction mode).
//!
//! Nothing that a session keeps may be relied on then. Settings and advisory locks here end with their transaction
//! anyway; what is left are prepared statements. sqlx names them, and even one without a name is parsed in one
//! transaction and bound in the next, which may be another server connection's, with somebody else's statement in that
//! place. So between sqlx and the pooler stands this relay: it speaks to the pooler without names, and parses a statement
//! anew in front of each bind, in the same round trip. (PgBouncer does the same from 1.21 on.) It reads lengths and
//! names, and passes everything else on as it is, passwords included.
//!
//! The relay listens on a socket in a directory of its own, of mode 0700, and speaks plain: a pooler is a process beside
//! the node, or behind a tunnel. What sqlx gains by named statements (planning once) is lost; nothing waits longer.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// The longest message that is passed on: beyond what Postgres takes itself.
const LONGEST: usize = 1 << 30;
/// Server connections of one pooler's address are told apart by this in the socket's name.
const PORT: u16 = 5432;

/// A relay; it ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    directory: tempfile::TempDir,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    /// Starts a relay to where `options` lead.
    ///
    /// # Errors
    /// If its socket cannot be made, or the address asks for TLS.
    pub fn start(options: &PgConnectOptions) -> io::Result<Self> {
        if !matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Prefer | PgSslMode::Allow) {
            return Err(io::Error::other(
                "a pooler is reached without TLS: run it beside the node, and say sslmode=disable",
            ));
        }
        let directory = tempfile::Builder::new().prefix("statusledger-").tempdir()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700))?;
        let listener = UnixListener::bind(directory.path().join(format!(".s.PGSQL.{PORT}")))?;
        let to = Pooler {
            socket: options.get_socket().cloned(),
            host: options.get_host().to_owned(),
            port: options.get_port(),
        };
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = to.clone();
                tokio::spawn(async move {
                    if let Err(e) = relay(client, &to).await {
                        tracing::debug!(error = %e, "a connection through the pooler ended");
                    }
                });
            }
        });
        Ok(Self { directory, accepting })
    }

    /// The same login, by way of the relay.
    #[must_use]
    pub fn options(&self, options: PgConnectOptions) -> PgConnectOptions {
        // PgBouncer refuses a startup parameter that it does not know.
        options.socket(self.directory.path()).port(PORT).ssl_mode(PgSslMode::Disable).extra_float_digits(None)
    }
}

/// Where the pooler is.
#[derive(Clone, Debug)]
struct Pooler {
    socket: Option<PathBuf>,
    host: String,
    port: u16,
}

async fn relay(client: UnixStream, to: &Pooler) -> io::Result<()> {
    // As sqlx reads it: a host that is a path is a socket's directory.
    let directory = to.socket.clone().or_else(|| to.host.starts_with('/').then(|| to.host.clone().into()));
    match directory {
        Some(directory) => {
            let server = UnixStream::connect(directory.join(format!(".s.PGSQL.{}", to.port))).await?;
            both_ways(client.into_split(), server.into_split()).await
        }
        None => {
            let server = TcpStream::connect((to.host.as_str(), to.port)).await?;
            server.set_nodelay(true)?;
            both_ways(client.into_split(), server.into_split()).await
        }
    }
}

/// What the server is still to answer, by the client's syncs: of each statement that it was asked to parse, whether the
/// client asked for that. Locked for look-ups only.
type Asked = Arc<Mutex<VecDeque<VecDeque<bool>>>>;

async fn both_ways(
    (client_read, client_write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    (server_read, server_write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let asked: Asked = Arc::new(Mutex::new(VecDeque::from([VecDeque::new()])));
    tokio::select! {
        ended = requests(BufReader::new(client_read), BufWriter::new(server_write), &asked) => ended,
        ended = answers(BufReader::new(server_read), BufWriter::new(client_write), &asked) => ended,
    }
}

/// A message: its type, and what follows the length.
type Message = (u8, Vec<u8>);

async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let kind = from.read_u8().await?;
    Ok((kind, body(from).await?))
}

async fn body(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    let length = length.checked_sub(4).filter(|length| *length <= LONGEST);
    let mut body = vec![0; length.ok_or_else(|| io::Error::other("a message without a length"))?];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn write(to: &mut (impl AsyncWrite + Unpin), (kind, body): (u8, &[u8])) -> io::Result<()> {
    to.write_u8(kind).await?;
    to.write_u32(u32::try_from(body.len() + 4).map_err(io::Error::other)?).await?;
    to.write_all(body).await
}

/// A text up to its zero, and what follows.
fn text(bytes: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == 0).ok_or_else(|| io::Error::other("a text without an end"))?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// Passes on what the client says, statements without their names.
async fn requests<R: AsyncRead + Unpin>(
    mut from: BufReader<R>,
    mut to: impl AsyncWrite + Unpin,
    asked: &Asked,
) -> io::Result<()> {
    // The first message has no type.
    let startup = body(&mut from).await?;
    to.write_u32(u32::try_from(startup.len() + 4).map_err(io::Error::other)?).await?;
    to.write_all(&startup).await?;
    to.flush().await?;
    // What each statement is: all of its parse message behind the name.
    let mut statements: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    // Which of them the server has parsed since the last sync.
    let mut parsed: Option<Vec<u8>> = None;
    loop {
        let (kind, body) = match read(&mut from).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            message => message?,
        };
        match kind {
            b'P' => {
                let (name, rest) = text(&body)?;
                ask(asked, true);
                write(&mut to, (b'P', &unnamed(rest))).await?;
                statements.insert(name.to_owned(), rest.to_owned());
                parsed = Some(name.to_owned());
            }
            b'B' => {
                let (portal, rest) = text(&body)?;
                let (name, rest) = text(rest)?;
                let again = (parsed.as_deref() != Some(name)).then(|| statements.get(name)).flatten();
                parse_again(&mut to, asked, again).await?;
                parsed = Some(name.to_owned());
                let bound = [portal, b"\0\0", rest].concat();
                write(&mut to, (b'B', &bound)).await?;
            }
            b'D' if body.first() == Some(&b'S') => {
                let (name, _) = text(&body[1..])?;
                let again = (parsed.as_deref() != Some(name)).then(|| statements.get(name)).flatten();
                parse_again(&mut to, asked, again).await?;
                parsed = Some(name.to_owned());
                write(&mut to, (b'D', b"S\0")).await?;
            }
            b'C' if body.first() == Some(&b'S') => {
                let (name, _) = text(&body[1..])?;
                statements.remove(name);
                parsed = None;
                write(&mut to, (b'C', b"S\0")).await?;
            }
            b'S' | b'Q' => {
                parsed = None;
                asked.lock().unwrap_or_else(PoisonError::into_inner).push_back(VecDeque::new());
                write(&mut to, (kind, &body)).await?;
            }
            _ => write(&mut to, (kind, &body)).await?,
        }
        if from.buffer().is_empty() {
            to.flush().await?;
        }
    }
}

fn unnamed(rest: &[u8]) -> Vec<u8> {
    [b"\0", rest].concat()
}

fn ask(asked: &Asked, by_client: bool) {
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(newest) = asked.back_mut() {
        newest.push_back(by_client);
    }
}

async fn parse_again(
    to: &mut (impl AsyncWrite + Unpin),
    asked: &Asked,
    statement: Option<&Vec<u8>>,
) -> io::Result<()> {
    let Some(statement) = statement else { return Ok(()) };
    ask(asked, false);
    write(to, (b'P', &unnamed(statement))).await
}

/// Passes on what the server says, but for answers to what the client did not ask.
async fn answers<R: AsyncRead + Unpin>(
    mut from: BufReader<R>,
    mut to: impl AsyncWrite + Unpin,
    asked: &Asked,
) -> io::Result<()> {
    // The first time that the server is ready follows the login, and no sync.
    let mut logged_in = false;
    loop {
        let (kind, body) = match read(&mut from).await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            message => message?,
        };
        let pass_on = {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            match kind {
                b'1' => asked.front_mut().and_then(VecDeque::pop_front).unwrap_or(true),
                b'Z' if logged_in => {
                    // After an error the rest up to the sync is not answered.
                    asked.pop_front();
                    true
                }
                b'Z' => {
                    logged_in = true;
                    true
                }
                _ => true,
            }
        };
        if pass_on {
            write(&mut to, (kind, &body)).await?;
        }
        if from.buffer().is_empty() {
            to.flush().await?;
        }
    }
}
