//! The outside of an end-to-end envelope: all of it that the server looks at.

use base64ct::{Base64, Encoding as _};

/// What an envelope begins with.
pub const ENVELOPE: &str = "e2e:";

/// `e2e:` and canonical base64 with padding (RFC 4648 §4), of at least one byte.
pub fn is_envelope(body: &str) -> bool {
    body.strip_prefix(ENVELOPE).is_some_and(|rest| !rest.is_empty() && Base64::decode_vec(rest).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_canonical_base64() {
        for good in ["e2e:aGk=", "e2e:AAAA", "e2e:+/+/"] {
            assert!(is_envelope(good), "{good}");
        }
        for bad in ["e2e:", "e2e:aGk", "e2e:aGl=", "e2e:aG k", "e2e:a-_a", "E2E:AAAA", " e2e:AAAA", "aGk=", ""] {
            assert!(!is_envelope(bad), "{bad}");
        }
    }
}
