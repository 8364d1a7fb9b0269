// Package exec is the hook kind "exec": it runs a program of the operator's when
// a role moves.
//
//	kind: exec
//	with:
//	  command: [/etc/carpd/failover.sh, eu-1]
//	  style: carpd
//	  user: backup
//
// # What the program gets
//
//   - Its arguments as written; there is no shell. With style ucarp they are
//     followed by interface, first address without its length, and xparam; with
//     style keepalived by INSTANCE, name, state and priority. So scripts written
//     for those daemons run unchanged.
//   - The event as one JSON object on standard input: see hooks.Event. A program
//     need not read it.
//   - A clean environment: PATH and the CARP_ variables listed at Environment,
//     and nothing of the daemon's.
//   - Working directory /, umask 077, a session and process group of its own, no
//     open files but the first three.
//
// Nothing secret is among these: arguments and environment of a process can be
// read by others.
//
// # What its exit says
//
//	0      done
//	75     try again (EX_TEMPFAIL): it is started again, with growing pauses of
//	       0.25 to 5 s, until the step's timeout, at most 50 times
//	other  failed; the error shows the code and the last lines of output
//
// # When it ends
//
// A run is over when all of it is over. When the program has exited, when its
// timeout is reached, or when a newer transition cancels it, whatever is left
// of its session, in whatever process group, gets SIGTERM, two seconds later
// SIGKILL, and Run returns when nothing of it lives. So two roles never have
// programs running at the same time. What is meant to stay is started as a
// service (systemctl start), or in a session of its own (setsid) with its output
// redirected: such a process is out of reach here.
//
// The program is started in the cgroup that the runner has for hooks, if it has one
// (hooks.Cgroup): whoever survives the daemon can end all that is in it. Without one,
// if the daemon is killed, the kernel kills the program, but only the program
// itself: what it has started, such as the command that a script waits for, runs
// on. A script whose command must not outlive the daemon ends in "exec COMMAND",
// or is run by systemd, which ends all of a service.
//
// # What is run
//
// The program, each directory above it and each symbolic link on the way must
// belong to root, to the daemon's user or to the user it runs as, and must not
// be writable by group or others; else whoever can write there decides what the
// daemon runs. A sticky directory of root's, such as /tmp, passes: there
// nobody can replace what is another's. This is checked at start and before
// each run.
//
// Output of the program goes to the log, line by line, up to 64 KiB a run; the
// rest is counted.
package exec
