package peers_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// speaker sends payloads of CARP to the group from a host of the lab.
type speaker struct {
	t  lab.TB
	fd int
}

func newSpeaker(t lab.TB, h *lab.Host, from netip.Addr) *speaker {
	t.Helper()
	s := &speaker{t: t}
	var err error
	h.Do(func() { s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 112) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 255); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInet4Addr(s.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, from.As4()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *speaker) send(payload []byte) {
	s.t.Helper()
	if err := unix.Sendto(s.fd, payload, 0, &unix.SockaddrInet4{Addr: carp.Group(carp.IPv4).As4()}); err != nil {
		s.t.Fatal(err)
	}
}

// companion is a message of a node better than any, authentic but for those who do not
// know its type.
func companion(kind carp.MessageType, counter uint64) []byte {
	body := bytes.Repeat([]byte{1}, 22)
	digest := carp.NewDigest(vhid, []byte(password), []netip.Addr{vip.Addr()}, carp.DigestOptions{Type: kind})
	m := carp.NewMessage(kind, vhid, 1, 0, body)
	m.Counter, m.Digest = counter, digest.SumMessage(counter, body)
	return m.Append(nil)
}

// advert is what does move a ucarp.
func advert(counter uint64) []byte {
	digest := carp.NewDigest(vhid, []byte(password), []netip.Addr{vip.Addr()}, carp.DigestOptions{})
	a := carp.NewAdvert(vhid, 1, 0)
	a.Counter, a.Digest = counter, digest.Sum(counter)
	return a.Append(nil)
}

// The master would yield to an advert of that weight, as it does in the end.
func TestUcarpIgnoresCompanionMessages(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	host, other := lan.Host(theirs, "10.9.0.2/16"), lan.Host("other", "10.9.0.3/16")
	capture := lan.Capture()
	ucarp := peers.Ucarp(t, host, peers.UcarpOptions{
		VHID: vhid, Password: password, Source: netip.MustParseAddr("10.9.0.2"), Address: netip.PrefixFrom(vip.Addr(), 32), AdvSkew: 100,
	})
	lab.Eventually(t, masterDown+ucarpLate(100)+slack, "ucarp to be master", func() bool { return host.HasAddr(vip.Addr()) })
	yielded := func() bool { return strings.Count(ucarp.Output(), "Switching to state: BACKUP") > 1 } // it begins as one
	s := newSpeaker(t, other, netip.MustParseAddr("10.9.0.3"))
	counter := uint64(1) << 40
	for range 4 { // one after each of its adverts
		mark := capture.Len()
		for kind := carp.TypeClockProbe; kind <= carp.TypeHandover; kind++ {
			counter++
			s.send(companion(kind, counter))
		}
		if _, ok := capture.WaitAfter(mark, 4*second, func(f lab.Frame) bool { seen, ok := sight(f); return ok && seen.host == theirs }); !ok {
			t.Fatal("ucarp advertises no more")
		}
	}
	if !host.HasAddr(vip.Addr()) || yielded() {
		t.Errorf("ucarp let go:\n%s", ucarp.Output())
	}
	lab.Eventually(t, 10*second, "ucarp to yield to an advert", func() bool {
		counter++
		s.send(advert(counter))
		return yielded()
	})
}
