package proxysql_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommandsThatWedgeProxySQLAreNotSent looks at the source: RESUME hung 2 times in 13
// with release 2.7.1 until its watchdog ended it, and STOP, START and RESTART left an admin
// port that takes connections and does not greet.
func TestCommandsThatWedgeProxySQLAreNotSent(t *testing.T) {
	wedging := regexp.MustCompile(`(?i)\bPROXYSQL\s+(PAUSE|RESUME|STOP|START|RESTART)\b`)
	looked := 0
	for _, dir := range []string{".", "../../replicator/proxysql", "../../replicator/modules/admin"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			looked++
			if found := wedging.Find(text); found != nil {
				t.Errorf("%s sends %s", file, found)
			}
		}
	}
	if looked < 3 {
		t.Errorf("only %d files were looked at", looked)
	}
}
