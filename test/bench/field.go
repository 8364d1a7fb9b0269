package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// nodes is how many speakers are on the LAN; node 0 is the one that is to be master.
const nodes = 2

// patience bounds a wait, to which ten intervals are added.
const patience = 20 * time.Second

// nodeAddr is the own address of a node.
func nodeAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, byte(1 + n)}) }

// nodeOf is the node of an address.
func nodeOf(addr [4]byte) (n int, ok bool) {
	n = int(addr[3]) - 1
	return n, addr[0] == 10 && addr[1] == 9 && addr[2] == 0 && n >= 0 && n < nodes
}

// nodeMAC is the MAC of a node: the lab numbers hosts in the order of making.
func nodeMAC(n int) [6]byte { return [6]byte{2, 0, 0, 0, 0, byte(1 + n)} }

// VIP is the address of an instance: 10.9.1.ID.
func VIP(id uint8) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 1, id}) }

// field is the LAN on which all speakers are measured in turn.
type field struct {
	ctx     context.Context
	t       lab.TB
	hosts   [nodes]*lab.Host
	client  *lab.Host
	asker   *asker
	ear     *ear
	holders *holders
}

func newField(ctx context.Context, t lab.TB) *field {
	lan := lab.New(t)
	f := &field{ctx: ctx, t: t, holders: newHolders(VIP(1))}
	for n := range nodes {
		f.hosts[n] = lan.Host(fmt.Sprintf("node%d", 1+n), nodeAddr(n).String()+"/16")
		f.holders.follow(n, f.hosts[n])
	}
	f.client = lan.Host("client", "10.9.0.200/16")
	observer := lan.Host("observer", "10.9.0.201/16")
	f.ear = listen(t, observer)
	f.asker = newAsker(t, observer)
	return f
}

// clear ends all speakers, and gives the nodes new interfaces: what a speaker left
// on the old ones is gone with them.
func (f *field) clear() {
	for _, h := range f.hosts {
		h.KillAll()
	}
	for _, h := range f.hosts {
		h.DeleteLink()
		h.RecreateLink()
		for _, key := range []string{"arp_ignore", "ignore_routes_with_linkdown"} { // FRR needs them
			h.Sysctl("ipv4/conf/all/"+key, "0")
		}
	}
	f.ear.overruns()
}

// start starts a speaker on a node.
func (f *field) start(s Speaker, n int, g Group) (Running, error) {
	m := Member{Group: g, Host: f.hosts[n], Address: nodeAddr(n), Priority: priorities[n], Dir: f.t.TempDir()}
	r, err := s.Start(f.ctx, f.t, m)
	if err != nil {
		return r, fmt.Errorf("bench: start %s on %s: %w", s.Name, m.Host.Name, err)
	}
	return r, nil
}

// errRestless says that both nodes run, but one does not leave the other in peace.
var errRestless = errors.New("it did not come to rest")

// settle starts a speaker on both nodes and waits until the first one is master of
// all instances and has been alone for a while; errRestless says that it was not.
func (f *field) settle(s Speaker, g Group, alone time.Duration) (started [nodes]Running, err error) {
	limit := patience + 10*g.Interval
	began := stamp()
	if started[0], err = f.start(s, 0, g); err != nil {
		return started, err
	}
	if err := f.await(limit, s.Name+" to be master", func() bool { return f.ear.all(0, g.Instances, began) }); err != nil {
		return started, err
	}
	if started[1], err = f.start(s, 1, g); err != nil {
		return started, err
	}
	since := stamp()
	err = f.await(limit+alone, s.Name+" to be the only master", func() bool {
		now := stamp()
		if f.ear.any(1, since) {
			since = now
		}
		return now-since > int64(alone) && f.ear.all(0, g.Instances, now-int64(3*g.Interval+20*time.Millisecond))
	})
	if errors.Is(err, lab.ErrTime) {
		err = errors.Join(errRestless, err)
	}
	return started, err
}

// await looks each 2 ms until cond is true.
func (f *field) await(limit time.Duration, what string, cond func() bool) error {
	if err := lab.Await(f.ctx, limit, cond); err != nil {
		return fmt.Errorf("bench: wait for %s: %w", what, err)
	}
	return nil
}

// pass lets time pass.
func (f *field) pass(d time.Duration) error { return lab.Pass(f.ctx, d) }
