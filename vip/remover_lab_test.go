package vip_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

func TestLabRemoverTakesOffWhatItWasToldAndNothingElse(t *testing.T) {
	t.Parallel()
	h := lab.New(t).Host("a", "192.0.2.1/24", "2001:db8::1/64")
	k := openOn(t, h)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var changes []vip.Change
	var ours []netip.Prefix
	for i := range 1200 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32)
		if i%40 == 0 {
			p = netip.MustParsePrefix("2001:db8::100/128")
			for range i/40 + 1 {
				p = netip.PrefixFrom(p.Addr().Next(), 128)
			}
		}
		ours = append(ours, p)
		changes = append(changes, vip.Change{Index: l.Index, Link: l.Name, Prefix: p, Valid: vip.Forever, Host: true})
	}
	wantMarked(t, k, l, len(ours), changes)
	var r *vip.Remover
	if h.Do(func() { r, err = vip.OpenRemover() }); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := vip.NewRemoval(l.Index, ours)
	if all.Len() != len(ours) {
		t.Errorf("%d are taken off, want %d", all.Len(), len(ours))
	}
	// On an interface that there is not, and what is gone already, nothing fails.
	gone := vip.NewRemoval(l.Index+100, ours[:3])
	for range 2 {
		if err := r.Remove(vip.Removal{}, gone, all); err != nil {
			t.Errorf("Remove: %v", err)
		}
		wantMarked(t, k, l, 0, nil)
	}
	if !h.HasAddr(netip.MustParseAddr("192.0.2.1")) || !h.HasAddr(netip.MustParseAddr("2001:db8::1")) {
		t.Error("an address of the node's own is gone")
	}
}

func TestLabRemoverEndsSessionsAndSparesThoseOfOthers(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	h, client := lan.Host("a", "192.0.2.1/24", "192.0.2.9/32", "192.0.2.8/32"), lan.Host("client", "192.0.2.100/24")
	h.Run("ip", "addr", "add", "192.0.2.8/32", "dev", "lo") // it stays with the node
	s := serve(t, h)
	k := openOn(t, h)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	own, _ := s.session(client, netip.MustParseAddr("192.0.2.1"))
	both, _ := s.session(client, netip.MustParseAddr("192.0.2.8"))
	here, there := s.session(client, netip.MustParseAddr("192.0.2.9"))
	n := 0
	h.Do(func() {
		var r *vip.Remover
		if r, err = vip.OpenRemover(); err != nil {
			return
		}
		defer r.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err = r.Sever(ctx, vip.NewRemoval(l.Index, prefixesOf("192.0.2.9/32", "192.0.2.8/32")), vip.Removal{})
	})
	if err != nil || n != 1 {
		t.Errorf("%d sessions were ended, %v, want 1", n, err)
	}
	if lives(here) || !lives(own) || !lives(both) {
		t.Errorf("the session with the address lives: %v; with the node's own: %v; with one that another interface has too: %v", lives(here), lives(own), lives(both))
	}
	lab.Eventually(t, time.Second, "the client to be told", func() bool { return !lives(there) })
}
