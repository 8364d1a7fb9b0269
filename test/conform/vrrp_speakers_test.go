package conform_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/conform"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// The virtual routers under test: two addresses, so that lists can differ.
var (
	shared4 = []netip.Prefix{netip.MustParsePrefix("10.77.0.50/24"), netip.MustParsePrefix("10.77.0.51/24")}
	shared6 = []netip.Prefix{netip.MustParsePrefix("fe80::5:9/64"), netip.MustParsePrefix("2001:db8:77::50/64")}
)

const password = "s3cret"

// vrrpSpeaker is a speaker that can be started with any priority.
type vrrpSpeaker func(t *testing.T, h *lab.Host, v peers.VRRP) (stop func())

func keepalived(t *testing.T, h *lab.Host, v peers.VRRP) func() {
	return peers.Keepalived(t, h, v).Stop
}

func frr(t *testing.T, h *lab.Host, v peers.VRRP) func() { return peers.FRR(t, h, v).Stop }

// carpd starts our daemon, with further lines in its instance.
func carpd(lines ...string) vrrpSpeaker {
	dir := "" // of one speaker, through all of its starts
	return func(t *testing.T, h *lab.Host, v peers.VRRP) func() {
		if dir == "" {
			var err error
			if dir, err = os.MkdirTemp("", "carpd-conform"); err != nil { // t.TempDir is too long for a socket
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
		}
		text := fmt.Sprintf("node: speaker\nstate_dir: %s\ncontrol: %s\ninstances:\n  - protocol: vrrp%d\n    vrid: %d\n    interface: eth0\n"+
			"    priority: %d\n    interval: %v\n    addresses: [", filepath.Join(dir, "state"), filepath.Join(dir, "sock"), v.Version, v.VRID, v.Priority, v.Interval)
		for _, a := range v.Addresses {
			text += fmt.Sprintf("%q, ", a)
		}
		text += "]\n"
		if v.Password != "" {
			text += "    passphrase_file: pass\n"
		}
		for _, line := range lines {
			text += "    " + line + "\n"
		}
		p := runCarpd(t, h, dir, text, v.Password)
		return func() {
			p.Signal(syscall.SIGTERM)
			if err := p.Wait(10 * time.Second); err != nil {
				t.Errorf("carpd after SIGTERM: %v\n%s", err, p.Output())
			}
		}
	}
}

// runVRRP starts a speaker on a segment of its own and tests it.
func runVRRP(t *testing.T, start vrrpSpeaker, v peers.VRRP, quick bool) (r conform.Report) {
	t.Helper()
	s := newSegment(t)
	s.lan.Capture()
	v.VRID, v.Priority = vhid, 100
	stop := start(t, s.speaker, v)
	c := conform.VRRPConfig{
		Interface: "eth0", Version: v.Version, VRID: v.VRID, Priority: v.Priority, Interval: v.Interval, Password: v.Password, Quick: quick,
		Restart: func(_ context.Context, priority uint8) error {
			stop()
			v.Priority = priority
			stop = start(t, s.speaker, v)
			return nil
		},
		Stop: func(context.Context) error { stop(); return nil },
	}
	for _, a := range v.Addresses {
		c.Addresses = append(c.Addresses, a.Addr())
	}
	if err := s.tester.DoErr(func() (err error) { r, err = conform.RunVRRP(t.Context(), c); return err }); err != nil {
		t.Fatal(err)
	}
	return r
}

// mayBeLate are the rows that a loaded machine may change; what must not be is
// contrary to a must all the same.
var mayBeLate = []string{"T-ZERO", "T-DOWN", "T-LEARN-SHORT", "T-LEARN-LONG", "T-LEARN-ZERO", "T-PRIO-1", "T-PRIO-200", "T-PRIO-254"}

// TestVRRPSpeakers tests keepalived, FRR and ours, each on a segment of its own,
// all at once. Ours must do as the RFCs or as this package says that ours does, and
// nobody what is contrary to a must, but for known faults: keepalived falls silent
// at bad packets, and FRR's device stays.
func TestVRRPSpeakers(t *testing.T) {
	t.Parallel()
	lab.New(t) // skips once, not in each part
	for _, tc := range []struct {
		name, how string
		start     vrrpSpeaker
		router    peers.VRRP
		differ    bool     // from the RFCs and from ours
		contrary  []string // rows that may be contrary to a must
	}{
		{
			"carpd-vrrp2", "carpd, VRRP version 2 with a text password", carpd(),
			peers.VRRP{Version: 2, Addresses: shared4, Interval: time.Second, Password: password}, false, nil,
		},
		{
			"carpd-vrrp3-ipv4", "carpd, VRRP version 3 over IPv4", carpd(),
			peers.VRRP{Version: 3, Addresses: shared4, Interval: 100 * time.Millisecond}, false, nil,
		},
		{
			"carpd-vrrp3-ipv6", "carpd, VRRP version 3 over IPv6", carpd(),
			peers.VRRP{Version: 3, Addresses: shared6, Interval: 100 * time.Millisecond}, false, nil,
		},
		{
			"keepalived-vrrp2", "Debian's keepalived 2.2.7, VRRP version 2 with a text password", keepalived,
			peers.VRRP{Version: 2, Addresses: shared4, Interval: time.Second, Password: password}, true, []string{"J-SLOW", "J-FLOOD"},
		},
		{
			"keepalived-vrrp3-ipv4", "Debian's keepalived 2.2.7, VRRP version 3 over IPv4", keepalived,
			peers.VRRP{Version: 3, Addresses: shared4, Interval: 100 * time.Millisecond}, true, []string{"J-SLOW", "J-FLOOD"},
		},
		{
			"keepalived-vrrp3-ipv6", "Debian's keepalived 2.2.7, VRRP version 3 over IPv6", keepalived,
			peers.VRRP{Version: 3, Addresses: shared6, Interval: 100 * time.Millisecond}, true, []string{"J-SLOW", "J-FLOOD"},
		},
		{
			"frr-vrrp2", "Debian's FRR 8.4.4, VRRP version 2", frr,
			peers.VRRP{Version: 2, Addresses: shared4, Interval: time.Second}, true, []string{"S-AFTER"},
		},
		{
			"frr-vrrp3-ipv4", "Debian's FRR 8.4.4, VRRP version 3 over IPv4", frr,
			peers.VRRP{Version: 3, Addresses: shared4, Interval: 100 * time.Millisecond}, true, []string{"S-AFTER"},
		},
		{
			"frr-vrrp3-ipv6", "Debian's FRR 8.4.4, VRRP version 3 over IPv6", frr,
			peers.VRRP{Version: 3, Addresses: shared6, Interval: 100 * time.Millisecond}, true, []string{"S-AFTER"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !*update && (tc.router.Version == 2 || !strings.HasPrefix(tc.name, "carpd")) {
				t.Skip("takes minutes, or is no speaker of ours: tested with -update")
			}
			t.Parallel()
			// A machine that stands still for longer than a master-down time spoils a
			// run; it does so twice in a row seldom.
			var faults []string
			for range 2 {
				r := runVRRP(t, tc.start, tc.router, !*update)
				faults = faultsOf(r, tc.differ, tc.contrary)
				t.Logf("%s", r.Table())
				if len(faults) == 0 {
					if *update {
						keep(t, tc.name, tc.how, r)
					}
					return
				}
			}
			t.Error(strings.Join(faults, "\n"))
		})
	}
}

// faultsOf lists what a speaker must not have done: of some it is known that they
// differ, and which rows may be contrary to a must.
func faultsOf(r conform.Report, differ bool, contrary []string) (faults []string) {
	for _, row := range r.Rows {
		known := slices.Contains(contrary, row.ID)
		late := slices.Contains(mayBeLate, row.ID)
		if row.Contrary && !known || row.Verdict == conform.Differs && !differ && !late {
			faults = append(faults, fmt.Sprintf("%s %s: %s (%s)", row.ID, row.Verdict, row.Seen, row.Rule))
		}
	}
	return faults
}

// A rule that nobody breaks proves nothing: keepalived 2.2.7 is known to break this
// one.
func TestKeepalivedIsSilencedByPacketsThatItThrowsAway(t *testing.T) {
	if testing.Short() {
		t.Skip("-short tests our daemon only")
	}
	t.Parallel()
	var missed []string
	for range 2 { // a loaded machine may spoil one run
		r := runVRRP(t, keepalived, peers.VRRP{Version: 3, Addresses: shared4, Interval: 100 * time.Millisecond}, true)
		missed = nil
		if row := r.Row("J-FLOOD"); !row.Contrary {
			missed = append(missed, fmt.Sprintf("%+v", row))
		}
		for _, id := range []string{"X-MORE-B", "X-FEWER-M", "K-PLAIN", "R-INTERVAL0"} {
			if row := r.Row(id); row.Verdict != conform.Differs {
				missed = append(missed, fmt.Sprintf("%+v", row))
			}
		}
		if len(missed) == 0 {
			return
		}
	}
	t.Error(strings.Join(missed, "\n"))
}
