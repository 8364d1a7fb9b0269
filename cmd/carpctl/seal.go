package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/cmd/daemon/api"
)

func (p *program) sealCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "seal", Short: "Show group clocks, and what is known of each node", Args: between(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := p.client().get(c.Context(), "/v1/status")
			return show(p, data, err, p.printSeal)
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "reset [NAME]", Short: "Forget saved clocks and what was heard, and follow the next member's clock", Args: between(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.command(c.Context(), "/v1/seal/reset", api.NameRequest{Name: optional(args)})
		},
	})
	return c
}

const clockFormat = "2006-01-02 15:04:05.000"

// printSeal prints a line an instance of CARP, and below it one a node that it knows.
func (p *program) printSeal(st api.Status) {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tREPLAY\tNODE\tADDRESS\tGROUP CLOCK\tAHEAD OF WALL\tHEARD\tPROBES\tANSWERS")
	for _, i := range st.Instances {
		s := i.Seal
		if s == nil {
			continue
		}
		id := "-"
		if s.NodeID != 0 {
			id = fmt.Sprint(s.NodeID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\tthis node\t%s\t%v\t\t%d\t%d\n", i.Name, s.Replay, id, s.Clock.UTC().Format(clockFormat),
			(time.Duration(s.AheadMS) * time.Millisecond).Round(time.Millisecond), s.Probes, s.Answers)
		for _, n := range s.Nodes {
			fmt.Fprintf(w, "\t\t%d\t%s\t%s\t\t%s ago\t\t\n", n.NodeID, n.Address, n.Clock.UTC().Format(clockFormat),
				age(time.Duration(n.LastHeardMS)*time.Millisecond))
		}
		for _, a := range s.Constant {
			fmt.Fprintf(w, "\t\t-\t%s\tnever changes\t\t\t\t\n", a)
		}
	}
	w.Flush() // errors of the terminal are nobody's to handle
}
