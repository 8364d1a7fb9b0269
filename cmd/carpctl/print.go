package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// printStatus prints a line an instance, and below what needs attention.
func (p *program) printStatus(st api.Status) {
	fmt.Fprintf(p.out, "%s, carpd %s\n", st.Node, st.Version)
	if st.Config != nil {
		fmt.Fprintf(p.out, "configuration %s, read %s ago\n", st.Config.File, age(p.now().Sub(st.Config.Loaded)))
	}
	fmt.Fprintln(p.out)
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tSINCE\tREASON\tADDRESSES\tMASTER\tWEIGHT\tDEMOTED\tALARMS\tDROPS")
	for _, i := range st.Instances {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\n", i.Name, i.State, age(p.now().Sub(i.Since)), i.Reason,
			present(i.Addresses), master(i), weight(i), i.Demotion, len(i.Alarms), total(i.Drops))
	}
	w.Flush() // errors of the terminal are nobody's to handle
	p.printBelow(st)
}

// printBelow prints what the table has no room for, each under its name.
func (p *program) printBelow(st api.Status) {
	var lines []string
	add := func(name, format string, args ...any) {
		lines = append(lines, name+": "+fmt.Sprintf(format, args...))
	}
	alarms := func(name string, list []api.Alarm) {
		for _, a := range list {
			add(name, "ALARM %s: %s (%s, %d times)", a.Name, a.Text, age(p.now().Sub(a.Since)), a.Count)
		}
	}
	demotions := func(name string, list []api.Demotion) {
		for _, d := range list {
			what := d.Target + ", by " + d.Owner
			if d.Target == name {
				what = d.Owner
			}
			add(name, "demoted by %d: %s", d.Amount, what)
		}
	}
	alarms("node", st.Alarms)
	demotions("node", st.Demotions)
	if st.Log != nil && st.Log.Dropped > 0 {
		add("node", "%d lines of the log were dropped: its reader is slow", st.Log.Dropped)
	}
	for _, i := range st.Instances {
		alarms(i.Name, i.Alarms)
		demotions(i.Name, i.Demotions)
		if i.Lease != nil && !i.Lease.Promised {
			add(i.Name, "lease: %s", i.Lease.Note)
			if i.Fence != nil {
				add(i.Name, "fence: %s", i.Fence.Note)
			}
		}
		if i.Master != nil && i.Master.Refused != "" {
			add(i.Name, "%s is alive but incompatible: %s", i.Master.Address, i.Master.Refused)
		}
		for _, m := range i.Members {
			if m.Gone {
				add(i.Name, "node %d at %s has not been heard for %s", m.NodeID, m.Address, age(time.Duration(m.LastHeardMS)*time.Millisecond))
				continue
			}
			add(i.Name, "node %d at %s is %s, %s, %d/%d", m.NodeID, m.Address, m.State, m.Fitness, m.AdvBase, m.AdvSkew)
		}
		if i.Rolling != nil {
			add(i.Name, "adverts go out under the old and the new digest for %s more", age(i.Rolling.Sub(p.now())))
		}
		for _, h := range i.Hooks {
			if h.State == "failed" || h.State == "running" {
				add(i.Name, "hook %s (%s, %s) %s", h.Name, h.Kind, h.Phase, strings.TrimSuffix(h.State+": "+h.Error, ": "))
			}
			if h.Health != "" {
				add(i.Name, "%s", seen(h))
			}
		}
		if len(i.Drops) > 0 {
			add(i.Name, "dropped: %s", drops(i.Drops))
		}
	}
	for _, r := range st.Replication {
		add("replication "+r.Name, "%s", p.replication(r))
	}
	if len(lines) > 0 {
		fmt.Fprintf(p.out, "\n%s\n", strings.Join(lines, "\n"))
	}
}

// seen says what a resource or monitor is like.
func seen(h api.Hook) string {
	text := fmt.Sprintf("%s (%s) is %s", h.Name, h.Kind, h.Health)
	if h.Role != "" {
		text = fmt.Sprintf("%s (%s) is %s, %s", h.Name, h.Kind, h.Role, h.Health)
	}
	if h.Apart != nil {
		text += ", and should be " + h.Wished
	}
	if h.Epoch != 0 {
		text += fmt.Sprintf(", epoch %d", h.Epoch)
	}
	if h.Blind != "" {
		return text + ": it cannot be looked at: " + h.Blind
	}
	return strings.TrimSuffix(text+": "+h.Text, ": ")
}

// master says who holds the role, as far as this node knows.
func master(i api.Instance) string {
	switch {
	case i.State == "MASTER" || i.State == "RELEASING":
		return "this node"
	case i.Master != nil:
		return i.Master.Address
	}
	return "-"
}

// weight is what this node stands for election with, in the protocol's words.
func weight(i api.Instance) string {
	if i.EffectivePriority != 0 {
		return fmt.Sprintf("priority %d", i.EffectivePriority)
	}
	return fmt.Sprintf("advskew %d", i.EffectiveAdvSkew)
}

func present(addresses []api.Address) string {
	n := 0
	for _, a := range addresses {
		if a.Present {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(addresses))
}

func total(counts map[string]uint64) uint64 {
	var sum uint64
	for _, n := range counts {
		sum += n
	}
	return sum
}

func drops(counts map[string]uint64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(parts, ", ")
}

// age writes a duration with its two largest units: 3d4h, 5m2s, 12s.
func age(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	days := d / (24 * time.Hour)
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// printEvent prints one event: number, time, instance, what happened.
func (p *program) printEvent(line []byte) error {
	var e api.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return garbled(err)
	}
	var err error
	if p.json {
		_, err = fmt.Fprintf(p.out, "%s\n", line)
	} else {
		who := e.Instance
		if who == "" {
			who = "node"
		}
		_, err = fmt.Fprintf(p.out, "%6d  %s  %s  %s: %s\n", e.Seq, e.Time.Format("2006-01-02T15:04:05.000Z07:00"), who, e.Kind,
			strings.TrimPrefix(e.Text, who+": "))
	}
	if err != nil {
		return failure{exitNo, "cannot write: " + err.Error(), ""}
	}
	return nil
}

func (p *program) printReload(r api.ReloadResult) {
	switch {
	case len(r.Changes) == 0:
		fmt.Fprintln(p.out, "nothing changes")
	case r.Applied:
		fmt.Fprintln(p.out, "changed:")
	default:
		fmt.Fprintln(p.out, "would change:")
	}
	for _, c := range r.Changes {
		fmt.Fprintln(p.out, "  "+c)
	}
}
