// Package daemon is carpd: it turns a configuration file into running instances.
// It wires and decides nothing: the election is package carp's, addresses are
// package vip's, reactions are package hooks'.
//
// What moves, in this order:
//
//	up    before-up hooks -> addresses -> gratuitous ARP and NA -> after-up hooks
//	down  before-down hooks (leaving only) -> addresses off -> bow-out or farewell -> after-down hooks
//
// A program of one's own is this package's Main behind blank imports of the hook
// kinds that it shall know; package standard imports those we ship.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/cmd/daemon/demo"
	"github.com/carpd/carpd/cmd/daemon/guardian"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/vip"
)

// Exit codes.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
)

// errUsage marks an error in the command line.
var errUsage = errors.New("usage")

// Main runs carpd with the arguments of the process and ends it.
func Main() {
	// A log whose reader died must not end the daemon, nor its last lines the exit
	// code: with somebody to tell, the write fails instead. Ignoring the signal would
	// be passed on to hooks.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == guardian.Command {
		return guardian.Main(args[1:], stderr)
	}
	root := commands(stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errUsage) || strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(stderr, "carpd: %v\nSee carpd --help.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "carpd: %v\n", err)
	return exitRefused
}

func commands(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "carpd", Short: "CARP and VRRP in userspace: two or more hosts share an address",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%w: name a command: run, check, demo, cleanup, snapshot, receive, kinds, version", errUsage)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(runCommand(stderr), checkCommand(stdout), demoCommand(stdout), cleanupCommand(stdout), snapshotCommand(stdout, stderr), receiveCommand(os.Stdin, stdout))
	root.AddCommand(
		&cobra.Command{Use: "version", Short: "Say which version this is", Args: noArgs,
			Run: func(*cobra.Command, []string) { fmt.Fprintln(stdout, "carpd", version()) }},
		&cobra.Command{Use: "kinds", Short: "List the kinds of hooks, resources and monitors that this program knows", Args: noArgs,
			Run: func(*cobra.Command, []string) {
				for _, class := range []hooks.Class{hooks.Notification, hooks.ResourceClass, hooks.MonitorClass} {
					for _, k := range hooks.Kinds(class) {
						fmt.Fprintf(stdout, "%-12s %v\n", k, class)
					}
				}
			}},
	)
	return root
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %s takes no arguments, and %q was given", errUsage, c.Name(), args[0])
	}
	return nil
}

func runCommand(stderr io.Writer) *cobra.Command {
	var path, format string
	c := &cobra.Command{Use: "run", Short: "Run in the foreground", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return Run(path, format, stderr) }}
	c.Flags().StringVar(&path, "config", config.DefaultPath, "configuration `file`")
	c.Flags().StringVar(&format, "log-format", "console", "console or json")
	return c
}

// Run runs the daemon until SIGTERM or SIGINT. It writes its log to logTo.
func Run(path, format string, logTo io.Writer) error {
	sink := newSink(logTo)
	defer sink.close()
	log, err := newLogger(sink, format)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	file, plans, err := load(path)
	if err != nil {
		return err
	}
	for _, w := range file.Warnings {
		log.Warn(w.Error())
	}
	kernel, err := vip.Open()
	if err != nil {
		return err
	}
	stopping, stop := context.WithCancel(context.Background())
	defer stop()
	d := &Daemon{
		log: log, sink: sink, book: newBook(log), kernel: kernel, stopping: stopping, nudge: make(chan struct{}, 1),
		node: file.Node, stateDir: file.StateDir, path: path,
		file: file, loaded: time.Now(), links: map[string]*link.Interface{}, probes: probes{all: map[probeKey]*probe{}},
		restart: restartMachine,
	}
	d.metrics = newListener(d.book, d.status)
	if d.clocks, err = readClocks(file.StateDir); err != nil {
		log.Warn("what was saved of the group clocks is not used", "error", err)
	}
	socket, err := listen(file.Control)
	if err != nil {
		return errors.Join(err, kernel.Close())
	}
	defer socket.Close()
	tuneRuntime()
	keepInMemory(log)
	if err := d.openGuard(file.Guardian, format == "json"); err != nil {
		return errors.Join(err, kernel.Close())
	}
	if d.speakers, err = startSpeakers(log, d.turned, d.guard.keeper.Hold); err != nil {
		d.endGuard()
		return errors.Join(err, kernel.Close())
	}
	d.startGuard()
	d.watchdog.start(&d.lastTurn)
	if err := d.start(plans); err != nil {
		return errors.Join(err, d.stop())
	}
	defer d.serve(socket).Close()
	go d.watch(stopping)
	d.metrics.use(file.Listen)
	go d.metrics.run(stopping)
	log.Info("carpd runs", "version", version(), "node", file.Node, "instances", len(plans), "control", file.Control)
	daemon.SdNotify(false, daemon.SdNotifyReady) // an error means that nobody listens
	d.serveSignals(signals)
	stop() // before anything waits: a reload that is under way ends its waiting
	daemon.SdNotify(false, fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, d.stopBudget().Microseconds()))
	err = d.stop()
	log.Info("carpd has stopped")
	return err
}

