// Package bench measures speakers of VRRP and CARP beside each other: how long the
// client of an address waits when its master is gone, and what a speaker costs
// while nothing happens. It is what `carplab bench failover` runs.
//
// All speakers of a Plan have the same LAN in turn: two nodes (the first one with
// priority 200, the other with 100, preemption on, defaults otherwise), a client
// that asks the address each millisecond, and an observer. Their runs take turns
// too, so that an hour in which the machine is slow is everybody's.
//
// # What is measured, and by which clock
//
//   - Silence: from the last advert of the old master to the first of the new one,
//     by the kernel's stamps on the observer's interface, good to 0.1 ms.
//   - First announcement: from the fault, stamped just before it is made, to the
//     first gratuitous ARP of the new master. A cable is pulled when the client gets
//     its last answer.
//   - Outage: the longest time between two answers at the client.
//   - Both hold: for how long both nodes had the address configured, by netlink; a
//     node whose cable is pulled does not count. Both answer: the same as the
//     observer sees it, which asks by ARP every 20 ms.
//   - CPU: run time of all threads of all processes of a node (schedstat); a kernel
//     of veths charges the way of a frame to its receivers to the sender.
//   - Spacing: between two adverts of one instance, by the observer's stamps.
//
// The measuring itself is measured: its CPU, and how late a thread of its own was
// that wakes each millisecond (late). A figure of a run is worth no more than that.
//
// # Bounds
//
// Each wait has a limit (20 s and ten intervals), so a Plan ends. The observer keeps
// a million adverts of a run of Failover and counts what it loses. All is
// gone when Measure returns, also when its context ends before.
//
// Values of this package are for one goroutine, but Plan and Speaker, which are
// not changed by it, may be shared.
package bench
