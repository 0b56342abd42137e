//! Sends webhooks: in the order of their events, each once, over real HTTP, beside everything else.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use crate::simulator::Shared;
use crate::world::Outgoing;

/// The header that carries the signature.
const SIGNATURE_HEADER: &str = "x-apple-signature";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of an answer's body is kept, in bytes.
const KEPT_BODY: usize = 512;

/// Where what is to be sent is handed in.
pub(crate) struct Postman {
    letters: mpsc::UnboundedSender<Outgoing>,
    /// How many were handed in and are not answered yet.
    open: watch::Sender<usize>,
    client: reqwest::Client,
}

impl Postman {
    /// The postman, and what he carries to [`post`].
    pub(crate) fn new() -> Result<(Self, mpsc::UnboundedReceiver<Outgoing>), reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        let (letters, received) = mpsc::unbounded_channel();
        Ok((Self { letters, open: watch::Sender::new(0), client }, received))
    }

    /// Takes what is to be sent.
    pub(crate) fn take(&self, outgoing: Vec<Outgoing>) {
        for letter in outgoing {
            self.open.send_modify(|open| *open += 1);
            if self.letters.send(letter).is_err() {
                // The simulator stops: nobody is told any more.
                self.open.send_modify(|open| *open -= 1);
            }
        }
    }

    /// Waits until all that was handed in is answered.
    pub(crate) async fn settled(&self) {
        let mut open = self.open.subscribe();
        // The sender lives as long as this.
        let _ = open.wait_for(|open| *open == 0).await;
    }
}

/// Sends what is handed in, until the simulator stops.
pub(crate) async fn post(
    shared: Arc<Shared>,
    mut letters: mpsc::UnboundedReceiver<Outgoing>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let letter = tokio::select! {
            letter = letters.recv() => letter,
            _ = stopped.wait_for(|stop| *stop) => None,
        };
        let Some(letter) = letter else { return };
        let at = OffsetDateTime::now_utc();
        let outcome = send(&shared.postman.client, &letter).await.map_err(|error| error.to_string());
        shared.state().world.deliveries.sent(&letter.delivery, at, outcome);
        shared.postman.open.send_modify(|open| *open -= 1);
    }
}

async fn send(client: &reqwest::Client, letter: &Outgoing) -> Result<(u16, String), reqwest::Error> {
    let answer = client
        .post(&letter.url)
        .header("content-type", "application/json")
        .header(SIGNATURE_HEADER, &letter.signature)
        .body(letter.payload.to_string())
        .send()
        .await?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await?;
    Ok((status, String::from_utf8_lossy(&body[..body.len().min(KEPT_BODY)]).into_owned()))
}
