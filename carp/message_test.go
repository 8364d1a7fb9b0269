package carp

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"testing"
)

// sealedMessage makes a whole companion message of the rig's group, with a digest
// computed by the standard library and nothing of ours.
func sealedMessage(t MessageType, counter uint64, body []byte) []byte {
	mac := hmac.New(sha1.New, []byte("secret"))
	mac.Write([]byte{2, byte(t), 9, 192, 0, 2, 50})
	mac.Write(binary.BigEndian.AppendUint64(nil, counter))
	mac.Write(body)
	m := NewMessage(t, 9, 1, 100, body)
	m.Counter, m.Digest = counter, [20]byte(mac.Sum(nil))
	return m.Append(nil)
}

func TestMessageIsWhatItsEncoderMadeAndAuthenticForItsTypeAlone(t *testing.T) {
	addrs := []netip.Addr{rigAddr}
	for _, body := range [][]byte{nil, {1}, bytes.Repeat([]byte{0xab}, 8), bytes.Repeat([]byte{7}, MaxBody)} {
		for typ := TypeClockProbe; typ < numTypes; typ++ {
			wire := sealedMessage(typ, 1<<60+77, body)
			if len(wire) != HeaderLen+len(body) || wire[0] != 0x20|byte(typ) || wire[3] != 7 {
				t.Fatalf("%v with %d bytes: % x", typ, len(body), wire)
			}
			var m Message
			if d := m.Decode(wire); d != Accepted {
				t.Fatalf("%v with %d bytes: %v", typ, len(body), d)
			}
			if m.VHID != 9 || m.AdvBase != 1 || m.AdvSkew != 100 || m.Counter != 1<<60+77 || !bytes.Equal(m.Body, body) {
				t.Errorf("%v: decoded %+v", typ, m)
			}
			if again := m.Append(nil); !bytes.Equal(again, wire) {
				t.Errorf("%v: encoded again % x, want % x", typ, again, wire)
			}
			for other := TypeAdvert; other < numTypes; other++ {
				d := NewDigest(9, []byte("secret"), addrs, DigestOptions{Type: other})
				if d.VerifyMessage(&m) != (other == typ) {
					t.Errorf("%v verified as %v: %v", typ, other, other != typ)
				}
			}
			if NewDigest(9, []byte("secret"), addrs, DigestOptions{}).Verify(&m.Advert) {
				t.Errorf("%v passes for an advert: the BSDs and ucarp would obey it", typ)
			}
		}
	}
}

func TestMessageDigestCoversEveryByteOfCounterAndBody(t *testing.T) {
	d := NewDigest(9, []byte("secret"), []netip.Addr{rigAddr}, DigestOptions{Type: TypeHandover})
	wire := sealedMessage(TypeHandover, 42, []byte("hand it over"))
	var m Message
	for i := 8; i < len(wire); i++ {
		b := bytes.Clone(wire)
		b[i] ^= 0x10
		b[6], b[7] = 0, 0
		binary.BigEndian.PutUint16(b[6:], ^fold(sum(0, b[:HeaderLen])))
		if drop := m.Decode(b); drop != Accepted || d.VerifyMessage(&m) {
			t.Errorf("byte %d changed: %v, authentic %v", i, drop, d.VerifyMessage(&m))
		}
	}
	for _, b := range [][]byte{append(bytes.Clone(wire), 0), wire[:len(wire)-1]} {
		if m.Decode(b) != Accepted || d.VerifyMessage(&m) {
			t.Errorf("authentic with %d bytes in place of %d", len(b), len(wire))
		}
	}
}

func TestMessageDecodeRefuses(t *testing.T) {
	good := sealedMessage(TypePeerState, 5, make([]byte, MaxBody))
	changed := func(f func([]byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		b[6], b[7] = 0, 0
		binary.BigEndian.PutUint16(b[6:], ^fold(sum(0, b[:HeaderLen])))
		return b
	}
	advert := NewAdvert(9, 1, 0)
	for _, tt := range []struct {
		name string
		b    []byte
		want Drop
	}{
		{"nothing", nil, DropLength},
		{"half a header", good[:HeaderLen-1], DropLength},
		{"longer than the longest", append(bytes.Clone(good), 0), DropLength},
		{"a bit flipped in the header", append([]byte{good[0] ^ 1}, good[1:]...), DropChecksum},
		{"version 3", changed(func(b []byte) { b[0] = 0x34 }), DropVersion},
		{"type 0", changed(func(b []byte) { b[0] = 0x20 }), DropType},
		{"an advert", advert.Append(nil), DropType},
		{"a type of the future", changed(func(b []byte) { b[0] = 0x2f }), Accepted},
		{"the longest", good, Accepted},
		{"a header alone", good[:HeaderLen], Accepted},
	} {
		var m Message
		if got := m.Decode(tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	long := NewMessage(TypePeerState, 9, 1, 0, make([]byte, MaxBody+1))
	if b := long.Append([]byte{1}); len(b) != 1 {
		t.Errorf("a body of %d bytes was encoded", MaxBody+1)
	}
}

func TestMessageCostsNoAllocationOnReceipt(t *testing.T) {
	wire := sealedMessage(TypePeerState, 5, make([]byte, MaxBody))
	d := NewDigest(9, []byte("secret"), []netip.Addr{rigAddr}, DigestOptions{Type: TypePeerState})
	var m Message
	if n := testing.AllocsPerRun(100, func() {
		if m.Decode(wire) != Accepted || !d.VerifyMessage(&m) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCompanionMessageIsNoAdvert(t *testing.T) {
	for typ := TypePeerState; typ < numTypes; typ++ {
		r := newRig(t)
		before := r.deadline()
		r.run(unit)
		p := r.advert(peerLow, 1, 0)
		p.Payload = sealedMessage(typ, 1<<50, []byte{1, 2, 3})
		r.do(r.e.Receive(r.now, p))
		if r.log[len(r.log)-1] != "drop type" || r.deadline() != before {
			t.Errorf("%v: %v, deadline moved by %v", typ, r.log, r.deadline().Sub(before))
		}
		p.Payload[HeaderLen] ^= 1
		r.do(r.e.Receive(r.now, p))
		if r.log[len(r.log)-1] != "drop hash" {
			t.Errorf("%v with a changed body: %v", typ, r.log)
		}
	}
	// With the rules of the kernels every packet is an advert, and this one has a
	// wrong HMAC.
	r := newRig(t, func(c *Config) { c.Compat = CompatBSD })
	p := r.advert(peerLow, 1, 0)
	p.Payload = sealedMessage(TypePeerState, 1<<50, nil)
	r.do(r.e.Receive(r.now, p))
	if r.log[len(r.log)-1] != "drop hash" {
		t.Errorf("compat bsd: %v", r.log)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(sealedMessage(TypeClockProbe, 1, nil))
	f.Add(sealedMessage(TypeHandover, 1<<63, make([]byte, MaxBody)))
	f.Add([]byte{0x22})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		if d := m.Decode(b); d != Accepted {
			if m.Body != nil || m.Type != 0 {
				t.Fatalf("refused as %v and half decoded", d)
			}
			return
		}
		if len(b) < HeaderLen || len(b) > MaxMessage || len(m.Body) != len(b)-HeaderLen {
			t.Fatalf("%d bytes, body of %d", len(b), len(m.Body))
		}
		again := m.Append(nil)
		again[6], again[7] = b[6], b[7] // a sum of 0 has two forms
		if !bytes.Equal(again, b) {
			t.Fatalf("encoded again\n% x, was\n% x", again, b)
		}
	})
}
