package exec

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/carpd/carpd/hooks/command"
)

// The exit codes with a meaning of their own: those of sysexits.h, and those of timeout(1)
// and the shell.
const (
	tryAgain  = 75 // EX_TEMPFAIL
	forbidden = 77 // EX_NOPERM
	refuses   = 78 // EX_CONFIG
	timedOut  = 124
	wasKilled = 128 + int(syscall.SIGKILL)
)

// maxAnswer is how much a program that is asked for a state may write.
const maxAnswer = 64 << 10

// program is what is run, and as whom.
type program struct {
	argv       []string
	credential *syscall.Credential // nil: as the daemon
}

// newProgram checks the setting with the given key. There must be a program.
func newProgram(key string, argv []string, credential *syscall.Credential) (program, error) {
	p := program{argv, credential}
	var err error
	switch {
	case len(argv) == 0:
		return p, fmt.Errorf("%s: required: write [/path/to/program, argument, ...]", key)
	case !filepath.IsAbs(argv[0]):
		return p, fmt.Errorf("%s: %q is no absolute path: there is no search path and no shell", key, argv[0])
	case slices.ContainsFunc(argv, func(s string) bool { return strings.ContainsRune(s, 0) }):
		return p, fmt.Errorf("%s: an argument contains a zero byte", key)
	case credential != nil:
		err = command.CheckPath(argv[0], credential.Uid)
	default:
		err = command.CheckPath(argv[0])
	}
	if err != nil {
		return p, fmt.Errorf("%s: %w", key, err)
	}
	return p, nil
}

// with returns the command that runs the program.
func (p program) with(env []string, more ...string) command.Command {
	return command.Command{Path: p.argv[0], Args: slices.Concat(p.argv[1:], more), Env: env, User: p.credential}
}

// exitCode returns how a program ended that ended by itself: 0 of success, -1 of a
// signal. It is not ok if the error is another one.
func exitCode(err error) (code int, ok bool) {
	if err == nil {
		return 0, true
	}
	if exit, ok := errors.AsType[*command.ExitError](err); ok {
		return exit.Code, true
	}
	return 0, false
}

// explained adds what an exit code stands for.
func explained(err error) error {
	code, ok := exitCode(err)
	if !ok || err == nil {
		return err
	}
	switch code {
	case forbidden:
		return fmt.Errorf("%w: it has not the rights: look at user, owners and modes", err)
	case timedOut:
		return fmt.Errorf("%w: a time limit within it was reached", err)
	case wasKilled:
		return fmt.Errorf("%w: something it ran was killed", err)
	}
	return err
}

// lookup finds the user and all groups it belongs to. No name is nobody in particular.
func lookup(name string) (*syscall.Credential, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("user %q: no such user on this node", name)
		}
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("user %q: look up groups: %w", name, err)
	}
	ids := make([]uint32, 0, len(groups)+2)
	for _, s := range append([]string{u.Uid, u.Gid}, groups...) {
		id, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %q: bad id %q: %w", name, s, err)
		}
		ids = append(ids, uint32(id))
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, nil
}

// ask runs a program whose answer is its exit code, and returns the first line that it
// wrote to standard output. Nothing of that is logged: it is asked all the time.
func (p program) ask(ctx context.Context, env []string) (line string, err error) {
	c := p.with(env)
	c.Keep, c.Quiet = maxAnswer, true
	answer, err := command.Run(ctx, c)
	return firstLine(answer), err
}

// maxText is how many bytes of a program's answer a report shows.
const maxText = 200

// firstLine returns the first line with something in it, without what could confuse a
// terminal.
func firstLine(answer []byte) string {
	for line := range strings.Lines(string(answer)) {
		line = strings.Map(printable, strings.TrimSpace(line[:min(len(line), maxText)]))
		if line != "" {
			return line
		}
	}
	return ""
}

func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case !strconv.IsPrint(r):
		return -1
	}
	return r
}
