-- Version 1. Frozen: what was released is never edited, changes are files of their own.
--
-- "sealed" is sealed for its table and id and opens nowhere else (e2e/keyslot.rs). "tag" is a keyed hash
-- (store/vault.rs). Times are milliseconds since 1970.

-- What there is one of, by its number in `rows.rs`.
CREATE TABLE single(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;

-- What is held in memory. The key of each is inside the sealed row.
CREATE TABLE contact(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE peer(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE roster(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE chains(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE thread(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE outgoing(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE pin(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE conversation(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE device_name(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE bundle(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE setting(id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;

-- Envelopes that were opened, counted for each device that sent some.
CREATE TABLE mark(
    device BLOB NOT NULL,                       -- tag of the device
    number INTEGER NOT NULL,
    tag BLOB NOT NULL UNIQUE,                   -- of device and envelope
    PRIMARY KEY(device, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE history(
    id INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,              -- conversation.id
    number INTEGER,                             -- the server's; NULL: not known
    time INTEGER NOT NULL,
    message BLOB,                               -- tag of the sending device and its msg_id; NULL: none
    envelope BLOB,                              -- tag of an envelope sent without knowing its number
    sealed BLOB NOT NULL                        -- conversation, number and time again, and what was said
) STRICT;
CREATE UNIQUE INDEX history_number ON history(conversation, number) WHERE number IS NOT NULL;
CREATE INDEX history_time ON history(time);
CREATE INDEX history_message ON history(message) WHERE message IS NOT NULL;
CREATE INDEX history_envelope ON history(envelope) WHERE envelope IS NOT NULL;

-- Numbers of these two are never used twice: a process may hold one of a line that another has sent.
CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, sealed BLOB NOT NULL) STRICT;
CREATE TABLE held(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tag BLOB NOT NULL UNIQUE,                   -- of conversation and number, or of the signal's
    sealed BLOB NOT NULL
) STRICT;
