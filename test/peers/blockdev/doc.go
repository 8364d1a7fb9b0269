// Package blockdev has stand-ins for what replicates a block device between two nodes:
// hastd with hastctl, and DRBD with drbdadm and drbdsetup. Neither runs on the machines
// that test carpd: HAST is FreeBSD's, and DRBD is a kernel module that few kernels bring.
//
// What is real: the device is a block device (a loop device over a file of FUSE), real
// file systems are made, checked and mounted on it, and each write to it is on the other
// node, over TCP, before it is acknowledged. What is played is the behaviour that hooks have
// to deal with: outputs and exit codes as in the sources of hastctl and drbd-utils, a role
// that is answered before the device is there, a worker that falls back to init, a secondary
// whose worker outlives its primary, a device destroyed under its file system, split brain.
// What is simplified is said where it is.
//
// # Use
//
// The programs are the test binary under other names. TestMain calls Enter first; Install
// makes a directory with the programs for one node:
//
//	func TestMain(m *testing.M) { blockdev.Enter(); lab.Main(m) }
//
// Nothing is left behind: the loop devices are detached when the last one closes them, and
// FUSE is mounted in a namespace of its own for a moment only. Whoever mounts the device
// does so in a mount namespace that ends with its processes.
package blockdev
