package guardian

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onDyingThread runs f on a thread that ends with it.
func onDyingThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() == unix.Getpid() {
			onDyingThread(f) // the main thread never ends; while it is held here, another one is taken
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

func TestTheEndOfTheLoopsThreadIsToldAtOnce(t *testing.T) {
	k := newKeeper(t)
	other := mapped(t, k)
	told := make(chan time.Time, 1)
	go func() {
		runtime.LockOSThread()
		other.awaitDeath()
		told <- time.Now()
	}()
	held := make(chan struct{})
	end := make(chan struct{})
	go onDyingThread(func() {
		k.Hold()
		close(held)
		<-end
	})
	<-held
	select {
	case <-told:
		t.Fatal("a thread that lives was taken for dead")
	case <-time.After(20 * time.Millisecond):
	}
	if other.died() {
		t.Fatal("a thread that lives is dead on the page")
	}
	close(end)
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		t.Fatal("the end of the thread was not told")
	}
	if !other.died() {
		t.Error("the page does not say so")
	}
}

func TestALoopThatEndsInOrderIsNoDeath(t *testing.T) {
	k := newKeeper(t)
	onDyingThread(func() { k.Hold()() })
	// The kernel has looked at the thread's list when the thread is gone; another one
	// of the same kind is a little later still.
	second := newKeeper(t)
	onDyingThread(func() { second.Hold() })
	deadline := time.After(5 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !second.page.died(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the second thread was not told")
		}
	}
	if k.page.died() {
		t.Error("an orderly end was taken for a death")
	}
	var nobody *Keeper
	nobody.Hold()()
}
