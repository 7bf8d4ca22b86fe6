-- Version 2. Frozen: what was released is never edited, changes are files of their own.
--
-- Files. What a message says of one is found by the hash of what the server has. An entry may now be a file
-- that was sent in clear (its kind stands inside of what is sealed), which version 1 could not read.

ALTER TABLE history ADD COLUMN blob BLOB;       -- tag of the file's SHA-256 on the server; NULL: not of a file
CREATE INDEX history_blob ON history(blob) WHERE blob IS NOT NULL;
