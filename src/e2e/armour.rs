//! How bytes travel in lines: `e2e:` + base64 (RFC 4648 §4, padded, canonical), hexadecimal for
//! ids, base32 (RFC 4648 §6) for the code that a person carries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64ct::{Base64, Encoding};

use super::error::Error;
use super::wire::Malformed;

/// What stands in front of an encrypted body.
pub const BODY_PREFIX: &str = "e2e:";

/// The most bytes an envelope may have: its base64 with `e2e:` must fit the server's `max-body` of
/// 98 304 bytes.
pub const ENVELOPE_MAX: usize = 73_725;

/// The most base64 that is decoded outside of a body: one `/keys put` line of 50 ML-KEM keys.
const BARE_MAX: usize = 98_304;

/// `e2e:` + base64. Not in constant time: what is in an envelope the server sees as well.
pub fn body(envelope: &[u8]) -> String {
    let mut out = String::with_capacity(BODY_PREFIX.len() + envelope.len().div_ceil(3) * 4);
    out.push_str(BODY_PREFIX);
    STANDARD.encode_string(envelope, &mut out);
    out
}

/// The envelope of a body.
///
/// # Errors
/// [`Error::Plain`] without the prefix, [`Error::Syntax`] if what follows is not canonical base64 or
/// is longer than an envelope may be.
pub fn envelope(body: &str) -> Result<Vec<u8>, Error> {
    let text = body.strip_prefix(BODY_PREFIX).ok_or(Error::Plain)?;
    if text.len() > BARE_MAX {
        return Err(Error::Syntax);
    }
    // It insists on the padding and on zeros behind the last byte, so that no envelope has two spellings.
    let bytes = STANDARD.decode(text).map_err(|_| Error::Syntax)?;
    if bytes.len() > ENVELOPE_MAX {
        return Err(Error::Syntax);
    }
    Ok(bytes)
}

/// Bare base64, as `/keys` and `/roster` carry it.
pub fn base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Reads bare base64.
///
/// # Errors
/// [`Malformed`] unless padded, canonical, without whitespace and at most 98 304 characters.
pub fn unbase64(text: &str) -> Result<Vec<u8>, Malformed> {
    if text.len() > BARE_MAX {
        return Err(Malformed);
    }
    let bytes = Base64::decode_vec(text).map_err(|_| Malformed)?;
    // The decoder may overlook bits behind the last byte; two spellings of one envelope must not be.
    if base64(&bytes) == text { Ok(bytes) } else { Err(Malformed) }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads lower-case hexadecimal of exactly `N` bytes.
///
/// # Errors
/// [`Malformed`].
pub fn unhex<const N: usize>(text: &str) -> Result<[u8; N], Malformed> {
    if text.len() != N * 2 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Malformed);
    }
    let mut out = [0; N];
    for (i, byte) in out.iter_mut().enumerate() {
        let pair = text.get(2 * i..2 * i + 2).ok_or(Malformed)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| Malformed)?;
    }
    Ok(out)
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Base32 without padding, upper case.
pub(crate) fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    let (mut acc, mut bits) = (0_u32, 0);
    for byte in bytes {
        acc = acc << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(base32_letter(acc >> bits));
        }
    }
    if bits > 0 {
        out.push(base32_letter(acc << (5 - bits)));
    }
    out
}

fn base32_letter(five: u32) -> char {
    BASE32.get((five & 31) as usize).map_or('A', |b| char::from(*b))
}

