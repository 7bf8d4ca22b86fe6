//! For the tests.

use std::path::Path;

/// Compares with a file of the project; `UPDATE_GOLDEN=1` writes it anew.
pub(crate) fn golden(path: &Path, got: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, got).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let difference = expected.lines().zip(got.lines()).find(|(expected, got)| expected != got);
    assert!(
        expected == got,
        "{} differs (UPDATE_GOLDEN=1 cargo test --bin dsc writes it anew): {difference:#?}",
        file.display()
    );
}
