package carp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// rig drives one engine: it answers every Send with Sent, and writes down what
// the engine asks for.
type rig struct {
	t   *testing.T
	e   *Engine
	now Instant
	log []string

	permit  Permit
	sendErr bool
	counter uint64 // of the peers' adverts
}

var (
	peerLow  = netip.MustParseAddr("192.0.2.1") // lower than the rig's by ucarp's comparison
	peerHigh = netip.MustParseAddr("192.0.2.9")
	rigLocal = Local{
		IPv4: netip.MustParseAddr("192.0.2.5"), IPv6: netip.MustParseAddr("fe80::5"), MAC: MAC{2, 0, 0, 0, 0, 5},
	}
	rigAddr  = netip.MustParseAddr("192.0.2.50")
	rigAddr6 = netip.MustParseAddr("2001:db8::50")
)

func rigConfig(set ...func(*Config)) Config {
	c := Config{
		VHID: 9, AdvBase: 1, AdvSkew: 100, Passphrase: []byte("secret"), Addresses: []netip.Addr{rigAddr},
		Rand: func() uint64 { return 128 * uint64(unit) }, ReleaseBudget: 5 * time.Second,
	}
	for _, f := range set {
		f(&c)
	}
	return c
}

func newRig(t *testing.T, set ...func(*Config)) *rig {
	t.Helper()
	e, err := NewEngine(rigConfig(set...))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, e: e, now: Instant(time.Second), counter: 1 << 50}
	r.do(e.LinkUp(r.now, rigLocal))
	return r
}

// do carries out effects as a speaker does.
func (r *rig) do(e Effects) Effects {
	first := e
	for {
		if e.Change != nil {
			c := e.Change
			r.log = append(r.log, fmt.Sprintf("%v->%v %v", c.From, c.To, c.Reason))
			if c.To != Master && c.To != Releasing {
				r.permit = Permit{}
			}
		}
		if e.Permit.Epoch != 0 {
			r.permit = e.Permit
			r.log = append(r.log, "permit")
		}
		if e.Announce {
			r.log = append(r.log, "announce")
		}
		if e.Ask {
			r.log = append(r.log, "ask")
		}
		if e.Drop != Accepted {
			r.log = append(r.log, "drop "+e.Drop.String())
		}
		for _, f := range e.Send {
			if r.e.cfg.Protocol.VRRP() {
				r.log = append(r.log, fmt.Sprintf("send %d", f.Payload[2]))
				continue
			}
			r.log = append(r.log, fmt.Sprintf("send %d/%d", f.Payload[5], f.Payload[2]))
		}
		if len(e.Send) == 0 {
			return first
		}
		if r.sendErr {
			e = r.e.SendFailed(r.now)
		} else {
			e = r.e.Sent(r.now)
		}
	}
}

// run lets time pass, with Tick at each deadline.
func (r *rig) run(d time.Duration) {
	r.t.Helper()
	end := r.now.Add(d)
	for {
		at := r.deadline()
		if at == 0 || at > end {
			r.now = end
			return
		}
		r.now = max(r.now, at)
		r.do(r.e.Tick(r.now))
	}
}

func (r *rig) deadline() Instant { return r.e.finish().Deadline }

// advert makes a peer's packet with the group's digest.
func (r *rig) advert(src netip.Addr, base, skew uint8) Packet {
	r.counter++
	a := NewAdvert(r.e.cfg.VHID, base, skew)
	a.Counter = r.counter
	a.Digest = r.e.secret.send.Sum(a.Counter)
	return Packet{
		Src: src, Dst: Group(FamilyOf(src)), SrcMAC: VirtualMAC(9), TTL: 255, Broadcast: true, Payload: a.Append(nil),
	}
}

func (r *rig) hear(src netip.Addr, base, skew uint8) {
	r.do(r.e.Receive(r.now, r.advert(src, base, skew)))
}

// take returns what was written down since the last call.
func (r *rig) take() string {
	s := strings.Join(r.log, ", ")
	r.log = nil
	return s
}

// want compares what was written down since the last call.
func (r *rig) want(want string) {
	r.t.Helper()
	if got := r.take(); got != want {
		r.t.Errorf("at %v:\n got %s\nwant %s", time.Duration(r.now), got, want)
	}
}

func (r *rig) state(want State) {
	r.t.Helper()
	if r.e.state != want {
		r.t.Fatalf("at %v: state %v, want %v; log %s", time.Duration(r.now), r.e.state, want, strings.Join(r.log, ", "))
	}
}

// master brings the rig to MASTER after a silent wire.
func (r *rig) master() *rig {
	r.t.Helper()
	r.run(r.e.masterDown(bid{}))
	r.state(Master)
	r.take()
	return r
}

// releasing brings it to RELEASING.
func (r *rig) releasing() *rig {
	r.t.Helper()
	r.master()
	r.do(r.e.Resign(r.now, Backup, ReasonHandover))
	r.state(Releasing)
	r.take()
	return r
}

func preempting(c *Config) { c.Preempt = true }
func skew(n uint8) func(*Config) {
	return func(c *Config) { c.AdvSkew = n }
}
func dual(c *Config) { c.Addresses = append(c.Addresses, rigAddr6) }
