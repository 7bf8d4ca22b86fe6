-- Version 3: files. Frozen: what was released is never edited, changes are files of their own.

-- The data of a file stands sealed in the directory beside the database, under its number. This table is the
-- truth: of an upload, `stored` bytes are on stable storage, those behind the last whole block here in `rest`;
-- what lies behind them in the data was never acknowledged.
CREATE TABLE file(
    id INTEGER PRIMARY KEY AUTOINCREMENT,       -- never used twice, it names the data
    sender INTEGER NOT NULL,
    room INTEGER,                               -- where it goes: a room …
    receiver INTEGER,                           -- … or a person
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    name BLOB NOT NULL,                         -- sealed
    state INTEGER NOT NULL DEFAULT 0,           -- 0 an upload, 1 whole, 2 the data is gone
    stored INTEGER NOT NULL DEFAULT 0,
    rest BLOB,                                  -- sealed; of an upload: see store/files/uploads.rs
    time INTEGER NOT NULL,                      -- when it was finished; of an upload: when it last grew
    conversation INTEGER,                       -- NULL: an upload
    message INTEGER                             -- message.id; the row goes with it
) STRICT;
CREATE INDEX file_content ON file(sha256, sender) WHERE state < 2;
CREATE INDEX file_log ON file(conversation, id) WHERE state = 1;
CREATE INDEX file_sender ON file(sender) WHERE state = 0;
CREATE INDEX file_own ON file(sender) WHERE state = 1;
CREATE INDEX file_room ON file(room) WHERE state = 0;
CREATE INDEX file_time ON file(state, time);

-- What the files of an account take, announced bytes included; account 0: of all.
CREATE TABLE file_use(
    account INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL,
    uploads INTEGER NOT NULL,                   -- that are not finished
    files INTEGER NOT NULL                      -- that are whole
) STRICT;

-- Files whose data is still to be deleted.
CREATE TABLE trash(
    file INTEGER PRIMARY KEY
) STRICT;

-- The file that a message is; its body is the name. NULL: an ordinary message.
ALTER TABLE message ADD COLUMN file INTEGER;
