// Package hast is the kind of resource "hast": a block device that FreeBSD's HAST
// (hastd, hastctl) replicates between two nodes, the file system on it, and the services
// that live there. The node with the role has the device as primary, mounted and in use.
//
// What hastctl says proves little: its exit code 0 comes before the device exists, and a
// worker that fails puts the role back to init with a line in a log. So each change of
// role is waited for: the role and the device, by looking.
//
// hastctl does not say whether the copy of a secondary is whole, either: "complete" is
// connected, and dirty is 0 on every secondary. The other node's own list says it. The
// package keeps a record of what was last seen, and promotes only a copy that was known
// to be whole when the other node was last heard (see sync).
//
// Never done: unmounting by force, a change of role of a device that is mounted or in use,
// "create". Packages hooks and hooks/volume have the rest of the contract.
package hast
