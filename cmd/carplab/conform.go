package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/conform"
)

// conformFlags are the flags of carplab conform.
type conformFlags struct {
	iface, protocol, key, keyFile, format, out string
	vhid, advskew                              uint8
	addresses                                  []string
	quick, verbose, list                       bool
}

func conformCommand() *cobra.Command {
	var f conformFlags
	c := &cobra.Command{
		Use:   "conform --interface IF --vhid N (--key PASS | --key-file FILE) --address A... [flags]",
		Short: "Say row by row what a speaker does: any speaker, on an interface that both are on",
		Long: "conform talks to the one speaker of a group and says row by row what it does with good, odd and bad\n" +
			"adverts, and how it sends its own, compared with FreeBSD's kernel and with carpd.\n\n" +
			"Give the speaker the group, advbase 1 and the same --advskew, and nobody else: its address will move to\n" +
			"and fro dozens of times, and a flood of malformed packets is sent. It takes one to three minutes.\n\n" +
			"Exit code 0: no row is contrary to a must; 1: one is; 2: usage; 3: no speaker was heard, or its HMAC is\n" +
			"another; 77: raw sockets are not allowed here. --list shows all rows, and which are a must.",
		Example: "  carplab conform --interface eth0 --vhid 9 --key-file /etc/carpd/vhid9.pass --address 192.168.1.50 --format junit --out carp.xml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&f.iface, "interface", "", "the interface on which the speaker is heard")
	c.Flags().StringVar(&f.protocol, "protocol", "carp", "the protocol; carp is the only one so far")
	c.Flags().Uint8Var(&f.vhid, "vhid", 0, "the group's vhid, 1 to 255")
	c.Flags().StringVar(&f.key, "key", "", "the group's passphrase; others can read it in ps")
	c.Flags().StringVar(&f.keyFile, "key-file", "", "a file whose first line is the passphrase")
	c.Flags().StringSliceVar(&f.addresses, "address", nil, "a shared address, all of the group's: several flags, or commas")
	c.Flags().Uint8Var(&f.advskew, "advskew", 100, fmt.Sprintf("the speaker's advskew, %d to %d", conform.MinAdvSkew, conform.MaxAdvSkew))
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
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if f.verbose {
		cfg.Progress = func(r conform.Row) { fmt.Fprintf(stderr, "%-16s %-11s %s\n", r.ID, r.Verdict, r.Seen) }
	}
	report, err := conform.Run(ctx, cfg)
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

// config checks the flags that package conform cannot check.
func (f *conformFlags) config() (c conform.Config, err error) {
	if f.protocol != "carp" {
		return c, failure{exitUsage, fmt.Sprintf("unknown protocol %q", f.protocol), "only carp can be tested so far"}
	}
	if (f.key == "") == (f.keyFile == "") {
		return c, failure{exitUsage, "one of --key and --key-file is needed", "an empty --key-file is a group without passphrase"}
	}
	c = conform.Config{Interface: f.iface, VHID: f.vhid, Key: []byte(f.key), AdvSkew: f.advskew, Quick: f.quick}
	if f.keyFile != "" {
		text, err := os.ReadFile(f.keyFile)
		if err != nil {
			return c, failure{exitUsage, err.Error(), "give --key-file a file that can be read"}
		}
		line, _, _ := strings.Cut(string(text), "\n")
		c.Key = []byte(strings.TrimSuffix(line, "\r"))
	}
	for _, a := range f.addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return c, failure{exitUsage, fmt.Sprintf("--address %q: not an address", a), "give it without prefix length: 192.168.1.50"}
		}
		c.Addresses = append(c.Addresses, addr)
	}
	return c, nil
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
	for _, r := range conform.Rows() {
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
