// Package proxysql is the resource kind proxysql: ProxySQL, of which the node that takes
// the role over has the newest verified configuration.
//
// Warm: ProxySQL runs on all nodes. At a promotion the snapshot is written into its memory
// through the admin port, read back and compared, loaded to the runtime, saved to disk and
// compared again. Replies are not believed: ProxySQL answers OK also to a SAVE that failed.
//
// Cold: ProxySQL runs where the role is. The snapshot is put in the place of its database
// by package hooks/database, and ProxySQL is started on it.
//
// In both it is ready when a client can log in, when it has what the database has, and when
// its monitor has looked at each server that it may send writes to: before that it sends
// them to the server that the database names, which may be the old primary.
package proxysql
