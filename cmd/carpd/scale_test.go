package main_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// excluded are lines of an instance with n addresses beside those of the advert.
func excluded(n int) []string {
	lines := []string{"advbase: 3", "addresses_excluded:"}
	for i := range n {
		lines = append(lines, fmt.Sprintf("  - 10.1.%d.%d/32", i>>8, i&255))
	}
	return lines
}

// What ten thousand addresses may take of the daemon, apart from the kernel's share, on
// a machine that does other things too.
func TestTenThousandAddressesLoadRunReloadAndStop(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and a machine that is not too busy")
	}
	const count = 9990 // and those of every test
	p := newPair(t)
	many := settings{more: excluded(count)}
	timed := func(what string, limit time.Duration, f func()) {
		t.Helper()
		began := time.Now()
		f()
		took := time.Since(began)
		t.Logf("%s took %v", what, took)
		if took > limit {
			t.Errorf("%s took %v, want %v at most", what, took, limit)
		}
	}
	p.a.configure(many)
	timed("check", 5*time.Second, func() {
		if out, code := p.a.run("check", "--config", p.a.config()); code != 0 {
			t.Fatalf("check: %d %s", code, out)
		}
	})
	timed("start", 5*time.Second, func() { p.a.start(many) })
	seq := p.a.seq()
	p.a.await("BACKUP")
	mark := time.Now()
	timed("taking over", 20*time.Second, func() { // its events are looked at, not its status, which is a megabyte
		p.a.post("/v1/state", api.StateRequest{State: "master"}, nil)
		p.a.awaitEvent(seq, "address", "up")
	})
	lab.Eventually(t, 4*takeover, "adverts for longer than the lease", func() bool { return len(adverts(p.wire, "a", 9, mark)) > 4 })
	for _, e := range p.a.events(seq) {
		if e.Reason == "restored" || e.Reason == "failed" || e.Reason == "lapsed" {
			t.Errorf("%s: %s", e.Reason, e.Text)
		}
	}
	timed("a reload with one more", 20*time.Second, func() {
		p.a.configure(settings{more: excluded(count + 1)})
		p.a.post("/v1/reload", api.ReloadRequest{}, nil)
	})
	if i := p.a.instance(); len(i.Addresses) != count+3 || !holdsAll(i) || i.State != "MASTER" {
		t.Errorf("after the reload: %s with %d addresses", i.State, len(i.Addresses))
	}
	timed("the stop", 20*time.Second, func() { p.a.stop() })
	if left := len(p.a.Addrs("eth0")); left > 4 {
		t.Errorf("%d addresses are left", left)
	}
}
