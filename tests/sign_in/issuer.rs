//! An OpenID provider and a GitHub that say whatever a test has them say.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The PKCE challenge of a verifier (RFC 7636, section 4.2).
pub fn challenge_of(verifier: &str) -> String {
    b64(Sha256::digest(verifier))
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Signed {
    Rightly,
    Not,
    ByTheSecret,
    ByThePublicKey,
    ByAnother,
    ByAKeyThatIsNotListed,
}

struct Parts {
    key: SigningKey,
    /// Its id.
    kid: String,
    /// How often the keys were asked for.
    keys_asked: usize,
    /// What the token endpoint answers with.
    token: String,
    /// Its refusal, where it refuses.
    refusal: Option<String>,
    /// What it was asked with.
    asked: Vec<HashMap<String, String>>,
}

/// An issuer of OpenID Connect.
#[derive(Clone)]
pub struct Issuer {
    pub address: String,
    parts: Arc<Mutex<Parts>>,
}

pub const SECRET: &str = "the-client-s-secret";

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

impl Issuer {
    pub async fn start() -> Self {
        Self::that(false).await
    }

    /// One that announces that its answers say whose they are.
    pub async fn announcing() -> Self {
        Self::that(true).await
    }

    async fn that(announces: bool) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let parts = Arc::new(Mutex::new(Parts {
            key,
            kid: "k".into(),
            keys_asked: 0,
            token: String::new(),
            refusal: None,
            asked: Vec::new(),
        }));
        let keys = Arc::clone(&parts);
        let tokens = Arc::clone(&parts);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut said = json!({
            "issuer": address, "authorization_endpoint": format!("{address}/auth"),
            "token_endpoint": format!("{address}/token"), "jwks_uri": format!("{address}/jwks"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            // It offers what must not be taken.
            "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none"],
        });
        if announces {
            said["authorization_response_iss_parameter_supported"] = true.into();
        }
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(said) }))
            .route(
                "/jwks",
                get(move || async move {
                    let mut parts = keys.lock().unwrap();
                    parts.keys_asked += 1;
                    let public = parts.key.verifying_key();
                    Json(json!({ "keys": [{
                        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": parts.kid,
                        "x": b64(public.as_bytes()),
                    }] }))
                }),
            )
            .route(
                "/token",
                post(move |Form(asked): Form<HashMap<String, String>>| async move {
                    let mut parts = tokens.lock().unwrap();
                    parts.asked.push(asked);
                    if let Some(error) = &parts.refusal {
                        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
                    }
                    let token =
                        json!({ "access_token": "a", "token_type": "Bearer", "id_token": parts.token });
                    (StatusCode::OK, Json(token))
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, parts }
    }

    /// The claims of a token that holds.
    pub fn claims(&self, subject: &str, nonce: &str) -> Value {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        json!({
            "iss": self.address, "sub": subject, "aud": "statusledger", "iat": now, "exp": now + 60, "nonce": nonce,
            "email": format!("{subject}@example.com"), "email_verified": true, "name": subject,
        })
    }

    /// Has the token endpoint answer with these claims.
    pub fn say(&self, claims: &Value, signed: Signed) {
        let mut parts = self.parts.lock().unwrap();
        let algorithm = match signed {
            Signed::Rightly | Signed::ByAnother | Signed::ByAKeyThatIsNotListed => "EdDSA",
            Signed::Not => "none",
            Signed::ByTheSecret | Signed::ByThePublicKey => "HS256",
        };
        let kid = if signed == Signed::ByAKeyThatIsNotListed { "nobody's" } else { &parts.kid };
        let header = json!({ "alg": algorithm, "kid": kid, "typ": "JWT" });
        let text = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let by = |key: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            mac.update(text.as_bytes());
            b64(mac.finalize().into_bytes())
        };
        let signature = match signed {
            Signed::Rightly => b64(parts.key.sign(text.as_bytes()).to_bytes()),
            Signed::ByAnother | Signed::ByAKeyThatIsNotListed => {
                b64(SigningKey::from_bytes(&[8; 32]).sign(text.as_bytes()).to_bytes())
            }
            Signed::Not => String::new(),
            Signed::ByTheSecret => by(SECRET.as_bytes()),
            Signed::ByThePublicKey => by(parts.key.verifying_key().as_bytes()),
        };
        parts.token = format!("{text}.{signature}");
    }

    /// Has the token endpoint refuse with that error.
    pub fn refuse(&self, error: &str) {
        self.parts.lock().unwrap().refusal = Some(error.to_owned());
    }

    /// Changes its key to another one under this id.
    pub fn rotate(&self, kid: &str) {
        let mut parts = self.parts.lock().unwrap();
        parts.key = SigningKey::from_bytes(&Sha256::digest(parts.key.to_bytes()).into());
        parts.kid = kid.to_owned();
    }

    /// How often its keys were asked for.
    pub fn keys_asked(&self) -> usize {
        self.parts.lock().unwrap().keys_asked
    }

    /// What the token endpoint was asked with last.
    pub fn asked(&self) -> HashMap<String, String> {
        self.parts.lock().unwrap().asked.last().unwrap().clone()
    }

    pub fn times_asked(&self) -> usize {
        self.parts.lock().unwrap().asked.len()
    }
}

/// A GitHub, as its documents have it: the code is whom it signs in, and PKCE is checked.
pub struct Github {
    pub address: String,
    challenge: Arc<Mutex<String>>,
}

impl Github {
    pub async fn start() -> Self {
        let challenge = Arc::new(Mutex::new(String::new()));
        let router = Router::new()
            .route("/login/oauth/access_token", post(github_token))
            .route("/user", get(github_user))
            .route("/user/emails", get(github_emails))
            .with_state(Arc::clone(&challenge));
        Self { address: serve(router).await, challenge }
    }

    /// As whoever visits the authorization page does.
    pub fn authorized(&self, challenge: String) {
        *self.challenge.lock().unwrap() = challenge;
    }
}

async fn github_token(
    State(challenge): State<Arc<Mutex<String>>>,
    Form(asked): Form<HashMap<String, String>>,
) -> Json<Value> {
    let verified = challenge_of(&asked["code_verifier"]) == *challenge.lock().unwrap();
    // GitHub says 200 either way.
    Json(if verified && asked["client_secret"] == SECRET {
        json!({ "access_token": format!("gho_{}", asked["code"]), "token_type": "bearer", "scope": "" })
    } else {
        json!({ "error": "bad_verification_code" })
    })
}

fn whom(headers: &HeaderMap) -> Option<u64> {
    assert!(headers.contains_key("user-agent"), "GitHub refuses who has no name");
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer gho_")?.parse().ok()
}

async fn github_user(headers: HeaderMap) -> Response {
    match whom(&headers) {
        Some(id) => {
            Json(json!({ "id": id, "login": "octocat", "name": null, "email": "public@example.com" }))
                .into_response()
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn github_emails(headers: HeaderMap) -> Response {
    match whom(&headers) {
        Some(id) => Json(json!([
            { "email": "old@example.com", "primary": false, "verified": true, "visibility": null },
            { "email": format!("{id}@example.com"), "primary": true, "verified": id % 2 == 0, "visibility": "private" },
        ]))
        .into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}
