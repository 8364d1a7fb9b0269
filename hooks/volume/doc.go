// Package volume is what kinds share that hand a block device from node to node: the
// check of the file system, the mount, who holds it, and the services that live on it.
// It is no kind by itself: the role of the device is its user's business.
//
// # Up
//
// The device is there and may be written to. Services that run on the bare directory
// are stopped; the file system is checked; it is mounted, and the mount table is read to
// see that it is: this device, there, for writing; the services are started one after the
// other, each only when the one before answers. Nothing is done that is so already.
//
// # Down
//
// The services are stopped, the last one first, each within its time and then by force;
// the file system is unmounted, never by force: who holds it is named. Afterwards the
// device is in nobody's hands, in whatever mount namespace: only then its role may change.
//
// Both are plans of steps for hooks.Mark, and can be called in any state, also after a
// crash or cancel anywhere within.
package volume
