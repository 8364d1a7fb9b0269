package sim_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/sim"
)

var shared = netip.MustParseAddr("192.0.2.100")

func config(skew uint8) carp.Config {
	return carp.Config{VHID: 9, AdvBase: 1, AdvSkew: skew, Passphrase: []byte("secret"), Addresses: []netip.Addr{shared}}
}

// pair is a world of two hosts and a client with 1 ms between them.
func pair(t *testing.T) (w *sim.World, lan *sim.Segment, a, b *sim.Host, c *sim.Client) {
	t.Helper()
	w = sim.New(1, sim.Options{Latency: sim.Span(time.Millisecond, time.Millisecond)})
	a, b = w.Host("a", config(0), sim.HostOptions{}), w.Host("b", config(100), sim.HostOptions{})
	c = w.Client("client")
	lan = w.Segment("lan", a, b, c)
	w.Require(sim.Standard()...)
	return w, lan, a, b, c
}

func run(t *testing.T, w *sim.World, d time.Duration) {
	t.Helper()
	if err := w.Run(d); err != nil {
		var b bytes.Buffer
		w.Trace(&b)
		t.Fatalf("%v\n%s", err, b.String())
	}
}

func holders(w *sim.World) string {
	var names []string
	for _, h := range w.Holders(shared) {
		names = append(names, h.Name)
	}
	return strings.Join(names, " ")
}

func want(t *testing.T, w *sim.World, names string) {
	t.Helper()
	if got := holders(w); got != names {
		t.Errorf("at %v: holders [%s], want [%s]", w.Now(), got, names)
	}
}

func TestKilledMasterIsGoneBeforeItsBackupAnswers(t *testing.T) {
	w, _, a, b, c := pair(t)
	run(t, w, 10*time.Second)
	want(t, w, "a")
	a.Kill(false)
	run(t, w, 2900*time.Millisecond)
	want(t, w, "")
	run(t, w, time.Second)
	want(t, w, "b")
	if b.State() != carp.Master || c.Server() != b {
		t.Errorf("b is %v, the client is served by %v", b.State(), c.Server())
	}
	if o := c.Outage(); o.Longest > 4*time.Second {
		t.Errorf("the client had no answer for %v", o.Longest)
	}
}

// A one-way cut gives two holders: the protocol's limit, shown and not hidden.
func TestOneWayCutGivesTwoHoldersUntilItIsJoined(t *testing.T) {
	w, lan, a, b, _ := pair(t)
	run(t, w, 10*time.Second)
	lan.Cut(a, b)
	run(t, w, 10*time.Second)
	want(t, w, "a b")
	lan.Join(a, b)
	run(t, w, 2*time.Second)
	want(t, w, "a")
}

func TestFrozenMasterHoldsNothingAndYieldsWhenItWakes(t *testing.T) {
	w, _, a, b, _ := pair(t)
	run(t, w, 10*time.Second)
	a.Freeze()
	run(t, w, 10*time.Second)
	want(t, w, "b")
	a.Resume()
	run(t, w, 2*time.Second)
	want(t, w, "b")
	if a.State() != carp.Backup || b.State() != carp.Master {
		t.Errorf("a is %v, b is %v", a.State(), b.State())
	}
}

func TestHandoverHasNoInstantWithTwoHolders(t *testing.T) {
	w, _, a, _, _ := pair(t)
	overlap := &sim.Overlap{}
	w.Require(overlap)
	run(t, w, 10*time.Second)
	a.Resign(carp.Backup, carp.ReasonHandover)
	run(t, w, time.Second)
	want(t, w, "b")
	if overlap.Longest != 0 {
		t.Errorf("both answered for %v", overlap.Longest)
	}
}

func TestPartitionEndsWithTheBetterMaster(t *testing.T) {
	w, lan, a, b, c := pair(t)
	run(t, w, 10*time.Second)
	join := lan.Partition([]sim.Port{a}, []sim.Port{b, c})
	run(t, w, 10*time.Second)
	want(t, w, "a b")
	if c.Server() != b {
		t.Error("the client is on b's side and is not served by b")
	}
	join()
	run(t, w, 3*time.Second)
	want(t, w, "a")
	if c.Server() != a {
		t.Error("the client has not followed the announcement of a")
	}
}

