// Package demo is `carpd demo`: it builds a LAN of network namespaces with two
// nodes and a client, lets them elect a master, kills it, brings it back, hands
// over, and tells in plain words what happened and how long the client was
// without an answer.
//
// It needs the program `ip` (iproute2), and root or a system that lets users
// make user namespaces. Everything happens in namespaces of its own (user,
// network, mount, process), with a private /run, so that nothing is left behind
// however it ends: only the capture stays, and the files in Options.Dir.
//
// The demo fails unless it saw everything that it tells: in particular, that
// the dead master's address was gone before the backup took it, and that no two
// nodes ever held it at once.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// timeLimit ends a demo that hangs. It takes some 20 s when all is well.
const timeLimit = 58 * time.Second

// Options say what to run and where to leave what. The zero value is good.
type Options struct {
	Binary string // the carpd to run; "" is this program
	Pcap   string // the capture to write; "" is carpd-demo.pcapng
	Dir    string // where configuration and logs of the nodes stay; "" keeps none
}

// fill makes the paths absolute and the defaults explicit.
func (o Options) fill() (Options, error) {
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("demo: find this program: %w", err)
		}
		o.Binary = self
	}
	if o.Pcap == "" {
		o.Pcap = "carpd-demo.pcapng"
	}
	for _, path := range []*string{&o.Binary, &o.Pcap, &o.Dir} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return o, fmt.Errorf("demo: make path absolute: %w", err)
		}
		if strings.HasPrefix(abs+"/", "/run/") || strings.HasPrefix(abs+"/", "/var/run/") {
			return o, fmt.Errorf("demo: use %s: the demo has a /run of its own; name a path elsewhere", abs)
		}
		*path = abs
	}
	return o, nil
}

// Run runs the demo and tells it to out, line by line. It returns nil only if
// everything happened as told. ctx, SIGINT and SIGTERM end it early, cleaned up.
//
// Run starts this program a second time with the same arguments, inside the
// namespaces: there it is called again, plays the demo and exits the process.
func Run(ctx context.Context, out io.Writer, o Options) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if inner, ok, err := insideOptions(); ok {
		if err == nil {
			err = perform(ctx, out, inner)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err) // the first self makes it its error
			os.Exit(1)
		}
		os.Exit(0)
	}
	o, err := o.fill()
	if err != nil {
		return err
	}
	// Found out here, where the message is short, rather than at the end.
	file, err := os.OpenFile(o.Pcap, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("demo: write capture: %w; name another file", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("demo: write capture: %w", err)
	}
	return enter(ctx, out, o)
}

// perform plays the demo inside the namespaces.
func perform(ctx context.Context, out io.Writer, o Options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	s := &stage{options: o, tell: newTeller(out), world: newWorld()}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.build(); err != nil {
		return err
	}
	if err := s.play(ctx); err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return errors.New("demo: interrupted")
		}
		return fmt.Errorf("%w%s", err, s.logs())
	}
	return nil
}
