package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// What adverts are measured by: a master of CARP and one of VRRP in the same daemon.
const (
	carpEach, vrrpEach = time.Second, 100 * time.Millisecond
	carpID, vrrpID     = 9, 10
	strained           = 3 * time.Second // how long something weighs on the daemon
)

// straits is a LAN whose master is given something to wait for, and an observer who
// stamps its adverts.
type straits struct {
	t        *testing.T
	a, b     *node
	stranger *lab.Host
	ear      *ear
}

func newStraits(t *testing.T) *straits {
	t.Helper()
	lan := lab.New(t)
	s := &straits{t: t,
		a: newNode(t, lan, "a", "192.0.2.1/24"), b: newNode(t, lan, "b", "192.0.2.2/24"),
		stranger: lan.Host("stranger", "192.0.2.77/24"),
	}
	s.ear = listen(t, lan.Host("observer"), [4]byte{192, 0, 2, 1})
	return s
}

// text is a node's configuration, with more instances.
func (s *straits) text(advskew, priority int, more ...string) string {
	return fmt.Sprintf(`instances:
  - {vhid: %d, interface: eth0, passphrase: a secret, advskew: %d, addresses: [192.0.2.50/24]}
  - {protocol: vrrp3, vrid: %d, interface: eth0, priority: %d, interval: %v, addresses: [192.0.2.60/24]}
%s`, carpID, advskew, vrrpID, priority, vrrpEach, strings.Join(more, ""))
}

// command runs the daemon as it is delivered. The race detector's locks are turned
// round by a thread in real time, on the CPU of whoever holds them: adverts were up
// to 140 ms late for that alone.
func (s *straits) command(n *node, flags ...string) *exec.Cmd {
	s.t.Helper()
	return exec.Command(program(s.t, delivered), append([]string{"run", "--config", n.config()}, flags...)...)
}

// elect starts both nodes, a by a command of its own, and returns when a is the
// master of both groups and b hears it.
func (s *straits) elect(command *exec.Cmd, text string) {
	s.t.Helper()
	s.a.write(text)
	if command == nil {
		command = s.command(s.a)
	}
	s.a.startWith(command)
	s.b.write(s.text(100, 100))
	masters := func(n *node, state string) func() bool {
		return func() bool {
			heard := 0
			for _, i := range n.status().Instances {
				if (i.VHID == carpID || i.VHID == vrrpID) && i.State == state && (state == "MASTER" || i.Master != nil) {
					heard++
				}
			}
			return heard == 2
		}
	}
	lab.Eventually(s.t, takeover, "a to be master of both", masters(s.a, "MASTER"))
	s.b.startWith(s.command(s.b))
	lab.Eventually(s.t, takeover, "b to hear a", masters(s.b, "BACKUP"))
}

// keepsPace runs something that weighs on a, for a while, and checks that no advert
// was later than half an interval and that b has not moved. The machine of the tests
// may stand still at any time, but not each time: one of five attempts must do.
func (s *straits) keepsPace(what string, strain func(ctx context.Context)) {
	s.t.Helper()
	var trouble []string
	for attempt := range 5 {
		seq := s.b.seq()
		from := s.ear.mark()
		ctx, stop := context.WithTimeout(s.t.Context(), strained)
		strain(ctx)
		<-ctx.Done()
		stop()
		carp, vrrp := s.ear.gaps(from, carpID), s.ear.gaps(from, vrrpID)
		moved := s.b.transitions(seq)
		s.t.Logf("%s, attempt %d: CARP %v, VRRP %v apart; b moved %d times", what, attempt+1, carp, vrrp, len(moved))
		if carp.n >= 2 && vrrp.n >= 20 && carp.max <= carpEach*3/2 && vrrp.max <= vrrpEach*3/2 && len(moved) == 0 {
			return
		}
		trouble = append(trouble, fmt.Sprintf("CARP %v, VRRP %v, b: %+v", carp, vrrp, moved))
	}
	s.t.Errorf("%s: adverts wait: %s", what, strings.Join(trouble, "; "))
}

// many are instances with so many addresses that it takes the kernel a second to put
// them on: many-0 to many-9, each with 1000.
func many() string {
	var b strings.Builder
	for i := range 10 {
		fmt.Fprintf(&b, "  - vhid: %d\n    interface: eth0\n    passphrase: a secret\n    name: many-%d\n    advskew: 200\n    addresses: [", 40+i, i)
		for n := range 1000 {
			fmt.Fprintf(&b, "10.%d.%d.%d/32, ", i, n>>8, n&255)
		}
		b.WriteString("]\n")
	}
	return b.String()
}

// move makes a master of an instance of a, or a backup again, without end.
func (s *straits) move(ctx context.Context, name string) {
	for to := "master"; ctx.Err() == nil; {
		// Refused or not, it is asked for.
		_, _ = s.a.try("POST", "/v1/state", api.StateRequest{Name: name, State: to}, nil)
		select {
		case <-ctx.Done():
		case <-time.After(strained / 2):
		}
		if to == "master" {
			to = "backup"
		} else {
			to = "master"
		}
	}
}

