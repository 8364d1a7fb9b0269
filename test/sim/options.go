package sim

import (
	"time"

	"github.com/carpd/carpd/carp"
)

// Options is the climate of a world: each field is a size, a distribution, a
// chance or a weight. The zero value of each is nothing, never or at once. Draw
// makes one from a seed.
type Options struct {
	// The world that Soak builds. New looks at none of these.
	Hosts         int           // 0: 3
	Clients       int           // on the segment
	BreakTime     time.Duration // first phase: faults; 0: 20 minutes
	QuietTime     time.Duration // last phase: nothing may happen any more; 0: 30 s
	AdvBase       uint8         // 0: 1
	SkewStep      uint8         // advskew of host i is i times this
	PreemptChance float64       // of each host
	PreemptDelay  Range
	StartupDelay  Range
	IPv6          bool          // the group has an IPv6 address
	IPv4          bool          // and an IPv4 address; if neither is asked for, it has IPv4
	NoLeaseChance float64       // of each host
	GuardChance   float64       // of each host
	ClockRate     int64         // clocks are off by at most this many parts in 10^9
	ClockAhead    Range         // wall clocks at the start
	TraceTime     time.Duration // how much of the trace before a violation a report shows; 0: 30 s
	Mutant        Mutant        // of one host, or of all; see MutantHosts
	MutantHosts   int           // 0: all
	Unicast       bool          // all hosts are each other's unicast peers
	Replay        carp.Replay   // of CARP
	AttackEvery   time.Duration // the mean time between two attacks with recordings; 0: none. For sealed groups

	// The same for VRRP, which has no AdvBase and SkewStep, one family, and no
	// Passphrase but with OtherPassword.
	Protocol     carp.Protocol
	Interval     time.Duration // between adverts; 0: 1 s
	PriorityStep uint8         // priority of host i is 200 less i times this
	Owners       int           // so many hosts own the address: priority 255
	Mismatch     Mismatch      // one host, drawn from all, differs

	// Network: defaults of each segment.
	Latency         Range
	LossChance      float64
	DuplicateChance float64
	ReorderChance   float64
	ReorderTime     Range
	CorruptChance   float64
	EchoChance      float64

	// Hosts: how long things take, and how often they fail.
	LoopLate        Range // a timer or goroutine that should run
	LeaseLate       Range // the kernel after a lifetime; at most 1.1 s
	AddTime         Range // putting the address on
	OffTime         Range // taking it off, each try
	AddFailChance   float64
	OffFailChance   float64
	HookTime        Range
	HookSlowChance  float64
	HookSlowTime    Range
	HookFailChance  float64
	HookStopTime    Range // from its cancellation to its end
	GuardTime       Range
	GuardDenyChance float64
	Plan            Plan // the resource that the hosts share

	// Faults of the first phase: the mean time between two, how long one lasts, and
	// how often each kind is chosen.
	FaultEvery      time.Duration // 0: no faults
	FaultTime       Range
	CutWeight       float64 // one direction between two hosts
	PartitionWeight float64 // the segment falls into two
	SwizzleWeight   float64 // all links cut in one order, joined in another
	ClogWeight      float64 // one direction holds everything back
	StormWeight     float64 // loss on the whole segment
	FlapWeight      float64 // a cable, a few times
	DeafWeight      float64 // sends fail
	KillWeight      float64 // and start again; sometimes without the saved epoch
	PowerWeight     float64
	FreezeWeight    float64 // the daemon; sometimes at the worst instant
	PauseWeight     float64 // the machine
	HangWeight      float64 // the loop
	DriftWeight     float64
	WallWeight      float64
	DemoteWeight    float64 // an operator demotes, and takes it back
	HandoverWeight  float64
	StateWeight     float64 // an operator asks for MASTER or BACKUP
	StopWeight      float64 // an operator stops the daemon and starts it again
}

