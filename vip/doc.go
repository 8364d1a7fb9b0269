// Package vip puts the addresses of a virtual router on an interface and takes
// them off again: wanted state in, kernel calls out.
//
// # The contract
//
// A Set is the addresses of one vhid on one interface. Up puts them on, Down
// takes them off, and Run, the worker, keeps them: it renews their lease, puts
// back what was lost and repeats the announcements.
//
// No address is added, renewed, restored or announced without a live
// carp.Permit. The permit ends at the last instant at which this node may act
// as master; a kernel lifetime must have ended by then too, so with a lease
// that is promised, nothing is added or renewed unless
//
//	now + Lease.Valid + Lease.Late <= Permit.Until
//
// After each batch the permit is looked at again: a process that was frozen
// between the check and the system call takes the addresses off at once, and so
// does one whose batch was so slow that the lease outlives the permit, unless a
// fresher permit comes at once. What the last batch took is counted before. When
// the permit lapses or is withdrawn, the addresses go, and permits that resume
// afterwards do not bring them back: only another Up does, because a lapse
// means that the loop that decides mastership stood still.
//
// # In the kernel
//
// All changes of a set go in one batch with one lifetime, in steps between which
// the permit is asked. Ours carry the mark Mark, so that Cleanup finds what a dead
// daemon left. Where the interface has an address of its own in the subnet, ours
// go up as /32 or /128: an expiring address that was the first of its subnet takes
// the others and the default route along. IPv6 addresses are deprecated from the start (preferred lifetime
// 0), so that the node never picks them as a source, and skip duplicate address
// detection, which would keep them silent for a second.
//
// # Sessions
//
// A session outlives its address: the socket stays with all that the server holds for
// it. So the sockets of an address are destroyed when it leaves, listeners excepted:
// first the sockets, since only then the other ends are told, then the address, then
// the sockets that came in between. When the permit has lapsed it may be the lease that
// was first; and what a dead daemon left ends when Run begins. An address that another
// interface has too, as loopback has on a real server, is left alone.
//
// # The device
//
// With a virtual MAC the addresses go on a macvlan of ours in private mode on the
// interface. It is made when Run begins and deleted when Run ends. It goes up first
// in the batch that puts the addresses on. When they are off the worker sets it down,
// which takes the kernel 15 ms and more and is waited for by nobody: up without
// addresses it answers nothing either. If an address cannot be removed, it goes down
// at once. Its alias says whose it is, and what arp_ignore and arp_announce of the
// interface were before: the last device to go restores them, also by Cleanup.
//
// # Bounds
//
//	changes between two looks at the permit 250
//	messages in one netlink send            1000, fewer if their answers would not fit
//	wait for a permit after a slow batch    0.05 s
//	restorations of lost addresses          10 at once, then 1 a second (a set); of the device the same
//	wait for another process's devices      2 s
//	attempts to take addresses off          5 in 0.3 s, then again each second by the worker
//	addresses stay on for their sockets     0.1 s when they go by plan, 0.02 s otherwise
//	announcement frames                     1024 at once, then 20 000 a second (an interface)
//	rounds of a burst                       at once, after 0.2 s, 1 s and 5 s
package vip
