//! Postgres's protocol (version 3) as far as a proxy has to understand it: what a client asks, a message at a time, and
//! which statement is executed by it.

use super::cluster::temporary;
use sqlx::postgres::PgConnectOptions;
use std::collections::HashMap;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A proxy before the server that these options lead to, and the directory of its socket: `pass_on` gets every client
/// with a connection to the server of its own. It ends with the test's runtime.
pub fn proxy<F: Future<Output = std::io::Result<()>> + Send + 'static>(
    options: &PgConnectOptions,
    pass_on: impl Fn(UnixStream, UnixStream) -> F + Send + 'static,
) -> PathBuf {
    let name = format!(".s.PGSQL.{}", options.get_port());
    let behind = options.get_socket().unwrap().join(&name);
    let directory = temporary("proxy");
    let listener = UnixListener::bind(directory.join(name)).unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // Where there is no server, the client finds its connection closed.
            if let Ok(server) = UnixStream::connect(&behind).await {
                tokio::spawn(pass_on(client, server));
            }
        }
    });
    directory
}

/// What a client sends.
pub struct Requests<R> {
    from: R,
    /// Text by name.
    prepared: HashMap<String, String>,
    /// The first message has no kind.
    typed: bool,
}

/// One message of it.
pub struct Message {
    kind: Option<u8>,
    body: Vec<u8>,
    /// The text of the statement that is executed with it: a simple query, or what was prepared, once it is bound.
    pub statement: Option<String>,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    pub fn new(from: R) -> Self {
        Self { from, prepared: HashMap::new(), typed: false }
    }

    pub async fn next(&mut self) -> std::io::Result<Message> {
        let kind = if self.typed { Some(self.from.read_u8().await?) } else { None };
        self.typed = true;
        let length = self.from.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        self.from.read_exact(&mut body).await?;
        let statement = match kind {
            Some(b'Q') => Some(text(&body).0),
            Some(b'P') => {
                let (name, rest) = text(&body);
                self.prepared.insert(name, text(rest).0);
                None
            }
            Some(b'B') => {
                let (_portal, rest) = text(&body);
                Some(self.prepared[&text(rest).0].clone())
            }
            _ => None,
        };
        Ok(Message { kind, body, statement })
    }

    /// Waits until the client is gone, whatever it still says.
    pub async fn until_gone(mut self) {
        let mut nothing = [0; 4096];
        while matches!(self.from.read(&mut nothing).await, Ok(1..)) {}
    }
}

impl Message {
    pub async fn pass_on(&self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        if let Some(kind) = self.kind {
            to.write_u8(kind).await?;
        }
        to.write_u32(self.body.len() as u32 + 4).await?;
        to.write_all(&self.body).await
    }
}

/// The text up to the next zero, and what comes after it.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|b| *b == 0).unwrap();
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 1..])
}
