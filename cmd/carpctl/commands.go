package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// defaultSocket is where carpd listens unless its configuration says otherwise.
const defaultSocket = "/run/carpd/carpd.sock"

// program is one run: its flags and where it writes to.
type program struct {
	socket string
	json   bool
	out    io.Writer
	now    func() time.Time
}

func (p *program) client() *client { return newClient(p.socket) }

func (p *program) commands() *cobra.Command {
	root := &cobra.Command{
		Use: "carpctl", Short: "Ask and steer a running carpd",
		Long:          "Ask and steer a running carpd.\nNAME is as in carpctl status and may be left out if there is one instance.\nExit codes: 0 done, 1 refused or no, 2 usage, 3 cannot reach the daemon.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.ArbitraryArgs, RunE: unknown,
		SuggestionsMinimumDistance: 2,
	}
	root.PersistentFlags().StringVar(&p.socket, "socket", defaultSocket, "control socket of the daemon, a `path`")
	root.PersistentFlags().BoolVar(&p.json, "json", false, "print JSON, errors too")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("see "+c.CommandPath()+" --help; write -- before a negative number", "%v", err)
	})
	root.AddCommand(p.statusCommand(), p.eventsCommand(), p.explainCommand(), p.isMasterCommand(), p.handoverCommand(),
		p.resumeCommand(), p.demoteCommand(), p.stateCommand(), p.reloadCommand(), p.sealCommand(), p.snapshotsCommand(), p.restoreCommand(), p.clusterCommand())
	return root
}

// unknown answers a command line that names no command of ours.
func unknown(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage("see carpctl --help", "name a command")
	}
	switch args[0] {
	case "doctor":
		return usage("", "%s is not in this version; it is planned", args[0])
	}
	hint := "see carpctl --help"
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage(hint, "unknown command %q", args[0])
}

// between checks the number of arguments.
func between(low, high int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return usage("see "+c.CommandPath()+" --help", "usage: %s", c.UseLine())
		}
		return nil
	}
}

// optional returns the only argument, or nothing.
func optional(args []string) string { return strings.Join(args, "") }

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say who is master, since when and why", Args: between(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := p.client().get(c.Context(), "/v1/status")
			return show(p, data, err, p.printStatus)
		},
	}
}

func (p *program) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain [NAME]", Short: "Say in sentences who is master and why", Args: between(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			data, err := p.client().get(c.Context(), "/v1/explain?name="+url.QueryEscape(optional(args)))
			return show(p, data, err, func(e api.Explanation) {
				for _, line := range e.Lines {
					fmt.Fprintln(p.out, line)
				}
			})
		},
	}
}

func (p *program) isMasterCommand() *cobra.Command {
	return &cobra.Command{
		Use: "is-master [NAME]", Short: "Exit with 0 if this node is master, with 1 if not", Args: between(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			i, err := p.find(c.Context(), optional(args))
			if err != nil {
				return err
			}
			master := i.State == "MASTER"
			if p.json {
				answer := struct {
					Name   string `json:"name"`
					State  string `json:"state"`
					Master bool   `json:"master"`
				}{i.Name, i.State, master}
				if err := json.NewEncoder(p.out).Encode(answer); err != nil {
					return failure{exitNo, err.Error(), ""}
				}
			} else {
				fmt.Fprintf(p.out, "%s is %s\n", i.Name, i.State)
			}
			if !master {
				return errNo
			}
			return nil
		},
	}
}

// find returns the instance of that name, or the only one.
func (p *program) find(ctx context.Context, name string) (api.Instance, error) {
	data, err := p.client().get(ctx, "/v1/status")
	if err != nil {
		return api.Instance{}, err
	}
	var st api.Status
	if err := json.Unmarshal(data, &st); err != nil {
		return api.Instance{}, garbled(err)
	}
	names := make([]string, len(st.Instances))
	for n, i := range st.Instances {
		if names[n] = i.Name; i.Name == name || name == "" && len(st.Instances) == 1 {
			return i, nil
		}
	}
	switch {
	case len(names) == 0:
		return api.Instance{}, failure{exitNo, "this carpd has no instances", ""}
	case name != "":
		return api.Instance{}, failure{exitNo, fmt.Sprintf("no instance is named %q", name), "there are " + strings.Join(names, ", ")}
	}
	return api.Instance{}, usage("name one of "+strings.Join(names, ", "), "there are %d instances: NAME cannot be left out", len(names))
}

func (p *program) handoverCommand() *cobra.Command {
	return &cobra.Command{
		Use: "handover [NAME]", Short: "Give the role to another node and stay away until resume", Args: between(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.command(c.Context(), "/v1/handover", api.NameRequest{Name: optional(args)})
		},
	}
}

func (p *program) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume [NAME]", Short: "Take part in the election again after a handover", Args: between(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.command(c.Context(), "/v1/resume", api.NameRequest{Name: optional(args)})
		},
	}
}

