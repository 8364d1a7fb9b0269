package haproxy_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/haproxy"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/test/lab"
)

func TestLabReloadsUnderLoadLoseNoConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, way := range []struct {
		name   string
		change func(*haproxy.Config)
	}{
		{"master's socket", func(*haproxy.Config) {}},
		{"SIGUSR2", func(c *haproxy.Config) { c.Master = "" }},
		{"-sf with -x", func(c *haproxy.Config) { c.Master, c.Mode = "", haproxy.Classic }},
	} {
		t.Run(way.name, func(t *testing.T) {
			r.t = t
			h := r.hook(way.change)
			r.must(h) // starts it
			before := r.ask("show info")
			stop := r.load(4)
			defer stop()
			const reloads = 5
			for range reloads {
				r.must(h)
			}
			served, failed := stop()
			t.Logf("%d reloads, %d connections, %d failed", reloads, served, len(failed))
			if len(failed) > 0 || served < 20 {
				t.Errorf("%d connections, %d failed, first: %v", served, len(failed), failed[:min(len(failed), 3)])
			}
			if after := r.ask("show info"); pidOf(t, before) == pidOf(t, after) {
				t.Error("the same process answers after all these reloads")
			}
			r.must(r.hook(func(c *haproxy.Config) { way.change(c); c.Action = haproxy.Stop }))
			if left := r.pids(); len(left) > 0 {
				t.Errorf("after stop these live: %v", left)
			}
		})
	}
}

func pidOf(t *testing.T, info string) (pid int) {
	t.Helper()
	_, rest, _ := strings.Cut(info, "\nPid: ")
	if _, err := fmt.Sscan(rest, &pid); err != nil {
		t.Fatalf("%v: %s", err, info)
	}
	return pid
}

func TestLabCandidateIsLoadedOrRolledBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, way := range []struct {
		name   string
		change func(*haproxy.Config)
	}{
		{"master's socket", func(c *haproxy.Config) { c.Candidate = r.path("new.cfg") }},
		{"SIGUSR2", func(c *haproxy.Config) { c.Candidate, c.Master, c.ReloadTime = r.path("new.cfg"), "", 3*time.Second }},
		{"-sf", func(c *haproxy.Config) { c.Candidate, c.Master, c.Mode = r.path("new.cfg"), "", haproxy.Classic }},
	} {
		t.Run(way.name, func(t *testing.T) {
			r.t = t
			good := r.text(3306, "expose-fd listeners")
			r.write("haproxy.cfg", good, 0o600)
			h := r.hook(way.change)
			r.must(r.hook(func(c *haproxy.Config) { way.change(c); c.Candidate = "" })) // starts it

			lossless := r.load(2)
			defer lossless()
			r.write("new.cfg", "global\n  such nonsense\n", 0o600)
			rolledBack(t, r, r.run(h), good, "such")
			better := good + "listen more\n  bind 0.0.0.0:3308\n  server one 192.0.2.3:3306 check\n"
			r.write("new.cfg", better, 0o600)
			r.must(h)
			if r.read("haproxy.cfg") != better || r.has("new.cfg") || r.has("haproxy.cfg.carpd-before") {
				t.Error("the candidate is not in place, or something is left over")
			}
			r.serves(3308)
			served, failed := lossless()
			t.Logf("refused and loaded: %d connections, %d failed", served, len(failed))
			if len(failed) > 0 || served < 20 {
				t.Errorf("%d connections, %d failed, first: %v", served, len(failed), failed[:min(len(failed), 3)])
			}

			// haproxy -c passes it; the address to bind to is nobody's here. While it
			// tries, HAProxy has the old process pause.
			if way.name == "-sf" {
				return
			}
			began := time.Now()
			r.write("new.cfg", r.bound("203.0.113.1:3307", "expose-fd listeners"), 0o600)
			rolledBack(t, r, r.run(h), better, "does not start", "no new process", "one before is back")
			t.Logf("rolled back after %v", time.Since(began).Round(time.Millisecond))
			r.kill()
		})
	}
}

