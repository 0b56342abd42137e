//! Webhooks against real receivers: honest ones, that check with another implementation of the standard, and
//! ones that misbehave in every way a socket allows.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use statusledger::delivery::channels::webhook::{
    ANSWER_KEPT, Attempt, CustomHeaders, Message, Outcome, Sender, Settings, WebhookSecret,
};
use statusledger::delivery::guard::{Guarded, Policy, Refusal, check_destination};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use url::Url;

const BODY: &str = r#"{"type":"test","data":{"é":1}}"#;
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Loopback, without TLS: what an operator allows who runs everything on one machine.
fn loopback() -> Policy {
    Policy {
        allow_http: true,
        allowed_networks: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
    }
}

fn sender() -> Sender {
    Sender::new(loopback(), &Settings::default()).unwrap()
}

fn impatient(deadline: Duration) -> Sender {
    Sender::new(loopback(), &Settings { deadline, ..Settings::default() }).unwrap()
}

fn secret() -> WebhookSecret {
    WebhookSecret::generate().unwrap()
}

fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().try_into().unwrap()
}

async fn send(sender: &Sender, url: &Url, secrets: &[WebhookSecret]) -> Attempt {
    let headers = CustomHeaders::default();
    sender
        .send(Message { url, id: ID, timestamp: now(), secrets, headers: &headers, body: BODY.into() })
        .await
}

/// Reads one request; answers its head and body. None when the peer has closed the connection.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            let length: usize = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned))
                .map_or(0, |length| length.trim().parse().unwrap());
            if read.len() >= end + 4 + length {
                return Some((head, read[end + 4..end + 4 + length].to_vec()));
            }
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(size) if size > 0 => read.extend_from_slice(&part[..size]),
            _ => return None,
        }
    }
}

/// A receiver that answers every request with `answer`, and reports the requests and counts connections.
struct Receiver {
    url: Url,
    requests: mpsc::UnboundedReceiver<(String, Vec<u8>)>,
    connections: Arc<AtomicUsize>,
}

async fn receiver(answer: impl Into<Vec<u8>>) -> Receiver {
    let answer: Arc<Vec<u8>> = Arc::new(answer.into());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap()).parse().unwrap();
    let (report, requests) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (answer, report) = (answer.clone(), report.clone());
            tokio::spawn(async move {
                while let Some(request) = request(&mut stream).await {
                    report.send(request).ok();
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Receiver { url, requests, connections }
}

/// A receiver that treats its first connection as `treat` says.
async fn hostile<F, T>(treat: F) -> (Url, oneshot::Receiver<T::Output>)
where
    F: FnOnce(TcpStream) -> T + Send + 'static,
    T: Future<Output: Send + 'static> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap()).parse().unwrap();
    let (report, result) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        report.send(treat(stream).await).ok();
    });
    (url, result)
}

fn status(line: &str, more: &str) -> String {
    format!("HTTP/1.1 {line}\r\n{more}content-length: 0\r\n\r\n")
}

fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

/// Checks with the standard's own library.
fn verify(secret: &WebhookSecret, head: &str, body: &[u8]) -> Result<(), standardwebhooks::WebhookError> {
    let mut headers = axum::http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        for value in header(head, name) {
            headers.insert(name, value.parse().unwrap());
        }
    }
    standardwebhooks::Webhook::new(&secret.expose()).unwrap().verify(body, &headers)
}

