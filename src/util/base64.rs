//! Numbers in base64url (RFC 4648, section 5), most significant digit first, with a fixed number of
//! digits.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Returns the lowest `6 * N` bits of the number as `N` digits.
pub(crate) fn digits<const N: usize>(mut number: u64) -> [u8; N] {
    let mut digits = [0; N];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET
            .get((number & 63) as usize)
            .copied()
            .unwrap_or_default();
        number >>= 6;
    }
    digits
}

/// Returns `true` if `text` consists of exactly `N` digits.
#[allow(
    dead_code,
    reason = "without std, not every system has a mechanism that calls it"
)]
pub(crate) fn is_digits<const N: usize>(text: &str) -> bool {
    text.len() == N && text.bytes().all(|digit| ALPHABET.contains(&digit))
}

/// Returns the number that the digits spell, or `None` if it needs more than 64 bits or if a
/// character is not a digit.
pub(crate) fn number(digits: &str) -> Option<u64> {
    digits.bytes().try_fold(0_u64, |number, digit| {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        Some(number.checked_mul(64)? | u64::from(value))
    })
}
