// Package script runs scenarios: files that hold commands and what came of them,
// one column a node. The same file runs in the simulator (package test/sim, exact
// times) and on the real kernel (package test/lab, the real daemon).
//
//	node a skew 0
//	node b skew 100
//	start
//	----
//	  0.000  a INIT -> BACKUP (link-up)
//	  0.000                                b INIT -> BACKUP (link-up)
//
//	# one direction only: b goes deaf, a does not
//	cut a -> b
//	run 10s
//	holders
//	----
//	  3.000  a BACKUP -> MASTER (master-timed-out)
//	a
//
// # The file
//
// A block is a run of lines with commands, one a line, then a line "----", then
// the output, and ends at a blank line. Without "----" it expects no output. A "#"
// at the start of a line or after a space begins a comment, but not in the output.
// Times are seconds since the beginning; only run lets time pass. Transitions are
// told in the words of carp.State and carp.Reason, with the other node if one had
// a part in it.
//
// # Commands
//
// Settings stand before the first start:
//
//	node NAME [OPTION ...]         a member of the group; see below
//	client NAME [ADDRESS]          a host that asks the first address, or this one (kernel only), all the time
//	only sim|kernel                the scenario makes sense there alone
//	compare answers                races decide: on the kernel only answers and expectations count
//	tolerance D                    on the kernel, for times (500ms)
//	show addresses                 tell when a node's kernel has and loses the address
//	seed N                         of the simulator (1)
//	unchecked                      without the simulator's own checkers
//
// Then:
//
//	start [NAME ...]               start daemons; of all nodes if none is named
//	run D                          let time pass: 10s, 250ms, 2m
//	kill NAME                      kill -9
//	halt NAME                      the whole machine goes; restart brings it back
//	stop NAME                      SIGTERM: an orderly end
//	restart NAME                   start the daemon again
//	freeze NAME, thaw NAME         SIGSTOP, SIGCONT
//	link NAME down|up              the interface, as ip link set
//	link NAME unplug|plug          the cable
//	cut A -> B, join A -> B        one direction between two
//	partition A B | C              both directions between the groups
//	heal                           undo cuts, partitions and loss
//	latency D, loss N%             of each frame, on the whole segment
//	echo N%                        of each frame comes back to its sender
//	demote NAME N [OWNER]          add to advskew, or take off the priority, for an owner (operator)
//	undemote NAME [OWNER]
//	state NAME master|backup       as ifconfig's state
//	handover NAME, resume NAME     give the role away for good; stand again
//	reload NAME OPTION ...         change the configuration of a running daemon
//	inject [FIELD ...]             an advert from a stranger, or forged; see below
//
// Questions print their answer:
//
//	holders                        who has the address: names, or nobody
//	answers CLIENT                 who answers the client: a name, or nobody
//	outage CLIENT                  how long it got no answer since the last such question
//	status NAME                    state, timing or priority, demotion, who is heard, and why it is refused
//	drops NAME                     what was refused, by the names of carp.Drop; on the kernel
//	                               without what came before the node had left INIT
//	mac NAME                       where its adverts come from (kernel only)
//
// Expectations print nothing, and fail the scenario whatever is written below:
//
//	expect holders NAME ...|nobody
//	expect one holder              exactly one, no matter which
//	expect state NAME STATE
//	expect answers CLIENT NAME|nobody
//	expect outage CLIENT < D       as outage
//	expect overlap < D             the longest time with two holders so far
//	expect quiet                   nothing was told during the last run
//
// Options of node and reload: skew N, base N, preempt [on|off], pass WORD, addr
// A,B (192.0.2.100, or IPv6, or both), peers NAME[.6|.ll],..., compat bsd,
// replay sealed|window|off, id N (its node id),
// families each, lease off, startup D, preempt-delay D, roll D, mac interface or
// virtual (kernel only), bare (no address of its own; kernel only). A node named NAME.6
// is meant by its IPv6 address, NAME.ll by its link-local one. For VRRP: protocol vrrp2
// or vrrp3, priority N, interval D, checksum rfc9568, excluded A,B (addresses that
// move along without being in the advert; in the simulator all are one); it has no skew, base, compat and
// families, and a pass only with vrrp2, and none if it is not given.
//
// Fields of inject: base N, skew N, pass WORD, from NAME (spoof a node's address),
// vhid N, ttl N, addr A,B (of the hash), counter N, demote N, version N, family 6,
// to NAME (unicast), cut N (bytes of payload that are left), pad N (bytes more),
// checksum bad, bowout, times N. It is of the first node's protocol, or, if that is the
// first field, protocol P. One of VRRP is what the first node would send, with priority
// 254: priority N, interval D, version N, pass WORD, addr A,B, and checksum
// pseudo-header, rfc9568 or old-unicast change that.
//
// # On the kernel
//
// There, a command takes time and so does a daemon. Transitions are compared in
// their order, for each node, with their reasons; their times may differ by the
// tolerance. The end of an address whose lifetime is over may come another 1.1 s
// later. An overlap of less than 20 ms cannot be seen. A question is repeated for
// as long as the tolerance until its answer is as written. A scenario that fails
// while the machine is too busy to keep time is played again, three times in all.
package script
