package hooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// If it cannot be written anew, nothing is lost, and it works again when that can be.
func TestJournalThatCannotBeWrittenAnewRefusesAndGoesOnLater(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	addAll(t, j, mastership("db", 7)...)
	want, full := known(j), j.size
	if err := os.MkdirAll(filepath.Join(j.newer(), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	j.size = MaxJournal
	e := Entry{Resource: "db", Action: Promotion, State: Begun, Epoch: 9}
	if err := j.add(t.Context(), e); err == nil {
		t.Error("it is written beyond its maximum")
	}
	same(t, known(j), want)
	if err := os.RemoveAll(j.newer()); err != nil {
		t.Fatal(err)
	}
	addAll(t, j, e)
	if j.size >= full {
		t.Errorf("%d bytes, was %d: it was not written anew", j.size, full)
	}
	if p := j.Past("db"); p.Epoch != 9 || !p.Unfinished {
		t.Errorf("it knows %+v", p)
	}
}

// mountSmall mounts a file system of so many bytes in memory, which only this process sees
// and which goes with it, and returns its directory.
func mountSmall(t *testing.T, size int) (string, error) {
	t.Helper()
	system, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(system)
	if err := unix.FsconfigSetString(system, "size", fmt.Sprint(size)); err != nil {
		return "", err
	}
	if err := unix.FsconfigCreate(system); err != nil {
		return "", err
	}
	root, err := unix.Fsmount(system, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { unix.Close(root) }) // and with it the file system
	return fmt.Sprintf("/proc/self/fd/%d", root), nil
}

func TestFullDiskRefusesWholeRecordsAndTakesThemAgainLater(t *testing.T) {
	dir, err := mountSmall(t, 64<<10)
	if err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	j := openJournal(t, filepath.Join(dir, "journal"))
	addAll(t, j, mastership("db", 7)...)
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	e := Entry{Resource: "db", Action: Promotion, State: Broken, Epoch: 8, Error: strings.Repeat("x", maxError)}
	for err = nil; err == nil; { // the page that is begun holds some
		err = j.add(t.Context(), e)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%v, want that the disk is full", err)
	}
	want := known(j)
	if content := read(t, j.path); int64(len(content)) != j.size || content[len(content)-1] != '\n' {
		t.Errorf("the file has %d bytes, and %d are sound", len(content), j.size)
	}
	if err := ballast.Truncate(0); err != nil {
		t.Fatal(err)
	}
	done := Entry{Resource: "proxy", Action: Demotion, State: Done, Epoch: 9}
	addAll(t, j, done)
	want["proxy"] = known(j)["proxy"]
	same(t, known(j), want)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, known(openJournal(t, j.path)), want)
}

// hanging is a disk that does not answer until free is closed.
type hanging struct {
	disk
	free chan struct{}
}

func (h hanging) Sync() error {
	<-h.free
	return h.disk.Sync()
}

// A disk that hangs costs its time once, not once for each record.
func TestHangingDiskIsWaitedForOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, path)
		all := mastership("db", 7)
		addAll(t, j, all[0])
		h := hanging{j.file, make(chan struct{})}
		j.file = h
		for i, most := range []time.Duration{journalTime, 0, 0} {
			start := time.Now()
			if err := j.add(t.Context(), all[1+i]); !errors.Is(err, errLate) {
				t.Errorf("record %d: %v", i, err)
			}
			if took := time.Since(start); took != most {
				t.Errorf("record %d took %v, want %v", i, took, most)
			}
		}
		start := time.Now()
		if err := j.Close(); !errors.Is(err, errLate) || time.Since(start) > journalTime {
			t.Errorf("closed in %v: %v", time.Since(start), err)
		}
		if _, err := OpenJournal(path, "boot-1"); err == nil {
			t.Error("another one opened it while a write was under way")
		}
		if p := j.Past("db"); p.Last.State != Begun {
			t.Errorf("what is not on the disk counts: %+v", p)
		}
		close(h.free)
		synctest.Wait()
		if p := j.Past("db"); p.Last.State != Marked {
			t.Errorf("what came onto the disk late does not count: %+v", p)
		}
		addAll(t, j, all[3])
		want := known(j)
		if err := j.Close(); err != nil {
			t.Error(err)
		}
		same(t, known(openJournal(t, path)), want)
	})
}

