// Package sim is a simulator of hosts, segments, links and clients around the
// real carp.Engine, speaking CARP or VRRP: an hour of three nodes under every kind of
// fault takes a fraction of a second, needs no root, socket or goroutine, and is the same again
// for the same seed.
//
//	w := sim.New(7, sim.Options{Latency: sim.Span(0, 30*time.Millisecond)})
//	a := w.Host("a", configA, sim.HostOptions{})
//	b := w.Host("b", configB, sim.HostOptions{})
//	lan := w.Segment("lan", a, b)
//	w.Require(sim.Standard()...)
//	w.Run(10 * time.Second)
//	lan.Cut(a, b)
//	w.Run(10 * time.Second)
//	w.Trace(os.Stdout)
//
// # What is real and what is modelled
//
// Real is package carp's Engine, with real packets: what the one sends, byte for
// byte, the other receives. Modelled are, rule by rule, what surrounds it in the
// daemon: the loop (carp.Speaker), the worker that carries out transitions one at
// a time with the newest first, the addresses with lease and permits (package
// vip), hooks, the guard; and the kernel that removes an address up to 1.1 s after
// its lifetime, also when the daemon is dead or frozen. Restoring addresses that
// somebody else removed, sessions and the fence are not modelled.
//
// A run has one event queue; what was planned first happens first. Every purpose
// (network, loops, workers, faults, each engine) has a PRNG of its own, made from
// the seed.
//
// # Faults
//
// Latency, jitter, loss, duplication, reordering, corruption, a switch that sends
// back; one-way cuts, partitions, links cut one by one and joined in another
// order, clogs (delay without loss), flapping cables, sends that fail; a daemon
// killed, with or without its saved epoch, a power cut, a daemon frozen or hung
// (at any instant, and at the worst: between decision, send and report, and
// between permit and kernel), a machine paused; clocks that drift by up to 1 %,
// wall clocks that step; slow, failing and cancelled hooks, kernels that refuse, a
// guard that denies; operators who demote, hand over, set states, stop and start.
//
// # What is promised, and what is not
//
// The checkers assert the strongest statements that are true of CARP and VRRP with
// permits and leases. A and B are two hosts on one segment.
//
// Promise. If B puts the address on because of a time-out or a bow-out, and had
// heard A's latest advert when it was promoted, then A does not answer any more:
// A dead, killed, frozen, hung or alive, whatever the clocks do within their
// rates. So there is no overlap, not a short one. The condition is exact:
//
//   - An advert of A that B did not hear, because of loss, a cut, a partition,
//     corruption, or because it is still under way, takes what it could have told:
//     each lost advert takes an interval off the margin. With the last one lost
//     the margin of 100 ms is gone, and the bound of Overlap holds instead.
//   - It needs a lease that fits (Lease.Late > 0) where A does not run. Without a
//     lease a dead daemon's kernel answers for ever, and with VRRP's intervals below
//     a second no lease fits. There it holds for an A that has run all the time, if taking the address
//     off takes no longer than a permit leaves for that: a tenth of three intervals.
//   - A machine that is paused is excepted: lifetimes in its kernel stand still,
//     and nothing on it can know. After it goes on the rest of the lease runs.
//   - A daemon frozen between asking for the permit and calling the kernel puts
//     the address on late, sees that and takes it off: excepted for that long.
//
// Preempting: B waits for its grace (100 ms) or for A's farewell. An advert of A
// that crosses B's on the wire cannot be told from a farewell, in VRRP only one that
// is out of turn. If A is dead or
// frozen just then, its lease may last longer than the grace: up to lease + 1.1 s.
//
// Silence. No B calls an A dead that runs, and whose latest advert it has heard as
// BACKUP: not if their settings differ either, as long as A's packets are of B's
// virtual router (Mismatch). Nor does a B with preempt take over from such an A.
//
// Overlap. Two hosts that both answer, with no harm to either or to the paths
// between them (no advert lost, delayed beyond the latency or altered, no cut or
// clog, nothing stopped or started), answer together no longer than the longer
// interval + latency + what taking the address off needs; or, where one does not
// run, than its lease + 1.1 s (its permit before that, if only the loop hangs).
// Each harm starts the count again: a partition of any length gives two holders
// of any length, as does a one-way cut towards the better one, and no protocol
// without a third vote can help it. See Guard in package carp.
//
// Convergence. When all is whole, there is one holder within start-up delay,
// hold after failures, master-down time, three intervals and twice the worker's
// time; when send errors are forgiven and preempt delays over, nobody who preempts
// understands the holder's adverts is better; and from then on nothing happens at all.
//
// Permits, Hooks, Adverts, Packets: see their types.
//
// Fresh. A host of a sealed group accepts nothing twice, over one family, also across
// restarts with its saved state, and nothing whose weight was changed. An attacker
// who records all and has no passphrase tries: Options.AttackEvery.
//
// # Seeds
//
// Draw makes Options from a seed: a climate of its own for each. Soak runs a seed
// in two phases, first breaking things and then healing all; Sweep runs many, one
// goroutine a seed. A failure prints the seed, the command that repeats it and the
// end of the trace, one column a host.
package sim
