//! The id of a signing key.

use std::fmt;
use std::str::FromStr;

use statusledger_verify::{Hash, encoding};

/// A signing key's id: SHA-256 of its raw 32-byte public key. Displayed and parsed as 64 lowercase
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub Hash);

/// A text that is not a key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id has 64 lowercase hexadecimal digits")]
pub struct NotAKeyId;

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encoding::hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        encoding::parse_hex(text).map(Self).ok_or(NotAKeyId)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_its_text_and_from_no_other() {
        let id = KeyId(std::array::from_fn(|at| at as u8 * 7));
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for wrong in [&text[1..], &format!("{text}0"), &text.to_uppercase(), &text.replace('0', "g"), ""] {
            assert_eq!(wrong.parse::<KeyId>(), Err(NotAKeyId), "{wrong}");
        }
    }
}
