package hooks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/carpd/carpd/carp"
)

// instant is all that is left if the process dies, or the power fails, just then.
type instant struct {
	why     string
	journal []byte
	worlds  []*world
}

// recorder notes each instant of what a Runner does: each record before it is written,
// torn, written and not yet on the disk, and on the disk; and each step of each resource
// before and after its effect.
type recorder struct {
	disk
	path   string
	things []*thing
	all    []instant
	over   bool // nothing is noted any more
}

// note notes an instant, unless it is as the one before.
func (rec *recorder) note(why string, journal []byte) {
	i := instant{why: why, journal: journal}
	for _, th := range rec.things {
		i.worlds = append(i.worlds, th.world.copy())
	}
	if n := len(rec.all); n == 0 || !reflect.DeepEqual(rec.all[n-1].journal, journal) || !reflect.DeepEqual(rec.all[n-1].worlds, i.worlds) {
		rec.all = append(rec.all, i)
	}
}

func (rec *recorder) content() []byte {
	b, err := os.ReadFile(rec.path)
	if err != nil {
		panic(err) // the file of this test
	}
	return b
}

func (rec *recorder) WriteAt(b []byte, at int64) (int, error) {
	if rec.over {
		return rec.disk.WriteAt(b, at)
	}
	before := rec.content()
	rec.note("before a record", before)
	rec.note("within a record", append(before, b[:len(b)/2]...))
	n, err := rec.disk.WriteAt(b, at)
	rec.note("record not synced", rec.content())
	return n, err
}

func (rec *recorder) Sync() error { return nil } // the instant after it is as the one before

// watched makes a Runner all instants of which are noted.
func watched(t *testing.T, path string, worlds []*world) (*Runner, *recorder) {
	t.Helper()
	j := openJournal(t, path)
	rec := &recorder{disk: j.file, path: path}
	j.file = rec
	var steps []Step
	for i, w := range worlds {
		th := newThing(fmt.Sprint("thing-", i))
		th.world = w
		th.told = func() {
			if !rec.over {
				rec.note("a step", rec.content())
			}
		}
		rec.things = append(rec.things, th)
		steps = append(steps, th.resource())
	}
	return runner(t, path, Options{Journal: j}, steps...), rec
}

// settled starts anew from an instant, settles, and returns the instants of that. It fails
// unless all is demoted afterwards and the next mastership works.
func settled(t *testing.T, dir string, from instant, reboot, last bool) []instant {
	t.Helper()
	path := filepath.Join(dir, "journal")
	if err := os.WriteFile(path, from.journal, 0o600); err != nil {
		t.Fatal(err)
	}
	var worlds []*world
	for _, w := range from.worlds {
		if w = w.copy(); reboot {
			w = w.reboot()
		}
		worlds = append(worlds, w)
	}
	r, rec := watched(t, path, worlds)
	defer r.o.Journal.Close()
	rec.over = last
	before := r.o.Journal.Past("thing-0").Epoch
	if err := r.Settle(t.Context(), withEpoch(0)); err != nil {
		t.Fatalf("%s: %v", from.why, err)
	}
	rec.over = true
	check := func(what string, want Role) {
		t.Helper()
		for _, th := range rec.things {
			th.sound(t)
			p := r.o.Journal.Past(th.name)
			if got := th.world.role(); got != want || p.Promoted != (want == RolePromoted) || p.Unfinished {
				t.Fatalf("died at %q (reboot: %v), %s: %s is %v (%v), and the journal knows %+v", from.why, reboot, what, th.name, got, th.world, p)
			}
		}
	}
	check("settled", RoleDemoted)
	if after := r.o.Journal.Past("thing-0").Epoch; after < before {
		t.Fatalf("%s: the epoch went back from %d to %d", from.why, before, after)
	}
	if err := r.Run(t.Context(), BeforeUp, withEpoch(100)); err != nil {
		t.Fatalf("%s: %v", from.why, err)
	}
	check("promoted", RolePromoted)
	if err := r.Demote(t.Context(), withEpoch(100)); err != nil {
		t.Fatalf("%s: %v", from.why, err)
	}
	check("demoted", RoleDemoted)
	return rec.all
}

// Wherever a process dies or the power fails, while it promotes, demotes or settles, the
// next one settles everything: also if that one dies within settling, and the third.
func TestWhereverAProcessDiesTheNextOneDemotesEverything(t *testing.T) {
	dir := t.TempDir()
	if small, err := mountSmall(t, 1<<20); err == nil {
		dir = small
	}
	r, rec := watched(t, filepath.Join(dir, "first"), []*world{{source: origin}, {source: origin}})
	for epoch := range 2 {
		e := withEpoch(7 + 2*carp.Epoch(epoch))
		if err := errors.Join(r.Run(t.Context(), BeforeUp, e), r.Demote(t.Context(), e)); err != nil {
			t.Fatal(err)
		}
	}
	deaths, second := len(rec.all), 0
	for n, from := range rec.all {
		for _, reboot := range []bool{false, true} {
			again := settled(t, dir, from, reboot, false)
			if n >= deaths/2 || testing.Short() && n%5 != 0 {
				continue // the second mastership is as the first, but that there was one before
			}
			for i, within := range again {
				if second++; (i+n)%3 == 0 || reboot {
					settled(t, dir, within, reboot, true)
				}
			}
		}
	}
	t.Logf("%d instants, and %d within settling what they left", deaths, second)
	if deaths < 100 || second < deaths {
		t.Error("too few: the plan is not what this test was made for")
	}
}
