// Package safety breaks speakers of CARP and VRRP in many ways and measures what
// the users of their address see: for how long two hosts answered for it, for how
// long none did, how long a client got no service, and how often a backup took over
// from a master that was well. It is what `carplab bench safety` runs.
//
// Every run has a LAN of its own: nodes, a client, an observer and an attacker, each
// in a network namespace. The nodes are two or three in turn, all with the same
// daemon: advskew 0, 50, 100 or priority 200, 150, 100 (of two nodes the first and
// the last), preemption on. A run waits until node 1 alone has been master for a
// while, breaks something at a random phase of the advert interval, mends it where
// the row says so, and watches until all is at rest or a stated time is over.
//
// # What is measured, and how
//
//   - Holders: the observer asks by ARP who has the address, each AskEvery. Each
//     question has a number (its sender address), so that it is known who answered
//     which. Two hosts that answer one question are two holders; a question without
//     an answer has none. A question stands for the time until the next one.
//   - Outage: the client opens a TCP connection to the address each DialEvery,
//     through the ordinary neighbour table of its kernel, which is warm; a server on
//     each node accepts and says which node it is. The outage is the longest time
//     between two such answers.
//   - False takeovers: a node begins to advertise although a better one is master
//     to which nothing was done (see takeovers).
//   - Gap: the longest time between two questions. What is shorter may have been
//     missed; on a quiet machine it is little more than AskEvery.
//
// # Bounds
//
// Each wait has a limit, at most MaxParallel LANs exist at once, floods are limited
// in count and time and never run beside another run. All is gone when Measure
// returns, also when its context ends before.
package safety
