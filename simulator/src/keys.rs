//! The stores' credentials: made new, or loaded from a directory. The private keys belong to nobody, but are
//! handled as what they stand for.

use std::path::Path;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::DecodingKey;
use zeroize::Zeroizing;

use crate::churn::uuid;
use crate::random::Random;

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library made no key.
    #[error("cannot make a key")]
    Generate,
    /// A key file is not what its name says.
    #[error("{0} holds no PKCS #8 private key of the kind that its name says")]
    Malformed(String),
    /// A key file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// An App Store Connect API key, as its owner gets it.
#[derive(Clone)]
pub struct AppStoreKey {
    /// Ten characters, the `kid` of its tokens.
    pub key_id: String,
    /// The team's issuer id, the `iss` of a team key's tokens.
    pub issuer_id: String,
    /// The contents of the `.p8` file: PKCS #8 in PEM.
    pub private_key_pem: Zeroizing<String>,
    pub(crate) public_key: DecodingKey,
}

/// A Google service account, without the address of the token endpoint that its file names.
#[derive(Clone)]
pub(crate) struct ServiceAccount {
    pub(crate) email: String,
    pub(crate) key_id: String,
    pub(crate) project: String,
    pub(crate) private_key_pem: Zeroizing<String>,
    pub(crate) public_key: DecodingKey,
}

impl AppStoreKey {
    /// The key of a team: ids from the seed, private key from the directory or new.
    pub(crate) fn provide(seed: u64, team: &str, directory: Option<&Path>) -> Result<Self, KeyError> {
        let mut random = Random::new(seed, &format!("app store key of {team}"));
        let key_id = random.text(b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789", 10);
        let issuer_id = uuid(&mut random);
        let pem = provide(directory, &format!("AuthKey_{key_id}.p8"), || {
            let document =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                    .map_err(|_| KeyError::Generate)?;
            Ok(pem(document.as_ref()))
        })?;
        let der = der(&pem).ok_or_else(|| KeyError::Malformed(key_id.clone()))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| KeyError::Malformed(key_id.clone()))?;
        let public_key = DecodingKey::from_ec_der(pair.public_key().as_ref());
        Ok(Self { key_id, issuer_id, private_key_pem: pem, public_key })
    }
}

impl ServiceAccount {
    /// The service account of a developer account: ids from the seed, private key from the directory or new.
    pub(crate) fn provide(seed: u64, account: &str, directory: Option<&Path>) -> Result<Self, KeyError> {
        let mut random = Random::new(seed, &format!("service account of {account}"));
        let project: String = account
            .chars()
            .map(
                |character| {
                    if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' }
                },
            )
            .collect();
        let key_id = random.text(b"0123456789abcdef", 40);
        let pem = provide(directory, &format!("service-account-{project}.pem"), || {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
            let document = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'static>>::as_der(&pair)
                .map_err(|_| KeyError::Generate)?;
            Ok(pem(document.as_ref()))
        })?;
        let der = der(&pem).ok_or_else(|| KeyError::Malformed(project.clone()))?;
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|_| KeyError::Malformed(project.clone()))?;
        let public_key = DecodingKey::from_rsa_der(pair.public_key().as_ref());
        let email = format!("release-watch@{project}.iam.gserviceaccount.com");
        Ok(Self { email, key_id, project, private_key_pem: pem, public_key })
    }

    /// The JSON file that Google gives out, with this address as `token_uri`.
    pub(crate) fn json(&self, token_uri: &str) -> Zeroizing<String> {
        Zeroizing::new(
            serde_json::json!({
                "type": "service_account",
                "project_id": self.project,
                "private_key_id": self.key_id,
                "private_key": self.private_key_pem.as_str(),
                "client_email": self.email,
                "client_id": "100000000000000000000",
                "token_uri": token_uri,
                "universe_domain": "googleapis.com",
            })
            .to_string(),
        )
    }
}

/// The PEM of a file of that name, which is made where it is not there yet.
fn provide(
    directory: Option<&Path>,
    name: &str,
    make: impl FnOnce() -> Result<Zeroizing<String>, KeyError>,
) -> Result<Zeroizing<String>, KeyError> {
    let Some(directory) = directory else { return make() };
    let path = directory.join(name);
    let failed = |source| KeyError::File { path: path.display().to_string(), source };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write_private(&path, &text).map_err(failed)?;
            Ok(text)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a new file that only its owner can read.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn pem(der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 64));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END PRIVATE KEY-----\n");
    text
}

fn der(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body: Zeroizing<String> =
        Zeroizing::new(pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect());
    STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}