// serveSignals returns when the daemon is to stop. A reload runs beside it, so
// that it does not keep the daemon from stopping.
func (d *Daemon) serveSignals(signals <-chan os.Signal) {
	reloads := make(chan struct{}, 1)
	defer close(reloads)
	go func() {
		for range reloads {
			d.reloadOnSignal()
		}
	}()
	for s := range signals {
		if s != syscall.SIGHUP {
			d.log.Info("stopping", "signal", s.String())
			return
		}
		select {
		case reloads <- struct{}{}:
		default: // one is about to begin, and will read the file as it is then
		}
	}
}

func (d *Daemon) reloadOnSignal() {
	daemon.SdNotify(false, daemon.SdNotifyReloading)
	if _, err := d.reload(d.stopping, false); err != nil {
		d.book.raise("", "reload", "the reload was refused: "+err.Error())
	} else {
		d.book.clear("", "reload")
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
}

func checkCommand(stdout io.Writer) *cobra.Command {
	var path string
	c := &cobra.Command{Use: "check", Short: "Find all faults of a configuration file; touches nothing", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			file, plans, err := load(path)
			if err != nil {
				return err
			}
			for _, w := range file.Warnings {
				fmt.Fprintln(stdout, w.String())
			}
			for _, p := range plans {
				fmt.Fprintf(stdout, "%s: %s, %s, %d addresses.\n", p.Name, p.Label(), p.weight(), len(p.Held()))
				writePromise(stdout, &p)
			}
			fmt.Fprintf(stdout, "%s is sound: %d instances\n", path, len(plans))
			return nil
		}}
	c.Flags().StringVar(&path, "config", config.DefaultPath, "configuration `file`")
	return c
}

func demoCommand(stdout io.Writer) *cobra.Command {
	var opt demo.Options
	c := &cobra.Command{Use: "demo", Short: "Show a failover on a LAN of network namespaces; needs no configuration", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return demo.Run(ctx, stdout, opt)
		}}
	c.Flags().StringVar(&opt.Pcap, "pcap", "carpd-demo.pcapng", "write the packets to this `file`")
	return c
}

func cleanupCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{Use: "cleanup", Short: "Remove the addresses, virtual interfaces and fences that a dead daemon left", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			kernel, err := vip.Open()
			if err != nil {
				return err
			}
			defer kernel.Close()
			if held := link.Held(); len(held) > 0 {
				return fmt.Errorf("a daemon is running here (%s): stop it first; it removes its own addresses", strings.Trim(fmt.Sprint(held), "[]"))
			}
			removed, err := vip.Cleanup(kernel, nil, nil)
			for _, a := range removed {
				fmt.Fprintf(stdout, "removed %v\n", a)
			}
			fences, more, fenceErr := vip.RemoveStaleFences(kernel) // after the addresses that they keep silent
			for _, a := range more {
				fmt.Fprintf(stdout, "removed %v\n", a)
			}
			for _, name := range fences {
				fmt.Fprintf(stdout, "removed the fence %s\n", name)
			}
			return errors.Join(err, fenceErr)
		}}
}