func TestDiskThatFailsLeavesNoHalfRecord(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	addAll(t, j, mastership("db", 7)...)
	want, good := known(j), j.file
	e := Entry{Resource: "db", Action: Promotion, State: Begun, Epoch: 9}
	for n := range 40 {
		j.file = failing{good, n}
		if err := j.add(t.Context(), e); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		same(t, known(j), want)
	}
	j.file = good
	addAll(t, j, Entry{Resource: "db", Action: Demotion, State: Done, Epoch: 7})
	want = known(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, known(openJournal(t, j.path)), want)
}

var errBroken = errors.New("input/output error")

// failing is a disk that writes n bytes and no more, and cannot take them back.
type failing struct {
	disk
	n int
}

func (f failing) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.disk.WriteAt(b[:f.n], at)
	return n, errors.Join(errBroken, err)
}

func (f failing) Truncate(int64) error { return errBroken }

// A demotion that worked, as a look says, is not repeated for want of a record. That is
// written when the disk can take it; a crash before then has the next start demote once more.
func TestDemotionWhoseEndCannotBeWrittenCountsAndIsRecordedLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	recorded := func() bool { // that it is not promoted any more, for who opens the journal next
		past, _, err := readJournal(bytes.NewReader(read(t, path)))
		if err != nil {
			t.Fatal(err)
		}
		return !past["db"].Promoted
	}
	synctest.Test(t, func(t *testing.T) {
		th := newThing("db")
		r := runner(t, path, Options{}, th.resource())
		if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
			t.Fatal(err)
		}
		disk := &roomy{disk: r.o.Journal.file}
		r.o.Journal.file = disk
		ctx, stop := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		defer watch.Wait()
		defer stop()
		watch.Go(func() { r.Watch(ctx) })
		if err := r.Demote(t.Context(), withEpoch(1)); err != nil {
			t.Fatal(err)
		}
		th.world.written()
		if err := r.Demote(t.Context(), withEpoch(1)); err != nil || r.Holds() || th.world.written() != "" {
			t.Errorf("it is still held, or demoted again: %v", err)
		}
		<-time.After(3 * time.Second)
		if recorded() {
			t.Error("there is a record, and no room for one")
		}
		disk.room.Store(1)
		<-time.After(3 * time.Second)
		if left := disk.room.Load(); !recorded() || left != 0 {
			t.Errorf("recorded: %v, room for %d records is left", recorded(), left)
		}
		if err := r.Run(t.Context(), BeforeUp, withEpoch(2)); err == nil {
			t.Error("promoted without a record")
		}
	})
}

// roomy is a disk with room for some records, which may change.
type roomy struct {
	disk
	room atomic.Int32
}

func (r *roomy) WriteAt(b []byte, at int64) (int, error) {
	if r.room.Load() <= 0 {
		return 0, unix.ENOSPC
	}
	r.room.Add(-1)
	return r.disk.WriteAt(b, at)
}

// What is owed of a demotion is not written behind the promotion that follows.
func TestRecordThatIsOwedEndsWithTheNextOne(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "journal"))
	e := func(a Action, s EntryState) Entry { return Entry{Resource: "db", Action: a, State: s, Epoch: 7} }
	addAll(t, j, e(Promotion, Done))
	j.owe(e(Demotion, Done))
	if j.Past("db").Promoted {
		t.Error("what is owed does not count")
	}
	addAll(t, j, e(Promotion, Begun))
	size := j.size
	if err := j.pay(t.Context(), "db"); err != nil || j.size != size || !j.Past("db").Promoted {
		t.Errorf("%v, and the journal knows %+v", err, j.Past("db"))
	}
}
