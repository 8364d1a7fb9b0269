package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
)

// Command is one command of a scenario, parsed.
type Command struct {
	Line   int
	Verb   string
	Names  []string      // nodes or clients that it is about
	Groups [][]string    // partition
	For    time.Duration // run, latency, and bounds of expect
	Amount int           // demote; loss in percent
	Word   string        // owner, state, up or down, what is expected
	Node   *Node         // reload: the configuration from then on
	Advert *Advert       // inject
}

// Settings are what a file says of itself as a whole.
type Settings struct {
	Only      string // "sim", "kernel" or "": both
	Loose     bool   // on the kernel only answers count
	Tolerance time.Duration
	Addresses bool // tell of addresses
	Seed      uint64
	Unchecked bool
}

func defaultSettings() Settings { return Settings{Tolerance: 500 * time.Millisecond, Seed: 1} }

// maxRun bounds one run, maxNodes a group.
const (
	maxRun   = 24 * time.Hour
	maxNodes = 9
)

// verb says how a command's arguments are read. A setting is part of the file
// and not performed.
type verb struct {
	setting bool
	parse   func(p *parser, c *Command, args []string) error
}

func verbs() map[string]verb {
	return map[string]verb{
		"node":      {true, parseNode},
		"client":    {true, parseClient},
		"only":      {true, parseOnly},
		"compare":   {true, parseCompare},
		"tolerance": {true, parseTolerance},
		"show":      {true, parseShow},
		"seed":      {true, parseSeed},
		"unchecked": {true, parseUnchecked},

		"start":     {false, parseStart},
		"run":       {false, parseDuration},
		"latency":   {false, parseDuration},
		"loss":      {false, parseLoss},
		"echo":      {false, parseLoss},
		"kill":      {false, parseOne},
		"halt":      {false, parseOne},
		"stop":      {false, parseOne},
		"restart":   {false, parseOne},
		"freeze":    {false, parseOne},
		"thaw":      {false, parseOne},
		"handover":  {false, parseOne},
		"resume":    {false, parseOne},
		"status":    {false, parseOne},
		"drops":     {false, parseOne},
		"mac":       {false, parseOne},
		"link":      {false, parseLink},
		"cut":       {false, parseArrow},
		"join":      {false, parseArrow},
		"partition": {false, parsePartition},
		"heal":      {false, parseNone},
		"holders":   {false, parseNone},
		"answers":   {false, parseAnswers},
		"outage":    {false, parseAnswers},
		"demote":    {false, parseDemote},
		"undemote":  {false, parseDemote},
		"state":     {false, parseState},
		"reload":    {false, parseReload},
		"inject":    {false, parseInject},
		"expect":    {false, parseExpect},
	}
}

// command parses one line; ok is false for a setting and for a fault.
func (p *parser) command(words []string) (c Command, ok bool) {
	all := verbs()
	v, known := all[words[0]]
	if !known {
		names := make([]string, 0, len(all))
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		p.fault("unknown command %q: there are %s", words[0], strings.Join(names, ", "))
		return c, false
	}
	if v.setting && p.started {
		p.fault("%s: stands before the first start", words[0])
		return c, false
	}
	c = Command{Line: p.line, Verb: words[0]}
	if err := v.parse(p, &c, words[1:]); err != nil {
		p.fault("%s: %v", words[0], err)
		return c, false
	}
	p.started = p.started || !v.setting
	return c, !v.setting
}

func parseNone(_ *parser, _ *Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: takes no argument", args[0])
	}
	return nil
}

// node checks that a name is a node's.
func (p *parser) node(name string) error {
	if !p.file.hasNode(name) {
		return fmt.Errorf("%q: no such node", name)
	}
	return nil
}

func parseOne(p *parser, c *Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("give one node")
	}
	c.Names = args
	return p.node(args[0])
}

func parseStart(p *parser, c *Command, args []string) error {
	if c.Names = args; len(args) == 0 {
		for _, n := range p.file.Nodes {
			c.Names = append(c.Names, n.Name)
		}
	}
	for _, name := range c.Names {
		if err := p.node(name); err != nil {
			return err
		}
	}
	return nil
}

func parseDuration(_ *parser, c *Command, args []string) (err error) {
	if len(args) != 1 {
		return fmt.Errorf("give one duration, as 10s or 250ms")
	}
	c.For, err = duration(args[0])
	return err
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxRun {
		return 0, fmt.Errorf("%q: give a duration up to %v, as 10s or 250ms", s, maxRun)
	}
	return d, nil
}

