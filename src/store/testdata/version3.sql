-- What version 3 added to a database of version 2, as it left it. Frozen: later versions must understand it.
BEGIN;

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

UPDATE conversation SET last = 2, sent_a = 2, last_time = 9000500 WHERE id = 2;
INSERT INTO message VALUES
    ((2 << 32) | 2, 9000500, 1, x'e6c2c42651ca440ecef45398a21e3d0b77d0f870c40d7fe0264ff3bb0f4bd8d97c6609f1b0', 4);
INSERT INTO file VALUES
    (4, 1, NULL, 2, 5, x'2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824',
        x'fdd338dbd93fee76420fc83bdc605f425ceb017e8fc9855ab486317e148f1f90d1ef90d06c', 1, 5, NULL, 9000500, 2, (2 << 32) | 2),
    (5, 1, NULL, 2, 20, x'6bc14bdc4517a7a682c6910de2e2946eb8e1ecd04090728fef6d092a7ceb62c5',
        x'0fe418e0a4f4b8a8cdb7395c0c47b5c2364bba3d9093828650a16c1aa6123e18be66', 0, 10,
        x'b0f86fd6e9c69356cdde5a11f0fc48212677a229fcbe50e25bdbdcbbee3324948469447a135dc08719b55856d81b9826eb79554f51541efdf5feafd89bb1356a19c3fdd6fdbb052ba35b648f76471c07c6576fdf48ca8c04da616d98bfed4cdf3a09acf920246f6f71f278d8dcb11cf1aded46ab0169ec9299996b34750392bb23710be1ef1627f38b6238e4347d',
        9000600, NULL, NULL);
UPDATE sqlite_sequence SET seq = 7 WHERE name = 'file';
INSERT INTO file_use VALUES(0, 8192, 1, 1), (1, 8192, 1, 1);
INSERT INTO trash VALUES(3);
PRAGMA user_version = 3;
COMMIT;
