package sim

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
)

// Report is what came of one seed.
type Report struct {
	Seed      uint64
	Options   Options
	Err       error         // nil, or a *Violation
	Simulated time.Duration // until the end, or the violation
	Faults    int
	Hash      uint64        // equal for equal runs
	Overlap   time.Duration // the longest without harm
	Converged time.Duration // from the end of all faults to one holder for good
	Outage    Outage        // of the first client

	// Of hosts that share a resource.
	Promotions int            // how often one became a primary
	Excused    map[string]int // and another was one: by why that may be
	trace      []byte
}

// Repeat returns the command that runs the same seed again and prints its trace.
func (r *Report) Repeat() string {
	if r.Options.Plan.Steps > 0 {
		return fmt.Sprintf("go test ./test/sim -run TestSoakOfASharedResource -sim.seed=%d -v", r.Seed)
	}
	return fmt.Sprintf("go test ./test/sim -run TestSoak -sim.seed=%d -v", r.Seed)
}

// String returns one line, or for a failure the seed, the command that repeats
// it and the last part of the trace.
func (r *Report) String() string {
	if r.Err == nil {
		return fmt.Sprintf("seed %d: %v simulated, %d faults, longest overlap %v, converged in %v, client without answer %v",
			r.Seed, r.Simulated, r.Faults, r.Overlap, r.Converged, r.Outage.Total)
	}
	return fmt.Sprintf("seed %d: %v\nrepeat: %s\n%s", r.Seed, r.Err, r.Repeat(), r.trace)
}

// Trace returns the end of the trace of a run that failed, one column a host.
func (r *Report) Trace() []byte { return r.trace }

// Soak builds a world from o and its seed, breaks things for o.BreakTime, heals
// all and wants calm. Soak(seed, Draw(seed)) is a run of the swarm. It uses no
// goroutine and no clock; the same arguments give the same report.
func Soak(seed uint64, o Options) Report {
	w, c := Build(seed, o)
	overlap := &Overlap{}
	w.Require(overlap)
	primaries := &Primaries{}
	if o.Plan.Steps > 0 {
		w.Require(primaries)
	}
	r := Report{Seed: seed, Options: o}
	r.Err = c.Play(w)
	r.Simulated, r.Faults, r.Hash, r.Overlap, r.Converged = w.now, w.faults, w.hash, overlap.Longest, c.Took
	r.Promotions, r.Excused = primaries.Promotions, primaries.Excused
	if len(w.clients) > 0 {
		r.Outage = w.clients[0].Outage()
	}
	if r.Err != nil {
		var b bytes.Buffer
		tail := o.TraceTime
		if tail <= 0 {
			tail = 30 * time.Second
		}
		w.TraceSince(&b, w.now-tail) // a bytes.Buffer takes everything
		r.trace = b.Bytes()
	}
	return r
}

