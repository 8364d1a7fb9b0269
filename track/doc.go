// Package track watches from one interface whether a host beyond it answers: the
// probe of a group's client side. With several paths a master is heard though its
// client side is cut where no link goes down; only what is asked there and answered
// there tells.
//
// A Gateway sends an ARP request or a neighbour solicitation each Interval, from an
// address of the interface that is not shared, or for IPv4 from none (0.0.0.0, the
// probe of RFC 5227): so it works while no shared address is up, and moves nobody's
// neighbour entry for one. What counts is an answer to this interface's own MAC
// within the Deadline; what the asked host sends by itself shows one direction only.
// A Judge makes a Verdict of the rounds: it changes after Fall misses or Rise
// answers in a row. All decides about several gateways: any that answers is enough.
//
// A round that this node was too late to look at counts by what waits in the
// socket, so that a frozen or busy node does not blame its network.
//
// The package imports package carp for its vocabulary, and nothing else of ours. It
// needs CAP_NET_RAW for Open, in the network namespace of the calling thread, and
// nothing after that. Limits: one socket and one goroutine a gateway, one frame an
// interval.
package track
