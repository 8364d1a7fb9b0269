package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds an answer: show stat of some ten thousand servers.
const maxAnswer = 16 << 20

// askTime bounds one exchange, which takes HAProxy a millisecond: who is that late is
// stuck.
const askTime = 2 * time.Second

// errDown is in the error of ask if nobody listens there.
var errDown = errors.New("nobody listens there: HAProxy does not run, or has no such socket")

// ask sends one command to a runtime API and returns the answer, with which the
// connection ends.
func ask(ctx context.Context, at, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	network := "tcp"
	if filepath.IsAbs(at) {
		network = "unix"
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, at)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			err = errDown
		}
		return "", fmt.Errorf("haproxy: ask %s: %w", at, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	answer, err := exchange(conn.(stream), command)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer to %q: %w", command, ctx.Err())
		}
		return answer, fmt.Errorf("haproxy: ask %s: %w", at, err)
	}
	return answer, nil
}

// stream is what TCP and unix connections have in common.
type stream interface {
	io.ReadWriter
	CloseWrite() error
}

// exchange says that nothing follows the command: a worker would hang up anyway, the
// master waits, and has room for ten who do.
func exchange(conn stream, command string) (string, error) {
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", err
	}
	if err := conn.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	return string(answer), err
}

// tell sends a command that changes something: its answer is empty, or says why not.
func tell(ctx context.Context, at, command string) error {
	answer, err := ask(ctx, at, command)
	if err != nil {
		return err
	}
	if said := strings.TrimSpace(answer); said != "" {
		return fmt.Errorf("haproxy: %s: %s%s", command, firstLine(said), hint(said))
	}
	return nil
}

func hint(said string) string {
	if strings.Contains(said, "Permission denied") {
		return `: write "level admin" after the stats socket in haproxy.cfg`
	}
	return ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// look asks what is. A view that is not up comes without an error.
func (p *proxy) look(ctx context.Context) (view, error) {
	said, err := ask(ctx, p.Socket, "show info")
	if errors.Is(err, errDown) {
		return view{}, nil
	}
	if err != nil {
		return view{}, err
	}
	v, err := parseInfo(said)
	if err != nil {
		return view{}, err
	}
	if said, err = ask(ctx, p.Socket, "show stat"); err != nil {
		return view{}, err
	}
	v.rows, err = parseStat(said)
	return v, err
}

// await asks until a view is as wished, and returns the last one. what completes "waiting
// for".
func (p *proxy) await(ctx context.Context, what string, wished func(view) bool) (v view, err error) {
	each := time.NewTicker(20 * time.Millisecond)
	defer each.Stop()
	for {
		v, err = p.look(ctx)
		if err == nil && wished(v) {
			return v, nil
		}
		select {
		case <-each.C:
		case <-ctx.Done():
			if err == nil {
				err = errors.New(v.words())
			}
			return v, fmt.Errorf("haproxy: waiting for %s: %w: %w", what, ctx.Err(), err)
		}
	}
}
