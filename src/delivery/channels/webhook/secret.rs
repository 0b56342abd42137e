//! The secret of a webhook and the signature made with it (Standard Webhooks 1.0.0, symmetric).

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The sizes of a secret, in bytes.
const SECRET_SIZES: std::ops::RangeInclusive<usize> = 24..=64;

/// The size of a secret that we make, in bytes: HMAC-SHA256's own.
const SECRET_SIZE: usize = 32;

const SECRET_PREFIX: &str = "whsec_";

/// A secret shared with a receiver: 24 to 64 bytes, written `whsec_` and their base64. Erased from memory when
/// dropped; has no `Debug`.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

/// What is wrong with a secret; never the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ followed by the base64 of 24 to 64 bytes")]
pub struct BadSecret;

impl WebhookSecret {
    /// A new secret of 32 random bytes.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new(vec![0; SECRET_SIZE]);
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The text form, to show once and to store sealed.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text =
            Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + self.0.len().div_ceil(3) * 4));
        text.push_str(SECRET_PREFIX);
        STANDARD.encode_string(self.0.as_slice(), &mut text);
        text
    }

    /// The signature token `v1,BASE64` of one attempt: HMAC-SHA256 over `id.timestamp.body`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any size");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl FromStr for WebhookSecret {
    type Err = BadSecret;

    fn from_str(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(BadSecret)?;
        // Room for the largest, so that no unerased copy is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
        STANDARD.decode_vec(encoded, &mut bytes).map_err(|_| BadSecret)?;
        if SECRET_SIZES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(BadSecret) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_has_24_to_64_bytes_and_survives_its_text() {
        for size in [0, 23, 24, 32, 64, 65, 1000] {
            let text = format!("whsec_{}", STANDARD.encode(vec![7; size]));
            let parsed = text.parse::<WebhookSecret>();
            assert_eq!(parsed.is_ok(), SECRET_SIZES.contains(&size), "{size}");
            if let Ok(secret) = parsed {
                assert_eq!(secret.expose().as_str(), text);
            }
        }
        let (one, other) = (WebhookSecret::generate().unwrap(), WebhookSecret::generate().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert!(one.expose().parse::<WebhookSecret>().is_ok());
        for bad in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS*"]
        {
            assert!(bad.parse::<WebhookSecret>().is_err());
        }
    }
}
