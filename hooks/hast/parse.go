package hast

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Roles of a resource of HAST, as hastctl writes them.
const (
	Init      = "init"
	Primary   = "primary"
	Secondary = "secondary"
)

// complete is the status of a resource with both connections to the other node. It says
// nothing about whether the copies are equal.
const complete = "complete"

// Status is one resource in what `hastctl list` or `hastctl status` has written. What a
// form does not have is zero.
type Status struct {
	Name        string
	Role        string // init, primary or secondary
	Provider    string // name of the device below /dev/hast; "" in the table
	Local       string
	Remote      string
	Replication string // fullsync, memsync, async
	Status      string // complete or degraded; "" without a worker
	Worker      int    // process of the worker; 0: none runs, or the form does not say
	Dirty       int64  // bytes that the other node does not have; of a primary only
	Counted     bool   // Dirty was there
	Error       int    // of the resource: the rest is empty
}

// ParseStatus reads what `hastctl list` writes, what `hastctl status` of FreeBSD 8 and 9
// wrote (the same, with fewer fields), and the table of `hastctl status` since then. Of
// keys that it does not know it takes no notice.
func ParseStatus(text string) ([]Status, error) {
	first, _, _ := strings.Cut(strings.TrimLeft(text, "\n"), "\n")
	if strings.HasPrefix(first, "Name\t") {
		return parseTable(text)
	}
	return parseList(text)
}

func parseList(text string) (all []Status, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		indent := len(line) - len(strings.TrimLeft(line, " \t"))
		key, value, found := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case line == "":
			continue
		case indent == 0 && found && value == "":
			all = append(all, Status{Name: key})
			continue
		case indent == 0 || len(all) == 0:
			return nil, fmt.Errorf("hast: parse list: %q belongs to no resource", line)
		case !found || indent > 2:
			continue // statistics
		}
		if err := all[len(all)-1].set(key, strings.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("hast: parse list: %s: %w", line, err)
		}
	}
	return all, nil
}

func (s *Status) set(key, value string) (err error) {
	switch key {
	case "role":
		s.Role = value
	case "provname":
		s.Provider = value
	case "localpath":
		s.Local = value
	case "remoteaddr":
		s.Remote = value
	case "replication":
		s.Replication = value
	case "status":
		s.Status = value
	case "workerpid":
		s.Worker, err = strconv.Atoi(value)
	case "dirty":
		bytes, _, _ := strings.Cut(value, " ") // "2097152 (2.0MB)", "0 bytes"
		s.Dirty, err = strconv.ParseInt(bytes, 10, 64)
		s.Counted = err == nil
	case "error":
		s.Error, err = strconv.Atoi(value)
	}
	return err
}

// parseTable reads rows of name, tab, status and role padded with blanks, local path, tab,
// remote address; in error: name, tab, ERRn.
func parseTable(text string) (all []Status, err error) {
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if i == 0 {
			continue
		}
		name, rest, _ := strings.Cut(line, "\t")
		f := strings.Fields(rest)
		s := Status{Name: strings.TrimSpace(name)}
		switch {
		case len(f) == 1 && strings.HasPrefix(f[0], "ERR"):
			if s.Error, err = strconv.Atoi(f[0][3:]); err != nil {
				return nil, fmt.Errorf("hast: parse status: %q: %w", line, err)
			}
		case len(f) >= 4:
			s.Status, s.Role, s.Local, s.Remote = strings.TrimPrefix(f[0], "-"), f[1], f[2], f[3]
		default:
			return nil, fmt.Errorf("hast: parse status: %q has too few columns", line)
		}
		all = append(all, s)
	}
	return all, nil
}

// Dump is the metadata of one resource on the disk, as `hastctl dump` writes it.
type Dump struct {
	Name      string
	DataSize  int64
	Resource  uint64 // resuid: 0 until a primary has first had it
	LocalCnt  uint64 // grows with the first write after each loss of the other node
	RemoteCnt uint64 // LocalCnt of the other node, as last heard
	PrevRole  string
}

// ParseDumps reads what `hastctl dump` writes. Text before the first "resource:" is left
// out, so that list and dump may follow each other.
func ParseDumps(text string) (all []Dump, err error) {
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		if found && key == "resource" && value != "" {
			all = append(all, Dump{Name: value})
			continue
		}
		if !found || len(all) == 0 {
			continue
		}
		d := &all[len(all)-1]
		number, _, _ := strings.Cut(value, " ")
		var fault error
		switch key {
		case "datasize":
			d.DataSize, fault = strconv.ParseInt(number, 10, 64)
		case "resuid":
			d.Resource, fault = strconv.ParseUint(number, 0, 64)
		case "localcnt":
			d.LocalCnt, fault = strconv.ParseUint(number, 10, 64)
		case "remotecnt":
			d.RemoteCnt, fault = strconv.ParseUint(number, 10, 64)
		case "prevrole":
			d.PrevRole = value
		}
		if fault != nil {
			return nil, fmt.Errorf("hast: parse dump: %s: %w", strings.TrimSpace(line), fault)
		}
	}
	return all, nil
}

// split reports whether two nodes have both written while they were apart: each counts
// more than the other has heard of. hastd itself notices only when they meet again.
func split(a, b Dump) bool { return a.LocalCnt > b.RemoteCnt && b.LocalCnt > a.RemoteCnt }

// ofResource picks one resource.
func ofResource(all []Status, name string) (Status, error) {
	for _, s := range all {
		if s.Name != name {
			continue
		}
		if s.Error != 0 {
			return s, fmt.Errorf("hast: resource %s: error %d of hastd (%s)", name, s.Error, resourceError(s.Error))
		}
		if s.Role == "" {
			return s, fmt.Errorf("hast: resource %s: no role is given", name)
		}
		return s, nil
	}
	return Status{}, errors.New("hast: resource " + name + " is not listed: is it in hast.conf?")
}

// resourceError is what a number that hastd gives for a resource means.
func resourceError(n int) string {
	if known := [...]string{1: "no such resource", 2: "invalid request", 3: "no memory", 4: "not implemented"}; n < len(known) && n > 0 {
		return known[n]
	}
	return "unknown"
}
