package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/conform"
)

// conformFlags are the flags of carplab conform.
type conformFlags struct {
	iface, protocol, key, keyFile, format, out string
	restart, stop                              string
	vhid, advskew, priority                    uint8
	interval                                   time.Duration
	addresses                                  []string
	quick, verbose, list                       bool
}

func conformCommand() *cobra.Command {
	var f conformFlags
	c := &cobra.Command{
		Use:   "conform --interface IF [--protocol P] --vhid N (--key PASS | --key-file FILE) --address A... [flags]",
		Short: "Say row by row what a speaker does: any speaker, on an interface that both are on",
		Long: "conform talks to the one speaker of a group and says row by row what it does with good, odd and bad\n" +
			"adverts, and how it sends its own, compared with FreeBSD's kernel and with carpd.\n\n" +
			"Give the speaker the group, advbase 1 and the same --advskew, and nobody else: its address will move to\n" +
			"and fro dozens of times, and a flood of malformed packets is sent. It takes one to three minutes.\n\n" +
			"With --protocol vrrp2 or vrrp3 it is a speaker of VRRP, compared with the RFCs and with carpd. Give it the\n" +
			"same --priority, --interval and addresses, and to this command the addresses in the order of its adverts.\n" +
			"Rows that need another priority, or an orderly stop, need --restart and --stop. It takes a minute at an\n" +
			"interval of 100 ms, and six at one second.\n\n" +
			"Exit code 0: no row is contrary to a must; 1: one is; 2: usage; 3: no speaker was heard, or its HMAC is\n" +
			"another; 77: raw sockets are not allowed here. --list shows all rows, and which are a must.",
		Example: "  carplab conform --interface eth0 --vhid 9 --key-file /etc/carpd/vhid9.pass --address 192.168.1.50 --format junit --out carp.xml\n" +
			"  carplab conform --protocol vrrp3 --interface eth0 --vrid 51 --priority 100 --interval 100ms --address 192.168.1.50 \\\n" +
			"      --restart 'ssh router set-priority $PRIORITY' --stop 'ssh router systemctl stop keepalived'",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&f.iface, "interface", "", "the interface on which the speaker is heard")
	c.Flags().StringVar(&f.protocol, "protocol", "carp", "the protocol: carp, vrrp2 or vrrp3")
	c.Flags().Uint8Var(&f.vhid, "vhid", 0, "the group's vhid, 1 to 255")
	c.Flags().Uint8Var(&f.vhid, "vrid", 0, "VRRP's word for --vhid")
	c.Flags().StringVar(&f.key, "key", "", "the group's passphrase, with vrrp2 its password if it has one; others can read it in ps")
	c.Flags().StringVar(&f.keyFile, "key-file", "", "a file whose first line is the passphrase")
	c.Flags().StringSliceVar(&f.addresses, "address", nil, "a shared address, all of the group's: several flags, or commas; VRRP: in the order of the adverts")
	c.Flags().Uint8Var(&f.advskew, "advskew", 100, fmt.Sprintf("the speaker's advskew, %d to %d", conform.MinAdvSkew, conform.MaxAdvSkew))
	c.Flags().Uint8Var(&f.priority, "priority", 100, fmt.Sprintf("VRRP: the speaker's priority, %d to %d", conform.MinPriority, conform.MaxPriority))
	c.Flags().DurationVar(&f.interval, "interval", time.Second, "VRRP: the speaker's interval; vrrp3: a multiple of 10ms")
	c.Flags().StringVar(&f.restart, "restart", "", "VRRP: a shell command that starts the speaker anew with the priority in $PRIORITY, all else as it was")
	c.Flags().StringVar(&f.stop, "stop", "", "VRRP: a shell command that ends the speaker in order and waits for its end")
	c.Flags().StringVar(&f.format, "format", "table", "table, json or junit")
	c.Flags().StringVar(&f.out, "out", "", "write the report to this file and not to stdout")
	c.Flags().BoolVar(&f.quick, "quick", false, "leave out what takes long")
	c.Flags().BoolVar(&f.verbose, "verbose", false, "print each row to stderr as it is done")
	c.Flags().BoolVar(&f.list, "list", false, "list all rows with their rules, and send nothing")
	return c
}

func (f *conformFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	write, ok := map[string]func(*conform.Report, io.Writer) error{
		"table": func(r *conform.Report, w io.Writer) error { _, err := io.WriteString(w, r.Table()); return err },
		"json":  (*conform.Report).WriteJSON,
		"junit": (*conform.Report).WriteJUnit,
	}[f.format]
	if !ok {
		return failure{exitUsage, fmt.Sprintf("unknown format %q", f.format), "use table, json or junit"}
	}
	if f.list {
		return f.listRows(stdout)
	}
	test, err := f.test(stderr)
	if err != nil {
		return err
	}
	report, err := test(ctx)
	if err != nil {
		return explain(err)
	}
	var b bytes.Buffer
	if err := write(&report, &b); err != nil {
		return failure{exitNothing, err.Error(), ""}
	}
	if err := f.deliver(stdout, b.Bytes()); err != nil {
		return failure{exitNothing, "write report: " + err.Error(), "give --out a file that can be written"}
	}
	fmt.Fprintf(stderr, "carplab: %s\n", report.Summary())
	if len(report.Contrary()) > 0 {
		return errFailed
	}
	return nil
}

