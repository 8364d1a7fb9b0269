package replicator_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator"
)

// content makes what is seen of tables, each with one row.
func content(objects ...replicator.Object) replicator.Content {
	c := replicator.Content{Objects: objects, Rows: map[string]int64{}}
	for _, o := range objects {
		c.Rows[o.Name] = 1
	}
	return c
}

func table(name, sql string) replicator.Object {
	return replicator.Object{Type: "table", Name: name, SQL: sql}
}

func TestAnOlderReleaseIsKnownFromATableThatWasLost(t *testing.T) {
	r := replicator.Rules{Tables: []replicator.Table{{Name: "first"}, {Name: "second", Since: 1}, {Name: "also", Since: 1}, {Name: "third", Since: 2}}}
	for name, tc := range map[string]struct {
		there []string
		want  []replicator.Reason
		notes int
	}{
		"all":              {[]string{"first", "second", "also", "third"}, nil, 0},
		"older":            {[]string{"first", "second", "also"}, nil, 1},
		"oldest":           {[]string{"first"}, nil, 3},
		"newer one lost":   {[]string{"first", "also", "third"}, []replicator.Reason{replicator.TableMissing}, 0},
		"same age, lost":   {[]string{"first", "also"}, []replicator.Reason{replicator.TableMissing}, 1},
		"always required":  {[]string{"second", "also"}, []replicator.Reason{replicator.TableMissing}, 1},
		"nothing is there": {nil, []replicator.Reason{replicator.TableMissing}, 3},
		"a stranger":       {[]string{"first", "second", "also", "third", "other"}, nil, 1},
	} {
		var c replicator.Content
		for _, n := range tc.there {
			c.Objects = append(c.Objects, table(n, "CREATE"))
		}
		v := r.Judge(c)
		if got := reasons(v); !slices.Equal(got, tc.want) || len(v.Notes) != tc.notes {
			t.Errorf("%s: %v %q, want %v and %d notes", name, v, v.Notes, tc.want, tc.notes)
		}
	}
}

func reasons(v replicator.Verdict) (all []replicator.Reason) {
	for _, f := range v.Faults {
		all = append(all, f.Reason)
	}
	return all
}

func TestATextThatIsKnownFromAnOlderReleaseIsNoFault(t *testing.T) {
	r := replicator.Rules{Tables: []replicator.Table{{Name: "t", Create: "new", Older: []replicator.Older{{Release: "1", Create: "old", Renamed: "t_v1"}}}}}
	if v := r.Judge(content(table("t", "new"))); !v.Sound() || len(v.Notes) > 0 {
		t.Error(v, v.Notes)
	}
	if v := r.Judge(content(table("t", "old"))); !v.Sound() || len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "t_v1") {
		t.Error(v, v.Notes)
	}
	for _, text := range []string{"", "ne", "new ", "New", "old "} {
		if v := r.Judge(content(table("t", text))); v.Reason() != replicator.CreateText {
			t.Errorf("%q: %v", text, v)
		}
	}
}

func TestAllFaultsAreFoundAtOnce(t *testing.T) {
	row := replicator.Row{Table: "t", Column: "k", Value: "v", Why: "defaults"}
	r := replicator.Rules{
		Tables: []replicator.Table{{Name: "t", Create: "x"}, {Name: "gone"}}, Floors: map[string]int64{"t": 5, "gone": 1},
		NotEmpty: []string{"u"}, Needs: []replicator.Row{row}, Before: map[string]int64{"u": 3, "gone": 1},
	}
	c := content(table("t", "y"), table("u", ""))
	c.Rows["u"] = 0
	v := r.Judge(c)
	want := []replicator.Reason{replicator.CreateText, replicator.TableMissing, replicator.RowMissing, replicator.TooFewRows, replicator.Emptied}
	if got := reasons(v); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if !strings.Contains(v.String(), "had 3 rows before") || !strings.HasPrefix(v.String(), "refused: create-text: ") {
		t.Error(v)
	}
	c.Present = map[replicator.Row]bool{row: true}
	if r.Judge(c).Has(replicator.RowMissing) {
		t.Error("a row that is there is missed")
	}
}

func TestTwoSignsMakeAKind(t *testing.T) {
	r := replicator.Rules{Signs: []string{"a", "b", "c"}}
	view := replicator.Object{Type: "view", Name: "b"}
	for want, c := range map[bool][]replicator.Content{
		true:  {content(table("a", ""), table("c", "")), content(table("x", ""), table("a", ""), table("b", ""))},
		false: {content(), content(table("a", "")), content(table("a", ""), view)},
	} {
		for _, c := range c {
			if r.Is(c) != want {
				t.Errorf("%v: %v", c.Objects, !want)
			}
		}
	}
}

func TestVersionsAreOrderedByEpochThenNodeThenSequence(t *testing.T) {
	sorted := []replicator.Version{{}, {Epoch: 1, Node: 1, Sequence: 1}, {Epoch: 1, Node: 1, Sequence: 2}, {Epoch: 1, Node: 2, Sequence: 1},
		{Epoch: 1, Node: 10, Sequence: 1}, {Epoch: 2, Node: 1, Sequence: 1}, {Epoch: 2, Node: 1, Sequence: 10}, {Epoch: carp.Epoch(1<<62 - 1), Node: 255, Sequence: 1<<62 - 1}}
	for i, a := range sorted {
		if parsed, err := replicator.ParseVersion(a.String()); err != nil || parsed != a {
			t.Errorf("%v is read as %v, %v", a, parsed, err)
		}
		for j, b := range sorted {
			if got, want := a.Compare(b), min(max(i-j, -1), 1); got != want || min(max(strings.Compare(a.String(), b.String()), -1), 1) != want {
				t.Errorf("%v and %v: %d, want %d, and names as versions", a, b, got, want)
			}
		}
	}
	for _, bad := range []string{"", "1-1-1", sorted[1].String() + "0", sorted[1].String() + "-1", "+" + sorted[1].String()[1:], "99999999999999999999-001-00000000000000000001", "00000000000000000001-256-00000000000000000001"} {
		if v, err := replicator.ParseVersion(bad); err == nil {
			t.Errorf("%q is read as %v", bad, v)
		}
	}
}
