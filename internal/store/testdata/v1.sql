-- A database of the first schema version, as it was. Never edited: every later zwrmd
-- has to read it.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE app (
  id         INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 16777215), -- 24 bits of the device group
  name       TEXT    NOT NULL UNIQUE,
  image      TEXT    NOT NULL,
  scale      INTEGER NOT NULL CHECK (scale >= 0),
  memory_mib INTEGER NOT NULL CHECK (memory_mib >= 0),
  cpus       INTEGER NOT NULL CHECK (cpus >= 0),
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE vm (
  id         INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
  app        INTEGER NOT NULL REFERENCES app (id),
  name       TEXT    NOT NULL UNIQUE,
  slot       INTEGER NOT NULL UNIQUE CHECK (slot >= 0),
  state      TEXT    NOT NULL CHECK (state IN ('pending', 'starting', 'running', 'stopping', 'failed')),
  attachment INTEGER NOT NULL CHECK (attachment IN (0, 1)),
  image      TEXT    NOT NULL,
  memory_mib INTEGER NOT NULL CHECK (memory_mib >= 0),
  cpus       INTEGER NOT NULL CHECK (cpus >= 0),
  pid        INTEGER NOT NULL, -- 0: no VMM was started
  start_time INTEGER NOT NULL, -- clock ticks since boot
  boot_id    TEXT    NOT NULL,
  reason     TEXT    NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX vm_app ON vm (app);

CREATE TABLE released (
  slot  INTEGER PRIMARY KEY CHECK (slot >= 0),
  until INTEGER NOT NULL -- quarantine ends
) STRICT;

-- What a zwrmd of this version wrote: an app with two VMs, one of them failed, an
-- attachment, and a slot that rests until 2100.
INSERT INTO meta VALUES ('subnet', '172.16.0.0/16'), ('last_app_id', '2');
INSERT INTO app VALUES
  (1, 'web', 'small', 2, 256, 2, 1760000000000000000),
  (2, 'mine', '', 0, 0, 0, 1760000001000000000);
INSERT INTO vm VALUES
  (1, 1, 'web-0', 0, 'running', 0, 'small', 256, 2, 4711, 123456, '5f0c8a3e-6f8e-4c3e-9a57-2d3f6b1c0e11', '', 1760000000000000000),
  (2, 1, 'web-1', 1, 'failed', 0, 'small', 128, 1, 0, 0, '', 'VMM ended by itself', 1760000000000000000),
  (4, 2, 'lab', 3, 'running', 1, '', 0, 0, 0, 0, '', '', 1760000001000000000);
INSERT INTO released VALUES (2, 4102444800000000000);
PRAGMA application_id = 0x5a57524d;
PRAGMA user_version = 1;
