//! Names of files that fit and are free.

use std::path::Path;

/// Longest extension that is kept when a name is shortened, in bytes; what is longer is part of the name.
const EXTENSION_MAX: usize = 32;

/// The `n`th name to try for a file, from 0: `report.pdf`, `report (1).pdf`, … in at most `room` bytes, which
/// have to be enough for a number and an extension. What is too long loses the end of its stem.
pub fn named(name: &str, n: usize, room: usize) -> String {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    let extension = extension.filter(|extension| !extension.is_empty() && extension.len() <= EXTENSION_MAX);
    let end = match (n, extension) {
        (0, None) => String::new(),
        (0, Some(extension)) => format!(".{extension}"),
        (n, None) => format!(" ({n})"),
        (n, Some(extension)) => format!(" ({n}).{extension}"),
    };
    let stem = extension.and_then(|extension| name.strip_suffix(extension)?.strip_suffix('.')).unwrap_or(name);
    format!("{}{end}", cut(stem, room.saturating_sub(end.len())))
}

/// The beginning of a text in at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use downstream::e2e::descriptor::safe_name;
    use proptest::prelude::*;

    #[test]
    fn numbers_stand_in_front_of_the_extension() {
        for (name, n, want) in [
            ("report.pdf", 0, "report.pdf"),
            ("report.pdf", 2, "report (2).pdf"),
            ("Makefile", 1, "Makefile (1)"),
            ("a.tar.gz", 1, "a.tar (1).gz"),
            ("a.", 1, "a. (1)"),
            ("naïve ☃.jpeg", 10, "naïve ☃ (10).jpeg"),
        ] {
            assert_eq!(named(name, n, 255), want);
        }
    }

    #[test]
    fn long_names_keep_their_extension() {
        let long = format!("{}.pdf", "x".repeat(251));
        assert_eq!(named(&long, 0, 255), long);
        assert_eq!(named(&long, 0, 250), format!("{}.pdf", "x".repeat(246)));
        assert_eq!(named(&long, 7, 255), format!("{} (7).pdf", "x".repeat(247)));
        // A character is whole or not there.
        assert_eq!(named("ééé.a", 0, 7), "éé.a");
        assert_eq!(named("ééé.a", 0, 6), "éé.a");
        assert_eq!(named("ééé.a", 0, 5), "é.a");
        let strange = format!("x.{}", "y".repeat(253));
        assert_eq!(named(&strange, 1, 255), format!("{} (1)", &strange[..251]));
    }

    proptest! {
        /// Whatever a sender calls a file, and however often: what is made of it is one name that fits, in one
        /// directory, and another for each number.
        #[test]
        fn every_name_fits_and_is_one(
            name in "\\PC{0,300}|[./\\\\\\-a\u{202e}\u{0}]{0,20}|[☃é]{80,130}\\.[a-z]{0,40}",
            n in 0..1000_usize,
            room in 48..=255_usize,
        ) {
            let safe = safe_name(&name);
            let made = named(&safe, n, room);
            prop_assert!(!made.is_empty() && made.len() <= room, "{made:?}");
            prop_assert!(!made.contains(['/', '\0', '\n', '\u{202e}']) && !made.starts_with('.'), "{made:?}");
            prop_assert!(!made.starts_with('-'));
            prop_assert_ne!(&made, &named(&safe, n + 1, room));
        }
    }
}