// test returns the run that the flags ask for, and checks what package conform
// cannot check.
func (f *conformFlags) test(stderr io.Writer) (func(context.Context) (conform.Report, error), error) {
	key, err := f.secret()
	if err != nil {
		return nil, err
	}
	addresses, err := f.addrs()
	if err != nil {
		return nil, err
	}
	var progress func(conform.Row)
	if f.verbose {
		progress = func(r conform.Row) { fmt.Fprintf(stderr, "%-16s %-11s %s\n", r.ID, r.Verdict, r.Seen) }
	}
	switch f.protocol {
	case "carp":
		c := conform.Config{
			Interface: f.iface, VHID: f.vhid, Key: []byte(key), Addresses: addresses, AdvSkew: f.advskew, Quick: f.quick, Progress: progress,
		}
		return func(ctx context.Context) (conform.Report, error) { return conform.Run(ctx, c) }, nil
	case "vrrp2", "vrrp3":
		c := conform.VRRPConfig{
			Interface: f.iface, Version: f.version(), VRID: f.vhid, Priority: f.priority, Interval: f.interval, Addresses: addresses,
			Password: key, Quick: f.quick, Progress: progress,
		}
		if f.restart != "" {
			c.Restart = func(ctx context.Context, priority uint8) error {
				return shell(ctx, stderr, "--restart", f.restart, fmt.Sprintf("PRIORITY=%d", priority))
			}
		}
		if f.stop != "" {
			c.Stop = func(ctx context.Context) error { return shell(ctx, stderr, "--stop", f.stop) }
		}
		return func(ctx context.Context) (conform.Report, error) { return conform.RunVRRP(ctx, c) }, nil
	}
	return nil, failure{exitUsage, fmt.Sprintf("unknown protocol %q", f.protocol), "use carp, vrrp2 or vrrp3"}
}

// version is that of VRRP.
func (f *conformFlags) version() uint8 { return f.protocol[len(f.protocol)-1] - '0' }

// shellLimit bounds a command of --restart or --stop.
const shellLimit = time.Minute

// shell runs a command to its end. What it leaves running may hold its output.
func shell(ctx context.Context, stderr io.Writer, flag, command string, env ...string) error {
	ctx, cancel := context.WithTimeout(ctx, shellLimit)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr, c.WaitDelay = stderr, stderr, 100*time.Millisecond
	if err := c.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s %q: %w", flag, command, err)
	}
	return nil
}

// secret is the passphrase, or the password. Only CARP must have one.
func (f *conformFlags) secret() (string, error) {
	switch {
	case f.key != "" && f.keyFile != "", f.protocol == "carp" && f.key == f.keyFile:
		return "", failure{exitUsage, "one of --key and --key-file is needed", "an empty --key-file is a group without passphrase"}
	case f.keyFile == "":
		return f.key, nil
	}
	text, err := os.ReadFile(f.keyFile)
	if err != nil {
		return "", failure{exitUsage, err.Error(), "give --key-file a file that can be read"}
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

func (f *conformFlags) addrs() (all []netip.Addr, err error) {
	for _, a := range f.addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return nil, failure{exitUsage, fmt.Sprintf("--address %q: not an address", a), "give it without prefix length: 192.168.1.50"}
		}
		all = append(all, addr)
	}
	return all, nil
}

// explain gives an error of package conform its exit code and a hint.
func explain(err error) error {
	switch {
	case errors.Is(err, conform.ErrConfig):
		return failure{exitUsage, err.Error(), "see carplab conform --help"}
	case errors.Is(err, os.ErrPermission):
		return failure{exitSkipped, err.Error(), "run as root, or give the binary CAP_NET_RAW; in CI: unshare --user --map-root-user --net"}
	}
	return failure{exitNothing, err.Error(), ""}
}

func (f *conformFlags) deliver(stdout io.Writer, report []byte) error {
	if f.out == "" {
		_, err := stdout.Write(report)
		return err
	}
	return os.WriteFile(f.out, report, 0o644)
}

func (f *conformFlags) listRows(w io.Writer) error {
	var rows []conform.Row
	switch f.protocol {
	case "carp":
		rows = conform.Rows()
	case "vrrp2", "vrrp3":
		rows = conform.VRRPRows(f.version(), len(f.addresses) > 0 && strings.Contains(f.addresses[0], ":"))
	default:
		return failure{exitUsage, fmt.Sprintf("unknown protocol %q", f.protocol), "use carp, vrrp2 or vrrp3"}
	}
	for _, r := range rows {
		must := ""
		if r.Must {
			must = "must"
		}
		if _, err := fmt.Fprintf(w, "%-16s %-5s %s\n%23s%s\n", r.ID, must, r.Done, "", r.Rule); err != nil {
			return failure{exitNothing, err.Error(), ""}
		}
	}
	return nil
}
