package store

// migrations returns the steps from an empty database to the schema of this
// zwrmd: step i leads from version i to version i+1. A step that was released
// is never edited; a change of the schema is a new step.
func migrations() []string { return []string{schemaV1} }

// schemaV1 is the first schema. Times are nanoseconds since 1970 in UTC. The
// slot is a column of the VM, so that no crash can part the two.
//
// A slot is in vm or in released, never in both: Create takes it out of the
// second, and Remove does not put it there while a VM has it.
const schemaV1 = `
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
`
