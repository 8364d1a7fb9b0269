// Package haproxy is the kind "haproxy": an HAProxy that belongs to an address.
//
//	kind: haproxy
//	with:
//	  socket: /run/haproxy/admin.sock
//	  unit: haproxy.service
//
// It is a resource, a notification and a monitor.
//
// # Why it runs on both nodes
//
// A cold start is the slowest and the least certain part of a takeover: the
// configuration may have a fault that nobody has seen yet, servers have not been
// checked, and a bind to an address that is not there fails. So by default (standby:
// running) HAProxy runs on both nodes all the time, and the address alone moves. Its
// bind is then to the wildcard, or has "transparent", or the node has
// net.ipv4.ip_nonlocal_bind=1.
//
// Where the node without the address must not be used at all, standby: closed keeps the
// named frontends disabled there (clients are refused, open sessions are cut), and
// standby: stopped keeps the process stopped.
//
// # What is believed
//
// The runtime API's answers about what is, and neither an exit code nor silence: after
// each start, reload, opening and closing it is asked again. A process that runs and
// does not answer is not healthy. A login check of HAProxy's (mysql-check) says nothing
// about writes; package galera's monitor does.
//
// # Reload
//
// In master-worker mode the master is told by its socket or by SIGUSR2; otherwise a new
// process is started with -sf, which takes over the listening sockets (-x) where the
// configuration says expose-fd listeners. A reload has worked when another process
// answers the runtime API than before. Otherwise the old one goes on, and that is an
// error.
//
// A candidate, a new configuration beside the one that is loaded, is checked with
// haproxy -c, put in its place and loaded. If that fails the one before is put back and
// loaded, and the candidate is renamed, so that it is not tried again.
package haproxy
