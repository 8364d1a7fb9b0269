package script

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxLines bounds a scenario file.
const maxLines = 10_000

// File is a scenario as it was read.
type File struct {
	Name   string // for messages
	Blocks []Block
	Settings
	// Nodes are the members of the group in the order of their making.
	Nodes   []Node
	Clients []string
	Asked   map[string]netip.Addr // by clients that do not ask the first address; kernel only

	lines []string
}

// Block is some commands and the output that is expected of them.
type Block struct {
	Line     int // of the first command, from 1
	Commands []Command
	Want     []string

	dashes     bool
	end        int // index of the line behind the commands
	from, next int // indices of the expected output
}

// Parse reads a scenario. It finds all errors of syntax at once, joined, each
// with the file's name and line.
func Parse(name, text string) (*File, error) {
	f := &File{Name: name, Settings: defaultSettings(), Asked: map[string]netip.Addr{}, lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
	if len(f.lines) > maxLines {
		return nil, fmt.Errorf("%s: %d lines: a scenario has %d at most", name, len(f.lines), maxLines)
	}
	p := &parser{file: f, latest: map[string]Node{}}
	for i := 0; i < len(f.lines); {
		i = p.block(i)
	}
	p.finish()
	return f, errors.Join(p.faults...)
}

// parser collects faults and knows which names there are.
type parser struct {
	file    *File
	line    int
	started bool
	latest  map[string]Node // as reloaded
	faults  []error
}

func (p *parser) fault(format string, a ...any) {
	p.faults = append(p.faults, fmt.Errorf("%s:%d: %s", p.file.Name, p.line, fmt.Sprintf(format, a...)))
}

// block reads from line i to the end of a block, and returns the line behind it.
func (p *parser) block(i int) int {
	f := p.file
	b := Block{}
	for ; i < len(f.lines); i++ {
		text := strings.TrimSpace(f.lines[i])
		if text == "----" {
			b.dashes, b.end = true, i
			i++
			break
		}
		if text == "" {
			break
		}
		p.line = i + 1
		if text = uncomment(text); text == "" {
			continue
		}
		if b.Line == 0 {
			b.Line = i + 1
		}
		if c, ok := p.command(strings.Fields(text)); ok {
			b.Commands = append(b.Commands, c)
		}
	}
	if !b.dashes {
		b.end = i
	}
	b.from = i
	if b.dashes {
		if b.Line == 0 {
			p.line = i
			p.fault("output without a command")
		}
		for ; i < len(f.lines) && strings.TrimSpace(f.lines[i]) != ""; i++ {
			b.Want = append(b.Want, strings.TrimRight(f.lines[i], " \t"))
		}
	}
	b.next = i
	if b.Line > 0 {
		f.Blocks = append(f.Blocks, b)
	}
	return i + 1
}

// uncomment takes a comment off.
func uncomment(text string) string {
	if strings.HasPrefix(text, "#") {
		return ""
	}
	if i := strings.Index(text, " #"); i >= 0 {
		text = text[:i]
	}
	return strings.TrimSpace(text)
}

// finish checks what can only be known at the end.
func (p *parser) finish() {
	if len(p.file.Nodes) == 0 && len(p.faults) == 0 {
		p.line = len(p.file.lines)
		p.fault("no node: begin with node NAME")
	}
	for i := range p.file.Nodes {
		n := &p.file.Nodes[i]
		for _, peer := range n.Peers {
			if !p.file.hasNode(peer.Name) {
				p.line = n.Line
				p.fault("peer %s of node %s: no such node", peer.Name, n.Name)
			}
		}
		if err := n.validate(); err != nil {
			p.line = n.Line
			p.fault("node %s: %v", n.Name, err)
		}
	}
}

func (f *File) hasNode(name string) bool { return f.index(name) >= 0 }

// asked is the address that a client asks.
func (f *File) asked(client string) netip.Addr {
	if a, ok := f.Asked[client]; ok {
		return a
	}
	return f.Nodes[0].Addresses[0]
}

// index returns the number of a node, -1 if there is none of that name.
func (f *File) index(name string) int {
	for i := range f.Nodes {
		if f.Nodes[i].Name == name {
			return i
		}
	}
	return -1
}

// rewrite returns the text of the file with other output below its blocks. A
// block without "----" gets one only if there is output.
func (f *File) rewrite(outputs [][]string) string {
	var out []string
	at := 0
	for i, b := range f.Blocks {
		out = append(out, f.lines[at:b.end]...)
		if b.dashes || len(outputs[i]) > 0 {
			out = append(out, "----")
		}
		out = append(out, outputs[i]...)
		at = b.next
	}
	out = append(out, f.lines[at:]...)
	return strings.Join(out, "\n") + "\n"
}
