-- What version 2 added to a database of version 1, as it left it. Frozen: later versions must understand it.
BEGIN;

-- Version 2: what clients that encrypt end to end keep at the server. Frozen: what was released is never
-- edited, changes are files of their own.

-- The key directory. Everything in it is public and signed by the devices; nobody needs to believe this copy.
CREATE TABLE device(
    id INTEGER PRIMARY KEY,                     -- below 2^30
    account INTEGER NOT NULL,
    name BLOB NOT NULL,                         -- 16 bytes
    certificate BLOB NOT NULL,
    signed_prekey BLOB,                         -- NULL: none under this certificate
    last_resort BLOB                            -- the same
) STRICT;
CREATE UNIQUE INDEX device_name ON device(account, name);

CREATE TABLE device_list(
    account INTEGER PRIMARY KEY,
    list BLOB NOT NULL
) STRICT;

-- How far a pool of one-time keys was handed out. Outlives the keys, so that none comes back.
CREATE TABLE pool(
    id INTEGER PRIMARY KEY,                     -- device << 1 | kind: 0 X25519, 1 ML-KEM
    taken INTEGER NOT NULL                      -- the highest id of a key that was handed out
) STRICT;

-- One-time keys that wait, those of one pool together and by id: the lowest is handed out first.
CREATE TABLE prekey(
    id INTEGER PRIMARY KEY,                     -- pool << 32 | the id that the device gave it
    bytes BLOB NOT NULL
) STRICT;

-- Numbers of an account's signals.
CREATE TABLE mailbox(
    account INTEGER PRIMARY KEY,                -- below 2^31
    last INTEGER NOT NULL,                      -- number of the last signal ever
    abandoned INTEGER NOT NULL DEFAULT 0        -- 1: of an erased account, deleted in pieces
) STRICT;
CREATE INDEX mailbox_abandoned ON mailbox(account) WHERE abandoned = 1;

-- Signals that wait.
CREATE TABLE signal(
    id INTEGER PRIMARY KEY,                     -- receiver << 32 | number
    time INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    body BLOB NOT NULL                          -- sealed
) STRICT;
CREATE INDEX signal_time ON signal(time);

-- How many signals of each pair wait. Without a row: none.
CREATE TABLE waiting(
    receiver INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    signals INTEGER NOT NULL,
    PRIMARY KEY(receiver, sender)
) STRICT, WITHOUT ROWID;

-- Rosters. A room's number may come again, so a roster has one of its own.
CREATE TABLE roster(
    id INTEGER PRIMARY KEY,                     -- below 2^31
    room INTEGER UNIQUE,                        -- NULL: the room is gone, and the entries are deleted in pieces
    last INTEGER NOT NULL                       -- epoch of the last entry
) STRICT;

CREATE TABLE roster_entry(
    id INTEGER PRIMARY KEY,                     -- roster << 32 | epoch
    entry BLOB NOT NULL
) STRICT;

INSERT INTO device VALUES(3, 2, x'dddddddddddddddddddddddddddddddd', x'dcdcdc', x'51', x'000000090f');
INSERT INTO device_list VALUES(2, x'd1');
INSERT INTO pool VALUES(3 << 1, 4), (3 << 1 | 1, 7);
INSERT INTO prekey VALUES(3 << 33 | 5, x'000000050b'), ((3 << 1 | 1) << 32 | 8, x'000000080c');
INSERT INTO mailbox VALUES(2, 9, 0);
INSERT INTO signal VALUES(2 << 32 | 7, 9000000, 1, x'b015a21d73ce40aa82503b7576c7f209c61ba15e5b097f14a3fa74e35c2a9d7e0ee9f162f9bcee2e');
INSERT INTO waiting VALUES(2, 1, 1);
INSERT INTO roster VALUES(4, 1, 2);
INSERT INTO roster_entry VALUES(4 << 32 | 1, x'01'), (4 << 32 | 2, x'02');
PRAGMA user_version = 2;
COMMIT;
