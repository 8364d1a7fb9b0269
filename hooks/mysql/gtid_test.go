package mysql

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	uuidA = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	uuidB = "4f22ab58-71ca-11e1-9e33-c80aa9429562"
)

func maria(t *testing.T, text string) gtids {
	t.Helper()
	g, err := parseMariaDB(text, false)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func mysqlSet(t *testing.T, text string) gtids {
	t.Helper()
	g, err := parseMySQL(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGTIDsOfMySQLAreSets(t *testing.T) {
	for _, tc := range []struct{ a, b, want string }{
		{"", "", ""},
		{uuidA + ":1-5", "", uuidA + ":1 to 5"},
		{uuidA + ":1-5", uuidA + ":1-5", ""},
		{uuidA + ":1-5", uuidA + ":2-3", uuidA + ":1, " + uuidA + ":4 to 5"},
		{uuidA + ":1-5:11-18", uuidA + ":1-15", uuidA + ":16 to 18"},
		{uuidA + ":1-5:6-7", uuidA + ":1-6", uuidA + ":7"},
		{uuidA + ":1-5,\n" + uuidB + ":1-2", uuidA + ":1-9", uuidB + ":1 to 2"},
		{uuidA + ":1-3:tag:1-4", uuidA + ":1-3", uuidA + ":tag:1 to 4"},
		{uuidA + ":1-9", uuidA + ":1:3:5:7:9", uuidA + ":2, " + uuidA + ":4, " + uuidA + ":6, " + uuidA + ":8"},
		{"3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5", uuidA + ":1-4", uuidA + ":5"},
	} {
		if got := extra(mysqlSet(t, tc.a), mysqlSet(t, tc.b)).String(); got != tc.want {
			t.Errorf("%q without %q is %q, want %q", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestGTIDsOfMariaDBAreHistories(t *testing.T) {
	for _, tc := range []struct {
		name, of, not string
		want          string
		count         uint64
	}{
		{"equal", "0-1-100", "0-1-100", "", 0},
		{"behind", "0-1-90", "0-1-100", "", 0},
		{"never replicated", "0-1-103", "0-1-100", "0-1-101 to 103", 3},
		{"the new primary went on", "0-1-103", "0-1-100,0-2-150", "0-1-101 to 103", 3},
		{"one sequence, other server", "0-2-101,0-1-100", "0-1-101", "0-2-101", 1},
		{"a second reign", "0-1-2003,0-2-2000", "0-1-1000,0-2-2000", "0-1-2001 to 2003", 3},
		{"another domain", "0-1-5,7-1-2", "0-1-5", "7-1-1 to 2", 2},
		{"from a backup, without its log", "0-1-100", "0-1-100,0-2-101", "", 0},
	} {
		got := extra(maria(t, tc.of), maria(t, tc.not))
		if got.String() != tc.want || got.count() != tc.count {
			t.Errorf("%s: %q has %d that %q has not: %q, want %d: %q", tc.name, tc.of, got.count(), tc.not, got, tc.count, tc.want)
		}
	}
}

func TestPositionsOfMariaDBAreOneSequenceADomain(t *testing.T) {
	received, err := parseMariaDB("0-2-1010,3-1-7", true)
	if err != nil {
		t.Fatal(err)
	}
	applied, err := parseMariaDB("0-1-1000,3-1-7", true)
	if err != nil {
		t.Fatal(err)
	}
	if n := received.minus(applied).count(); n != 10 {
		t.Errorf("%d are pending, want 10", n)
	}
	if n := applied.minus(received).count(); n != 0 {
		t.Errorf("%d were applied and not received", n)
	}
}

func TestGTIDsThatAreNoneAreErrors(t *testing.T) {
	for _, bad := range []string{"x", "1-2", "0-1-", "0-x-1", "-1-1-1", "0-1-1-1", "0-1-9223372036854775808"} {
		if g, err := parseMariaDB(bad, false); err == nil {
			t.Errorf("MariaDB: %q is %v", bad, g)
		}
	}
	for _, bad := range []string{uuidA, uuidA + ":5-1", uuidA + ":0", uuidA + ":1-x", ":1"} {
		if g, err := parseMySQL(bad); err == nil {
			t.Errorf("MySQL: %q is %v", bad, g)
		}
	}
}

func TestManyGTIDsAreNamedUpToABound(t *testing.T) {
	g := gtids{}
	for i := uint64(1); i < 40; i += 2 {
		g["0-1"] = append(g["0-1"], span{i, i})
	}
	want := "0-1-1, 0-1-3, 0-1-5, 0-1-7, 0-1-9, 0-1-11, 0-1-13, 0-1-15, and 12 more spans"
	if g.String() != want {
		t.Errorf("got %s", g)
	}
}

// A server that was written to in many places has many gaps: they must not cost squares.
func TestManyGapsAreCheap(t *testing.T) {
	var all strings.Builder
	all.WriteString(uuidA)
	for i := 1; i < 200_000; i += 2 {
		fmt.Fprintf(&all, ":%d", i)
	}
	began := time.Now()
	g := mysqlSet(t, all.String())
	if n := extra(g, mysqlSet(t, uuidA+":1-100000")).count(); n != 50_000 {
		t.Errorf("%d are left, want 50000", n)
	}
	if n := g.minus(g).count() + g.minus(g.plus(g)).count(); n != 0 {
		t.Errorf("%d are left of nothing", n)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func FuzzGTIDs(f *testing.F) {
	f.Add(uuidA+":1-5:11-18,"+uuidB+":tag:1-2", uuidA+":3-12")
	f.Add("0-1-5,0-2-7", "0-1-3")
	f.Fuzz(func(t *testing.T, one, two string) {
		for _, parse := range []func(string) (gtids, error){parseMySQL, func(s string) (gtids, error) { return parseMariaDB(s, false) }} {
			a, bad := parse(one)
			b, worse := parse(two)
			if bad != nil || worse != nil {
				continue
			}
			if n := a.minus(b).minus(a).count(); n != 0 {
				t.Errorf("%q without %q has %d that the first has not", one, two, n)
			}
			if n := a.minus(a.plus(b)).count(); n != 0 {
				t.Errorf("%q has %d that it and %q have not", one, n, two)
			}
			if a.plus(b).count() != b.count()+a.minus(b).count() {
				t.Errorf("%q and %q do not add up", one, two)
			}
		}
	})
}