#[tokio::test]
async fn a_receiver_that_checks_the_standards_signature_accepts() {
    let mut receiver = receiver("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthank").await;
    let secret = secret();
    let attempt = send(&sender(), &receiver.url, std::slice::from_ref(&secret)).await;
    assert_eq!(attempt.outcome, Outcome::Delivered, "{attempt:?}");
    assert_eq!((attempt.status, attempt.answer.as_str()), (Some(200), "thank"));
    assert_eq!((attempt.error, attempt.detail), (None, None));
    let (head, body) = receiver.requests.recv().await.unwrap();
    assert_eq!(body, BODY.as_bytes());
    verify(&secret, &head, &body).unwrap();
    assert!(verify(&self::secret(), &head, &body).is_err());
    assert!(verify(&secret, &head, BODY.replace('1', "2").as_bytes()).is_err());
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"));
    assert_eq!(header(&head, "content-type"), ["application/json"]);
    assert_eq!(header(&head, "webhook-id"), [ID]);
    assert!(header(&head, "user-agent")[0].starts_with("statusledger/"));
    assert!(header(&head, "accept-encoding").is_empty(), "{head}");
}

#[tokio::test]
async fn during_a_rotation_receivers_with_either_secret_accept() {
    let mut receiver = receiver(status("204 No Content", "")).await;
    let secrets = [secret(), secret()];
    assert_eq!(send(&sender(), &receiver.url, &secrets).await.outcome, Outcome::Delivered);
    let (head, body) = receiver.requests.recv().await.unwrap();
    assert_eq!(header(&head, "webhook-signature")[0].split(' ').count(), 2);
    for secret in &secrets {
        verify(secret, &head, &body).unwrap();
    }
}

#[tokio::test]
async fn a_destinations_headers_arrive_once() {
    let mut receiver = receiver(status("200 OK", "")).await;
    let headers = CustomHeaders::new([("Authorization", "Bearer t"), ("X-Team", "ios")]).unwrap();
    let secrets = [secret()];
    let message = Message {
        url: &receiver.url,
        id: ID,
        timestamp: now(),
        secrets: &secrets,
        headers: &headers,
        body: BODY.into(),
    };
    assert_eq!(sender().send(message).await.outcome, Outcome::Delivered);
    let (head, _) = receiver.requests.recv().await.unwrap();
    assert_eq!(header(&head, "authorization"), ["Bearer t"]);
    assert_eq!(header(&head, "x-team"), ["ios"]);
    assert_eq!(header(&head, "content-type").len(), 1);
}

