CREATE TABLE app (
  id         INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 16777215), -- 24 bits of the device group
  name       TEXT    NOT NULL UNIQUE,
  image      TEXT    NOT NULL,
  scale      INTEGER NOT NULL CHECK (scale >= 0),
  memory_mib INTEGER NOT NULL CHECK (memory_mib >= 0),
  cpus       INTEGER NOT NULL CHECK (cpus >= 0),
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE released (
  slot  INTEGER PRIMARY KEY CHECK (slot >= 0),
  until INTEGER NOT NULL -- quarantine ends
) STRICT;

CREATE TABLE sqlite_sequence(name,seq);

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

