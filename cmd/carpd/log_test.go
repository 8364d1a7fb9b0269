package main_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// fullPipe returns a pipe into which not one byte more fits.
func fullPipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "log reader"), os.NewFile(uintptr(fds[1]), "log writer")
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	if err := unix.SetNonblock(fds[1], true); err != nil {
		t.Fatal(err)
	}
	for size := 4096; size > 0; {
		if _, err := unix.Write(fds[1], make([]byte, size)); err == unix.EAGAIN {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.SetNonblock(fds[1], false); err != nil {
		t.Fatal(err)
	}
	return r, w
}

// chatter makes the daemon write more lines than wait for a slow reader.
func (n *node) chatter() {
	n.t.Helper()
	for range 1200 {
		n.post("/v1/demote", api.DemoteRequest{Amount: 0}, nil)
	}
}

// keepsPace checks that five more adverts come, none late.
func (p *pair) keepsPace(since time.Time) {
	p.a.t.Helper()
	now := time.Now()
	lab.Eventually(p.a.t, takeover, "five more adverts", func() bool { return len(adverts(p.wire, "a", 9, now)) >= 5 })
	if gap := longestGap(adverts(p.wire, "a", 9, since)); gap > lateAdvert {
		p.a.t.Errorf("%v between two adverts", gap)
	}
}

func TestLogThatNobodyReadsDelaysNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	r, w := fullPipe(t)
	p.a.configure(settings{})
	cmd := p.a.command("run", "--config", p.a.config())
	cmd.Stderr = w
	p.a.startWith(cmd)
	p.a.promote()
	at := time.Now()
	p.a.chatter()
	p.keepsPace(at)
	st := p.a.status()
	if st.Log == nil || st.Log.Dropped == 0 {
		t.Errorf("the status does not count dropped lines: %+v", st.Log)
	}

	// Whoever reads again is told what is missing.
	w.Close()
	told := make(chan bool, 1)
	go func() {
		var log strings.Builder
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			log.Write(buf[:n])
			if strings.Contains(log.String(), "log lines were dropped") {
				told <- true
				return
			}
			if err != nil {
				told <- false
				return
			}
		}
	}()
	select {
	case ok := <-told:
		if !ok {
			t.Error("the log ended without a word about dropped lines")
		}
	case <-time.After(soon):
		t.Error("the log says nothing about dropped lines")
	}
}

func TestLogThatNobodyReadsDoesNotDelayTheEnd(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	_, w := fullPipe(t)
	p.a.configure(settings{})
	cmd := p.a.command("run", "--config", p.a.config())
	cmd.Stderr = w
	p.a.startWith(cmd)
	p.a.promote()
	p.a.chatter()
	p.a.endedBy(syscall.SIGTERM)
	if p.a.HasAddr(shared4) || p.a.HasAddr(shared6) {
		t.Error("an address was left behind")
	}
}

func TestLogWhoseReaderIsDeadEndsNothing(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, n *node) *exec.Cmd{
		"the pipe's reader is gone": func(t *testing.T, n *node) *exec.Cmd {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			t.Cleanup(func() { w.Close() })
			cmd := n.command("run", "--config", n.config())
			cmd.Stderr = w
			return cmd
		},
		"stderr is closed": func(_ *testing.T, n *node) *exec.Cmd {
			return exec.Command("/bin/sh", "-c", `exec "$0" run --config "$1" 2>&-`, program(n.t, carpd), n.config())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.a.configure(settings{})
			p.a.startWith(start(t, p.a))
			p.a.promote()
			at := time.Now()
			p.a.chatter()
			p.keepsPace(at)
			p.a.endedBy(syscall.SIGTERM)
		})
	}
}
