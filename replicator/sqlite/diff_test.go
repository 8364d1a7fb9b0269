package sqlite_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

// made makes a database of SQL statements.
func made(t testing.TB, name string, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// compared is a difference, one line a row: table, + - or ~, key, and what changed.
func compared(t testing.TB, before, after string) (lines []string) {
	t.Helper()
	all, err := sqlite.Diff(t.Context(), before, after, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Note != "" {
			lines = append(lines, d.Table+": "+d.Note)
		}
		var count [3]int64
		for _, c := range d.Changes {
			i := slices.Index([]string{replicator.RowAdded, replicator.RowRemoved, replicator.RowChanged}, c.What)
			count[i]++
			lines = append(lines, strings.Join(strings.Fields(d.Table+" "+[]string{"+", "-", "~"}[i]+" "+cells(c.Key)+" "+cells(c.Cells)), " "))
		}
		if count != [3]int64{d.Added, d.Removed, d.Changed} {
			t.Errorf("%s: %d rows are listed, and %d added, %d removed, %d changed are counted", d.Table, count, d.Added, d.Removed, d.Changed)
		}
	}
	return lines
}

func cells(all []replicator.Cell) string {
	var parts []string
	for _, c := range all {
		text := c.Before + ">" + c.After
		if c.Secret {
			text = "*"
		}
		parts = append(parts, c.Column+"="+text)
	}
	return strings.Join(parts, ",")
}

func TestDiffFindsEachRowThatIsNotTheSame(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after []string // beside CREATE TABLE
		want          []string
	}{
		"the same":               {[]string{"INSERT INTO t VALUES(1,'a')"}, []string{"INSERT INTO t VALUES(1,'a')"}, nil},
		"added":                  {nil, []string{"INSERT INTO t VALUES(1,'a')"}, []string{"t + k=>1 v=>'a'"}},
		"removed":                {[]string{"INSERT INTO t VALUES(1,NULL)"}, nil, []string{"t - k=1> v=NULL>"}},
		"changed":                {[]string{"INSERT INTO t VALUES(1,'a')"}, []string{"INSERT INTO t VALUES(1,'b')"}, []string{"t ~ k=1>1 v='a'>'b'"}},
		"another type":           {[]string{"INSERT INTO t VALUES(1,'7')"}, []string{"INSERT INTO t VALUES(1,7)"}, []string{"t ~ k=1>1 v='7'>7"}},
		"whatever the collation": {[]string{"INSERT INTO t VALUES(1,'a')"}, []string{"INSERT INTO t VALUES(1,'A')"}, []string{"t ~ k=1>1 v='a'>'A'"}},
		"NULL":                   {[]string{"INSERT INTO t VALUES(1,NULL),(2,NULL)"}, []string{"INSERT INTO t VALUES(1,''),(2,NULL)"}, []string{"t ~ k=1>1 v=NULL>''"}},
		"behind a zero byte": {[]string{"INSERT INTO t VALUES(1,CAST(x'6100' AS TEXT)||'x')"}, []string{"INSERT INTO t VALUES(1,CAST(x'6100' AS TEXT)||'y')"},
			[]string{"t ~ k=1>1 v=X'610078'>X'610079'"}},
		"without a key":      {[]string{"INSERT INTO n VALUES(1,2),(1,3)"}, []string{"INSERT INTO n VALUES(1,2),(1,4)"}, []string{"n + a=>1,b=>4", "n - a=1>,b=3>"}},
		"a new table":        {nil, []string{"CREATE TABLE x(a PRIMARY KEY)", "INSERT INTO x VALUES(5)"}, []string{"x: the table is new", "x + a=>5"}},
		"a table less":       {[]string{"CREATE TABLE x(a)", "INSERT INTO x VALUES(5)"}, nil, []string{"x: the table is not there any more", "x - a=5>"}},
		"a column more":      {[]string{"INSERT INTO t VALUES(1,'a')"}, []string{"INSERT INTO t VALUES(1,'a')", "ALTER TABLE t ADD c DEFAULT 3"}, []string{"t: made by another CREATE text; the columns that both have are compared"}},
		"two parts of a key": {[]string{"INSERT INTO p VALUES(1,'h',1),(1,'i',1)"}, []string{"INSERT INTO p VALUES(1,'h',2),(1,'j',1)"}, []string{"p + a=>1,b=>'j' c=>1", "p - a=1>,b='i'> c=1>", "p ~ a=1>1,b='h'>'h' c=1>2"}},
		"a name to quote":    {[]string{"INSERT INTO \"it's \"\"so\"\"\" VALUES(1)"}, nil, []string{"it's \"so\" - sel'ect=1>"}},
	} {
		t.Run(name, func(t *testing.T) {
			tables := []string{
				"CREATE TABLE t(k INTEGER PRIMARY KEY, v COLLATE NOCASE)", "CREATE TABLE n(a, b)", "CREATE TABLE p(a, b, c, PRIMARY KEY(b, a))",
				"CREATE TABLE \"it's \"\"so\"\"\"(\"sel'ect\" PRIMARY KEY)", "CREATE INDEX i ON n(a)",
			}
			got := compared(t, made(t, "a", append(slices.Clone(tables), tc.before...)...), made(t, "b", append(slices.Clone(tables), tc.after...)...))
			slices.Sort(got)
			slices.Sort(tc.want)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func TestDiffShowsNoSecret(t *testing.T) {
	tables := []string{"CREATE TABLE mysql_users(username PRIMARY KEY, password, attributes, note)", "CREATE TABLE vars(variable_name PRIMARY KEY, variable_value)"}
	before := made(t, "a", append(slices.Clone(tables),
		"INSERT INTO mysql_users VALUES('ann','hunter2','{\"additional_password\":\"hunter2\"}','x'),('bob','hunter2','','y')",
		"INSERT INTO vars VALUES('admin-admin_credentials','admin:hunter2'),('mysql-monitor_password','hunter2'),('mysql-threads','4')")...)
	after := made(t, "b", append(slices.Clone(tables),
		"INSERT INTO mysql_users VALUES('ann','hunter3','{\"additional_password\":\"hunter3\"}','z'),('cid','hunter3',NULL,'y')",
		"INSERT INTO vars VALUES('admin-admin_credentials','admin:hunter3'),('mysql-threads','8')")...)
	all, err := sqlite.Diff(t.Context(), before, after, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(all)
	if err != nil || strings.Contains(string(text), "hunter") {
		t.Errorf("%s, %v", text, err)
	}
	got := strings.Join(compared(t, before, after), "\n")
	for _, want := range []string{
		"mysql_users ~ username='ann'>'ann' password=*,attributes=*,note='x'>'z'",
		"mysql_users + username=>'cid' password=*,attributes=>NULL,note=>'y'",
		"vars ~ variable_name='admin-admin_credentials'>'admin-admin_credentials' variable_value=*",
		"vars - variable_name='mysql-monitor_password'> variable_value=*",
		"vars ~ variable_name='mysql-threads'>'mysql-threads' variable_value='4'>'8'",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %s in\n%s", want, got)
		}
	}
}

func TestDiffListsTheFirstRowsAndCountsAll(t *testing.T) {
	const rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<20000) INSERT INTO t SELECT x, "
	before := made(t, "a", "CREATE TABLE t(k INTEGER PRIMARY KEY, v)", rows+"'"+strings.Repeat("a", 500)+"' FROM c")
	after := made(t, "b", "CREATE TABLE t(k INTEGER PRIMARY KEY, v)", rows+"'"+strings.Repeat("a", 499)+"b' FROM c")
	all, err := sqlite.Diff(t.Context(), before, after, 7)
	if err != nil || len(all) != 1 || all[0].Changed != 20000 || len(all[0].Changes) != 7 {
		t.Fatalf("%+v, %v", all, err)
	}
	if v := all[0].Changes[0].Cells[0].After; len(v) > 250 {
		t.Errorf("a value of %d bytes is shown", len(v))
	}
	if all, err = sqlite.Diff(t.Context(), before, before, 7); err != nil || len(all) != 0 {
		t.Errorf("a file and itself: %+v, %v", all, err)
	}
}

func TestDiffChangesNothingAndMakesNoFile(t *testing.T) {
	dir := lay(t, nil)
	a, b := filepath.Join(dir, "a.db"), filepath.Join(dir, "no such")
	if err := os.WriteFile(a, sample(t, "proxysql.db"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Diff(t.Context(), a, b, 0); err == nil {
		t.Error("a file that is not there was compared")
	}
	if _, err := sqlite.Diff(t.Context(), a, a, 0); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(b); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was made")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Error(entries, err)
	}
}

func TestDiffOfProxySQLIsSortedByModule(t *testing.T) {
	dir := lay(t, map[string][]byte{"a.db": sample(t, "proxysql.db"), "b.db": sample(t, "proxysql.db")})
	a, b := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	db, err := sql.Open("sqlite3", b)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"DELETE FROM mysql_users WHERE rowid=(SELECT min(rowid) FROM mysql_users)",
		"UPDATE mysql_users SET default_hostgroup=99, password='made up' WHERE rowid=(SELECT max(rowid) FROM mysql_users)",
		"INSERT INTO mysql_servers(hostgroup_id,hostname) VALUES(77,'new.example')", "UPDATE mysql_galera_hostgroups SET active=1-active",
		"UPDATE global_variables SET variable_value='17' WHERE variable_name='mysql-threads'",
		"UPDATE global_variables SET variable_value='a:b' WHERE variable_name='admin-admin_credentials'",
		"UPDATE global_settings SET variable_value='another' WHERE variable_name='uuid'",
	} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := sqlite.Diff(t.Context(), a, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range proxysql.Modules(all) {
		for _, d := range m.Tables {
			got[m.Module] += fmt.Sprintf("%s +%d -%d ~%d;", d.Table, d.Added, d.Removed, d.Changed)
		}
	}
	want := map[string]string{
		"mysql users": "mysql_users +0 -1 ~1;", "mysql servers": "mysql_galera_hostgroups +0 -0 ~1;mysql_servers +1 -0 ~0;",
		"mysql variables": "global_variables +0 -0 ~1;", "admin variables": "global_variables +0 -0 ~1;", "node": "global_settings +0 -0 ~1;",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
