package vip

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestAnnouncementsAreTheseBytes(t *testing.T) {
	mac := carp.MAC{2, 0, 0, 0, 0, 1}
	for _, tc := range []struct {
		addr string
		want string
	}{
		{"192.0.2.9", `ffffffffffff 020000000001 0806
			0001 0800 06 04 0001
			020000000001 c0000209
			000000000000 c0000209
			000000000000000000000000000000000000`},
		{"2001:db8::9", `333300000001 020000000001 86dd
			60000000 0020 3a ff
			20010db8000000000000000000000009
			ff020000000000000000000000000001
			88 00 f91a 20000000
			20010db8000000000000000000000009
			02 01 020000000001`},
	} {
		if got := announcement(mac, netip.MustParseAddr(tc.addr)); !bytes.Equal(got, unhex(tc.want)) {
			t.Errorf("%s:\ngot  %x\nwant %x", tc.addr, got, unhex(tc.want))
		}
	}
}

func TestPacerSendsABurstAndThenTheRate(t *testing.T) {
	var p pacer
	now := time.Unix(1000, 0)
	if w := p.reserve(now, FrameBurst); w != 0 {
		t.Errorf("the burst waits %v", w)
	}
	if w, want := p.reserve(now, 100), 100*time.Second/FrameRate; w != want {
		t.Errorf("100 frames more wait %v, want %v", w, want)
	}
	now = now.Add(time.Minute)
	if w := p.reserve(now, FrameBurst); w != 0 {
		t.Errorf("a full bucket waits %v", w)
	}
	if w := p.reserve(now, 1); w <= 0 {
		t.Error("more than the burst was saved up")
	}
}

func TestTokensBoundRestorations(t *testing.T) {
	var b tokens
	now := carp.Instant(time.Second) // soon after boot
	for i := range restoreBurst {
		if b.next() > now {
			t.Fatalf("token %d of %d has to wait", i+1, restoreBurst)
		}
		b = b.spend(now)
	}
	if got := b.next().Sub(now); got != restoreEvery {
		t.Errorf("the next token comes after %v, want %v", got, restoreEvery)
	}
}
