// Package command runs the external programs of hook kinds, all in the same way, so
// that a hook that is cancelled leaves nothing running.
//
// # What a program gets
//
// Its arguments as written; there is no shell. The environment is PATH alone unless the
// caller gives one, and nothing of the daemon's; the working directory is /, the umask
// 077. It has a session and process group of its own, and no open files but the first
// three. Nothing secret belongs into arguments and environment, which others can read.
//
// # When it ends
//
// A run is over when all of it is over. When the program has exited, or when the
// context ends, whatever is left of its session, in whatever process group, gets
// SIGTERM, two seconds later SIGKILL, and Run returns when nothing of it lives. So two
// roles never have programs running at the same time. A process in a session of its
// own (setsid) is out of reach here, and so is what Command.Daemon starts.
//
// The program is started in the cgroup that the runner has for hooks, if it has one
// (hooks.Cgroup): whoever survives the daemon can end all that is in it. Without one,
// if the daemon is killed, the kernel kills the program, but only the program itself.
//
// # What is run
//
// The program, each directory above it and each symbolic link on the way must belong to
// root, to the daemon's user or to the user it runs as, and must not be writable by
// group or others; else whoever can write there decides what the daemon runs. A sticky
// directory of root's, such as /tmp, passes: there nobody can replace what is
// another's.
//
// # What it writes
//
// Output goes to the log of the hook, line by line, up to 64 KiB and 1000 lines a run;
// the rest is counted. An error shows the last lines.
package command
