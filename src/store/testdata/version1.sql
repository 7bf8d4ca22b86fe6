-- A database of version 1 as that version left it. Frozen: later versions must understand it.
-- The server key is 32 bytes of 7.
BEGIN;

-- Version 1. Frozen: what was released is never edited, changes are files of their own.
--
-- Times are milliseconds since 1970. "sealed" is AES-256-GCM, see seal.rs.
-- There are no foreign keys: the writes in sqlite/ keep the tables together, and a look-up of every
-- parent would be paid for each message.

CREATE TABLE meta(
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The row of an erased account stays: it reserves the name and tells who said what is in the logs.
CREATE TABLE account(
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    erased INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 1,
    admin INTEGER NOT NULL DEFAULT 0,
    banned INTEGER NOT NULL DEFAULT 0,
    disabled INTEGER NOT NULL DEFAULT 0,
    receipts INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    verifier BLOB,                              -- sealed
    profile BLOB                                -- sealed; NULL: nothing set
) STRICT;

CREATE TABLE token(
    account INTEGER NOT NULL,
    name TEXT NOT NULL,
    hash BLOB NOT NULL,
    created INTEGER NOT NULL,
    used INTEGER,
    PRIMARY KEY(account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE certificate(
    account INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY(account, hash)
) STRICT, WITHOUT ROWID;

-- Invitation codes of the server.
CREATE TABLE code(
    hash BLOB PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE address_ban(
    address BLOB NOT NULL,                      -- 4 or 16 bytes
    prefix INTEGER NOT NULL,
    PRIMARY KEY(address, prefix)
) STRICT, WITHOUT ROWID;

-- One log. Message numbers are dense from 1; retention takes a prefix away.
CREATE TABLE conversation(
    id INTEGER PRIMARY KEY,                     -- below 2^31
    a INTEGER,                                  -- a direct one: the two people, a <= b; NULL: a room
    b INTEGER,
    last INTEGER NOT NULL DEFAULT 0,            -- number of the last message ever
    oldest INTEGER NOT NULL DEFAULT 1,          -- number of the first that is still there; last + 1: none
    sent_a INTEGER NOT NULL DEFAULT 0,          -- a direct one: how many of the messages ever are by a
    last_time INTEGER NOT NULL DEFAULT 0,
    oldest_time INTEGER                         -- NULL: none is there
) STRICT;
CREATE UNIQUE INDEX conversation_pair ON conversation(a, b);
CREATE INDEX conversation_age ON conversation(oldest_time);

-- Clustered by conversation, so that a page of a log is a range of one tree and an append changes one leaf.
CREATE TABLE message(
    id INTEGER PRIMARY KEY,                     -- conversation << 32 | number
    time INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    body BLOB NOT NULL                          -- sealed
) STRICT;

-- An account's conversations, with how far it has read. A room's is there exactly while it is a member.
CREATE TABLE marker(
    account INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    read INTEGER NOT NULL,                      -- everything up to this number is read
    own INTEGER NOT NULL DEFAULT 0,             -- how many up to max(read, oldest - 1) are by the account
    sent INTEGER NOT NULL DEFAULT 0,            -- a room: how many up to the last are; same zero as `own`
    PRIMARY KEY(account, conversation)
) STRICT, WITHOUT ROWID;

CREATE TABLE room(
    id INTEGER PRIMARY KEY,                     -- of its conversation
    name TEXT NOT NULL UNIQUE,                  -- with its '#'
    creator INTEGER NOT NULL,
    private INTEGER NOT NULL,
    e2e INTEGER NOT NULL,
    members INTEGER NOT NULL DEFAULT 0,
    joins INTEGER NOT NULL DEFAULT 0,           -- how often somebody entered
    empty_since INTEGER,                        -- NULL: it has members
    topic BLOB                                  -- sealed
) STRICT;
CREATE INDEX room_creator ON room(creator);
CREATE INDEX room_empty ON room(empty_since);

CREATE TABLE member(
    room INTEGER NOT NULL,
    account INTEGER NOT NULL,
    role INTEGER NOT NULL,                      -- 0 member, 1 operator, 2 owner
    joined INTEGER NOT NULL,                    -- room.joins at the time: the smallest stands longest
    PRIMARY KEY(room, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE ban(
    room INTEGER NOT NULL,
    account INTEGER NOT NULL,
    PRIMARY KEY(room, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX ban_account ON ban(account);

CREATE TABLE invitation(
    room INTEGER NOT NULL,
    account INTEGER NOT NULL,
    inviter INTEGER NOT NULL,
    PRIMARY KEY(room, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX invitation_account ON invitation(account);

-- Keys of /post, for 24 hours.
CREATE TABLE post(
    sender INTEGER NOT NULL,
    key TEXT NOT NULL,
    message INTEGER NOT NULL,                   -- message.id
    time INTEGER NOT NULL,
    digest BLOB NOT NULL,                       -- keyed, of target and body
    PRIMARY KEY(sender, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX post_time ON post(time);

-- Direct conversations that nobody can read any more; their messages are deleted in pieces.
CREATE TABLE orphan(
    conversation INTEGER PRIMARY KEY
) STRICT;

-- What the operator changed beside a running daemon.
CREATE TABLE announcement(
    id INTEGER PRIMARY KEY AUTOINCREMENT,       -- never used twice, the daemon remembers the last it saw
    time INTEGER NOT NULL,
    kind INTEGER NOT NULL,                      -- 0 end sessions, 1 admin, 2 no admin, 3 deleted
    account INTEGER NOT NULL
) STRICT;
CREATE TABLE announcement_room(                 -- rooms that a deleted account left
    announcement INTEGER NOT NULL,
    room INTEGER NOT NULL,
    name TEXT NOT NULL,
    private INTEGER NOT NULL,
    e2e INTEGER NOT NULL,
    heir INTEGER,
    PRIMARY KEY(announcement, room)
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES('check', x'79f6294b10ccfcf3fd9cb5e19ca05faec6217917474e54941052a3d10a30e761fb1d15b59f8873094a170b8d55394419dc802bd8829f41433e4f81202631faeb');
INSERT INTO account(id, name, admin, created, last_seen, verifier) VALUES
    (1, 'alice', 1, 1000, 2000, x'023d9eb758bd1c12e4e1ae2987381a7fa92ff5177be05ebf0be781d7e1a92197397589dd09b4ba3f0bde8f2992a0491a70843bc547bfd381ae5506db38571b7c32341569ce83b4e317e2dcdac060b7edd11636c2222d7d83'),
    (2, 'bob', 0, 1001, 2001, x'0debef11b97aded1023120faaf9f20d2b5e554b6bea4904371f8f4248446f7386670133919b9a25488b384d0fb22ac3a9074718f65caed91b17f2e124ebeb33d277d75fb136d4ad875e41759090c1b8b01fde7e32d0a113f');
INSERT INTO conversation(id, a, b, last, oldest, sent_a, last_time, oldest_time) VALUES
    (1, NULL, NULL, 1, 1, 0, 3000, 3000),
    (2, 1, 2, 1, 1, 1, 3001, 3001);
INSERT INTO room(id, name, creator, private, e2e, members, joins, topic) VALUES
    (1, '#den', 1, 1, 0, 1, 1, x'9d0cfb686210214b17a1d4680bf66816d3ab105f31bb91cb9023cde1eac372');
INSERT INTO member(room, account, role, joined) VALUES (1, 1, 2, 1);
INSERT INTO marker(account, conversation, read, own, sent) VALUES (1, 1, 0, 0, 1), (1, 2, 0, 0, 0), (2, 2, 0, 0, 0);
INSERT INTO message(id, time, sender, body) VALUES
    ((1 << 32) | 1, 3000, 1, x'07f66375bffbfd8003e41056914aa161e1106412dc611979157f66f06a445c895e'),
    ((2 << 32) | 1, 3001, 1, x'19fe7758432cb873433621fe65bb58ae018a2a35f61360472d0a642c763d681318d0cb72faa8df59497cf88323e5f832acc3cbb38cd8a1');
PRAGMA application_id = 1148670836;
PRAGMA user_version = 1;
COMMIT;