/// Reads base32 of exactly `N` bytes; case, spaces and dashes are the person's own.
pub(crate) fn unbase32<const N: usize>(text: &str) -> Result<[u8; N], Malformed> {
    let (mut acc, mut bits, mut out, mut at) = (0_u32, 0, [0; N], 0);
    for letter in text.bytes().filter(|b| !matches!(b, b' ' | b'-' | b'=')) {
        let five = BASE32.iter().position(|b| *b == letter.to_ascii_uppercase()).ok_or(Malformed)?;
        acc = acc << 5 | u32::try_from(five).map_err(|_| Malformed)?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *out.get_mut(at).ok_or(Malformed)? = (acc >> bits & 0xff) as u8;
            at += 1;
        }
    }
    let leftover = acc & ((1 << bits) - 1);
    if at == N && bits < 5 && leftover == 0 { Ok(out) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bodies_are_canonical_or_refused() {
        assert_eq!(body(b"\x01\x02"), "e2e:AQI=");
        assert_eq!(envelope("e2e:AQI="), Ok(vec![1, 2]));
        assert_eq!(envelope("hello"), Err(Error::Plain));
        for bad in ["e2e:AQI", "e2e:AQJ=", "e2e:AQI= ", "e2e: AQI=", "e2e:AQ I=", "e2e:AQI==", "e2e:A-_=", "e2e:AQI=\n"]
        {
            assert_eq!(envelope(bad), Err(Error::Syntax), "{bad}");
        }
        assert!(envelope(&body(&vec![0; ENVELOPE_MAX])).is_ok());
        assert_eq!(envelope(&body(&vec![0; ENVELOPE_MAX + 1])), Err(Error::Syntax));
        assert_eq!(body(&vec![0; ENVELOPE_MAX]).len(), 98_304);
    }

    #[test]
    fn every_end_of_a_body_is_canonical_or_refused() {
        let letters: Vec<char> =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_ ".chars().collect();
        let mut taken = 0;
        for front in ["", "AQID"] {
            for (a, b) in letters.iter().flat_map(|a| letters.iter().map(move |b| (a, b))) {
                for end in [format!("{a}{b}=="), format!("A{a}{b}="), format!("AA{a}{b}"), format!("{a}{b}")] {
                    let text = format!("{front}{end}");
                    let read = envelope(&format!("e2e:{text}")).ok();
                    assert_eq!(read, unbase64(&text).ok(), "{text}");
                    taken += usize::from(read.is_some());
                }
            }
        }
        // RFC 4648 §4: 64 · 4 ends of one byte, of two bytes 64 · 16 and once more with the two letters in front,
        // and 64 · 64 of three.
        assert!(taken > 2 * (64 * 4 + 64 * 16 + 64 * 64), "{taken}");
    }

    #[test]
    fn base32_is_rfc_4648() {
        // RFC 4648 §10.
        for (bytes, text) in [
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(unbase32::<6>("mzxw-6ytb oi"), Ok(*b"foobar"));
        for bad in ["", "M", "MZXW6YTBO", "MZXW6YTBOJ", "MZXW6YTBOIA", "MZXW6YTB0I"] {
            assert_eq!(unbase32::<6>(bad), Err(Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn all_armours_are_identities(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(unbase32::<32>(&base32(&bytes)), Ok(bytes));
            prop_assert_eq!(unhex::<32>(&hex(&bytes)), Ok(bytes));
            prop_assert_eq!(unbase64(&base64(&bytes)), Ok(bytes.to_vec()));
        }

        /// Bodies are read by another decoder than keys are, and just as strictly.
        #[test]
        fn bodies_are_as_canonical_as_everything_else(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            (at, with) in (any::<proptest::sample::Index>(), "[A-Za-z0-9+/=_ \\n-]|.|"),
            behind in "[A-D=\\n]{0,4}",
        ) {
            let good = base64(&bytes);
            prop_assert_eq!(&body(&bytes), &format!("{BODY_PREFIX}{good}"));
            // One letter is another one, or gone, or there are more behind.
            let mut letters: Vec<_> = good.chars().map(String::from).chain([behind]).collect();
            let at = at.index(letters.len());
            letters[at] = with;
            for text in [good, letters.concat()] {
                prop_assert_eq!(envelope(&format!("{BODY_PREFIX}{text}")).ok(), unbase64(&text).ok(), "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = (envelope(&text), unbase64(&text), unhex::<16>(&text), unbase32::<32>(&text));
        }
    }
}
