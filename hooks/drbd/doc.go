// Package drbd is the kind of resource "drbd": a block device that DRBD 9 replicates
// between nodes, the file system on it, and the services that live there. The node with the
// role has it as Primary, mounted and in use.
//
// DRBD itself knows whether a copy may be used and refuses what must not be; this package
// asks it first (drbdsetup status --json), does one thing, and looks again. Never done:
// --force, a second Primary, unmounting by force, an invalidation of data. Packages hooks
// and hooks/volume have the rest of the contract.
package drbd