// Draw returns a climate drawn at random: each seed breaks other things, others
// not at all, and all at other rates.
func Draw(seed uint64) Options {
	rng := newSource(seed, "climate")
	ms := func(lo, hi int) time.Duration { return time.Duration(lo+rng.IntN(hi-lo+1)) * time.Millisecond }
	span := func(lo, mid, hi int) Range { m := ms(lo, mid); return Range{0, max(m, ms(lo, hi))} }
	often := func(p, most float64) float64 {
		if rng.Float64() >= p {
			return 0
		}
		return rng.Float64() * most
	}
	o := Options{
		Hosts: 3, Clients: 1, BreakTime: time.Duration(10+rng.IntN(30)) * time.Minute, QuietTime: 30 * time.Second,
		AdvBase: 1, SkewStep: uint8([]int{0, 1, 10, 100}[rng.IntN(4)]), IPv4: rng.IntN(4) > 0, IPv6: rng.IntN(3) == 0,
		PreemptChance: []float64{0, 0.5, 1, 1}[rng.IntN(4)],
		NoLeaseChance: []float64{0, 0, 0, 0.5}[rng.IntN(4)], GuardChance: []float64{0, 0, 0.5}[rng.IntN(3)],
		ClockRate:  []int64{0, 100_000, 1_000_000, 10_000_000}[rng.IntN(4)],
		ClockAhead: Span(-time.Hour, time.Hour),

		LossChance: often(0.5, 0.3), DuplicateChance: often(0.5, 0.3), ReorderChance: often(0.5, 0.3),
		CorruptChance: often(0.5, 0.1), EchoChance: often(0.5, 0.5), ReorderTime: Span(0, ms(1, 400)),
		LoopLate: span(0, 1, 20), LeaseLate: Span(0, ms(0, 1100)), AddTime: span(0, 5, 200), OffTime: span(0, 5, 200),
		AddFailChance: often(0.3, 0.2), OffFailChance: often(0.3, 0.5),
		HookTime: span(0, 100, 500), HookSlowChance: often(0.5, 0.3), HookSlowTime: Span(0, ms(500, 8000)),
		HookFailChance: often(0.3, 0.1), HookStopTime: span(0, 10, 300),
		GuardTime: span(0, 50, 500), GuardDenyChance: often(0.5, 0.1),

		FaultEvery: ms(3000, 30000), FaultTime: Span(0, ms(1000, 30000)),
	}
	o.Latency.Min = time.Duration(rng.IntN(1000)) * time.Microsecond
	o.Latency.Max = o.Latency.Min + []time.Duration{0, time.Millisecond, ms(1, 30), ms(1, 90)}[rng.IntN(4)]
	if rng.IntN(4) == 0 {
		o.AdvBase = 2
	}
	if rng.IntN(4) == 0 {
		o.PreemptDelay = Span(0, ms(0, 20000))
	}
	if rng.IntN(4) == 0 {
		o.StartupDelay = Span(0, ms(0, 10000))
	}
	for _, weight := range o.weights() {
		if rng.IntN(4) > 0 {
			*weight = rng.Float64()
		}
	}
	o.KillWeight = max(o.KillWeight, 0.05) // something always happens
	o.drawProtocol(seed)
	o.drawReplay(seed)
	return o
}

// DrawResource returns a climate as Draw does, of two or three hosts that share a
// resource: without preemption by advert, as carpd asks for it.
func DrawResource(seed uint64) Options {
	o := Draw(seed)
	rng := newSource(seed, "resource")
	ms := func(lo, hi int) time.Duration { return time.Duration(lo+rng.IntN(hi-lo+1)) * time.Millisecond }
	o.Hosts = 2 + rng.IntN(2)
	o.Plan = Plan{
		Steps: 2 + rng.IntN(5), MarkTime: Span(0, ms(0, 20)), StepTime: Span(0, ms(1, 300)),
		SlowChance: []float64{0, 0.1, 0.3}[rng.IntN(3)], SlowTime: Span(0, ms(300, 20_000)),
		FailChance: []float64{0, 0, 0.1}[rng.IntN(3)], StuckChance: []float64{0, 0, 0.2}[rng.IntN(3)],
		Timeout: ms(2000, 20_000),
	}
	o.Plan.NoReturn = rng.IntN(o.Plan.Steps)
	o.Owners, o.Mismatch = 0, NoMismatch
	if o.Replay != carp.ReplaySealed {
		o.PreemptChance = 0
	}
	o.FreezeWeight, o.KillWeight = max(o.FreezeWeight, 0.3), max(o.KillWeight, 0.3)
	o.BreakTime = min(o.BreakTime, 20*time.Minute)
	return o
}

