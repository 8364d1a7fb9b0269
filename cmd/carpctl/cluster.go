package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/cmd/daemon/api"
)

func (p *program) clusterCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "cluster [NAME]", Short: "Say how the modules of a database stand on this node and the others", Args: between(0, 1),
		Long: "Say how the modules of a database that are kept equal on many nodes stand: on this node, and on those that it hears.\n" +
			"The exit code is 0 if all modules of this node are in-sync, and 1 otherwise.",
		RunE: func(c *cobra.Command, args []string) error {
			data, err := p.client().get(c.Context(), "/v1/cluster?name="+url.QueryEscape(optional(args)))
			if err := show(p, data, err, p.printCluster); err != nil {
				return err
			}
			var s api.Cluster
			if err := json.Unmarshal(data, &s); err != nil || !inSync(s) {
				return errNo
			}
			return nil
		},
	}
	steer := func(word, path, short, long string) *cobra.Command {
		return &cobra.Command{
			Use: word + " [NAME] MODULE", Short: short, Long: long, Args: between(1, 2),
			RunE: func(c *cobra.Command, args []string) error {
				last := len(args) - 1
				data, err := p.client().post(c.Context(), path, api.ClusterRequest{Name: optional(args[:last]), Module: args[last]})
				return show(p, data, err, func(r api.Result) { fmt.Fprintln(p.out, r.Text) })
			},
		}
	}
	c.AddCommand(steer("allow", "/v1/cluster/allow", "Let the tables of a module be emptied, once",
		"Let the tables of a module be emptied, once: by the change at the holder of the address that is refused, or by what comes to this node."))
	c.AddCommand(steer("seed", "/v1/cluster/seed", "Make what this node holds of a module that of the cluster",
		"Make what this node holds of a module that of the cluster, whatever others have. Only the holder of the address can."))
	return c
}

// inSync reports whether all modules of this node are.
func inSync(s api.Cluster) bool {
	return s.Error == "" && !s.Unsaved && !slices.ContainsFunc(s.Modules, func(m api.ClusterModule) bool { return m.Standing != "in-sync" })
}

func (p *program) printCluster(s api.Cluster) {
	fmt.Fprintf(p.out, "%s, node %d: %s\n", s.Name, s.NodeID, holderText(s))
	if s.Error != "" {
		fmt.Fprintf(p.out, "does not run: %s\n", s.Error)
		return
	}
	if s.Unsaved {
		fmt.Fprintln(p.out, "silent: the state cannot be saved")
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nMODULE\tSTANDING\tVERSION\tEPOCH\tBY\tCHECKSUM\tNOTE")
	for _, m := range s.Modules {
		note := m.Reason
		if m.Wanted.Epoch != 0 {
			note = strings.TrimSpace(fmt.Sprintf("node %d has %d, seen %d times. %s", m.Wanted.NodeID, m.Wanted.Version, m.Seen, note))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Standing, stampText(m.Stamp), note)
	}
	fmt.Fprintln(w, "\nNODE\tADDRESS\tHEARD\tMODULE\tVERSION\tEPOCH\tBY\tCHECKSUM\tHOLDS")
	for _, n := range s.Nodes {
		p.clusterNode(w, n)
	}
	w.Flush() // errors of the terminal are nobody's to handle
	for i, e := range s.Events {
		if i == 0 {
			fmt.Fprintln(p.out)
		}
		fmt.Fprintf(p.out, "%s  %s %s: %s\n", e.Time.Local().Format("2006-01-02 15:04:05"), e.Kind, e.Module, e.Text)
	}
}

func holderText(s api.Cluster) string {
	switch {
	case s.Holding && s.Ready:
		return "holds the address: its changes are those of the cluster"
	case s.Holding:
		return "holds the address, and asks its neighbours first what they have"
	case s.Holder != 0:
		return fmt.Sprintf("node %d holds the address", s.Holder)
	}
	return "nobody is known to hold the address"
}

// clusterNode prints a line for a node, with each module in which it differs or none.
func (p *program) clusterNode(w *tabwriter.Writer, n api.ClusterNode) {
	heard := "never"
	if n.Heard != nil {
		heard = age(p.now().Sub(*n.Heard)) + " ago"
	}
	if n.Failures > 0 {
		heard += fmt.Sprintf(", %d failures", n.Failures)
	}
	if len(n.Modules) == 0 {
		fmt.Fprintf(w, "%d\t%s\t%s\t-\t\t\t\t\t\n", n.NodeID, n.Address, heard)
		return
	}
	for _, m := range n.Modules {
		holds := "the same"
		switch {
		case m.Holds == strings.Repeat("0", len(m.Holds)):
			holds = "not known"
		case m.Holds != m.Stamp.Checksum:
			holds = fmt.Sprintf("%.12s", m.Holds)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", n.NodeID, n.Address, heard, m.Name, stampText(m.Stamp), holds)
	}
}

// stampText is four columns.
func stampText(s api.ClusterStamp) string {
	if s.Epoch == 0 {
		return "-\tfresh\t-\t-"
	}
	return fmt.Sprintf("%d\t%d\tnode %d\t%.12s", s.Version, s.Epoch, s.NodeID, s.Checksum)
}
