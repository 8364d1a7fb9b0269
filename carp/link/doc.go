// Package link carries the adverts of CARP and VRRP over Linux sockets: it
// implements carp.Link for one interface and all the virtual routers on it.
//
// # What it does
//
// An Interface has one AF_PACKET socket, whose filter throws away in the kernel
// all that is not IP protocol 112, plain or behind an authentication header, for an
// id that has a port and for a group or an address of the interface. So it stands before rp_filter, firewall and any macvlan on the interface, which
// would take frames that come with its own MAC. It is a member of 224.0.0.18 and
// ff02::12 where a port asks for them, so that switches that snoop forward
// adverts. A port is what one virtual router sees of it: packets, and the changes
// of the link.
//
// Adverts to a group go out of the same socket as whole frames (TTL 255, DF, the
// chosen source MAC); adverts to a peer go out of a raw IP socket, so that the
// kernel resolves the neighbour. Where the checksum covers the source address,
// which is chosen here, it is set here (carp.Frame.Finish).
//
// # Who gets a packet
//
// One CARP, one VRRP router over IPv4 and one over IPv6 may have the same id on
// one interface (Kind). The second payload byte is the id, the first nibble the
// version:
//
//	version        CARP port                              VRRP port of the packet's family
//	2              gets it                                gets it
//	3              gets it if that VRRP port is not there gets it
//	others         gets it                                -
//	2, 3 behind AH -                                      gets it
//
// A packet that two ports get is copied for each. That CARP and version 2 of VRRP
// look alike is for their engines to tell.
//
// # Who reads
//
// A Waiter (Options) reads in the goroutine that waits by it, which is the loop of
// the speakers, and hands each packet to its engine without a queue (carp.Inline):
// whoever can run the loop in time has read the adverts in time. Without one, a
// goroutine of the interface reads and fills the ports' inboxes.
//
// # Life of the interface
//
// An interface is known by its name. It may be absent when it is opened, be
// deleted, come back with another index, be renamed away, go down and up, and
// change its addresses: each is an event at the ports and none is an error. It
// counts as up when it is administratively up and its operational state is UP or
// UNKNOWN, as in OpenBSD (carp_set_state). Notes of the kernel (rtnetlink) serve
// as wake-ups only: what counts is read anew after each, so a lost note costs
// nothing.
//
// # Namespaces and privileges
//
// Open and Attach make all sockets, in the network namespace of the calling
// thread; nothing is opened later, and a recreated interface is found by the
// same sockets. They need CAP_NET_RAW; nothing after them does. Every socket is
// close-on-exec.
//
// # Limits
//
// 255 ports of each Kind an interface, 64 events a port, 2048 bytes a frame, 32
// frames a system call, 64 frames a wait, a receive buffer of 1 MiB (less without
// CAP_NET_ADMIN). Sending never blocks: a full socket is an error. Two ports of the same Kind and
// id on the same interface, in one process or in two of the same network
// namespace, exclude each other (BusyError); so do versions 2 and 3 of VRRP. What
// excludes them is an abstract socket name (Claim), which any local user can bind
// first: that keeps an id from being attached, and the BusyError names who does it.
package link
