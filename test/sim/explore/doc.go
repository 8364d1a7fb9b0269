// Package explore visits every state that a small group of real carp.Engines can
// reach, of CARP or VRRP: two or three nodes, every order of delivering, losing, duplicating and
// delaying adverts, of timers, of what the workers do, and of crashes, freezes and
// resumptions, up to a stated depth and with stated budgets of faults.
//
//	r := explore.Run(explore.World{Nodes: configs, Depth: 12, Losses: 1, Crashes: 1})
//	if r.Err != nil {
//		fmt.Println(r) // what is wrong, and the shortest way there
//	}
//
// The search is breadth-first, so the trace of a fault is a shortest one. States
// are compared by carp.Engine.AppendState and by what surrounds the engines; what
// only names things (counters, epochs, absolute time) does not count. Of a sealed group
// the clocks count, relative to each node's own.
//
// # The moves
//
//	deliver A>B   any packet under way from A to B arrives
//	lose A>B      it never does (Losses)
//	double A>B    it arrives, and will again (Duplicates)
//	work A        A's worker carries out the newest transition: with a live permit
//	              it puts the address on; or takes it off and reports that
//	timer A       the clock goes on to A's timer, if no other is earlier; if it does go
//	              on, each packet under way and each worker with work counts as
//	              delayed (Delays)
//	crash A       the daemon is gone; the address stays until its permit ends (Crashes)
//	freeze A      packets and timers wait (Freezes)
//	resume A      those that wait are handled, packets first
//	handover A    the master is asked to hand over (Handovers)
//	replay P to A an attacker plays one of the latest six packets again, a sealed
//	              group's adverts and companion messages, as it was or with another
//	              weight: the best, or that of a bow-out (Replays)
//
// The lease is exact here: a node answers if its worker has put the address on and
// its last permit has not ended. All clocks are one.
//
// # The invariants
//
//   - Two running nodes answer together only while an advert between them is under
//     way, waits or is lost, or while a worker has work to do.
//   - A crashed or frozen node answers no more when another, which had heard its last
//     advert when it was promoted by a time-out or a bow-out, begins to. A bow-out that
//     arrives after a newer advert of the same node (delayed, or a second copy) is
//     excepted: without replay protection the engine believes it.
//   - Nobody becomes master by a time-out while another runs and is master, whose last
//     advert it has heard, and whose next one is not late.
//   - No permit lasts longer than the fastest backup's master-down time after the
//     last advert.
//   - A timer that fired is not due any more.
//   - In a sealed group no two nodes answer together while none has crashed or is
//     frozen, whatever was lost; nobody accepts one of the latest packets for the second
//     time, nor any whose weight was changed. Two sealed nodes are visited to a
//     lesser depth than others, three only a few moves deep: there are many more states.
//   - From every state, when nothing is lost any more and frozen nodes go on, there
//     is exactly one master, which answers, within twelve seconds, and stays so.
package explore
