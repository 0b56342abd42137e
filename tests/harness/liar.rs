//! A store that lies: what stands behind it answers, and a test has another say.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::sync::{Arc, Mutex};

/// An answer on its way.
#[derive(Clone, Debug)]
pub struct Said {
    /// The path that was asked, with its query.
    pub path: String,
    pub status: u16,
    /// What else is said beside the body; the headers of the store stay.
    pub headers: Vec<(&'static str, String)>,
    pub body: Value,
}

/// What becomes of a request.
pub enum Lie {
    /// This answer.
    Say(Said),
    /// None, ever.
    Hang,
}

type Tongue = Arc<dyn Fn(Said) -> Lie + Send + Sync>;

/// A lying store over a truthful one. It ends with the test's runtime.
#[derive(Clone)]
pub struct Liar {
    /// Its address.
    pub base: String,
    tongue: Arc<Mutex<Tongue>>,
    asked: Arc<Mutex<Vec<String>>>,
}

struct Behind {
    base: String,
    client: reqwest::Client,
    liar: Mutex<Option<Liar>>,
}

impl Liar {
    /// One in front of the store at `base`, truthful for now.
    pub async fn before(base: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let behind = Arc::new(Behind { base: base.to_owned(), client, liar: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let liar = Self {
            base: format!("http://{}", listener.local_addr().unwrap()),
            tongue: Arc::new(Mutex::new(Arc::new(Lie::Say))),
            asked: Arc::default(),
        };
        *behind.liar.lock().unwrap() = Some(liar.clone());
        let router = Router::new().fallback(answer).with_state(behind);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        liar
    }

    /// Has it say this from now on.
    pub fn says(&self, tongue: impl Fn(Said) -> Lie + Send + Sync + 'static) {
        *self.tongue.lock().unwrap() = Arc::new(tongue);
    }

    /// How often it was asked for what has this in its path.
    pub fn asked(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }
}

async fn answer(
    State(behind): State<Arc<Behind>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let liar = behind.liar.lock().unwrap().clone().unwrap();
    let path = uri.path_and_query().unwrap().to_string();
    liar.asked.lock().unwrap().push(path.clone());
    let mut request = behind.client.request(method, format!("{}{path}", behind.base)).body(body);
    for name in ["authorization", "content-type"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let truth = request.send().await.unwrap();
    let (status, mut headers) = (truth.status().as_u16(), truth.headers().clone());
    let body = truth.bytes().await.unwrap();
    let said =
        Said { path, status, headers: Vec::new(), body: serde_json::from_slice(&body).unwrap_or_default() };
    let tongue = Arc::clone(&liar.tongue.lock().unwrap());
    let Lie::Say(said) = tongue(said) else { return std::future::pending().await };
    for name in ["content-length", "transfer-encoding", "connection"] {
        headers.remove(name);
    }
    for (name, value) in said.headers {
        headers.insert(name, value.parse().unwrap());
    }
    (StatusCode::from_u16(said.status).unwrap(), headers, said.body.to_string()).into_response()
}
