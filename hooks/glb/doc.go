// Package glb is the kind "glb": the destinations of a GLB, the Galera load balancer,
// set by its control protocol.
//
//	kind: glb
//	with:
//	  control: 127.0.0.1:8011
//	  destinations: [192.0.2.11:3306, 192.0.2.12:3306:0.5]
//
// It is a resource (destinations while this node has the role, others while it has not),
// a notification (destinations from a phase on) and a monitor.
//
// # The protocol
//
// One command in each read, several in a connection. There is no framing, and two commands
// in one packet are taken as one, so each reply is awaited. glbd does not handle SIGPIPE:
// who hangs up on a reply that is on its way may kill it. So an exchange is never cut
// off by a context, but bounded by a second, and contexts are looked at in between.
//
// # What is believed
//
// What getinfo says afterwards, not "OK": a destination is set when its row has the
// weight, drained when its row has no connections, and removed when there is no row.
// One with connections is drained before it is removed: glbd may neither close nor
// count them any more afterwards.
//
// # Restart
//
// glbd keeps its destinations in memory. Restarted, it knows its command line again. So
// this kind's Monitor does more than look, an exception among resources: where the
// destinations are not those that were set last, it sets them again, and says so as
// "degraded" for that once.
package glb
