//! Every domain separation label, in one place, each used in one place.
//!
//! `L"x"` is the ASCII bytes of `DownStream/1 x`. A label never means two things, and within one
//! kind of use none is a prefix of another together with the bytes that follow it (tested below),
//! so bytes signed, hashed or expanded for one purpose can never be read as made for another.

/// A domain separation label, spelled out: whole messages hash and sign several.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    bytes: &'static str,
    nul: &'static str,
}

/// Puts the protocol and its version in front of every label.
macro_rules! label {
    ($name:literal) => {
        Label { bytes: concat!("DownStream/1 ", $name), nul: concat!("DownStream/1 ", $name, "\0") }
    };
}

impl Label {
    /// `L"x"`.
    pub(crate) const fn bytes(self) -> &'static [u8] {
        self.bytes.as_bytes()
    }

    /// `L"x" ‖ 00`.
    pub(crate) const fn nul(self) -> &'static [u8] {
        self.nul.as_bytes()
    }
}

// Signatures: Ed25519 over L ‖ 00 ‖ body.
pub(crate) const DEVICE_CERT: Label = label!("device-cert");
pub(crate) const DEVICE_LIST: Label = label!("device-list");
pub(crate) const SPK: Label = label!("spk");
pub(crate) const OPK: Label = label!("opk");
pub(crate) const PQK: Label = label!("pqk");
pub(crate) const PQK_LAST: Label = label!("pqk-last");
pub(crate) const ROSTER: Label = label!("roster");
pub(crate) const GROUP: Label = label!("group");

// With NUL, in a hash or an AAD.
pub(crate) const ROOM_ID: Label = label!("room-id");
pub(crate) const LINK_CODE: Label = label!("link-code");
pub(crate) const MULTI: Label = label!("multi");

// First bytes of a SHA-256 input.
pub(crate) const PQXDH_TRANSCRIPT: Label = label!("pqxdh-transcript");
pub(crate) const AD_1TO1: Label = label!("ad-1to1");
pub(crate) const AD_GROUP: Label = label!("ad-group");
pub(crate) const DIRECT: Label = label!("direct");

// HKDF info.
pub(crate) const PQXDH: Label = label!("pqxdh");
pub(crate) const ROOT: Label = label!("root");
pub(crate) const CAEAD: Label = label!("caead");
pub(crate) const LINK: Label = label!("link");
pub(crate) const STORE: Label = label!("store");
pub(crate) const FILE: Label = label!("file");

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: [Label; 8] = [DEVICE_CERT, DEVICE_LIST, SPK, OPK, PQK, PQK_LAST, ROSTER, GROUP];
    const WITH_NUL: [Label; 3] = [ROOM_ID, LINK_CODE, MULTI];
    const HASHED: [Label; 4] = [PQXDH_TRANSCRIPT, AD_1TO1, AD_GROUP, DIRECT];
    const INFO: [Label; 6] = [PQXDH, ROOT, CAEAD, LINK, STORE, FILE];

    fn assert_prefix_free(inputs: &[&[u8]]) {
        for (i, a) in inputs.iter().enumerate() {
            for (j, b) in inputs.iter().enumerate() {
                assert!(i == j || !b.starts_with(a), "{a:?} is a prefix of {b:?}");
            }
        }
    }

    #[test]
    fn no_label_is_a_prefix_of_another_with_what_follows_it() {
        // Signed bytes: always a NUL behind.
        assert_prefix_free(&SIGNED.map(|l| l.nul()));
        // Hashed bytes: a NUL behind, or anything.
        let hashed: Vec<_> = WITH_NUL.iter().map(|l| l.nul()).chain(HASHED.iter().map(|l| l.bytes())).collect();
        assert_prefix_free(&hashed);
        // HKDF info: anything may follow.
        assert_prefix_free(&INFO.map(Label::bytes));
    }

    #[test]
    fn each_label_is_used_in_one_place() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/e2e");
        let mut sources = String::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("labels.rs") {
                let text = std::fs::read_to_string(path).unwrap();
                sources.push_str(text.split("#[cfg(test)]").next().unwrap());
            }
        }
        let own = include_str!("labels.rs");
        let mut seen = 0;
        for line in own.lines().filter(|l| l.starts_with("pub(crate) const ")) {
            let name = line.trim_start_matches("pub(crate) const ").split(':').next().unwrap();
            let uses = sources
                .match_indices(&format!("labels::{name}"))
                .filter(|(at, found)| {
                    !sources[at + found.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                })
                .count();
            assert_eq!(uses, 1, "labels::{name}");
            seen += 1;
        }
        assert_eq!(seen, SIGNED.len() + WITH_NUL.len() + HASHED.len() + INFO.len());
        assert!(!sources.contains("DownStream/1"), "a label spelled out beside labels.rs");
    }
}