// Play runs both phases on a world that Build made.
func (c *Convergence) Play(w *World) error {
	n := &nemesis{w: w, seg: w.segments[0], ends: w.now + w.opts.breakTime()}
	n.begin()
	if err := w.Run(w.opts.breakTime()); err != nil {
		return err
	}
	w.Heal()
	c.Begin(w)
	quiet := w.opts.QuietTime
	if quiet <= 0 {
		quiet = 30 * time.Second
	}
	for _, d := range []time.Duration{c.OneHolder, c.RightHolder - c.OneHolder, quiet} {
		if err := w.Run(d); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) breakTime() time.Duration {
	if o.BreakTime > 0 {
		return o.BreakTime
	}
	return 20 * time.Minute
}

// Addresses of the group that Build makes.
var (
	groupIPv4 = netip.MustParseAddr("192.0.2.100")
	groupIPv6 = netip.MustParseAddr("2001:db8::100")

	groupLinkLocal = netip.MustParseAddr("fe80::100") // which VRRP over IPv6 has first
)

// Build makes the world that Soak runs: hosts a, b, c... and clients on one
// segment, with the standard checkers and a Convergence.
func Build(seed uint64, o Options) (*World, *Convergence) {
	w := New(seed, o)
	rng := newSource(seed, "build")
	hosts := o.Hosts
	if hosts <= 0 {
		hosts = 3
	}
	odd := -1
	if o.Mismatch != NoMismatch {
		odd = newSource(seed, "mismatch").IntN(hosts)
	}
	lan := w.Segment("lan")
	for i := range hosts {
		c := carp.Config{
			VHID: 9, AdvBase: max(o.AdvBase, 1), AdvSkew: uint8(min(i*int(o.SkewStep), carp.MaxAdvSkew)),
			Passphrase: []byte("secret"), NodeID: uint8(i + 1),
			Preempt: rng.chance(o.PreemptChance), PreemptDelay: rng.in(o.PreemptDelay), StartupDelay: rng.in(o.StartupDelay),
			Guarded: rng.chance(o.GuardChance),
		}
		if o.IPv4 || !o.IPv6 {
			c.Addresses = append(c.Addresses, groupIPv4)
		}
		if o.IPv6 {
			c.Addresses = append(c.Addresses, groupIPv6)
		}
		if o.Plan.Steps > 0 {
			c.Resources, c.StartGate = 1, true
			c.ReleaseBudget = carp.DefaultReleaseBudget + o.Plan.Timeout
		}
		if c.Replay = o.Replay; o.Protocol.VRRP() {
			o.vrrp(&c, i, i == odd)
		}
		if o.Unicast {
			c.Peers = others(i, hosts, carp.FamilyOf(c.Addresses[0]))
		}
		opts := HostOptions{
			NoLease: rng.chance(o.NoLeaseChance), Wall: rng.in(o.ClockAhead),
			Boot: time.Second + time.Duration(rng.Int64N(int64(time.Hour))),
		}
		if o.ClockRate > 0 {
			opts.Rate = rng.Int64N(2*o.ClockRate+1) - o.ClockRate
		}
		if o.MutantHosts == 0 || i < o.MutantHosts {
			opts.Mutant = o.Mutant
		}
		lan.attach(w.Host(string(rune('a'+i)), c, opts))
	}
	for i := range o.Clients {
		lan.attach(w.Client(fmt.Sprint("client", i+1)))
	}
	c := &Convergence{}
	w.Require(Standard()...)
	w.Require(&Fresh{}, c)
	if o.AttackEvery > 0 {
		lan.attacker = &attacker{w: w, seg: lan, rng: newSource(seed, "attack"), ends: o.breakTime()}
		lan.attacker.begin()
	}
	return w, c
}

// others are the addresses of all hosts but i.
func others(i, hosts int, f carp.Family) (all []netip.Addr) {
	for j := range hosts {
		switch l := hostLocal(j); {
		case j == i:
		case f == carp.IPv6:
			all = append(all, l.IPv6)
		default:
			all = append(all, l.IPv4)
		}
	}
	return all
}

// Sweep runs the seeds from first on, n of them, at most workers at a time, each
// in a goroutine of its own, and gives each report to f, one call at a time, in
// the order in which they finish. It stops early when ctx ends or f returns
// false, and returns when all have finished.
func Sweep(ctx context.Context, first uint64, n, workers int, options func(seed uint64) Options, f func(Report) bool) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	seeds := make(chan uint64)
	var all sync.WaitGroup
	var one sync.Mutex
	for range max(workers, 1) {
		all.Go(func() {
			for seed := range seeds {
				r := Soak(seed, options(seed))
				one.Lock()
				if ctx.Err() == nil && !f(r) {
					stop()
				}
				one.Unlock()
			}
		})
	}
	for i := range n {
		select {
		case seeds <- first + uint64(i):
			continue
		case <-ctx.Done():
		}
		break
	}
	close(seeds)
	all.Wait()
}
