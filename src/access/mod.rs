//! Access: who may ask, and what.
//!
//! * [`scope`]: permissions, scopes, roles · [`key`]: the text of an API key · [`keys`]: API keys made and ended
//! * [`secret`]: what keys and sessions are authenticated with · [`session`]: cookies, CSRF
//! * [`door`]: what stands before every handler of `/v1`: who asks, and whether they may · [`context`]: where from
//! * [`sign_in`]: identity providers, passkeys, one-time links
//! * [`denial`], [`beyond`]: refusals, on the record · [`people`]: who somebody is · [`members`]: members, invitations
//! * [`disable`]: keeping a person out · [`ended`]: what has ended long ago, removed

pub mod beyond;
pub mod context;
pub mod denial;
pub mod disable;
pub mod door;
pub mod ended;
pub mod http;
pub mod key;
pub mod keys;
pub mod members;
pub mod people;
pub mod scope;
pub mod secret;
pub mod session;
pub mod sign_in;

pub(crate) use door::bearer;
pub use door::{Access, Caller, Gate, Person};
pub use scope::needs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// SHA-256 of a token: it has 256 random bits, so a slow hash would add nothing.
#[must_use]
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// 32 random bytes as URL-safe text without the separators of a token.
pub(crate) fn secret_text() -> Zeroizing<String> {
    loop {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        crate::ledger::fill_random(&mut *bytes);
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
        if !text.contains('_') {
            return text;
        }
    }
}

/// A new token of `prefix` (`sl_in`): `<prefix>_<id>_<secret>`.
#[must_use]
pub fn new_token(prefix: &str, id: uuid::Uuid) -> Zeroizing<String> {
    Zeroizing::new(format!("{prefix}_{}_{}", id.simple(), secret_text().as_str()))
}
