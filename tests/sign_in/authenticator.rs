//! An authenticator (WebAuthn Level 3): makes one discoverable credential, and answers challenges with it, as a browser
//! at a page of ours has it do. It verifies its user whenever it is asked.

use super::browser::Browser;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// User present, user verified.
const PRESENT: u8 = 0x05;
/// A credential's data follow.
const ATTESTED: u8 = 0x40;

/// One with one credential.
pub struct Authenticator {
    key: KeyPair,
    credential: [u8; 16],
    user: Value,
    counter: u32,
}

impl Authenticator {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let credential = *uuid::Uuid::new_v4().as_bytes();
        Self { key, credential, user: Value::Null, counter: 0 }
    }

    /// What the browser signs with it: for which challenge, of which page.
    fn client(kind: &str, options: &Value, browser: &Browser) -> Vec<u8> {
        let origin = browser.url("/").origin().ascii_serialization();
        let challenge = &options["publicKey"]["challenge"];
        let said = json!({ "type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false });
        said.to_string().into_bytes()
    }

    fn data(&mut self, relying_party: &str, flags: u8) -> Vec<u8> {
        self.counter += 1;
        let mut data = Sha256::digest(relying_party).to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        data
    }

    /// `navigator.credentials.create`.
    pub fn create(&mut self, options: &Value, browser: &Browser) -> Value {
        self.user = options["publicKey"]["user"]["id"].clone();
        let client = Self::client("webauthn.create", options, browser);
        let mut data = self.data(options["publicKey"]["rp"]["id"].as_str().unwrap(), PRESENT | ATTESTED);
        data.extend([0; 16]); // of no known make
        data.extend([0, 16]);
        data.extend(self.credential);
        // The key as CBOR (RFC 9053, section 7.1.1): ES256 on P-256.
        let point = self.key.public_key_raw();
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..65]);
        // {"fmt": "none", "attStmt": {}, "authData": data}
        let mut attestation = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58".to_vec();
        attestation.push(u8::try_from(data.len()).unwrap());
        attestation.extend(&data);
        json!({
            "id": b64(self.credential), "rawId": b64(self.credential), "type": "public-key", "extensions": {},
            "response": { "attestationObject": b64(attestation), "clientDataJSON": b64(client), "transports": [] },
        })
    }

    /// `navigator.credentials.get`.
    pub fn get(&mut self, options: &Value, browser: &Browser) -> Value {
        let client = Self::client("webauthn.get", options, browser);
        let data = self.data(options["publicKey"]["rpId"].as_str().unwrap(), PRESENT);
        let mut signed = data.clone();
        signed.extend(Sha256::digest(&client));
        let signature = self.key.sign(&signed).unwrap();
        json!({
            "id": b64(self.credential), "rawId": b64(self.credential), "type": "public-key", "extensions": {},
            "response": {
                "authenticatorData": b64(data), "clientDataJSON": b64(client), "signature": b64(signature),
                "userHandle": self.user,
            },
        })
    }

    /// Adds a passkey to whoever is signed in, and says its id.
    pub async fn add(&mut self, browser: &mut Browser) -> String {
        let begun = browser.json("POST", "/v1/passkeys/challenge", &json!({})).await.expect(200).json();
        let credential = self.create(&begun["options"], browser);
        let new = json!({ "state": begun["state"], "name": "A key", "credential": credential });
        let added = browser.json("POST", "/v1/passkeys", &new).await.expect(201).json();
        added["id"].as_str().unwrap().to_owned()
    }

    /// Tries to sign in.
    pub async fn sign_in(
        &mut self,
        browser: &mut Browser,
        invitation: Option<&str>,
    ) -> crate::harness::Answer {
        let begun = browser.json("POST", "/sign-in/passkey/challenge", &json!({})).await.expect(200).json();
        let credential = self.get(&begun["options"], browser);
        let mut answer = json!({ "state": begun["state"], "credential": credential });
        if let Some(invitation) = invitation {
            answer["invitation"] = invitation.into();
        }
        browser.json("POST", "/sign-in/passkey", &answer).await
    }
}
