// Package exec is the hook kind "exec", and the monitor "script": it runs programs of the
// operator's when a role moves.
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
//	78     the node is not fit (EX_CONFIG): hooks.Refuse
//	other  failed; the error shows the code and the last lines of output
//
// # As a resource, and as a monitor
//
// Without a phase the kind is a resource of three programs, that promote, demote and look:
// see ResourceConfig. None is believed: what counts is what the last one says. The monitor
// "script" is one program whose exit code says how fit the node is: see MonitorConfig.
// Codes says what exit codes mean.
//
// # How it runs
//
// As package command says: in a session that is ended as a whole, when its timeout is
// reached or when a newer transition cancels it, and from a path that only trusted users
// can change. What is meant to stay is started as a service (systemctl start), or in a
// session of its own (setsid) with its output redirected: such a process is out of reach
// here.
//
// If the daemon is killed and there is no cgroup for hooks, the kernel kills the program,
// but not what it has started, such as the command that a script waits for. A script
// whose command must not outlive the daemon ends in "exec COMMAND", or is run by systemd,
// which ends all of a service.
package exec
