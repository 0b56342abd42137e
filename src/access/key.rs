//! The text of an API key: `sl_<scopes>_<id>_<secret>`.
//!
//! `<scopes>` are the scope names joined by `.`, in their order. `<id>` is a UUID without hyphens. `<secret>` is 71
//! digits of base 62: 43 for 256 random bits, 22 for the first 128 bits of a MAC over all before it by the instance's
//! key, and 6 for a CRC-32 of all before that. So a scanner can tell a key from a random word without asking anybody, a
//! node can refuse a forged one, or one whose scopes were edited, without asking the database, and the database needs
//! only a hash.

use super::scope::Scopes;
use super::secret::{AccessSecret, Purpose};
use crate::id::KeyId;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const PREFIX: &str = "sl_";
/// Digits of the random part, of the MAC, of the checksum.
const RANDOM: usize = 43;
const MAC: usize = 22;
const CRC: usize = 6;
/// The longest text that is looked at.
const LONGEST: usize = 512;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `bytes` as a number in base 62, most significant digit first, `width` digits.
fn base62(bytes: &[u8], width: usize) -> Zeroizing<String> {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut digits = Zeroizing::new(vec![b'0'; width]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = DIGITS[remainder as usize];
    }
    Zeroizing::new(String::from_utf8_lossy(&digits).into_owned())
}

/// A key as somebody showed it, whose scopes are what it was made with. Whether it is still good, the database knows.
#[derive(Clone, Debug)]
pub struct ShownKey {
    /// Which.
    pub id: KeyId,
    /// What it was made for.
    pub scopes: Scopes,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
}

/// Makes the text of a key.
#[must_use]
pub fn mint(secret: &AccessSecret, id: KeyId, scopes: &Scopes) -> Zeroizing<String> {
    let mut random = Zeroizing::new([0_u8; 32]);
    crate::ledger::fill_random(&mut *random);
    let mut text = Zeroizing::new(format!(
        "{PREFIX}{scopes}_{}_{}",
        id.uuid().simple(),
        base62(&*random, RANDOM).as_str()
    ));
    let mac = secret.mac(Purpose::ApiKey, text.as_bytes());
    text.push_str(&base62(&mac[..16], MAC));
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&base62(&crc.to_be_bytes(), CRC));
    text
}

/// SHA-256 of a key's text.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Reads a key; none where it is not one that this instance made with these scopes.
#[must_use]
pub fn read(secret: &AccessSecret, text: &str) -> Option<ShownKey> {
    if text.len() > LONGEST || !text.is_ascii() {
        return None;
    }
    let mut parts = text.strip_prefix(PREFIX)?.split('_');
    let (scopes, id, end) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || end.len() != RANDOM + MAC + CRC || !checksum_holds(text) {
        return None;
    }
    let authenticated = &text[..text.len() - MAC - CRC];
    let right = base62(&secret.mac(Purpose::ApiKey, authenticated.as_bytes())[..16], MAC);
    let given = &end[RANDOM..RANDOM + MAC];
    if !bool::from(subtle::ConstantTimeEq::ct_eq(right.as_bytes(), given.as_bytes())) {
        return None;
    }
    let scopes = scopes.parse().ok()?;
    let id = uuid::Uuid::try_parse(id).ok().filter(|parsed| parsed.simple().to_string() == id)?;
    Some(ShownKey { id: id.into(), scopes, hash: hash(text) })
}

/// Whether the checksum of something that looks like a key is right: what a leak scanner asks.
#[must_use]
pub fn checksum_holds(text: &str) -> bool {
    let Some(at) = text.len().checked_sub(CRC) else { return false };
    text.is_ascii()
        && base62(&crc32fast::hash(&text.as_bytes()[..at]).to_be_bytes(), CRC).as_str() == &text[at..]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made(scopes: &str) -> (AccessSecret, KeyId, Zeroizing<String>) {
        let (secret, id) = (AccessSecret::test(), KeyId::new());
        let text = mint(&secret, id, &scopes.parse().unwrap());
        (secret, id, text)
    }

    #[test]
    fn a_key_says_what_it_may_and_nobody_can_make_it_say_more() {
        let (secret, id, text) = made("ledger:read.sources:write");
        assert_eq!(text.split('_').count(), 4);
        let read_back = read(&secret, &text).unwrap();
        assert_eq!((read_back.id, read_back.scopes.to_string().as_str()), (id, "ledger:read.sources:write"));
        assert!(read(&secret, &text.replace("ledger:read.sources:write", "admin")).is_none());
        assert!(read(&secret, &text.replace("ledger:read.", "")).is_none());
        let other = KeyId::new().uuid().simple().to_string();
        assert!(read(&secret, &text.replace(&id.uuid().simple().to_string(), &other)).is_none());
    }

    #[test]
    fn a_scanner_knows_a_key_by_its_checksum() {
        let (_, _, text) = made("read");
        assert!(checksum_holds(&text));
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            assert!(!checksum_holds(std::str::from_utf8(&other).unwrap()), "{at}");
        }
    }

    #[test]
    fn base_62_is_a_number_of_fixed_width() {
        assert_eq!(base62(&[0], 2).as_str(), "00");
        assert_eq!(base62(&[61], 2).as_str(), "0z");
        assert_eq!(base62(&[62], 2).as_str(), "10");
        // 2^256 - 1 and 2^128 - 1 fit their widths, or two keys could be written alike.
        assert_eq!(base62(&[255; 32], RANDOM + 1).as_bytes()[0], b'0');
        assert_eq!(base62(&[255; 16], MAC + 1).as_bytes()[0], b'0');
    }

    #[test]
    fn what_is_no_key_is_none() {
        let (secret, _, text) = made("read");
        for wrong in [
            "",
            "sl_",
            "sl_read__",
            "sl_admin_0_wrong",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{}x", &*text),
        ] {
            assert!(read(&secret, wrong).is_none(), "{wrong}");
        }
    }
}
