package daemon

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
)

func TestOnlyALoopThatTurnsFeedsTheWatchdog(t *testing.T) {
	const granted = 10 * time.Second
	now := carp.Instant(time.Hour)
	for name, c := range map[string]struct {
		turned carp.Instant
		want   bool
	}{
		"just now":             {now, true},
		"idle":                 {now.Add(-250 * time.Millisecond), true},
		"late, but in time":    {now.Add(-granted/2 + 1), true},
		"hangs":                {now.Add(-granted / 2), false},
		"hangs since long ago": {1, false},
		"has never turned":     {0, false},
	} {
		if got := feeds(now, c.turned, granted); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// systemd's side of the socket.
func listenToNotes(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// fed waits for WATCHDOG=1 and reports whether it came.
func fed(t *testing.T, c *net.UnixConn, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err == nil && string(buf[:n]) != "WATCHDOG=1" {
		t.Fatalf("systemd was told %q", buf[:n])
	}
	return err == nil
}

// The real loop on the real clock: a waiter that hangs is a loop that hangs, and the
// rest of the process goes on.
func TestHungLoopIsNotReportedToLive(t *testing.T) {
	const granted = time.Second
	notes := listenToNotes(t)
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", "")
	inner, err := link.OpenWaiter()
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	waiter := &hangingWaiter{Waiter: inner}
	var turned atomic.Int64
	loop := carp.NewLoop(waiter)
	loop.Turned = func() { turned.Store(int64(link.Now())) }
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { loop.Run(ctx) })
	defer running.Wait()
	defer stop()
	var w watchdog
	w.start(&turned)
	defer w.end()

	for n := range 6 {
		if !fed(t, notes, 5*time.Second) {
			t.Fatalf("a loop that idles was reported to live %d times only", n)
		}
	}
	waiter.gate.Lock()
	defer waiter.gate.Unlock()
	for began := time.Now(); fed(t, notes, granted); {
		if time.Since(began) > granted {
			t.Fatal("a loop that hangs is reported to live")
		}
	}
	if fed(t, notes, granted) {
		t.Error("a loop that hangs is reported to live again")
	}
}

// hangingWaiter hangs while its gate is held.
type hangingWaiter struct {
	*link.Waiter
	gate sync.Mutex
}

// Wait implements carp.Waiter.
func (w *hangingWaiter) Wait(until carp.Instant) {
	w.Waiter.Wait(until)
	w.gate.Lock()
	defer w.gate.Unlock()
}

func TestWithoutSystemdNobodyIsFed(t *testing.T) {
	notes := listenToNotes(t)
	for _, v := range []string{"", "0", "soon"} {
		t.Setenv("WATCHDOG_USEC", v)
		var turned atomic.Int64
		turned.Store(int64(link.Now()))
		var w watchdog
		w.start(&turned)
		if w.stop != nil || fed(t, notes, time.Millisecond) {
			t.Errorf("WATCHDOG_USEC=%q: fed", v)
		}
		w.end()
	}
}
