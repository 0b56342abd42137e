//! The instance's access secret: what keys and sessions are authenticated with, and people looked up by.
//!
//! 32 random bytes, made with the instance, sealed in the database under the instance's data key, and the same on every
//! node. From it a key each is derived (HMAC-SHA-256 with a label), so that none serves two purposes.

use crate::database::Database;
use crate::id::WorkspaceId;
use crate::sealing::{self, DataKeys};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use statusledger_keys::envelope::Cell;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Its row.
const NAME: &str = "access";

/// What a derived key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The scope of an API key.
    ApiKey,
    /// A session's cookie.
    Session,
    /// The token that shows that a page of ours sent a request.
    Csrf,
    /// Looking people up by address.
    Email,
    /// Looking people up by an identity provider's subject.
    Subject,
    /// Looking a passkey up by its credential's id.
    Credential,
    /// What binds a sign-in that has begun to its browser.
    SignIn,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::ApiKey => b"statusledger/v1/access/api-key",
            Self::Session => b"statusledger/v1/access/session",
            Self::Csrf => b"statusledger/v1/access/csrf",
            Self::Email => b"statusledger/v1/access/email",
            Self::Subject => b"statusledger/v1/access/subject",
            Self::Credential => b"statusledger/v1/access/credential",
            Self::SignIn => b"statusledger/v1/access/sign-in",
        }
    }
}

/// The secret. Shared by all tasks; wiped when the last lets go.
#[derive(Clone)]
pub struct AccessSecret(Arc<Zeroizing<[u8; 32]>>);

impl std::fmt::Debug for AccessSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessSecret(..)")
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether the hash that is kept is that of what was shown, found in the same time either way.
#[must_use]
pub fn is_same(kept: &[u8], shown: &[u8; 32]) -> bool {
    kept.ct_eq(shown).into()
}

impl AccessSecret {
    /// Reads the secret, making it where there is none. Nodes that start at once agree on one.
    ///
    /// # Errors
    /// If the database does not answer, or it does not open.
    pub async fn load(
        database: &Database,
        data_keys: &DataKeys,
        instance: WorkspaceId,
    ) -> Result<Self, sealing::Error> {
        let data_key = data_keys.get(instance).await?;
        let cell = Cell { table: "instance_secrets", row: &[NAME.as_bytes()], column: "sealed" };
        let mut fresh = Zeroizing::new([0_u8; 32]);
        crate::ledger::fill_random(&mut *fresh);
        let sealed = data_key.seal(&cell, &*fresh)?;
        sqlx::query!(
            "INSERT INTO instance_secrets (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
            NAME,
            sealed
        )
        .execute(&database.service)
        .await?;
        let sealed = sqlx::query_scalar!("SELECT sealed FROM instance_secrets WHERE name = $1", NAME)
            .fetch_one(&database.service)
            .await?;
        let opened = data_key.open(&cell, &sealed)?;
        let bytes: [u8; 32] = opened
            .as_slice()
            .try_into()
            .map_err(|_| statusledger_keys::sealing::SealError::Malformed { length: opened.len() })?;
        Ok(Self(Arc::new(Zeroizing::new(bytes))))
    }

    /// HMAC-SHA-256 of `text` under the key for `purpose`.
    #[must_use]
    pub fn mac(&self, purpose: Purpose, text: &[u8]) -> [u8; 32] {
        let key = Zeroizing::new(mac(&self.0[..], &[purpose.label()]));
        mac(&key[..], &[text])
    }

    /// Whether `given` is that, or its beginning of at least 16 bytes; in constant time.
    #[must_use]
    pub fn verifies(&self, purpose: Purpose, text: &[u8], given: &[u8]) -> bool {
        let right = self.mac(purpose, text);
        (16..=32).contains(&given.len()) && bool::from(right[..given.len()].ct_eq(given))
    }

    /// A secret of its own, for a test.
    #[cfg(test)]
    pub(crate) fn test() -> Self {
        Self(Arc::new(Zeroizing::new([7; 32])))
    }
}
