// Package carp is the protocol: the Common Address Redundancy Protocol, version
// 2, as spoken by FreeBSD, OpenBSD, NetBSD and ucarp, and the Virtual Router
// Redundancy Protocol, versions 2 and 3 (RFC 3768, RFC 9568), as a state machine
// that does nothing by itself.
//
// # The engine
//
// An Engine has no goroutine, socket, clock, log or randomness of its own. Each
// method takes the present Instant and one input and returns Effects: what to
// send, which transition happened, until when this node may act as master, and
// when to call Tick next. The same inputs give the same effects, so a trace can
// be replayed and a fault reproduced from its seed.
//
// The caller owes the engine five things:
//
//  1. One call at a time, with an Instant that never goes back.
//  2. Frames in Effects.Send are sent in order; then Sent is called with the
//     instant before the first of them was sent, or SendFailed.
//  3. Effects.Change is carried out by somebody else than the loop that calls
//     the engine: adverts must not wait for the kernel, a hook or a disk.
//  4. When the addresses are gone after a transition away from MASTER, Released
//     is called; if they cannot be taken on, Failed.
//  5. No address is added, renewed, restored or announced without a live Permit.
//
// What the engine promises in return is listed in docs/protocol.md: never more
// than one holder on a whole segment but for the stated bounds, and a holder
// within the master-down time.
//
// # The speaker
//
// A Speaker does all of this for one Engine: it owns its Link and timer, runs
// the Handler in a goroutine beside the loop, and is safe for concurrent use.
package carp
