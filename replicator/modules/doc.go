// Package modules keeps groups of tables equal on many nodes, as ProxySQL Cluster does
// for its modules, without what makes that lose changes.
//
// This package decides (Core) and encodes (Message, Content); it opens no file, no
// socket and no database. Whoever runs a Core owes it four things: the time, what the
// own database holds (Looked), what peers say (Hear, Failed), and the role of the node
// (Hold, Release). It answers with Effects, of which Save comes before all else.
//
// The rules:
//
//   - Each module has a stamp: logical clock, mastership, node, number, checksum. Stamps
//     have a total order and survive restarts. The clock is max(now, greatest seen + 1),
//     so that a node whose clock is ahead hides nobody's later change.
//   - Only the holder of the address makes stamps: it is the source of changes. It pushes
//     them to its neighbours, who push them on once they have them. A change on another
//     node is offered to the holder (Forward) or taken back (Refuse).
//   - A node without a stamp is fresh: it takes, and never gives, unless nobody can lose
//     anything by it or an operator says so (Seed).
//   - Everybody polls a few neighbours for one digest; only where it differs is more said.
//     What is newer is pulled after so many equal observations, the greatest first, from
//     a node whose database holds it; the checksum is computed anew from what arrived, and
//     again from what the database holds after it was written.
//   - A guarded table that had rows is not emptied, neither by the holder's change nor by
//     what arrives, unless an operator allowed it.
//   - What is replaced by something that did not come from it is a conflict: the greater
//     stamp wins, and both are told.
package modules
