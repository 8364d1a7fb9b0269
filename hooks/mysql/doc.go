// Package mysql is the kind "mysql": a replica is promoted with the role, a primary is
// demoted, for MySQL 5.7.6 to 8.4 and MariaDB from 10.5.2, by GTID.
//
// As a resource it takes part in the role, as a monitor it looks only, and as a hook on
// after-down and after-up it points replicas at who is the primary now.
//
// # Promotion
//
// Each step looks first, so that it may be called again in any state:
//
//  1. look: a server that can be written to and has no source is promoted already. One
//     that cannot be promoted at all (several sources, no GTID, an error of replication)
//     refuses.
//  2. ask-peers: all peers, at the same time. One that lives and does not let carpd in is
//     waited for: nobody knows whether it is written to.
//  3. fence-peers: those that can be written to are made read-only, as in a demotion.
//  4. apply: the thread that applies is started if it does not run. If the source is
//     there, all that it had when it was made read-only is waited for.
//  5. stop-receiving: the thread that receives is stopped, that one alone, and what was
//     received is applied. MariaDB throws away what was received and not applied when
//     both threads have been stopped.
//  6. detach: source and digest go to the journal, then the source is forgotten.
//  7. switches: semi-synchronous replication and events.
//  8. writable: read_only = 0, and a look whether it is so.
//
// A server without a source is promoted if all peers that answer have nothing that it
// lacks, and no peer is silent; or if it was cut from its source by an unfinished
// promotion; or if this process demoted it and has seen nobody take over.
//
// # Demotion
//
//  1. read-only: read_only is set. Where a statement or a lock is in its way for a second
//     (lock_wait_timeout), the longest writers are killed, then all clients. When it is
//     set, the connections that there were are ended.
//  2. switches: as above, the other way round.
//  3. rejoin: if a peer is the primary, the server becomes its replica, see below. It
//     waits for none: who takes over waits for this one to let go.
//
// # Rejoining
//
// A server becomes the replica of the primary if it has no transaction that the primary
// lacks. Otherwise it stays read-only, and the error names the transactions. Nothing is
// ever thrown away: no RESET MASTER.
package mysql