func TestClogDelaysAndLosesNothing(t *testing.T) {
	w, lan, a, b, _ := pair(t)
	run(t, w, 10*time.Second)
	lan.Clog(a, b)
	run(t, w, 2*time.Second)
	before := b.Status().Counters.Received
	lan.Unclog(a, b)
	run(t, w, 10*time.Millisecond)
	if got := b.Status().Counters.Received - before; got != 2 {
		t.Errorf("%d adverts arrived after the clog, want the 2 that were held", got)
	}
}

func TestTraceHasOneColumnAHost(t *testing.T) {
	w, _, a, _, _ := pair(t)
	run(t, w, 10*time.Second)
	a.Kill(false)
	run(t, w, 10*time.Second)
	var out bytes.Buffer
	if err := w.Trace(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	left, right := 0, 0
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line[min(len(line), 11):], "a "):
			left++
		case strings.Contains(line, strings.Repeat(" ", 40)+"  "):
			right++
		}
	}
	if left == 0 || right == 0 || !strings.Contains(out.String(), "a killed") {
		t.Errorf("%d lines in the first column, %d in the second:\n%s", left, right, out.String())
	}
}

func TestSameSeedSameTrace(t *testing.T) {
	for seed := range uint64(10) {
		o := sim.Draw(seed)
		o.BreakTime = 5 * time.Minute
		first, second := sim.Soak(seed, o), sim.Soak(seed, o)
		if first.Hash != second.Hash || first.Faults != second.Faults {
			t.Errorf("seed %d: two runs differ: %v and %v", seed, first, second)
		}
		if other := sim.Soak(seed+1000, o); other.Hash == first.Hash {
			t.Errorf("seeds %d and %d have the same trace", seed, seed+1000)
		}
	}
}

func TestFailureNamesTheSeedAndTheCommandThatRepeatsIt(t *testing.T) {
	o := sim.Draw(5)
	o.Mutant = sim.SentLate
	r := sim.Soak(5, o)
	if r.Err == nil {
		t.Fatal("the mutant was not found")
	}
	for _, text := range []string{"seed 5", "go test ./test/sim -run TestSoak -sim.seed=5", "BACKUP -> MASTER"} {
		if !strings.Contains(r.String(), text) {
			t.Errorf("the report does not say %q:\n%v", text, r.String())
		}
	}
}

// routers is a world of two VRRP hosts, of which the second differs in one setting.
func routers(t *testing.T, p carp.Protocol, m sim.Mismatch) (w *sim.World, lan *sim.Segment, better, worse *sim.Host) {
	t.Helper()
	o := sim.Options{
		Hosts: 2, Protocol: p, Interval: time.Second, PriorityStep: 50, PreemptChance: 1, Mismatch: m,
		Latency: sim.Span(time.Millisecond, time.Millisecond),
	}
	w, _ = sim.Build(7, o)
	hosts := w.Hosts()
	return w, w.Segments()[0], hosts[0], hosts[1]
}

// Whatever differs: a partition makes two masters, its end one, the better; and a
// better host that comes back leaves a worse one alone that it cannot understand.
func TestHostsWhoseSettingsDifferHaveOneMaster(t *testing.T) {
	for name, group := range map[string]struct {
		p carp.Protocol
		m sim.Mismatch
	}{
		"version 3 among 2": {carp.VRRP2, sim.OtherVersion}, "version 2 among 3": {carp.VRRP3, sim.OtherVersion},
		"list": {carp.VRRP3, sim.OtherList}, "interval of version 2": {carp.VRRP2, sim.OtherInterval},
		"interval of version 3": {carp.VRRP3, sim.OtherInterval}, "password": {carp.VRRP2, sim.OtherPassword},
	} {
		t.Run(name, func(t *testing.T) {
			w, lan, a, b := routers(t, group.p, group.m)
			run(t, w, time.Minute)
			if n := len(w.Holders(shared)); n != 1 {
				t.Errorf("%d holders at first", n)
			}
			join := lan.Partition([]sim.Port{a}, []sim.Port{b})
			run(t, w, time.Minute)
			want(t, w, "a b")
			join()
			run(t, w, 15*time.Second)
			want(t, w, "a")
			a.Kill(false)
			run(t, w, time.Minute)
			want(t, w, "b")
			a.Start()
			run(t, w, time.Minute)
			if b.Config.Interval < 3*time.Second { // else a has not heard it yet when its own time is over
				want(t, w, "b")
			}
			b.Kill(false)
			run(t, w, time.Minute)
			want(t, w, "a")
		})
	}
}
