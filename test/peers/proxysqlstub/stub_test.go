package proxysqlstub_test

import (
	"compress/gzip"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

func TestMain(m *testing.M) {
	proxysqlstub.Enter()
	lab.Main(m)
}

// samples are the databases that ProxySQL 2.7.1 was tried with.
const samples = "../../../replicator/sqlite/testdata/proxysql"

// sample unpacks a database of the samples, with what belongs beside it, and returns its
// path.
func sample(t *testing.T, name string, beside ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range append([]string{""}, beside...) {
		f, err := os.Open(filepath.Join(samples, name+suffix+".gz"))
		if suffix != "" && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "proxysql.db"+suffix), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "proxysql.db")
}

// started is a node that runs on the sample, with a connection to its admin port.
func started(t *testing.T, h *lab.Host, o proxysqlstub.Options) (*proxysqlstub.Node, *sql.DB) {
	t.Helper()
	if o.Database == "" {
		o.Database = sample(t, "proxysql.db")
	}
	if o.AdminWait == 0 {
		o.AdminWait = -1
	}
	n := proxysqlstub.New(t, h, o)
	n.Start()
	db := n.Admin("ops", "made-up-ops")
	t.Cleanup(func() { _ = db.Close() })
	return n, db
}

// host is a machine for one node.
func host(t *testing.T) *lab.Host {
	t.Helper()
	return lab.New(t).Host("a", "192.0.2.1/24")
}

// run runs statements, which must be answered with OK.
func run(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, text := range statements {
		if _, err := db.Exec(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// value returns the one value that a query has; "" for NULL or no row.
func value(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	var v sql.NullString
	if err := db.QueryRow(query).Scan(&v); err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("%s: %v", query, err)
	}
	return v.String
}

// same fails the test where a query has another value.
func same(t *testing.T, db *sql.DB, query, want string) {
	t.Helper()
	if got := value(t, db, query); got != want {
		t.Errorf("%s: %q, want %q", query, got, want)
	}
}
