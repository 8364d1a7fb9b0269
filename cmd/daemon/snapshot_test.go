package daemon

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// snapshots unpacks some of ProxySQL's databases and returns where they lie.
func snapshots(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		packed, err := os.ReadFile("../../replicator/sqlite/testdata/proxysql/" + name + ".gz")
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSnapshotVerifySaysOneVerdictAFile(t *testing.T) {
	dir := snapshots(t, "proxysql.db", "damaged/users-empty.db", "damaged/truncated-last-page.db", "schema-other/extra-table.db", "schema-other/spelling-differs.db")
	t.Chdir(dir)
	if err := os.WriteFile("two\nlines", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const digest = "8a86c0c0ffce9d08481ec11c9ee03fba9987e63620b4f80c33cea1201ad6df1e"
	for _, tc := range []struct {
		args string
		code int
		want string // beginnings of lines, with / between them
	}{
		{"proxysql.db", 0, "proxysql.db: sound"},
		{"proxysql.db extra-table.db", 0, "proxysql.db: sound/extra-table.db: sound"},
		{"proxysql.db gone.db users-empty.db", 1, "proxysql.db: sound/gone.db: refused: missing: /users-empty.db: refused: emptied: table mysql_users"},
		{"truncated-last-page.db .", 1, "truncated-last-page.db: refused: size: /.: refused: not-a-file: "},
		{"--allow-empty mysql_users users-empty.db", 0, "users-empty.db: sound"},
		{"--allow-empty mysql_servers users-empty.db", 1, "users-empty.db: refused: emptied: "},
		{"--kind sqlite users-empty.db spelling-differs.db", 0, "users-empty.db: sound/spelling-differs.db: sound"},
		{"--kind sqlite --rows mysql_users=1 users-empty.db", 1, "users-empty.db: refused: rows: "},
		{"--kind proxysql spelling-differs.db", 1, "spelling-differs.db: refused: create-text: "},
		{"--rows mysql_users=7 --rows mysql_servers=11 proxysql.db", 1, "proxysql.db: refused: rows: table mysql_servers has 10"},
		{"--sha256 " + strings.ToUpper(digest) + " proxysql.db", 0, "proxysql.db: sound"},
		{"--sha256 " + digest + " extra-table.db", 1, "extra-table.db: refused: digest: "},
		{"--max-size 1000 proxysql.db", 1, "proxysql.db: refused: too-large: "},
		{"--timeout 1ns proxysql.db", 1, "proxysql.db: refused: timeout: "},
		{"", 2, ""},
		{"--kind mysql proxysql.db", 2, ""},
		{"--rows mysql_users proxysql.db", 2, ""},
		{"--rows =3 proxysql.db", 2, ""},
		{"--sha256 12 proxysql.db", 2, ""},
		{"--sha256 " + digest + " proxysql.db extra-table.db", 2, ""},
		{"--timeout 0s proxysql.db", 2, ""},
		{"--nonsense proxysql.db", 2, ""},
	} {
		var out, errs bytes.Buffer
		code := run(append([]string{"snapshot", "verify"}, strings.Fields(tc.args)...), &out, &errs)
		got := strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' })
		want := strings.FieldsFunc(tc.want, func(r rune) bool { return r == '/' })
		if code != tc.code || len(got) != len(want) {
			t.Errorf("%q: exit code %d, want %d; %q, %s", tc.args, code, tc.code, got, errs.String())
			continue
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) || strings.HasSuffix(want[i], "sound") && got[i] != want[i] {
				t.Errorf("%q: %q, want %q", tc.args, got[i], want[i])
			}
		}
	}
	var out, errs bytes.Buffer
	if code := run([]string{"snapshot", "verify", "two\nlines"}, &out, &errs); code != exitRefused || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%d: %q", code, out.String())
	}
	for args, want := range map[string]int{"snapshot": 2, "snapshot erase": 2, "snapshot verify --help": 0} {
		if code := run(strings.Fields(args), &out, &errs); code != want {
			t.Errorf("%s: exit code %d, want %d", args, code, want)
		}
	}
}

func TestSnapshotVerifyInJSONIsOneObjectAFile(t *testing.T) {
	t.Chdir(snapshots(t, "schema-other/extra-table.db", "damaged/wal-with-content.db", "damaged/wal-with-content.db-wal"))
	var out, errs bytes.Buffer
	if code := run([]string{"snapshot", "verify", "--json", "extra-table.db", "wal-with-content.db"}, &out, &errs); code != exitRefused {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	var sound, refused map[string]any
	for i, m := range []*map[string]any{&sound, &refused} {
		if err := json.Unmarshal([]byte(lines[i]), m); err != nil {
			t.Fatal(err)
		}
	}
	if sound["verdict"] != "sound" || sound["reason"] != nil || sound["kind"] != "proxysql" || sound["size"] != 229376.0 || sound["page_size"] != 4096.0 || sound["pages"] != 56.0 ||
		len(sound["sha256"].(string)) != 64 || sound["rows"].(map[string]any)["mysql_users"] != 7.0 || len(sound["notes"].([]any)) != 1 {
		t.Error(lines[0])
	}
	if refused["file"] != "wal-with-content.db" || refused["verdict"] != "refused" || refused["reason"] != "wal-beside" || len(refused["faults"].([]any)) != 2 {
		t.Error(lines[1])
	}
}