func (p *program) demoteCommand() *cobra.Command {
	var r api.DemoteRequest
	var all bool
	c := &cobra.Command{
		Use: "demote [NAME | --group GROUP | --all] N", Short: "Demote by N until it is taken back with 0",
		Args: between(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			amount, err := strconv.Atoi(args[len(args)-1])
			if err != nil {
				return usage("0 takes a demotion back, 240 is as much as ever shows on the wire", "%q is not a number", args[len(args)-1])
			}
			r.Amount = amount
			targets := len(args) - 1
			for _, given := range []bool{c.Flags().Changed("group"), all} {
				if given {
					targets++
				}
			}
			switch {
			case targets > 1:
				return usage("give one of NAME, --group and --all", "more than one target")
			case c.Flags().Changed("group") && r.Group == "":
				return usage("to demote the whole node, give --all", "the group has no name")
			case len(args) == 2:
				r.Name = args[0]
			case targets == 0: // the daemon would take no name for the whole node
				only, err := p.find(c.Context(), "")
				if err != nil {
					return err
				}
				r.Name = only.Name
			}
			if len(args) == 2 && r.Name == "" {
				return usage("to demote the whole node, give --all", "the name is empty")
			}
			return p.command(c.Context(), "/v1/demote", r)
		},
	}
	c.Flags().StringVar(&r.Group, "group", "", "demote all instances of a `group`")
	c.Flags().BoolVar(&all, "all", false, "demote the whole node")
	c.Flags().StringVar(&r.Owner, "owner", "operator", "on whose behalf: each `owner` has a demotion of its own")
	return c
}

func (p *program) stateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "state [NAME] backup|master", Short: "Ask for a state, as ifconfig carp state does", Args: between(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			state := strings.ToUpper(args[len(args)-1])
			if state != "BACKUP" && state != "MASTER" {
				return usage("use backup or master", "%q is not a state to ask for", args[len(args)-1])
			}
			return p.command(c.Context(), "/v1/state", api.StateRequest{Name: optional(args[:len(args)-1]), State: state})
		},
	}
}

func (p *program) reloadCommand() *cobra.Command {
	var r api.ReloadRequest
	c := &cobra.Command{
		Use: "reload", Short: "Read the configuration file again", Args: between(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := p.client().post(c.Context(), "/v1/reload", r)
			return show(p, data, err, p.printReload)
		},
	}
	c.Flags().BoolVar(&r.DryRun, "dry-run", false, "say what would change and change nothing")
	return c
}

func (p *program) eventsCommand() *cobra.Command {
	var follow bool
	var since uint64
	c := &cobra.Command{
		Use: "events", Short: "List what happened", Args: between(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return p.events(c.Context(), since, follow) },
	}
	c.Flags().BoolVar(&follow, "follow", false, "go on with what happens from now on")
	c.Flags().Uint64Var(&since, "since", 0, "only events after number `N`")
	return c
}

// lineMax bounds one event.
const lineMax = 1 << 20

// events prints one event a line as they come. With follow it ends when it is
// interrupted, which is no failure, or when the daemon does, which is one.
func (p *program) events(ctx context.Context, since uint64, follow bool) error {
	path := fmt.Sprintf("/v1/events?since=%d", since)
	ask := ctx
	if follow {
		path += "&follow=1"
	} else {
		limited, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		ask = limited
	}
	c := p.client()
	body, err := c.open(ask, http.MethodGet, path, nil)
	if err != nil {
		return interrupted(ctx, follow, err)
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, lineMax)
	for lines.Scan() {
		if err := p.printEvent(lines.Bytes()); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		return interrupted(ctx, follow, c.unreachable(err))
	case follow:
		return interrupted(ctx, follow, failure{exitUnreachable, "the daemon has ended", "systemctl status carpd"})
	}
	return nil
}

// interrupted forgives the end of a stream that the user ended.
func interrupted(ctx context.Context, follow bool, err error) error {
	if follow && ctx.Err() != nil {
		return nil
	}
	return err
}

// command sends a command and prints its result.
func (p *program) command(ctx context.Context, path string, request any) error {
	data, err := p.client().post(ctx, path, request)
	return show(p, data, err, func(r api.Result) { fmt.Fprintln(p.out, r.Text) })
}

// show prints an answer: as it came with --json, else by the function.
func show[T any](p *program, data []byte, err error, print func(T)) error {
	if err != nil {
		return err
	}
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		return garbled(err)
	}
	if !p.json {
		print(v)
		return nil
	}
	if _, err := p.out.Write(data); err != nil {
		return failure{exitNo, "cannot write: " + err.Error(), ""}
	}
	return nil
}

func garbled(err error) error {
	var syntax *json.SyntaxError
	what := "the daemon's answer is not what was expected"
	if errors.As(err, &syntax) {
		what = "the daemon's answer is not JSON"
	}
	return failure{exitNo, what + ": " + err.Error(), "is it a carpd of the same version that listens there?"}
}