// rolledBack checks what follows from a candidate that does not work.
func rolledBack(t *testing.T, r *rig, err error, good string, oneOf ...string) {
	t.Helper()
	said := false
	for _, words := range oneOf {
		said = said || err != nil && strings.Contains(err.Error(), words)
	}
	if !said {
		t.Errorf("want one of %q: %v", oneOf, err)
	}
	if r.read("haproxy.cfg") != good || r.has("new.cfg") || r.has("haproxy.cfg.carpd-before") || !r.has("new.cfg.refused") {
		t.Error("the configuration before is not in place alone, or the candidate is not kept as refused")
	}
	r.serves(3306)
}

func TestLabReconfigurationThatWasCutOffIsFinished(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.hook(func(c *haproxy.Config) { c.Candidate = r.path("new.cfg") })
	r.must(r.hook(func(*haproxy.Config) {}))
	good := r.read("haproxy.cfg")
	better := good + "listen more\n  bind 0.0.0.0:3308\n  server one 192.0.2.3:3306 check\n"
	worse := r.bound("203.0.113.1:3307", "")
	link := func() {
		if err := os.Link(r.path("haproxy.cfg"), r.path("haproxy.cfg.carpd-before")); err != nil {
			t.Fatal(err)
		}
	}

	link() // died before the candidate took its place
	r.write("new.cfg", better, 0o600)
	r.must(h)
	r.serves(3308)

	link() // died after that
	if err := os.Remove(r.path("haproxy.cfg")); err != nil {
		t.Fatal(err)
	}
	r.write("haproxy.cfg", worse, 0o600)
	rolledBack(t, r, r.run(h), better, "one before is back")

	r.write("haproxy.cfg.carpd-before", better, 0o600) // died while it was put back
	if err := os.Remove(r.path("haproxy.cfg")); err != nil {
		t.Fatal(err)
	}
	if err := r.run(h); err == nil || !strings.Contains(err.Error(), "one before is back") {
		t.Error(err)
	}
	if r.read("haproxy.cfg") != better || r.has("haproxy.cfg.carpd-before") {
		t.Error("the configuration before is not in place")
	}
	r.serves(3308)
}

func TestLabResourceKeepsTheContract(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, standby := range []struct {
		haproxy.Standby
		change func(*haproxy.Config)
		check  func(hooks.Role) error
	}{
		{haproxy.Running, func(*haproxy.Config) {}, func(hooks.Role) error { return r.served(true) }},
		{haproxy.Closed, func(c *haproxy.Config) { c.Standby, c.Frontends = haproxy.Closed, []string{"db"} },
			func(role hooks.Role) error { return r.served(role == hooks.RolePromoted) }},
		{haproxy.Stopped, func(c *haproxy.Config) { c.Standby = haproxy.Stopped },
			func(role hooks.Role) error { return r.served(role == hooks.RolePromoted) }},
	} {
		t.Run(string(standby.Standby), func(t *testing.T) {
			r.t = t
			hookstest.Resources(t, hookstest.World{
				Open: func() hooks.Resource { return r.resource(standby.change) },
				Reset: func(testing.TB) {
					p := r.resource(standby.change)
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					if standby.Standby != haproxy.Stopped {
						if err := p.Promote(ctx, hooks.Event{}); err != nil {
							t.Fatal(err)
						}
					}
					if err := p.Demote(ctx, hooks.Event{}); err != nil {
						t.Fatal(err)
					}
				},
				Check: standby.check,
			})
			r.kill()
		})
	}
}

// served checks whether a client gets through.
func (r *rig) served(want bool) error {
	c, err := r.connect(3306)
	if err == nil {
		c.Close()
	}
	if got := err == nil; got != want {
		return fmt.Errorf("a client gets through: %v, want %v (%v)", got, want, err)
	}
	return nil
}

