//! A QR code in a terminal: two modules a character, by half blocks.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::error::Failure;

/// Black on white, whatever the terminal's own colours are.
const INK: anstyle::Style = anstyle::Style::new()
    .fg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::Black)))
    .bg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::BrightWhite)));

/// Draws `content` with its quiet zone. Without colours it is right on a terminal with a dark background.
///
/// # Errors
/// The content is too long for a QR code.
pub fn qr(content: &str, paint: bool) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(content, EcLevel::M)
        .map_err(|error| Failure::failed(format!("no QR code can be made of this: {error}")))?;
    let mut drawn = code.render::<Dense1x2>();
    // A blank cell shows the background. In ink that is white, the light of the code; without it is dark.
    if !paint {
        drawn.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    }
    let ink = if paint { INK } else { anstyle::Style::new() };
    Ok(drawn.build().lines().map(|line| format!("{ink}{line}{ink:#}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the modules back: `true` is dark.
    fn modules(drawn: &str, blank_is_dark: bool) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in drawn.lines() {
            let halves = line.chars().map(|c| match c {
                ' ' => (false, false),
                '▀' => (true, false),
                '▄' => (false, true),
                '█' => (true, true),
                other => panic!("{other:?}"),
            });
            let (upper, lower): (Vec<bool>, Vec<bool>) = halves.unzip();
            rows.push(upper.iter().map(|set| *set != blank_is_dark).collect());
            rows.push(lower.iter().map(|set| *set != blank_is_dark).collect());
        }
        rows
    }

    #[test]
    fn both_ways_draw_the_code_with_its_quiet_zone() {
        let content = "53038549371237309197";
        let code = QrCode::with_error_correction_level(content, EcLevel::M).unwrap();
        let (width, colors) = (code.width(), code.to_colors());
        let painted = qr(content, true).unwrap();
        let (begin, end) = (format!("{INK}"), format!("{INK:#}"));
        assert!(painted.lines().all(|line| line.starts_with(&begin) && line.ends_with(&end)));
        let painted = painted.replace(&begin, "").replace(&end, "");
        for rows in [modules(&painted, false), modules(&qr(content, false).unwrap(), true)] {
            for (y, row) in rows.iter().enumerate().take(width + 8) {
                for (x, dark) in row.iter().enumerate() {
                    let inside = (4..4 + width).contains(&x) && (4..4 + width).contains(&y);
                    let expected = inside && colors[(y - 4) * width + x - 4] == qrcode::Color::Dark;
                    assert_eq!(*dark, expected, "{x} {y}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(qr(&"x".repeat(5000), false).is_err());
    }
}
