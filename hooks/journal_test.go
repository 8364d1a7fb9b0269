package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/carpd/carpd/carp"
)

func openJournal(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := OpenJournal(path, "boot-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return j
}

func addAll(t testing.TB, j *Journal, all ...Entry) {
	t.Helper()
	for _, e := range all {
		if err := j.add(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// mastership is what a promotion and a demotion write.
func mastership(resource string, epoch carp.Epoch) []Entry {
	e := func(a Action, s EntryState) Entry {
		return Entry{Resource: resource, Action: a, State: s, Epoch: epoch}
	}
	mark := e(Promotion, Marked)
	mark.Step = "read_only off"
	kept := e(Promotion, Remembered)
	kept.Key, kept.Value = "source", fmt.Sprint("192.0.2.", epoch)
	failed := e(Demotion, Broken)
	failed.Error = "held by \"mysqld\"\n"
	return []Entry{e(Promotion, Begun), mark, kept, e(Promotion, Done), e(Demotion, Begun), failed, e(Demotion, Begun), e(Demotion, Done)}
}

// known is all that a journal knows, to be compared.
func known(j *Journal) map[string]Past {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := map[string]Past{}
	for name, p := range j.past {
		one := *p
		one.Last.Time = one.Last.Time.Round(0)
		if len(one.memory) == 0 {
			one.memory = nil
		}
		if one.memory != nil || one.Last.State != "" {
			all[name] = one
		}
	}
	return all
}

// fataler is a *testing.T or *rapid.T.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func same(t fataler, got, want map[string]Past) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("it knows\n%+v\nwant\n%+v", got, want)
	}
}

func write(t fataler, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t fataler, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEachRecordChangesWhatIsKnown(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	e := func(a Action, s EntryState, epoch carp.Epoch) Entry {
		return Entry{Resource: "db", Action: a, State: s, Epoch: epoch}
	}
	for i, c := range []struct {
		Entry
		epoch                carp.Epoch
		promoted, unfinished bool
	}{
		{e(Demotion, Begun, 3), 3, false, true},
		{e(Demotion, Done, 3), 3, false, false},
		{e(Promotion, Begun, 7), 7, true, true},
		{e(Promotion, Marked, 7), 7, true, true},
		{e(Promotion, Broken, 7), 7, true, false},
		{e(Demotion, Begun, 5), 7, true, true},
		{e(Demotion, Marked, 5), 7, true, true},
		{e(Demotion, Cancelled, 5), 7, true, false},
		{e(Promotion, Begun, 8), 8, true, true},
		{e(Promotion, Cancelled, 8), 8, true, false},
		{e(Promotion, Begun, 9), 9, true, true},
		{e(Promotion, Done, 9), 9, true, false},
		{e(Demotion, Begun, 9), 9, true, true},
		{e(Demotion, Broken, 9), 9, true, false},
		{e(Demotion, Begun, 9), 9, true, true},
		{e(Demotion, Done, 9), 9, false, false},
	} {
		addAll(t, j, c.Entry)
		if p := j.Past("db"); p.Epoch != c.epoch || p.Promoted != c.promoted || p.Unfinished != c.unfinished {
			t.Errorf("after %d records, the last %s %s: epoch %d, promoted %v, unfinished %v", i+1, c.Action, c.State, p.Epoch, p.Promoted, p.Unfinished)
		}
	}
	if p := j.Past("another"); p.Promoted || p.Unfinished || p.Epoch != 0 {
		t.Errorf("of a resource that it never heard of it knows %+v", p)
	}
}

// Wherever a crash cuts a journal off, all whole records before count, and what comes
// next is written behind them.
func TestJournalThatIsCutOffAnywhereKeepsItsWholeRecords(t *testing.T) {
	dir := t.TempDir()
	whole := openJournal(t, filepath.Join(dir, "whole"))
	after := []map[string]Past{known(whole)} // so many records
	for _, e := range append(mastership("db", 7), mastership("proxy", 7)...) {
		addAll(t, whole, e)
		after = append(after, known(whole))
	}
	content := read(t, whole.path)
	next := Entry{Resource: "db", Action: Promotion, State: Begun, Epoch: 99}
	for cut := range len(content) + 1 {
		torn := filepath.Join(dir, fmt.Sprint("torn-", cut))
		write(t, torn, content[:cut])
		j := openJournal(t, torn)
		same(t, known(j), after[bytes.Count(content[:cut], []byte{'\n'})])
		if cut%7 == 0 {
			addAll(t, j, next)
			want := known(j)
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			same(t, known(openJournal(t, torn)), want)
		}
	}
}

// What is damaged in the middle may have said that something is promoted: no journal is
// better than one that does not say so.
func TestDamagedRecordIsRefusedWithItsLineUnlessItIsTheLast(t *testing.T) {
	dir := t.TempDir()
	whole := openJournal(t, filepath.Join(dir, "whole"))
	addAll(t, whole, mastership("db", 7)...)
	content := read(t, whole.path)
	last := bytes.LastIndexByte(content[:len(content)-1], '\n') + 1
	damaged := filepath.Join(dir, "damaged")
	for at := range len(content) - 1 {
		bad := bytes.Clone(content)
		bad[at] ^= 1
		write(t, damaged, bad)
		j, err := OpenJournal(damaged, "boot-1")
		line := fmt.Sprintf("line %d: ", bytes.Count(content[:at], []byte{'\n'})+1)
		switch {
		case at >= last && err != nil:
			t.Fatalf("byte %d, of the last record: %v", at, err)
		case at >= last && !j.Past("db").Unfinished:
			t.Fatalf("byte %d: the last record counts, though it is damaged", at)
		case at < last-1 && (err == nil || !strings.Contains(err.Error(), line) || !strings.Contains(err.Error(), "move the file away")):
			t.Fatalf("byte %d: %v, want %q and what to do", at, err, line)
		}
		if j != nil {
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(read(t, damaged), bad) {
			t.Fatalf("byte %d: what was refused was changed", at)
		}
	}
}

func TestJournalOfANewerProgramOrTooLargeIsNotTruncated(t *testing.T) {
	line := func(e Entry) []byte {
		b, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	begun := line(Entry{Resource: "db", Action: Promotion, State: Begun, Epoch: 1})
	for name, content := range map[string][]byte{
		"last record with an unknown state":  append(bytes.Clone(begun), line(Entry{Resource: "db", Action: Promotion, State: "paused"})...),
		"last record with an unknown action": append(bytes.Clone(begun), line(Entry{Resource: "db", Action: "freeze", State: Done})...),
		"more than is ever written":          bytes.Repeat(begun, 4*MaxJournal/len(begun)+1),
	} {
		path := filepath.Join(t.TempDir(), "journal")
		write(t, path, content)
		if _, err := OpenJournal(path, "boot-1"); err == nil || !strings.Contains(err.Error(), "move the file away") {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(read(t, path), content) {
			t.Errorf("%s: it was changed", name)
		}
	}
}

func TestLongErrorIsCutAndAnUnfitRecordIsRefused(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	for _, unit := range []string{"a", "\x00", "<", "é", "\xff", "\n"} {
		addAll(t, j, Entry{Resource: "db", Action: Demotion, State: Broken, Error: strings.Repeat(unit, 9000)})
	}
	if err := j.add(t.Context(), Entry{Resource: "db", Action: Promotion, State: Marked, Step: strings.Repeat("x", maxEntry)}); err == nil {
		t.Error("a record that is too long was written")
	}
	addAll(t, j, Entry{Resource: "db", Action: Demotion, State: Done})
	want := known(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, known(openJournal(t, j.path)), want)
}

func TestWhatIsRememberedIsBoundedAndCanBeForgotten(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	keep := func(resource, key, value string) error {
		return j.add(t.Context(), Entry{Resource: resource, State: Remembered, Key: key, Value: value})
	}
	for i := range MaxRemembered {
		if err := keep("db", fmt.Sprint("key-", i), "value"); err != nil {
			t.Fatal(err)
		}
	}
	if err := keep("db", "one more", "value"); err == nil {
		t.Errorf("%d values are kept", MaxRemembered+1)
	}
	for _, c := range [][2]string{{"db", "key-3"}, {"proxy", "key-0"}} {
		if err := keep(c[0], c[1], "another"); err != nil || j.recall(c[0], c[1]) != "another" {
			t.Errorf("%v: %q, %v", c, j.recall(c[0], c[1]), err)
		}
	}
	if err := errors.Join(keep("db", "key-3", ""), keep("db", "one more", "value")); err != nil {
		t.Errorf("one is forgotten and another kept: %v", err)
	}
	want := known(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, j.path)
	same(t, known(j), want)
	if j.recall("db", "key-3") != "" || j.recall("db", "one more") != "value" || j.recall("nobody", "x") != "" {
		t.Error("what is remembered is not what was kept")
	}
}

// entries draws records as they could come.
func entries() *rapid.Generator[[]Entry] {
	one := rapid.Custom(func(t *rapid.T) Entry {
		e := Entry{
			Resource: rapid.SampledFrom([]string{"db", "proxy", "disk"}).Draw(t, "resource"),
			Action:   rapid.SampledFrom([]Action{Promotion, Demotion}).Draw(t, "action"),
			State:    rapid.SampledFrom(entryStates()).Draw(t, "state"),
			Epoch:    carp.Epoch(rapid.IntRange(0, 9).Draw(t, "epoch")),
		}
		if e.State == Remembered {
			e.Key = rapid.SampledFrom([]string{"source", "unit"}).Draw(t, "key")
			e.Value = rapid.SampledFrom([]string{"", "192.0.2.1", "\n\x00é"}).Draw(t, "value")
		} else {
			e.Step, e.Error = rapid.String().Draw(t, "step"), rapid.String().Draw(t, "error")
		}
		return e
	})
	return rapid.SliceOfN(one, 0, 30)
}

// Whatever was recorded, written anew at any place or not: what is known is the same,
// before and after it is opened again, and also if a crash came while it was written anew.
func TestWritingAnewKeepsWhatCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		all := entries().Draw(t, "records")
		anew := rapid.IntRange(0, len(all)).Draw(t, "written anew after")
		j, err := OpenJournal(filepath.Join(dir, "journal"), "boot-1")
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range append(all, Entry{Resource: "db", Action: Demotion, State: Begun}) {
			if i == anew {
				before, old := known(j), read(t, j.path)
				if err := j.compact(); err != nil {
					t.Fatal(err)
				}
				same(t, known(j), before)
				fresh := read(t, j.path)
				cut := rapid.IntRange(0, len(fresh)).Draw(t, "crash after")
				same(t, reopened(t, dir, old, fresh[:cut]), before) // not renamed yet
				same(t, reopened(t, dir, fresh, nil), before)       // renamed
			}
			if err := j.add(context.Background(), e); err != nil {
				t.Fatal(err)
			}
		}
		want := known(j)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		same(t, reopened(t, dir, read(t, j.path), nil), want)
	})
}

// reopened is what is known of a journal and the file that was to take its place.
func reopened(t *rapid.T, dir string, content, newer []byte) map[string]Past {
	path := filepath.Join(dir, "reopened")
	write(t, path, content)
	if newer != nil {
		write(t, path+".new", newer)
	}
	j, err := OpenJournal(path, "boot-2")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := os.Stat(j.newer()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("what a crash left is still there: %v", err)
	}
	return known(j)
}

func TestJournalStaysSmall(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	j.file = unsynced{j.file}
	long := Entry{Resource: "db", Action: Promotion, State: Broken, Epoch: 1, Error: strings.Repeat("x", maxError)}
	for i := range 3 * MaxJournal / maxError {
		long.Epoch = carp.Epoch(i)
		addAll(t, j, long)
		if i%100 == 0 && len(read(t, j.path)) > MaxJournal {
			t.Fatal("it has grown beyond its maximum")
		}
	}
	want := known(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, known(openJournal(t, j.path)), want)
}

// unsynced is a disk that loses no time.
type unsynced struct{ disk }

func (unsynced) Sync() error { return nil }

func TestJournalIsSharedByManyGoroutines(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	j.file = unsynced{j.file}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := fmt.Sprint("resource-", i)
			for n := range 60 {
				for _, e := range mastership(name, carp.Epoch(n)) {
					if err := j.add(t.Context(), e); err != nil {
						t.Error(err)
						return
					}
				}
				if p := j.Past(name); p.Epoch != carp.Epoch(n) || p.Promoted || j.recall(name, "source") != fmt.Sprint("192.0.2.", n) {
					t.Errorf("%s: %+v", name, p)
				}
			}
		})
	}
	all.Wait()
	want := known(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.add(t.Context(), Entry{Resource: "db", Action: Demotion, State: Begun}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("written after it was closed: %v", err)
	}
	same(t, known(openJournal(t, j.path)), want)
}

// heldBy is the environment of the process that TestOneProcessHasAJournal starts.
const heldBy = "CARPD_TEST_JOURNAL"

func TestOneProcessHasAJournal(t *testing.T) {
	if path := os.Getenv(heldBy); path != "" {
		if _, err := OpenJournal(path, "boot-1"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		os.Stdin.Read(make([]byte, 1)) // until it is killed
		os.Exit(2)
	}
	path := filepath.Join(t.TempDir(), "journal")
	other := exec.Command(os.Args[0], "-test.run=^TestOneProcessHasAJournal$")
	other.Env = append(os.Environ(), heldBy+"="+path)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill() })
	word := make([]byte, 4)
	if _, err := out.Read(word); err != nil || string(word) != "open" {
		t.Fatalf("%q, %v", word, err)
	}
	if _, err := OpenJournal(path, "boot-1"); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process opened it: %v", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	other.Wait() // it was killed
	openJournal(t, path)
	if _, err := OpenJournal(path, "boot-1"); err == nil {
		t.Error("it is open twice in one process")
	}
}