func number(s string, lowest, highest int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < lowest || n > highest {
		return 0, fmt.Errorf("%q: give a number from %d to %d", s, lowest, highest)
	}
	return n, nil
}

func parseLoss(_ *parser, c *Command, args []string) (err error) {
	if len(args) != 1 || !strings.HasSuffix(args[0], "%") {
		return fmt.Errorf("give a percentage, as 10%%")
	}
	c.Amount, err = number(strings.TrimSuffix(args[0], "%"), 0, 100)
	return err
}

func parseLink(p *parser, c *Command, args []string) error {
	if len(args) != 2 || !slices.Contains([]string{"up", "down", "plug", "unplug"}, args[1]) {
		return fmt.Errorf("give a node, and up, down, plug or unplug")
	}
	c.Names, c.Word = args[:1], args[1]
	return p.node(args[0])
}

func parseArrow(p *parser, c *Command, args []string) error {
	if len(args) != 3 || args[1] != "->" || args[0] == args[2] {
		return fmt.Errorf("give two nodes: A -> B")
	}
	c.Names = []string{args[0], args[2]}
	for _, name := range c.Names {
		if err := p.port(name); err != nil {
			return err
		}
	}
	return nil
}

// port checks that a name is a node's or a client's.
func (p *parser) port(name string) error {
	if slices.Contains(p.file.Clients, name) {
		return nil
	}
	return p.node(name)
}

func parsePartition(p *parser, c *Command, args []string) error {
	group := []string(nil)
	seen := map[string]bool{}
	for _, word := range append(args, "|") {
		if word == "|" {
			if len(group) == 0 {
				return fmt.Errorf("a side is empty: give A B | C")
			}
			c.Groups, group = append(c.Groups, group), nil
			continue
		}
		if err := p.port(word); err != nil {
			return err
		}
		if seen[word] {
			return fmt.Errorf("%q: on two sides", word)
		}
		seen[word] = true
		group = append(group, word)
	}
	if len(c.Groups) < 2 {
		return fmt.Errorf("one side only: give A B | C")
	}
	return nil
}

func parseAnswers(p *parser, c *Command, args []string) error {
	if len(args) != 1 || !slices.Contains(p.file.Clients, args[0]) {
		return fmt.Errorf("give one client")
	}
	c.Names = args
	return nil
}

func parseDemote(p *parser, c *Command, args []string) (err error) {
	least := map[string]int{"demote": 2, "undemote": 1}[c.Verb]
	if len(args) < least || len(args) > least+1 {
		return fmt.Errorf("give a node, for demote an amount, and perhaps an owner")
	}
	c.Names, c.Word = args[:1], "operator"
	if c.Verb == "demote" {
		if c.Amount, err = number(args[1], -255, 255); err != nil {
			return err
		}
	}
	if len(args) > least {
		c.Word = args[least]
	}
	return p.node(args[0])
}

func parseState(p *parser, c *Command, args []string) error {
	if len(args) != 2 || args[1] != "master" && args[1] != "backup" {
		return fmt.Errorf("give a node, and master or backup")
	}
	c.Names, c.Word = args[:1], args[1]
	return p.node(args[0])
}

// parseExpect leaves what is expected in Word and its arguments in Names.
func parseExpect(p *parser, c *Command, args []string) (err error) {
	usage := fmt.Errorf("expect what? holders NAMES, one holder, state NAME STATE, answers CLIENT NAME, outage CLIENT < D, overlap < D, quiet")
	if len(args) == 0 {
		return usage
	}
	c.Word, c.Names = args[0], args[1:]
	bound := func(i int) error {
		if len(args) != i+2 || args[i] != "<" {
			return usage
		}
		c.Names = args[1:i]
		c.For, err = duration(args[i+1])
		return err
	}
	switch {
	case c.Word == "holders" && len(args) == 2 && args[1] == "nobody":
		return nil
	case c.Word == "holders" && len(args) > 1:
		slices.Sort(c.Names)
		for _, name := range c.Names {
			if err := p.node(name); err != nil {
				return err
			}
		}
		return nil
	case c.Word == "one" && len(args) == 2 && args[1] == "holder", c.Word == "quiet" && len(args) == 1:
		return nil
	case c.Word == "state" && len(args) == 3:
		if _, err := carp.ParseState(args[2]); err != nil {
			return err
		}
		return p.node(args[1])
	case c.Word == "answers" && len(args) == 3:
		return p.port(args[1])
	case c.Word == "outage":
		if err := bound(2); err != nil {
			return err
		}
		return p.port(args[1])
	case c.Word == "overlap":
		return bound(1)
	}
	return usage
}