func TestAdvertsWaitForNothing(t *testing.T) {
	t.Run("quiet", func(t *testing.T) {
		s := newStraits(t)
		s.elect(nil, s.text(0, 200))
		s.keepsPace(t.Name(), func(context.Context) {})
	})
	t.Run("every core is busy", func(t *testing.T) {
		s := newStraits(t)
		s.elect(nil, s.text(0, 200))
		if !s.a.status().RealTime {
			t.Skip("real time is not allowed here")
		}
		s.keepsPace(t.Name(), func(ctx context.Context) {
			for range runtime.NumCPU() {
				spin := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
				if err := spin.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = spin.Wait() }) // killed with ctx
			}
		})
	})
	t.Run("10 000 addresses come and go", func(t *testing.T) {
		s := newStraits(t)
		s.elect(nil, s.text(0, 200, many()))
		most := 0
		s.keepsPace(t.Name(), func(ctx context.Context) {
			var all sync.WaitGroup
			for n := range 10 {
				all.Go(func() { s.move(ctx, fmt.Sprintf("many-%d", n)) })
			}
			moved := make(chan struct{})
			go func() { all.Wait(); close(moved) }()
			for look := time.NewTicker(strained / 10); ; {
				select {
				case <-look.C:
					most = max(most, len(s.a.Addrs("eth0")))
					continue
				case <-moved:
					look.Stop()
				}
				return
			}
		})
		if most < 1000 {
			t.Errorf("%d addresses were on at most", most)
		}
	})
	t.Run("a hook hangs", func(t *testing.T) {
		s := newStraits(t)
		hang := "  - {vhid: 31, name: hung, interface: eth0, passphrase: x, addresses: [192.0.2.70/24], advskew: 200," +
			" hooks: [{kind: exec, on: before-up, timeout: 60s, with: {command: [/bin/sleep, '60']}}, {kind: exec, on: after-down, timeout: 60s, with: {command: [/bin/sleep, '60']}}]}\n"
		s.elect(nil, s.text(0, 200, hang))
		s.keepsPace(t.Name(), func(ctx context.Context) { s.move(ctx, "hung") })
		if out, err := s.a.RunErr("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 60'"); err != nil || out == "0\n" {
			t.Errorf("no hook hangs: %s %v", out, err)
		}
	})
	t.Run("nobody reads the log", func(t *testing.T) {
		s := newStraits(t)
		_, w := fullPipe(t)
		command := s.command(s.a)
		command.Stderr = w
		s.elect(command, s.text(0, 200))
		s.keepsPace(t.Name(), func(ctx context.Context) { s.chatter(ctx) })
		if st := s.a.status(); st.Log == nil || st.Log.Dropped == 0 {
			t.Error("no line of the log was dropped: it was read")
		}
	})
	t.Run("nobody reads the socket of the log", func(t *testing.T) {
		s := newStraits(t)
		command := s.command(s.a, "--log-format", "json")
		command.Stderr = fullSocket(t)
		s.elect(command, s.text(0, 200))
		s.keepsPace(t.Name(), func(ctx context.Context) { s.chatter(ctx) })
		if st := s.a.status(); st.Log == nil || st.Log.Dropped == 0 {
			t.Error("no line of the log was dropped: it was read")
		}
	})
	t.Run("the disk is full", func(t *testing.T) {
		s := newStraits(t)
		const script = `mkdir -p "$1" && mount -t tmpfs -o size=64k tmpfs "$1" && cat /dev/zero >"$1/junk" 2>/dev/null; exec "$0" run --config "$2"`
		other := "  - {vhid: 32, name: other, interface: eth0, passphrase: x, addresses: [192.0.2.71/24], advskew: 200}\n"
		s.elect(exec.Command("unshare", "--mount", "sh", "-c", script, program(t, delivered), filepath.Join(s.a.dir, "state"), s.a.config()), s.text(0, 200, other))
		s.keepsPace(t.Name(), func(ctx context.Context) { s.move(ctx, "other") })
		if out := s.a.proc.Output(); !strings.Contains(out, "no space left on device") {
			t.Errorf("the disk was not missed: %s", out)
		}
	})
	t.Run("the configuration is reloaded again and again", func(t *testing.T) {
		s := newStraits(t)
		s.elect(nil, s.text(0, 200))
		s.keepsPace(t.Name(), func(ctx context.Context) {
			for n := 0; ctx.Err() == nil; n++ {
				other := fmt.Sprintf("  - {vhid: 33, name: other, interface: eth0, passphrase: x, addresses: [192.0.2.%d/24], advskew: 200}\n", 80+n%2)
				s.a.write(s.text(0, 200, other))
				_, _ = s.a.try("POST", "/v1/reload", nil, nil) // one may be under way
				s.a.proc.Signal(syscall.SIGHUP)
			}
		})
	})
}

// chatter has a write lines to its log, without end.
func (s *straits) chatter(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				_, _ = s.a.try("POST", "/v1/demote", api.DemoteRequest{Amount: 0}, nil)
			}
		})
	}
}

// fullSocket returns an end of a stream socket, as systemd gives to services for their
// log, into which nothing fits any more.
func fullSocket(t testing.TB) *os.File {
	t.Helper()
	path := filepath.Join(tempDir(t), "journal")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for size := 4096; size > 0; {
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
