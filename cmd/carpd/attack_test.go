package main_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// hangingDisk makes the directory of saved state one in which saving the epoch of
// vhid 9 never ends: the file that it is written to is a pipe without a reader.
func (n *node) hangingDisk() {
	n.t.Helper()
	dir := filepath.Join(n.dir, "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "epoch-9@eth0.tmp"), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func TestDiskThatHangsKeepsNoDaemonFromStopping(t *testing.T) {
	gate := []string{"hooks:", "  - {kind: exec, on: before-up, with: {command: [/bin/true]}}"}
	for name, more := range map[string][]string{"without a gate": nil, "with a gate": gate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.a.hangingDisk()
			p.a.start(settings{more: more})
			lab.Eventually(t, takeover, "a to be MASTER", func() bool { return p.a.instance().State == "MASTER" })
			p.a.endedBy(syscall.SIGTERM)
			if p.a.HasAddr(shared4) {
				t.Error("the address is still there")
			}
		})
	}
}

func TestGateWhoseEpochCannotBeSavedGivesTheRoleUp(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.hangingDisk()
	p.a.start(settings{more: []string{"hooks:", "  - {kind: exec, on: before-up, with: {command: [/bin/true]}}"}})
	lab.Eventually(t, takeover, "a to say that it cannot serve", func() bool {
		return strings.Contains(p.a.alarm("not-served"), "did not answer within")
	})
	p.a.await("BACKUP")
	p.a.endedBy(syscall.SIGTERM)
}

func TestSavedEpochThatCannotBeOneIsIgnored(t *testing.T) {
	for _, saved := range []string{"18446744073709551615", strings.Repeat("9", 1<<20), "\x00\xff", ""} {
		t.Run(fmt.Sprintf("%.20q", saved), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			dir := filepath.Join(p.a.dir, "state")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			p.a.file("state/epoch-9@eth0", saved, 0o644)
			p.a.start(settings{})
			p.a.promote()
			if n := len(p.a.proc.Output()); n > 64<<10 {
				t.Errorf("%d bytes were logged", n)
			}
		})
	}
}

func TestFileInThePlaceOfTheControlSocketIsNotRemoved(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.configure(settings{})
	p.a.file("sock", "precious", 0o600)
	out, code := p.a.run("run", "--config", p.a.config())
	if code != 1 || !strings.Contains(out, "not a socket") {
		t.Errorf("code %d: %s", code, out)
	}
	if b, err := os.ReadFile(p.a.socket()); err != nil || string(b) != "precious" {
		t.Errorf("the file: %q %v", b, err)
	}
}

func TestAddressThatIsThereBeforeTheStartIsAnAlarm(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.start(settings{})
	p.b.promote()
	p.a.Run("ip", "addr", "add", "192.0.2.50/24", "dev", "eth0")
	p.a.start(settings{advskew: 100})
	p.a.await("BACKUP")
	lab.Eventually(t, soon, "an alarm", func() bool { return strings.Contains(p.a.alarm("foreign"), "192.0.2.50") })
	p.a.Run("ip", "addr", "del", "192.0.2.50/24", "dev", "eth0")
	lab.Eventually(t, soon, "the end of the alarm", func() bool { return p.a.alarm("foreign") == "" })
}

// clients opens connections to the control socket that send some text and then
// neither read nor write.
func (n *node) clients(count int, text string) []net.Conn {
	n.t.Helper()
	all := make([]net.Conn, count)
	for i := range all {
		c, err := net.Dial("unix", n.socket())
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			n.t.Fatal(err)
		}
		all[i] = c
	}
	return all
}

func TestClientsThatHangLeaveTheControlSocketUsable(t *testing.T) {
	const post = "POST /v1/demote HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n{"
	for name, text := range map[string]string{
		"before the request": "", "in the header": "GET /v1/status HTTP/1.1\r\nHost:", "in the body": post,
		"in a body that nobody reads": strings.Replace(post, "POST /v1/demote", "GET /v1/status", 1),
		"as followers":                "GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.a.start(settings{})
			p.a.clients(300, text)
			began := time.Now()
			if out, code := p.a.ctl("status"); code != 0 {
				t.Errorf("status: code %d: %s", code, out)
			}
			if took := time.Since(began); took > takeover {
				t.Errorf("the status took %v", took)
			}
			lab.Eventually(t, takeover, "the files of hanging clients to be closed", func() bool {
				open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.a.proc.Pid))
				return err == nil && len(open) < 128
			})
			p.a.endedBy(syscall.SIGTERM)
		})
	}
}
