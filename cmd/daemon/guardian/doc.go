// Package guardian is the small process that acts for a daemon which has died or
// hangs: it ends the hooks, takes the addresses off and says the bow-outs, so that a
// crash costs milliseconds and not a master-down time.
//
// # Two sides
//
// The daemon has a Keeper, which starts the guardian (the same program, by Command),
// and starts it again when it ends, and for each of its instances a Ward. Main is the
// guardian. Between the two are:
//
//   - a page of memory that both have mapped. In it each instance has the end of its
//     permit, 0 while it holds none, and the loop of the daemon has the instant of
//     its last turn. The loop writes them by single stores: no system call, nothing
//     to be full, and the guardian reads the newest value however busy the machine
//     is. The page outlives the daemon.
//   - a socket, by which the guardian is told what it will need: which addresses are
//     on which interface, and bow-outs ready to be sent.
//
// The death of the daemon is the death of the thread that turns its loop, by a robust
// futex on the page (Hold): the kernel tells of it in microseconds. The end of the
// socket follows when the last thread is gone and the memory is torn down, which
// takes about 0.1 ms a megabyte and on a busy machine much longer: then the guardian
// looks once more for what a thread may have put on in its last moment. Either
// counts only without a goodbye on the page.
//
// # When it acts
//
// For an instance that holds a permit, and no other: one that is BACKUP, has yielded
// or was let go in order has none on the page. So nothing happens at a clean stop, at
// a restart or at a reload, even if the guardian is ended first.
//
//	the daemon is gone                                   at once
//	the permit has lapsed, by CLOCK_BOOTTIME             a quarter of the margin after its end
//
// The margin is what lies between the end of a permit and the moment at which the
// fastest backup takes over: 100 ms, or a tenth of the master-down time. The daemon's
// own workers take addresses off at the very end of the permit; what is left is for
// the guardian. It takes the permit with it (a compare-and-swap of the same word): a
// loop that comes back in this moment finds it gone, and leaves the role.
//
// # What it does
//
// In this order: the hooks are killed, with all they have started (cgroup.kill, or of a
// daemon that lives the processes in it one by one); the
// sessions with the addresses are ended, as far as that takes 5 ms, so that clients are
// told at once; the addresses go; the bow-outs are sent, if that worked and the margin
// is not over (else a backup would take over beside us, or after another one); what
// sessions are left are ended. Hooks and bow-outs
// are for a daemon that is gone, or whose loop does not turn (hooks: for a second); a
// living one does that by itself. Then the guardian of a dead daemon ends; that of a hanging one goes on.
//
// # Bounds
//
//	instances                    8191
//	message to the guardian      256 KiB; what it has not taken yet: two an instance, the newest
//	its looks at the page        at the next deadline, once a second at least
//	starting it again            after 0.1 s, doubled up to 10 s; 0.1 s again when it has lived for a minute
//	a guardian that is silent    alarm after 3 s, killed and started again after 10 s
//	its end at a clean stop      waited for 2 s, then it is killed
package guardian
