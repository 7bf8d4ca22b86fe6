//! Sizes in bytes, as people write them: a number, or a number of KiB, MiB, GiB or TiB.

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads `4 GiB`, also without the space; a text of digits only is a number of bytes. What is more than 64 bits hold
/// is the largest number. `None` for anything else.
pub(super) fn parse(text: &str) -> Option<u64> {
    let unit = UNITS.into_iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, bytes)));
    let (number, bytes) = unit.map_or((text, 1), |(number, bytes)| (number.trim_end_matches(' '), bytes));
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| number.parse().unwrap_or(u64::MAX).saturating_mul(bytes))
}

/// Writes a size in the largest unit of which it is a whole number.
pub(super) fn show(bytes: u64) -> String {
    match UNITS.into_iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{} {name}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_are_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("1000", 1000),
            ("1 KiB", 1024),
            ("3 MiB", 3 << 20),
            ("1025 MiB", 1025 << 20),
            ("4 GiB", 4 << 30),
            ("1024 TiB", 1 << 50),
        ] {
            assert_eq!((parse(text), show(bytes).as_str()), (Some(bytes), text));
        }
        assert_eq!((parse("4GiB"), parse("4  GiB"), parse("0 TiB")), (Some(4 << 30), Some(4 << 30), Some(0)));
        assert_eq!((parse("99999999999999999999"), parse("99999999 TiB")), (Some(u64::MAX), Some(u64::MAX)));
        for wrong in ["", " ", "GiB", " GiB", "4 GB", "4 gib", "4.5 GiB", "-4 GiB", "+4 GiB", "4 GiB ", " 4 GiB", "4 B"]
        {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
