package glb

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Destination is where GLB sends connections to, with its weight: 0 drains it, a negative
// weight removes it.
type Destination struct {
	Addr   netip.AddrPort
	Weight float64
}

// UnmarshalText reads IP:PORT or IP:PORT:WEIGHT; the weight is 1 unless given. glbd itself
// would also take a name, and no port: names and IPv6 it splits at the first colon.
func (d *Destination) UnmarshalText(text []byte) error {
	host, rest, found := strings.Cut(string(text), ":")
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Is4() || !found {
		return errors.New("want IP:PORT or IP:PORT:WEIGHT, and GLB knows IPv4 only")
	}
	port, weight, weighted := strings.Cut(rest, ":")
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return errors.New("want a port from 1 to 65535 after the address")
	}
	d.Addr, d.Weight = netip.AddrPortFrom(ip, uint16(number)), 1
	if !weighted {
		return nil
	}
	if d.Weight, err = strconv.ParseFloat(weight, 64); err != nil || math.IsNaN(d.Weight) || math.IsInf(d.Weight, 0) {
		return errors.New("want a number as weight: 0 drains, -1 removes")
	}
	if d.Weight > 0 && d.Weight < 0.001 {
		return errors.New("a weight below 0.001 shows as 0: 0 drains, -1 removes")
	}
	return nil
}

// String returns the command that sets it.
func (d Destination) String() string {
	return fmt.Sprintf("%v:%s", d.Addr, strconv.FormatFloat(d.Weight, 'f', -1, 64))
}

// removed reports whether it is to be away.
func (d Destination) removed() bool { return d.Weight < 0 }

// table is what getinfo says.
type table struct {
	rows  []entry
	conns int // of all, as glbd counts them
	most  int // that it takes; 0 if it does not say
}

// entry is a row of getinfo.
type entry struct {
	addr   netip.AddrPort
	weight float64
	conns  int
}

// find returns the row of an address.
func (t table) find(addr netip.AddrPort) (entry, bool) {
	for _, e := range t.rows {
		if e.addr == addr {
			return e, true
		}
	}
	return entry{}, false
}

// parseInfo reads the answer to getinfo:
//
//	Router:
//	------------------------------------------------------
//	        Address       :   weight   usage    map  conns
//	   192.0.2.11:3306    :    1.000   0.500    N/A      1
//	------------------------------------------------------
//	Destinations: 1, total connections: 1 of 493 max
//
// The number of columns differs between versions; the weight is the first and the number
// of connections the last. The last line proves that it is whole: glbd fills a buffer of
// fixed size.
func parseInfo(said string) (t table, err error) {
	whole := false
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		var n int
		if _, err := fmt.Sscanf(line, "Destinations: %d, total connections: %d", &n, &t.conns); err == nil {
			_, _ = fmt.Sscanf(line, "Destinations: %d, total connections: %d of %d max", &n, &t.conns, &t.most)
			if whole = n == len(t.rows); !whole {
				return t, fmt.Errorf("glb: read getinfo: %d destinations, and %d rows", n, len(t.rows))
			}
			continue
		}
		address, rest, found := strings.Cut(line, " :")
		addr, err := netip.ParseAddrPort(strings.TrimSpace(address))
		if !found || err != nil {
			continue // a ruler, or the header
		}
		f := strings.Fields(rest)
		if len(f) < 3 {
			return t, fmt.Errorf("glb: read getinfo: want weight and connections in %q", line)
		}
		e := entry{addr: addr}
		if e.weight, err = strconv.ParseFloat(f[0], 64); err == nil {
			e.conns, err = strconv.Atoi(f[len(f)-1])
		}
		if err != nil {
			return t, fmt.Errorf("glb: read getinfo: row %q: %w", line, err)
		}
		t.rows = append(t.rows, e)
	}
	if !whole {
		return t, fmt.Errorf("glb: read getinfo: it is cut off, or from something else: %q", said[:min(len(said), 80)])
	}
	return t, nil
}

// wrong lists what is otherwise than wished, by the weights.
func (t table) wrong(wished []Destination) (them []Destination) {
	for _, d := range wished {
		e, there := t.find(d.Addr)
		switch {
		case d.removed() && there, !d.removed() && !there:
			them = append(them, d)
		case there && math.Abs(e.weight-d.Weight) > 0.0006: // it shows three decimals
			them = append(them, d)
		}
	}
	return them
}

// busy counts the connections of destinations that are to have none.
func (t table) busy(wished []Destination) (conns int) {
	for _, d := range wished {
		if e, there := t.find(d.Addr); there && d.Weight <= 0 {
			conns += e.conns
		}
	}
	return conns
}

// served counts the destinations that get connections.
func (t table) served() (n int) {
	for _, e := range t.rows {
		if e.weight > 0 {
			n++
		}
	}
	return n
}

// statistics is what getstat says of the time since somebody asked last.
type statistics struct {
	received, sent int64 // bytes, by glbd
	opened         int64 // connections
	elapsed        float64
}

// parseStat reads the answer to getstat, one line in which each second word is a value:
//
//	in: 0 out: 0 recv: BYTES / CALLS send: BYTES / CALLS conns: OPENED / OPEN poll: R / W / N elapsed: SECONDS
func parseStat(said string) (s statistics, err error) {
	f := strings.Fields(said)
	after := func(key string) string {
		for i, word := range f {
			if word == key && i+1 < len(f) {
				return f[i+1]
			}
		}
		return ""
	}
	for key, into := range map[string]*int64{"recv:": &s.received, "send:": &s.sent, "conns:": &s.opened} {
		if *into, err = strconv.ParseInt(after(key), 10, 64); err != nil {
			return s, fmt.Errorf("glb: read getstat: %s %w", key, err)
		}
	}
	if s.elapsed, err = strconv.ParseFloat(after("elapsed:"), 64); err != nil {
		return s, fmt.Errorf("glb: read getstat: elapsed: %w", err)
	}
	return s, nil
}

func (s statistics) String() string {
	return fmt.Sprintf("in the last %.1f s %d were opened, %d bytes came and %d went", s.elapsed, s.opened, s.received, s.sent)
}
