package command

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/carpd/carpd/hooks"
)

// SearchPath is the PATH of a program: the one that Debian's login gives root.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command is one program and what it is given. Only Path is required.
type Command struct {
	Path  string   // absolute; there is no search path and no shell
	Args  []string // those after the path
	Env   []string // the whole environment as NAME=value; nil: PATH alone
	Stdin []byte   // what it can read; nil: nothing
	User  *syscall.Credential

	// Keep is how many bytes of standard output Run returns, 0 for none. What is
	// returned is not logged. More than that is an error, for half an answer may say
	// the opposite of the whole.
	Keep int
	// Quiet keeps the output out of the log: for what is run every few seconds. Errors
	// show the last lines of it all the same.
	Quiet bool
	// Daemon is for a program that makes a daemon of itself and exits: what it leaves
	// running when it exits stays, and is outside of the cgroup of the hooks, so that it
	// outlives a crash of ours. Stopped before that by its context, it ends as others do.
	Daemon bool
}

// ExitError is the failure of a program that ran and ended by itself.
type ExitError struct {
	Path string
	Code int    // its exit code, -1 if a signal ended it
	How  string // "exit code 3", "signal: killed"
	Tail string // the last lines of its output, for an operator
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("command: run %s: %s: %s", e.Path, e.How, e.Tail)
}

// Run runs the program once, and returns when it and all of its session are gone: when
// it has exited, or when ctx has ended, see the package. The error is an *ExitError if
// it ended by itself with another code than 0, and wraps ctx.Err if it was stopped. What
// was kept of its output is returned in any case. Safe for concurrent use.
func Run(ctx context.Context, c Command) (stdout []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	out := newOutput(hooks.Logger(ctx), c)
	defer out.close()
	// A thread of its own lives exactly as long as the program: PDEATHSIG is sent when
	// the thread that forked ends, not the process, and the umask is set on that
	// thread alone.
	err = onOwnThread(func() error {
		if err := ownUmask(); err != nil {
			return fmt.Errorf("command: run %s: set umask: %w", c.Path, err)
		}
		return supervise(ctx, c, out)
	})
	if err == nil && out.cut {
		err = fmt.Errorf("command: run %s: it wrote more than %d bytes", c.Path, c.Keep)
	}
	return out.answer, err
}

// check refuses what cannot be run as it is meant, also a path that others could change.
func (c Command) check() error {
	switch {
	case !filepath.IsAbs(c.Path):
		return fmt.Errorf("command: %q is no absolute path: there is no search path and no shell", c.Path)
	case strings.ContainsRune(c.Path, 0), slices.ContainsFunc(c.Args, func(s string) bool { return strings.ContainsRune(s, 0) }):
		return errors.New("command: an argument contains a zero byte")
	}
	if c.User != nil {
		return CheckPath(c.Path, c.User.Uid)
	}
	return CheckPath(c.Path)
}