#[tokio::test]
async fn each_status_has_its_outcome() {
    let wait = |seconds| Outcome::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
    let unsaid = Outcome::Throttled { retry_after: None };
    for (line, more, outcome) in [
        ("200 OK", "", Outcome::Delivered),
        ("202 Accepted", "retry-after: 9\r\n", Outcome::Delivered),
        ("299 Whatever", "", Outcome::Delivered),
        ("300 Multiple Choices", "", Outcome::Failed),
        ("304 Not Modified", "", Outcome::Failed),
        ("400 Bad Request", "", Outcome::Failed),
        ("401 Unauthorized", "retry-after: 9\r\n", Outcome::Failed),
        ("404 Not Found", "", Outcome::Failed),
        ("410 Gone", "", Outcome::Disabled),
        ("429 Too Many Requests", "retry-after: 7\r\n", wait(7)),
        ("429 Too Many Requests", "", unsaid),
        ("500 Internal Server Error", "retry-after: 9\r\n", Outcome::Failed),
        ("502 Bad Gateway", "retry-after: soon\r\n", unsaid),
        ("503 Service Unavailable", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n", wait(0)),
        ("504 Gateway Timeout", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", wait(86400)),
    ] {
        let receiver = receiver(status(line, more)).await;
        let attempt = send(&sender(), &receiver.url, &[secret()]).await;
        assert_eq!(attempt.outcome, outcome, "{line} {more}");
        assert_eq!(attempt.status, Some(line[..3].parse().unwrap()));
        assert_eq!(attempt.error, None);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = receiver(status("200 OK", "")).await;
    for line in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let receiver = receiver(status(line, &format!("location: {}\r\n", elsewhere.url))).await;
        let attempt = send(&sender(), &receiver.url, &[secret()]).await;
        assert_eq!(attempt.outcome, Outcome::Failed, "{line}");
    }
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_of_two_gibibytes_is_not_read() {
    const SIZE: u64 = 2 << 30;
    for head in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"),
        // One chunk of that size.
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{SIZE:x}\r\n"),
    ] {
        let (url, sent) = hostile(async move |mut stream| {
            stream.write_all(head.as_bytes()).await.unwrap();
            let part = vec![b'x'; 64 << 10];
            let mut sent = 0;
            while sent < SIZE && stream.write_all(&part).await.is_ok() {
                sent += part.len() as u64;
            }
            sent
        })
        .await;
        let attempt = send(&sender(), &url, &[secret()]).await;
        assert_eq!(attempt.outcome, Outcome::Delivered);
        assert_eq!(attempt.answer, "x".repeat(ANSWER_KEPT));
        // What it wrote went no further than the two sockets' buffers.
        let sent = sent.await.unwrap();
        assert!(sent < SIZE / 32, "the receiver could send {sent} bytes");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_kept_as_it_came() {
    let receiver =
        receiver(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnogz".to_vec())
            .await;
    let attempt = send(&sender(), &receiver.url, &[secret()]).await;
    assert_eq!((attempt.outcome, attempt.answer.as_str(), attempt.error), (Outcome::Delivered, "nogz", None));
}

/// Writes `head`, then a byte each 20 ms for as long as somebody listens.
async fn drip(mut stream: TcpStream, head: &'static str) {
    stream.set_nodelay(true).unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while stream.write_all(b"x").await.is_ok() {
        tick.tick().await;
    }
}

#[tokio::test]
async fn the_deadline_covers_headers_and_body() {
    let deadline = Duration::from_millis(400);
    for (head, status, outcome) in [
        // Never a whole head.
        ("HTTP/1.1 200 OK\r\nx-drip: ", None, Outcome::Failed),
        // Acknowledged by its status; a retry would only repeat it.
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", Some(200), Outcome::Delivered),
        ("HTTP/1.1 500 No\r\ncontent-length: 1000000\r\n\r\n", Some(500), Outcome::Failed),
    ] {
        let (url, gone) = hostile(move |stream| drip(stream, head)).await;
        let attempt = send(&impatient(deadline), &url, &[secret()]).await;
        assert_eq!((attempt.status, attempt.outcome), (status, outcome), "{head:?}");
        assert!(
            attempt.duration >= deadline && attempt.duration < Duration::from_secs(10),
            "{:?}",
            attempt.duration
        );
        assert_eq!(attempt.error, Some("the receiver did not answer in time"));
        assert_eq!(attempt.answer.is_empty(), status.is_none());
        // The connection is closed, not left to drip on.
        gone.await.unwrap();
    }
}

#[tokio::test]
async fn the_deadline_covers_a_receiver_that_says_nothing() {
    let (url, gone) = hostile(async |mut stream| stream.read(&mut [0; 1]).await.unwrap_or(0)).await;
    let attempt = send(&impatient(Duration::from_millis(200)), &url, &[secret()]).await;
    assert_eq!((attempt.status, attempt.outcome), (None, Outcome::Failed));
    assert_eq!(gone.await.unwrap(), 0);
}

#[tokio::test]
async fn the_deadline_covers_a_handshake_that_never_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let attempt = send(&impatient(Duration::from_millis(200)), &url, &[secret()]).await;
    assert_eq!((attempt.status, attempt.outcome), (None, Outcome::Failed));
    assert!(attempt.duration < Duration::from_secs(10));
}

#[tokio::test]
async fn a_broken_answer_fails_and_names_no_address() {
    for answer in ["", "HTTP/1.1 2", "not HTTP at all\r\n\r\n", "HTTP/1.1 99 Low\r\n\r\n"] {
        let (url, _) = hostile(async move |mut stream| stream.write_all(answer.as_bytes()).await).await;
        let attempt = send(&sender(), &url, &[secret()]).await;
        assert_eq!((attempt.status, attempt.outcome), (None, Outcome::Failed), "{answer:?}");
        let error = attempt.error.unwrap();
        assert!(!error.contains("127") && !error.contains(&url.port().unwrap().to_string()), "{error}");
        assert!(attempt.detail.is_some());
    }
    // The status came; the connection was lost within the body.
    let cut = "HTTP/1.1 503 Busy\r\nretry-after: 5\r\ncontent-length: 100\r\n\r\nhalf";
    let (url, _) = hostile(async move |mut stream| stream.write_all(cut.as_bytes()).await).await;
    let attempt = send(&sender(), &url, &[secret()]).await;
    assert_eq!(attempt.outcome, Outcome::Throttled { retry_after: Some(Duration::from_secs(5)) });
    assert_eq!((attempt.answer.as_str(), attempt.error), ("half", Some("the receiver's answer was cut off")));
}

#[tokio::test]
async fn nobody_there_is_a_failure_that_names_no_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let attempt = send(&sender(), &url, &[secret()]).await;
    assert_eq!((attempt.outcome, attempt.error), (Outcome::Failed, Some("no connection to the receiver")));
    assert!(attempt.detail.unwrap().contains("refused"));
}

#[tokio::test]
async fn a_private_address_is_refused_at_connect_however_it_is_written() {
    let receiver = receiver(status("200 OK", "")).await;
    let port = receiver.url.port().unwrap();
    let sender = Sender::new(Policy { allow_http: true, ..Policy::default() }, &Settings::default()).unwrap();
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "localhost"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        let attempt = send(&sender, &url, &[secret()]).await;
        assert_eq!(attempt.outcome, Outcome::Failed);
        assert_eq!(
            attempt.error,
            Some("the destination has no address that is allowed"),
            "{host} {attempt:?}"
        );
    }
    let sender = Sender::new(Policy { allow_http: false, ..loopback() }, &Settings::default()).unwrap();
    let attempt = send(&sender, &receiver.url, &[secret()]).await;
    assert_eq!(attempt.error, Some("the destination's URL is not allowed"));
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
}

/// Answers each question with the next of its answers, and the last one for good.
struct Fickle(Mutex<Vec<Vec<IpAddr>>>);

impl Fickle {
    fn new(answers: &[&[&str]]) -> Self {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Self(Mutex::new(answers.iter().rev().map(parse).collect()))
    }
}

impl Resolve for Fickle {
    fn resolve(&self, _: Name) -> Resolving {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() };
        Box::pin(async move { Ok(Box::new(answer.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs) })
    }
}

#[tokio::test]
async fn a_name_that_turns_to_loopback_after_registration_is_refused_at_connect() {
    let receiver = receiver(status("200 OK", "")).await;
    let url: Url = format!("http://hook.example:{}/", receiver.url.port().unwrap()).parse().unwrap();
    for second in [&["127.0.0.1"] as &[&str], &["::ffff:127.0.0.1"], &["::1", "10.0.0.1"], &[]] {
        let policy = Policy { allow_http: true, ..Policy::default() };
        let resolver = Guarded::new(policy, Fickle::new(&[&["93.184.216.34"], second]));
        check_destination(&url, &resolver).await.unwrap();
        let sender = Sender::with_resolver(resolver, &Settings::default()).unwrap();
        let attempt = send(&sender, &url, &[secret()]).await;
        assert_eq!(attempt.outcome, Outcome::Failed);
        assert_eq!(attempt.error, Some("the destination has no address that is allowed"), "{attempt:?}");
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn of_several_addresses_only_the_allowed_are_dialled() {
    let receiver = receiver(status("200 OK", "")).await;
    let url: Url = format!("http://hook.example:{}/", receiver.url.port().unwrap()).parse().unwrap();
    // The receiver's own is the only one allowed; the others would hang or be refused.
    let policy = Policy { allow_http: true, allowed_networks: vec!["127.0.0.1/32".parse().unwrap()] };
    let resolver = Guarded::new(policy, Fickle::new(&[&["10.255.255.1", "127.0.0.2", "127.0.0.1", "::1"]]));
    let sender = Sender::with_resolver(resolver, &Settings::default()).unwrap();
    assert_eq!(send(&sender, &url, &[secret()]).await.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn registration_resolves_the_name() {
    let check = async |policy: Policy, answer: &[&str]| {
        let url = "https://hook.example/".parse().unwrap();
        check_destination(&url, &Guarded::new(policy, Fickle::new(&[answer]))).await
    };
    assert_eq!(check(Policy::default(), &["93.184.216.34"]).await, Ok(()));
    assert_eq!(check(Policy::default(), &["10.0.0.1", "93.184.216.34"]).await, Ok(()));
    let private: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(check(Policy::default(), &["10.0.0.1"]).await, Err(Refusal::Resolved(vec![private])));
    assert!(matches!(check(Policy::default(), &[]).await, Err(Refusal::Unresolved(_))));
    let localhost = "https://localhost/".parse().unwrap();
    assert!(matches!(
        check_destination(&localhost, &Guarded::system(Policy::default())).await,
        Err(Refusal::Resolved(_))
    ));
    assert_eq!(check_destination(&localhost, &Guarded::system(loopback())).await, Ok(()));
}

/// A TLS receiver on loopback, and the certificate of the authority that it has its own from.
async fn tls_receiver() -> (Url, Vec<u8>) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let private = tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The handshake fails where the sender does not know the authority.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                while request(&mut stream).await.is_some() {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
            }
        }
    });
    (url, root.pem().into_bytes())
}

#[tokio::test]
async fn a_private_authority_is_trusted_only_where_the_operator_says_so() {
    let (url, root) = tls_receiver().await;
    let attempt = send(&sender(), &url, &[secret()]).await;
    assert_eq!(attempt.outcome, Outcome::Failed);
    assert_eq!(
        attempt.error,
        Some("the receiver's TLS certificate or handshake was not accepted"),
        "{attempt:?}"
    );
    let settings = Settings { extra_roots: vec![root], ..Settings::default() };
    let sender = Sender::new(loopback(), &settings).unwrap();
    assert_eq!(send(&sender, &url, &[secret()]).await.outcome, Outcome::Delivered);
    // The name still counts.
    let by_address = url.as_str().replace("localhost", "127.0.0.1").parse().unwrap();
    let attempt = send(&sender, &by_address, &[secret()]).await;
    assert_eq!(attempt.outcome, Outcome::Failed);
    assert_eq!(attempt.error, Some("the receiver's TLS certificate or handshake was not accepted"));
}

#[test]
fn an_extra_root_has_to_be_a_certificate() {
    for bad in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let settings = Settings { extra_roots: vec![bad.into()], ..Settings::default() };
        assert!(Sender::new(loopback(), &settings).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn one_connection_carries_attempt_after_attempt() {
    let mut receiver = receiver("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let (sender, secrets) = (sender(), [secret()]);
    for _ in 0..200 {
        assert_eq!(send(&sender, &receiver.url, &secrets).await.outcome, Outcome::Delivered);
        receiver.requests.recv().await.unwrap();
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_lost_between_attempts_costs_no_attempt() {
    // Closes after each answer without saying so.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let (closed, mut wait) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            // The sender's side has seen the end when it closes its own.
            assert!(request(&mut stream).await.is_none());
            closed.send(()).unwrap();
        }
    });
    let (sender, secrets) = (sender(), [secret()]);
    for _ in 0..10 {
        let attempt = send(&sender, &url, &secrets).await;
        assert_eq!(attempt.outcome, Outcome::Delivered, "{attempt:?}");
        wait.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_ignored() {
    let proxy = receiver(status("200 OK", "")).await;
    let program = std::env::current_exe().unwrap();
    // This test's own binary, as a process with another environment.
    let mut child = tokio::process::Command::new(program);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, proxy.url.as_str());
    }
    let output = child.arg("a_receiver_that_checks_the_standards_signature_accepts").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 0);
}
