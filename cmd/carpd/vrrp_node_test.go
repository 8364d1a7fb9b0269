package main_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// router is what a test says of one VRRP instance. The zero value is version 3, vrid
// 9, priority 100, half a second and the shared IPv4 address: a shorter interval would
// be a test of how busy this machine is.
type router struct {
	protocol  string
	vrid      int
	priority  int
	interval  time.Duration
	addresses []string
	more      []string // lines of the instance, e.g. "preempt: true"
}

const fast = 500 * time.Millisecond

func (r router) text() string {
	if r.protocol == "" {
		r.protocol = "vrrp3"
	}
	if r.vrid == 0 {
		r.vrid = 9
	}
	if r.priority == 0 {
		r.priority = 100
	}
	if r.interval == 0 {
		r.interval = fast
	}
	if r.addresses == nil {
		r.addresses = []string{"192.0.2.50/24"}
	}
	text := fmt.Sprintf("  - protocol: %s\n    vrid: %d\n    interface: eth0\n    priority: %d\n    interval: %v\n    addresses: [\"%s\"]\n",
		r.protocol, r.vrid, r.priority, r.interval, strings.Join(r.addresses, `", "`))
	for _, line := range r.more {
		text += "    " + line + "\n"
	}
	return text
}

// with returns the router with another priority and more lines.
func (r router) with(priority int, more ...string) router {
	r.priority, r.more = priority, append(append([]string(nil), r.more...), more...)
	return r
}

// routers writes a configuration of these instances.
func (n *node) routers(all ...router) {
	n.t.Helper()
	text := "instances:\n"
	for _, r := range all {
		text += r.text()
	}
	n.write(text)
}

// route writes a configuration and starts the daemon with it.
func (n *node) route(all ...router) {
	n.t.Helper()
	n.routers(all...)
	n.startWith(n.command("run", "--config", n.config()))
}

// reroute writes a configuration and reloads it.
func (n *node) reroute(all ...router) api.ReloadResult {
	n.t.Helper()
	n.routers(all...)
	var r api.ReloadResult
	n.post("/v1/reload", api.ReloadRequest{}, &r)
	return r
}

// route starts both nodes and returns when a is master and b follows it.
func (p *pair) route(a, b router) {
	p.a.t.Helper()
	p.a.route(a)
	p.a.promote()
	p.b.route(b)
	p.b.follows(p.a)
}

// follows waits until the node is BACKUP and hears the other.
func (n *node) follows(other *node) {
	n.t.Helper()
	lab.Eventually(n.t, takeover, n.Name+" to follow "+other.Name, func() bool {
		i := n.instance()
		return i.State == "BACKUP" && i.Master != nil
	})
}

// oneHolder checks that the two nodes never had one of the addresses at a time.
func (p *pair) oneHolder(addrs ...netip.Addr) {
	p.a.t.Helper()
	for _, addr := range addrs {
		neverBoth(p.a.t, p.a.addrs, p.b.addrs, addr)
		oneSpeaker(p.a.t, p.wire, addr)
	}
}

// vrrp is a VRRP advert on the wire.
type vrrp struct {
	carp.VRRPAdvert
	at  time.Time
	src netip.Addr
	mac carp.MAC
}

// decodeVRRP returns the VRRP advert in a frame of a host, if it is one.
func decodeVRRP(f lab.Frame, host string) (vrrp, bool) {
	var p carp.Packet
	a := vrrp{at: f.Time}
	if f.Host != host || carp.DecodeFrame(f.Data, &p) != carp.Accepted || a.Decode(p.Payload, p.Src, p.Dst) != carp.Accepted {
		return vrrp{}, false
	}
	a.src, a.mac = p.Src, p.SrcMAC
	return a, true
}

// vrrpAdverts returns what a host has sent after an instant.
func vrrpAdverts(c *lab.Capture, host string, after time.Time) []vrrp {
	var found []vrrp
	for _, f := range c.Packets() {
		if a, ok := decodeVRRP(f, host); ok && f.Time.After(after) {
			found = append(found, a)
		}
	}
	return found
}

// leaves returns a condition: the frame says with priority 0 that a host leaves.
func leaves(host string) func(lab.Frame) bool {
	return func(f lab.Frame) bool {
		a, ok := decodeVRRP(f, host)
		return ok && a.Leaves()
	}
}

// family is what of a test depends on protocol and family.
type family struct {
	router
	held []netip.Addr // of the addresses, those that clients use
}

// families are the forms of VRRP: of a second where slow says so, as the lease needs
// it, and else faster where the version can.
func families(slow bool) map[string]family {
	interval := fast
	if slow {
		interval = time.Second
	}
	return map[string]family{
		"vrrp3 over IPv4": {router{interval: interval}, []netip.Addr{shared4}},
		"vrrp3 over IPv6": {
			router{interval: interval, addresses: []string{"2001:db8::50/64", "fe80::50/64"}},
			[]netip.Addr{shared6, netip.MustParseAddr("fe80::50")},
		},
		"vrrp2 with a password": {
			router{protocol: "vrrp2", interval: time.Second, more: []string{"passphrase: s3cret"}},
			[]netip.Addr{shared4},
		},
	}
}

// read returns a file of the node's directory.
func (n *node) read(name string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, name))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}
