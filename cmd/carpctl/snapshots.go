package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/cmd/daemon/api"
)

func (p *program) snapshotsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "snapshots [NAME]", Short: "List the snapshots of a replicated database", Args: between(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			data, err := p.client().get(c.Context(), "/v1/snapshots?name="+url.QueryEscape(optional(args)))
			return show(p, data, err, p.printSnapshots)
		},
	}
	var r api.DiffRequest
	diff := &cobra.Command{
		Use: "diff [NAME] BEFORE AFTER", Short: "Say what differs between two snapshots, module by module", Args: between(2, 3),
		Long: "Say what differs between two snapshots, module by module. Passwords are not shown.\n" +
			"BEFORE and AFTER are versions as in carpctl snapshots, newest, previous, or current: the database as it is.\n" +
			"The exit code is 0 whether they differ or not.",
		RunE: func(c *cobra.Command, args []string) error {
			r.Name, r.Before, r.After = optional(args[:len(args)-2]), args[len(args)-2], args[len(args)-1]
			data, err := p.client().post(c.Context(), "/v1/snapshots/diff", r)
			return show(p, data, err, p.printDiff)
		},
	}
	diff.Flags().IntVar(&r.Limit, "limit", 20, "list `N` rows of each sort and table at most")
	c.AddCommand(diff)
	return c
}

func (p *program) restoreCommand() *cobra.Command {
	var r api.RestoreRequest
	c := &cobra.Command{
		Use: "restore [--dry-run] NAME [VERSION]", Short: "Put a snapshot in the place of a database", Args: between(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			r.Name, r.Version = args[0], optional(args[1:])
			data, err := p.client().post(c.Context(), "/v1/restore", r)
			return show(p, data, err, func(r api.RestoreResult) {
				fmt.Fprintln(p.out, r.Text)
				if r.Diff != nil {
					p.printDiff(*r.Diff)
				}
			})
		},
	}
	c.Flags().BoolVar(&r.DryRun, "dry-run", false, "say what would change and change nothing")
	return c
}

func (p *program) printSnapshots(s api.Snapshots) {
	fmt.Fprintf(p.out, "%s, in %s\n\n", s.Name, s.Store)
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tAGE\tFROM\tSIZE\tROWS\tSHA256")
	for _, m := range s.Snapshots {
		rows := int64(0)
		for _, n := range m.Rows {
			rows += n
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%.12s\n", brief(m.Version), age(p.now().Sub(m.Time)), m.Source, size(m.Size), rows, m.SHA256)
	}
	w.Flush() // errors of the terminal are nobody's to handle
	if len(s.Snapshots) == 0 {
		fmt.Fprintln(p.out, "none")
	}
	for i, q := range s.Quarantined {
		if i == 0 {
			fmt.Fprintln(p.out, "\nin quarantine:")
		}
		fmt.Fprintf(p.out, "%s  %s: %s\n", brief(q.Version), q.Reason, q.Text)
	}
}

// brief is a version without leading zeros.
func brief(version string) string {
	parts := strings.Split(version, "-")
	for i, s := range parts {
		if parts[i] = strings.TrimLeft(s, "0"); parts[i] == "" {
			parts[i] = "0"
		}
	}
	return strings.Join(parts, "-")
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func (p *program) printDiff(d api.Diff) {
	if len(d.Modules) == 0 {
		fmt.Fprintf(p.out, "%s: %s and %s say the same\n", d.Name, named(d.Before), named(d.After))
		return
	}
	fmt.Fprintf(p.out, "%s: from %s to %s\n", d.Name, named(d.Before), named(d.After))
	for _, m := range d.Modules {
		fmt.Fprintf(p.out, "\n%s\n", m.Module)
		for _, t := range m.Tables {
			printTable(p.out, t)
		}
	}
}

// named is a version in brief, or the word that stands for one.
func named(version string) string {
	if strings.Count(version, "-") == 2 {
		return brief(version)
	}
	return version
}

func printTable(w io.Writer, t api.Table) {
	fmt.Fprintf(w, "  %s: %d added, %d removed, %d changed\n", t.Table, t.Added, t.Removed, t.Changed)
	if t.Note != "" {
		fmt.Fprintf(w, "    %s\n", t.Note)
	}
	for _, c := range t.Changes {
		fmt.Fprintf(w, "    %s\n", printable(changeLine(c)))
	}
	if more := t.Added + t.Removed + t.Changed - int64(len(t.Changes)); more > 0 {
		fmt.Fprintf(w, "    and %d more rows: see --limit\n", more)
	}
}

// printable shows what would move the cursor, and the like, as a dot: values are anybody's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '.'
	}, s)
}

// changeLine is a row: + added, - removed, ~ changed; its key, and what else there is.
func changeLine(c api.Change) string {
	sign, parts := map[string]string{"added": "+", "removed": "-", "changed": "~"}[c.What], []string(nil)
	for _, k := range c.Key {
		v := k.Before
		if v == "" {
			v = k.After
		}
		parts = append(parts, k.Column+"="+v)
	}
	line := sign + " " + strings.Join(parts, " ")
	parts = nil
	for _, v := range c.Cells {
		switch {
		case v.Secret:
			parts = append(parts, v.Column+": (not shown)")
		case c.What == "changed":
			parts = append(parts, v.Column+": "+v.Before+" -> "+v.After)
		default:
			parts = append(parts, v.Column+"="+v.Before+v.After)
		}
	}
	if len(c.Key) > 0 && len(parts) > 0 {
		line += ": "
	}
	return line + strings.Join(parts, ", ")
}

// replication is what status says of one, beside its alarms.
func (p *program) replication(r api.Replication) string {
	text := fmt.Sprintf("%s, %d snapshots of %s", r.Role, r.Snapshots, r.Database)
	if r.Newest != nil {
		text += fmt.Sprintf(", newest %s from %s, %s ago", brief(r.Newest.Version), r.Newest.Source, age(p.now().Sub(r.Newest.Time)))
	}
	if r.AgeMS > 0 {
		text += fmt.Sprintf(", a change not in it for %s", age(time.Duration(r.AgeMS)*time.Millisecond))
	}
	if r.Quarantined > 0 {
		text += fmt.Sprintf(", %d in quarantine", r.Quarantined)
	}
	var peers []string
	for _, q := range r.Peers {
		if q.State == "idle" {
			continue
		}
		one := q.Name + " " + q.State
		if q.LagMS > 0 {
			one += " for " + age(time.Duration(q.LagMS)*time.Millisecond)
		}
		peers = append(peers, strings.TrimSuffix(one+": "+q.Error, ": "))
	}
	if len(peers) > 0 {
		text += "; " + strings.Join(peers, ", ")
	}
	return strings.TrimSuffix(text+": "+r.Error, ": ")
}
