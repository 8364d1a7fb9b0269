package install_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/replicator/install"
)

// steps are those of an installation, in order.
var steps = []string{"copy", "verify", "local", "own", "intent", "aside", "journals", "rename", "sync", "note", "prune"}

// holdOpen has a program open a file, until stop is called.
func holdOpen(t testing.TB, path string) (stop func()) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c := exec.CommandContext(ctx, "sleep", "60")
	c.ExtraFiles = []*os.File{f}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cancel()
		_ = c.Wait() // killed, which is what was asked for
	}
	t.Cleanup(stop)
	return stop
}

// scene lays a store with one snapshot and a database that a killed writer left.
func scene(t *testing.T) (store, database string) {
	t.Helper()
	where := t.TempDir()
	store, database = filepath.Join(where, "store"), filepath.Join(where, "proxysql.db")
	publish(t, open(t, store), 1, changed(t, fmt.Sprintf(setWhose, "new")))
	hot(t, database)
	return store, database
}

func TestAllStepsAreKnown(t *testing.T) {
	store, database := scene(t)
	p := place(t, database)
	var got []string
	p.SetStep(func(s string) error { got = append(got, s); return nil })
	if _, err := p.Newest(t.Context(), open(t, store), nil); err != nil || !slices.Equal(got, steps) {
		t.Errorf("%q, %v", got, err)
	}
}

// child runs a test again in a process of its own, which ends by SIGKILL.
func child(t *testing.T, c *exec.Cmd) {
	t.Helper()
	var exit *exec.ExitError
	out, err := c.CombinedOutput()
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the process was not killed: %v\n%s", err, out)
	}
}

// TestACrashAtAnyStepIsRepairedByTheNextStart kills a process of its own before each
// step: of an installation, and of the repair of one.
func TestACrashAtAnyStepIsRepairedByTheNextStart(t *testing.T) {
	if database := os.Getenv("CARPD_DATABASE"); database != "" {
		p := place(t, database)
		p.SetStep(func(s string) error {
			if s != os.Getenv("CARPD_STEP") {
				return nil
			}
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		})
		_, err := p.Newest(context.Background(), open(t, os.Getenv("CARPD_STORE")), nil)
		t.Fatal("still there:", err)
	}
	die := func(t *testing.T, store, database, step string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestACrashAtAnyStepIsRepairedByTheNextStart$")
		c.Env = append(os.Environ(), "CARPD_STORE="+store, "CARPD_DATABASE="+database, "CARPD_STEP="+step)
		child(t, c)
	}
	for i, step := range steps {
		again := []string{""}
		if i > slices.Index(steps, "intent") { // else there is nothing that a repair would do
			again = append(again, steps[i:min(i+2, len(steps))]...)
		}
		for _, again := range again {
			t.Run(strings.TrimSuffix(step+"/"+again, "/"), func(t *testing.T) {
				t.Parallel()
				store, database := scene(t)
				before := ask(t, database, whose)
				die(t, store, database, step)
				if again != "" {
					die(t, store, database, again)
				}
				p := place(t, database)
				if err := p.Repair(t.Context()); err != nil { // the next start
					t.Fatal(err)
				}
				want, olds := before, 0
				if i > slices.Index(steps, "intent") {
					want, olds = "new", 1
				}
				if again != "" { // the second installation has got as far, or the first
					olds = -1
					want = "new"
				}
				if got := ask(t, database, whose); got != want {
					t.Errorf("the database says %q, want %q", got, want)
				}
				if want == before {
					if v, err := p.Present(t.Context(), nil); err != nil || !v.Sound() {
						t.Errorf("it is %v, %v", v, err)
					}
					if err := os.Remove(database + "-journal"); err != nil {
						t.Error("the old database has lost its journal:", err)
					}
				}
				if olds >= 0 {
					clean(t, database, olds)
				}
				if want == "new" {
					if got := ask(t, filepath.Join(database+".carpd", "old-1"), whose); got != before {
						t.Errorf("the database before, kept aside, says %q, want %q", got, before)
					}
				}
				// And it goes on.
				if _, err := p.Newest(t.Context(), open(t, store), nil); err != nil || ask(t, database, whose) != "new" {
					t.Error(err)
				}
			})
		}
	}
}