func TestLabNotificationKeepsTheContract(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hookstest.Conformance(t, func() hooks.Hook { return r.hook(func(*haproxy.Config) {}) })
}

func TestLabSessionsOfClosedFrontendsAreCut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.resource(func(c *haproxy.Config) { c.Standby, c.Frontends = haproxy.Closed, []string{"db"} })
	if err := p.Promote(t.Context(), hooks.Event{}); err != nil {
		t.Fatal(err)
	}
	c, err := r.connect(3306)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := p.Demote(t.Context(), hooks.Event{}); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, c); n > 0 || os.IsTimeout(err) {
		t.Errorf("an open session is not cut: %d bytes, %v", n, err)
	}
}

func TestLabHealthIsWhatClientsWouldMeet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m, err := haproxy.NewMonitor(haproxy.Config{Socket: r.path("admin.sock")})
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string, want hooks.Health) {
		t.Helper()
		var report hooks.Report
		var err error
		lab.Eventually(t, patience, what, func() bool {
			report, err = m.Monitor(t.Context())
			return err == nil && report.Health == want
		})
		t.Logf("%s: %s", what, report.Text)
	}
	await("HAProxy that does not run to be unfit", hooks.Unfit)
	r.must(r.hook(func(c *haproxy.Config) { c.Action = haproxy.Start }))
	await("a server to be up", hooks.Healthy)
	t.Run("contract", func(t *testing.T) {
		hookstest.Monitors(t, func() hooks.Monitor {
			m, err := haproxy.NewMonitor(haproxy.Config{Socket: r.path("admin.sock")})
			if err != nil {
				t.Fatal(err)
			}
			return m
		})
	})
	r.stopServer()
	await("no server to be unfit", hooks.Unfit)

	p := r.resource(func(*haproxy.Config) {})
	if err := p.Promote(t.Context(), hooks.Event{}); err == nil {
		t.Error("it is promoted without a server")
	}
	r.serve()
	await("the server to be back", hooks.Healthy)

	for _, pid := range r.pids() { // alive, and serving nobody
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if report, err := m.Monitor(ctx); err == nil {
		t.Errorf("a process that does not answer: %+v", report)
	}
	r.must(r.hook(func(c *haproxy.Config) { c.Action = haproxy.Stop })) // stopped all the same
	if left := r.pids(); len(left) > 0 {
		t.Errorf("after stop these live: %v", left)
	}
}

// A stand-in for systemctl: it answers when it has been done, as the real one does.
const systemctl = `#!/bin/sh
cd "${0%/*}" || exit 9
[ "$2" = haproxy.service ] || exit 5
case $1 in
start) setsid ./haproxy -W -D -f $PWD/haproxy.cfg -p $PWD/pid; while ! [ -s pid ]; do sleep 0.02; done; sleep 0.1 ;;
stop) kill "$(cat pid)"; while [ -d /proc/"$(cat pid)" ]; do sleep 0.02; done; rm pid ;;
reload) kill -USR2 "$(cat pid)" ;;
esac
`

func TestLabUnitIsStartedReloadedAndStopped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("systemctl", systemctl, 0o700)
	unit := func(action haproxy.Action) hooks.Hook {
		return r.hook(func(c *haproxy.Config) {
			c.Unit, c.Systemctl, c.PIDFile, c.Master, c.Action = "haproxy.service", r.path("systemctl"), "", "", action
		})
	}
	r.must(unit(haproxy.Start))
	r.serves(3306)
	before := pidOf(t, r.ask("show info"))
	r.must(unit(haproxy.Reload))
	if after := pidOf(t, r.ask("show info")); after == before {
		t.Error("the same process answers after a reload")
	}
	r.serves(3306)
	r.must(unit(haproxy.Stop))
	if left := r.pids(); len(left) > 0 {
		t.Errorf("after stop these live: %v", left)
	}
}
