package store

import (
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const addNote = `ALTER TABLE app ADD COLUMN note TEXT NOT NULL DEFAULT 'none'`

// TestSchema shows every change of the schema to its reviewer. A released step
// must not change: add one.
func TestSchema(t *testing.T) {
	s := mustOpen(t, testPath(t))
	rows, err := s.readers.Query(`SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name`)
	must(t, err)
	defer rows.Close()
	var dump strings.Builder
	for rows.Next() {
		var text string
		must(t, rows.Scan(&text))
		dump.WriteString(text + ";\n\n")
	}
	must(t, rows.Err())
	golden := filepath.Join("testdata", "schema.sql")
	if *update {
		must(t, os.WriteFile(golden, []byte(dump.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if dump.String() != string(want) {
		t.Errorf("schema differs from %s (run with -update to accept):\n%s", golden, dump.String())
	}
}

func TestMigrateKeepsRowsAndBacksUp(t *testing.T) {
	path := testPath(t)
	s := mustOpen(t, path)
	mustCreate(t, s, testApp("web"), testVM("web", 0, 7))
	before := mustState(t, s)
	mustClose(t, s)
	backup := path + ".v1.bak"
	must(t, os.WriteFile(backup+".tmp", []byte("left by a crash"), 0o600))

	s, err := openWith(t.Context(), path, append(migrations(), addNote), nil)
	must(t, err)
	defer s.Close()
	if after := mustState(t, s); !reflect.DeepEqual(before, after) {
		t.Errorf("migration changed rows:\n%+v\n%+v", before, after)
	}
	var note string
	must(t, s.readers.QueryRow(`SELECT note FROM app`).Scan(&note))

	if _, err := os.Stat(backup + ".tmp"); err == nil {
		t.Error("the temporary copy is left")
	}
	info, err := os.Stat(backup)
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("backup has mode %s", info.Mode())
	}
	old := mustOpen(t, backup) // of version 1, or this zwrmd would refuse it
	if copied := mustState(t, old); !reflect.DeepEqual(before, copied) {
		t.Errorf("backup has other rows:\n%+v\n%+v", before, copied)
	}
}

func TestMigrateOfNewDatabaseMakesNoBackup(t *testing.T) {
	path := testPath(t)
	s, err := openWith(t.Context(), path, append(migrations(), addNote), nil)
	must(t, err)
	mustClose(t, s)
	found, err := filepath.Glob(path + "*.bak*")
	must(t, err)
	if len(found) > 0 {
		t.Errorf("backups of nothing: %v", found)
	}
}

func TestMigrateAllOrNothing(t *testing.T) {
	tests := []struct{ name, step, want string }{
		{"wrong SQL", addNote + `; CREATE NONSENSE`, "step to version 2"},
		{"row without its app", `DELETE FROM app`, `a row of table "vm" points to a row that is gone`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := testPath(t)
			s := mustOpen(t, path)
			mustCreate(t, s, testApp("web"), testVM("web", 0, 7))
			before := mustState(t, s)
			mustClose(t, s)

			_, err := openWith(t.Context(), path, append(migrations(), test.step), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("openWith = %v, want %q and the path", err, test.want)
			}
			s = mustOpen(t, path) // still of version 1
			if after := mustState(t, s); !reflect.DeepEqual(before, after) {
				t.Errorf("rows changed:\n%+v\n%+v", before, after)
			}
		})
	}
}

func TestMigrateStopsWithoutBackup(t *testing.T) {
	path := testPath(t)
	mustClose(t, mustOpen(t, path))
	must(t, os.MkdirAll(filepath.Join(path+".v1.bak", "in the way"), 0o700))
	if _, err := openWith(t.Context(), path, append(migrations(), addNote), nil); err == nil || !strings.Contains(err.Error(), "back up to") {
		t.Fatalf("openWith = %v", err)
	}
	mustOpen(t, path) // still of version 1
}

// TestTablesAreStrict keeps a table without STRICT out of the schema.
func TestTablesAreStrict(t *testing.T) {
	s := mustOpen(t, testPath(t))
	var loose sql.NullString
	must(t, s.readers.QueryRow(`SELECT group_concat(name) FROM pragma_table_list
		WHERE schema = 'main' AND name NOT LIKE 'sqlite_%' AND strict = 0`).Scan(&loose))
	if loose.Valid {
		t.Errorf("not strict: %s", loose.String)
	}
}
