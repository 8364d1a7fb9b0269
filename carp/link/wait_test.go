package link_test

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp/link"
)

func openWaiter(t testing.TB) *link.Waiter {
	t.Helper()
	w, err := link.OpenWaiter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestWaiterNeverReturnsBeforeItsInstantUnlessWoken(t *testing.T) {
	w := openWaiter(t)
	for _, nap := range []time.Duration{-time.Second, 0, time.Microsecond, 300 * time.Microsecond, 20 * time.Millisecond} {
		until := w.Now().Add(nap)
		for w.Now() < until { // a signal may end one
			w.Wait(until)
		}
	}
	// A suspended machine is noticed though nothing is due.
	start := w.Now()
	w.Wait(0)
	if took := w.Now().Sub(start); took > 10*time.Second {
		t.Errorf("waited %v for nothing", took)
	}
}

func TestWakeEndsTheWaitOrTheNext(t *testing.T) {
	w := openWaiter(t)
	start := w.Now()
	for range 1000 {
		w.Wake()
		w.Wake()
		w.Wait(w.Now().Add(time.Hour)) // woken before it began
	}
	woken := make(chan struct{})
	for range 100 {
		go func() { w.Wake(); woken <- struct{}{} }()
		w.Wait(w.Now().Add(time.Hour))
		<-woken
	}
	// A wait that nobody ends takes a quarter of a second.
	if took := w.Now().Sub(start); took > 60*time.Second {
		t.Errorf("1100 waits took %v although all were woken", took)
	}
	w.Close()
	w.Wake() // harmless
}

func TestWaitingDoesNotAllocate(t *testing.T) {
	w := openWaiter(t)
	if n := testing.AllocsPerRun(100, func() { w.Wake(); w.Wait(w.Now().Add(time.Microsecond)) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRealTimeConcernsTheCallingThreadOrSaysWhyNot(t *testing.T) {
	policy := func() uint32 {
		attr, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return attr.Policy
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		err := link.RealTime()
		switch {
		case err == nil && policy() != unix.SCHED_RR:
			t.Errorf("policy %d", policy())
		case err != nil && !errors.Is(err, os.ErrPermission):
			t.Error(err)
		case err != nil:
			t.Log(err)
		}
	}()
	<-done
	if got := policy(); got == unix.SCHED_RR {
		t.Error("another thread is in real time, too")
	}
}

func TestRealTimeWithoutTheRightIsAPermissionError(t *testing.T) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with its capabilities
		var none [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			done <- err
			return
		}
		done <- link.RealTime()
	}()
	if err := <-done; !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
}