// drawReplay seals half of the worlds of CARP, and has most of them attacked. It has a
// source of its own, so that the others are what they were.
func (o *Options) drawReplay(seed uint64) {
	rng := newSource(seed, "replay")
	if o.Protocol.VRRP() || rng.IntN(2) == 0 {
		return
	}
	o.Replay = carp.ReplaySealed
	if rng.IntN(4) > 0 {
		o.AttackEvery = []time.Duration{200 * time.Millisecond, time.Second, 10 * time.Second}[rng.IntN(3)]
	}
	switch rng.IntN(4) {
	case 0:
		o.ClockAhead = Span(-30*24*time.Hour, 30*24*time.Hour)
	case 1:
		o.ClockAhead = Span(29*365*24*time.Hour, 34*365*24*time.Hour) // 2055 to 2060
	}
}

// weights lists the weights in the order of faultKind.
func (o *Options) weights() []*float64 {
	return []*float64{
		&o.CutWeight, &o.PartitionWeight, &o.SwizzleWeight, &o.ClogWeight, &o.StormWeight, &o.FlapWeight, &o.DeafWeight,
		&o.KillWeight, &o.PowerWeight, &o.FreezeWeight, &o.PauseWeight, &o.HangWeight, &o.DriftWeight, &o.WallWeight,
		&o.DemoteWeight, &o.HandoverWeight, &o.StateWeight, &o.StopWeight,
	}
}

// AllFaults returns a climate in which every kind of fault happens, with three
// hosts and a fault every few seconds: that of the benchmark.
func AllFaults() Options {
	o := Draw(1)
	for _, weight := range o.weights() {
		*weight = 1
	}
	o.BreakTime, o.FaultEvery, o.FaultTime = time.Hour, 20*time.Second, Span(0, 15*time.Second)
	o.LossChance, o.DuplicateChance, o.ReorderChance, o.CorruptChance, o.EchoChance = 0.05, 0.05, 0.05, 0.02, 0.1
	o.HookSlowChance, o.HookFailChance, o.AddFailChance, o.OffFailChance = 0.05, 0.01, 0.01, 0.05
	o.AdvBase, o.IPv4, o.IPv6, o.NoLeaseChance = 1, true, false, 0
	o.PreemptDelay, o.StartupDelay = Range{}, Range{}
	return o
}

// offWorst is the longest from leaving the role to the address being off, for a
// daemon that runs; ok is false if nothing bounds it.
func (h *Host) offWorst() (d time.Duration, ok bool) {
	o := &h.w.opts
	late := 2*o.LoopLate.Max + o.AddTime.Max
	// What failed before all was made whole is tried again a little later.
	if o.OffFailChance > 0 && (!h.calm || h.w.now < h.calmAt+3*clearAgain) {
		if h.opts.Lease.Valid == 0 {
			return 0, false
		}
		return longest(h.opts.Lease.Valid+kernelLate, maxRate), true
	}
	return late + o.OffTime.Max + slack, true
}

// slack is for rounding.
const slack = time.Millisecond

// maxRate is the worst rate of a clock in the worlds that Soak builds: 1 %.
const maxRate = 10_000_000

// interval is the longest time between two adverts of a master.
func (h *Host) interval() time.Duration {
	c := &h.Config
	if c.Protocol.VRRP() {
		return longest(c.AdvertInterval(), maxRate)
	}
	if c.Leased && c.AdvBase > 0 {
		return longest(time.Duration(c.AdvBase)*time.Second, maxRate)
	}
	return longest(carp.Interval(c.AdvBase, max(c.AdvSkew, carp.MaxDemotedSkew)), maxRate)
}