// TestAFailureAtAnyStepIsRepairedByTheNextStart has each step fail, as on a full disk.
func TestAFailureAtAnyStepIsRepairedByTheNextStart(t *testing.T) {
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			store, database := scene(t)
			before := ask(t, database, whose)
			p := place(t, database)
			p.SetStep(func(s string) error {
				if s == step {
					return &os.PathError{Op: "write", Path: database, Err: syscall.ENOSPC}
				}
				return nil
			})
			if _, err := p.Newest(t.Context(), open(t, store), nil); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("%v, want that the disk is full", err)
			}
			p = place(t, database)
			if err := p.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := before
			if i > slices.Index(steps, "intent") {
				want = "new"
			}
			if got := ask(t, database, whose); got != want {
				t.Errorf("the database says %q, want %q", got, want)
			}
		})
	}
}

// TestATornCopyIsNeverPutInPlace damages the copy: while it is made ready, and after the
// intent was written and the machine died.
func TestATornCopyIsNeverPutInPlace(t *testing.T) {
	for _, step := range []string{"verify", "own", "intent", "aside", "journals", "rename"} {
		store, database := scene(t)
		before := ask(t, database, whose)
		p := place(t, database)
		stop := errors.New("the machine dies")
		p.SetStep(func(s string) error {
			if s != step {
				return nil
			}
			f, err := os.OpenFile(filepath.Join(database+".carpd", "new"), os.O_RDWR, 0)
			if err == nil {
				_, err = f.WriteAt(make([]byte, 4096), 8192)
				err = errors.Join(err, f.Close())
			}
			if step == "verify" {
				return err // and it goes on
			}
			return errors.Join(stop, err)
		})
		_, err := p.Newest(t.Context(), open(t, store), nil)
		if step == "verify" && !errors.Is(err, install.ErrNone) || step != "verify" && !errors.Is(err, stop) {
			t.Errorf("%s: %v", step, err)
		}
		p = place(t, database)
		if err := p.Repair(t.Context()); err != nil {
			t.Fatal(step, err)
		}
		if got := ask(t, database, whose); got != before {
			t.Errorf("%s: the database says %q, want %q", step, got, before)
		}
		if _, err := os.Lstat(filepath.Join(database+".carpd", "old-1")); err == nil {
			t.Errorf("%s: the database is kept aside as well", step)
		}
	}
}

func TestFilesOfItsOwnThatADiskDamagedKeepNobodyFromInstalling(t *testing.T) {
	for _, text := range []string{"", "{", "\x00\x00\x00\x00", "[]"} {
		store, database := scene(t)
		p := place(t, database)
		if err := p.SetState(install.State{Served: 9, Promoted: true}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"state", "intent"} {
			put(t, filepath.Join(database+".carpd", name), []byte(text))
		}
		if s, err := p.State(); err != nil || s.Served != 0 || s.Promoted || s.Installed.IsZero() {
			t.Errorf("%q is %+v, %v", text, s, err)
		}
		if _, err := p.Newest(t.Context(), open(t, store), nil); err != nil || ask(t, database, whose) != "new" {
			t.Errorf("%q: %v", text, err)
		}
		clean(t, database, 1)
	}
}

// TestAFullOrReadOnlyDiskCostsNothing runs a process in a mount namespace of its own,
// with a file system of its own: nothing is left of it.
func TestAFullOrReadOnlyDiskCostsNothing(t *testing.T) {
	if disk := os.Getenv("CARPD_DISK"); disk != "" {
		onSmallDisk(t, disk, os.Getenv("CARPD_STORE"))
		if !t.Failed() {
			t.Log("all is well")
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	store, _ := scene(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestAFullOrReadOnlyDiskCostsNothing$")
	c.Env = append(os.Environ(), "CARPD_STORE="+store, "CARPD_DISK="+t.TempDir())
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	child(t, c)
}

func onSmallDisk(t *testing.T, disk, store string) {
	// The database takes 613 KB with its journal 650; the copies have no room.
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", disk, "tmpfs", 0, "size=800k")); err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(disk, "proxysql.db")
	hot(t, database)
	before := ask(t, database, whose)
	same := func(what string, want error) {
		t.Helper()
		p := place(t, database)
		if _, err := p.Newest(t.Context(), open(t, store), nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if got := ask(t, database, whose); got != before {
			t.Errorf("%s: the database says %q, want %q", what, got, before)
		}
	}
	same("full", syscall.ENOSPC)
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	same("read-only", syscall.EROFS)
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	p := place(t, database)
	if _, err := p.Newest(t.Context(), open(t, store), nil); err != nil || ask(t, database, whose) != "new" {
		t.Error(err)
	}
	clean(t, database, 1)
}
