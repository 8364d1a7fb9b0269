// Package link carries CARP adverts over Linux sockets: it implements carp.Link
// for one interface and all the vhids on it.
//
// # What it does
//
// An Interface has one AF_PACKET socket, whose filter throws away in the kernel
// all that is not IP protocol 112, and so stands before rp_filter and firewall.
// It is a member of 224.0.0.18 and ff02::12 where a port asks for them, so that
// switches that snoop forward adverts. A port is what one vhid sees of it: the
// frames whose second payload byte is that vhid, and the changes of the link.
//
// Adverts to a group go out of the same socket as whole frames (TTL 255, DF, the
// virtual source MAC); adverts to a peer go out of a raw IP socket, so that the
// kernel resolves the neighbour.
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
// 255 ports an interface, 64 events a port, 2048 bytes a frame. Sending never
// blocks: a full socket is an error. Two ports of the same vhid on the same
// interface, in one process or in two of the same network namespace, exclude
// each other (BusyError). What excludes them is an abstract socket name, which any
// local user can bind first: that keeps a vhid from being attached, and the
// BusyError names who does it.
package link
