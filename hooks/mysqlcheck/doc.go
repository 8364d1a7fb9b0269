// Package mysqlcheck is the monitor "mysql-check": whether a MySQL or MariaDB server
// takes logins, as HAProxy's option of that name asks, and, with a query, what it
// answers.
//
//	on: monitor
//	kind: mysql-check
//	with:
//	  address: 192.0.2.50:3306
//	  user: haproxy
//
// Without a query it sees what HAProxy sees: with a user, who needs to have no password,
// the server's greeting and its answer to the login; without a user the greeting alone,
// which the server counts as an aborted handshake, until it blocks this host
// (max_connect_errors). No database, no rights and no role are looked at: a server that
// is read only, or whose writes are locked, passes. Asked at the shared address it goes
// through the proxy, as a client does.
//
// With a query it logs in with a password and compares the first column of the first
// row. That can see a role: "SELECT @@read_only" with expect "0".
package mysqlcheck
