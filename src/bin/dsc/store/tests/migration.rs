//! Versions of the file: what was released is frozen, and is read for ever.

use sha2::{Digest, Sha256};

use super::*;
use crate::store::schema;

#[test]
fn a_newer_store_is_refused() {
    let (home, store) = fresh();
    drop(store);
    let sql = Connection::open(home.path().join(FILE)).unwrap();
    sql.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    drop(sql);
    let before = bytes_of(home.path());
    let error = Store::open(home.path(), None).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 2, known: 1 }), "{error}");
    assert_eq!(bytes_of(home.path()), before);
}

/// A released migration is never edited: this fails where one was.
#[test]
fn released_migrations_are_frozen() {
    let released = ["8404307998ec4a391f977e8664987bfebe561b2f81b845e9eff526e307291410"];
    for (migration, digest) in schema::MIGRATIONS.iter().zip(released) {
        let found: String = Sha256::digest(migration).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest);
    }
    assert_eq!(schema::MIGRATIONS.len(), released.len());
}
