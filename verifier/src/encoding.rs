//! Hex and base64 as the formats write them: one spelling for each sequence of bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Hash;

/// 64 lowercase hex digits.
pub fn hex(hash: &Hash) -> String {
    let mut text = String::with_capacity(64);
    for byte in hash {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).expect("four bits are a hex digit"));
        }
    }
    text
}

/// The hash that 64 lowercase hex digits stand for; `None` for anything else.
pub fn parse_hex(text: &str) -> Option<Hash> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(hash)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Standard base64 (RFC 4648, section 4), padded.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a base64 text that is padded, without white space, and whose unused bits are zero; `None` for
/// anything else.
pub fn parse_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Like [`parse_base64`], for exactly `N` bytes.
pub fn parse_base64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N.div_ceil(3) * 4 {
        return None;
    }
    parse_base64(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_one_spelling() {
        let hash: Hash = std::array::from_fn(|index| u8::try_from(index * 7).unwrap_or(0xAB));
        assert_eq!(parse_hex(&hex(&hash)), Some(hash));
        for text in ["", &hex(&hash)[1..], &hex(&hash).to_uppercase(), &format!("{}g", &hex(&hash)[1..])] {
            assert_eq!(parse_hex(text), None, "{text}");
        }
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(parse_base64_array::<1>("AA=="), Some([0]));
        assert_eq!(parse_base64_array::<2>("+/8="), Some([0xFB, 0xFF]));
        for text in
            ["AB==", "AA=", "AA", "AA==\n", " AA==", "A A==", "AA==AA==", "-_8=", "AAA=", "AAAA", "===="]
        {
            assert_eq!(parse_base64_array::<1>(text), None, "{text}");
        }
    }
}
