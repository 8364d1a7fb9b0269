package proxysql_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/proxysql"
)

func TestAnOperatorRestoresIntoTheProxySQLThatRuns(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	uuid := n.ask("SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'")
	r, ok := n.open().(hooks.Restorer)
	if !ok || r.Database() != n.Database() {
		t.Fatalf("%v does not restore %s", r, n.Database())
	}
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	if err := os.WriteFile(snapshot, marked(t, "asked-for"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	n.has("asked-for")
	if got := n.ask("SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'"); got != uuid {
		t.Errorf("the node is %s now, and was %s", got, uuid)
	}
	if err := r.Restore(t.Context(), snapshot+"x"); err == nil {
		t.Error("what is not there was restored")
	}
	n.has("asked-for")
}
