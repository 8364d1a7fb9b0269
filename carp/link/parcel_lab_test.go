package link_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
)

// What is packed now and sent by somebody else later arrives as what is sent now.
func TestLabParcelArrivesAsWhatIsSent(t *testing.T) {
	peers := func(to ...netip.Addr) link.PortConfig { return link.PortConfig{VHID: vhid, Peers: to} }
	vrrp := func(family carp.Family) link.PortConfig {
		return link.PortConfig{Protocol: carp.VRRP3, Family: family, VHID: vhid, IPv4: true, IPv6: true, SourceMAC: link.InterfaceMAC}
	}
	for name, c := range map[string]struct {
		from, to link.PortConfig
		dst      netip.Addr
		pseudo   bool
	}{
		"CARP":                {both, both, group4, false},
		"CARP over IPv6":      {both, both, group6, false},
		"CARP to a peer":      {peers(addrB), peers(addrA), addrB, false},
		"CARP to a peer, 6":   {peers(addrB6), peers(addrA6), addrB6, false},
		"VRRP":                {vrrp(carp.IPv4), vrrp(carp.IPv4), group4, true},
		"VRRP over IPv6":      {vrrp(carp.IPv6), vrrp(carp.IPv6), group6, true},
		"VRRP to a peer":      {link.PortConfig{Protocol: carp.VRRP3, VHID: vhid, Peers: []netip.Addr{addrB}}, link.PortConfig{Protocol: carp.VRRP3, VHID: vhid, Peers: []netip.Addr{addrA}}, addrB, true},
		"the interface's MAC": {link.PortConfig{VHID: vhid, IPv4: true, SourceMAC: link.InterfaceMAC}, both, group4, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, a, b := hosts(t)
			i := open(t, a)
			sender, receiver := attach(t, a, i, c.from), attach(t, b, open(t, b), c.to)
			awaitUp(t, sender, complete)
			awaitUp(t, receiver, complete)
			payload := advert(7)
			if c.pseudo {
				payload = append([]byte{0x31, vhid, 0, 1, 0, 100, 0, 0}, addrA.AsSlice()...)
			}
			frame := carp.Frame{VHID: vhid, Dst: c.dst, Payload: payload, Pseudo: c.pseudo}
			if err := sender.Send(frame); err != nil {
				t.Fatal(err)
			}
			sent := *next(t, receiver, true).Packet
			frame.Payload = bytes.Clone(payload)
			if c.pseudo {
				frame.Payload[6], frame.Payload[7] = 0, 0
			}
			parcel, err := sender.(link.Packer).Pack(frame)
			if err != nil {
				t.Fatal(err)
			}
			clear(frame.Payload) // it is the caller's
			var outlet *link.Outlet
			if err := a.DoErr(func() (err error) { outlet, err = link.OpenOutlet(); return err }); err != nil {
				t.Fatal(err)
			}
			defer outlet.Close()
			sender.Close()
			i.Close() // the parcel needs neither
			if err := outlet.Send(parcel); err != nil {
				t.Fatal(err)
			}
			got := *next(t, receiver, true).Packet
			sent.At, got.At = 0, 0
			if got.Src != sent.Src || got.Dst != sent.Dst || got.TTL != sent.TTL || got.SrcMAC != sent.SrcMAC || !bytes.Equal(got.Payload, sent.Payload) {
				t.Errorf("the parcel arrived as\n%+v, and the frame as\n%+v", got, sent)
			}
		})
	}
}

func TestLabNothingIsPackedForAnInterfaceThatIsDown(t *testing.T) {
	t.Parallel()
	_, a, _ := hosts(t)
	l := attach(t, a, open(t, a), both)
	awaitUp(t, l, complete)
	a.SetLink(false)
	awaitDown(t, l)
	if p, err := l.(link.Packer).Pack(carp.Frame{VHID: vhid, Dst: group4, Payload: advert(1)}); !errors.Is(err, link.ErrDown) {
		t.Errorf("packed %+v, %v", p, err)
	}
}
