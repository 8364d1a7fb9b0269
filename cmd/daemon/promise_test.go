package daemon

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected outputs of testdata/check anew")

// What carpd check says of each group of the lease's table: what is promised, reckoned
// against what, and how late the daemon may be.
func TestCheckSaysWhatIsPromisedForEachInstance(t *testing.T) {
	for name, lines := range map[string]string{
		"advbase-1":         "vhid: 9\nadvskew: 100",
		"advbase-0":         "vhid: 9\nadvbase: 0\nadvskew: 100",
		"advbase-10":        "vhid: 9\nadvbase: 10",
		"lease-too-long":    "vhid: 9\nlease: 2s",
		"lease-shorter":     "vhid: 9\nadvbase: 2\nlease: 1s",
		"lease-off":         "vhid: 9\nlease: off",
		"vrrp-second":       "vrid: 9\nprotocol: vrrp3\npriority: 254",
		"vrrp-two-renewals": "vrid: 9\nprotocol: vrrp3\ninterval: 880ms",
		"vrrp-hundred-ms":   "vrid: 9\nprotocol: vrrp3\ninterval: 100ms",
		"virtual-mac":       "vhid: 9\nmac: virtual",
		"advskew-254":       "vhid: 9\nadvskew: 254",
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(lines, "vrid") {
				lines += "\npassphrase: a"
			}
			text := "instances:\n  - " + strings.ReplaceAll(lines, "\n", "\n    ") + "\n    interface: eth0\n    addresses: [192.0.2.50/24]\n"
			var out strings.Builder
			path := write(t, text)
			if code := run([]string{"check", "--config", path}, &out, &out); code != 0 {
				t.Fatalf("exit %d: %s", code, &out)
			}
			golden(t, "testdata/check/"+name+".txt", strings.ReplaceAll(out.String(), path, "FILE"))
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew): got\n%s\nwant\n%s", name, got, want)
	}
}

func TestStatusSaysTheSameAsCheck(t *testing.T) {
	l := planned(t, oneInstance).leaseStatus()
	if l.ValidMS != 1000 || l.RenewMS != 250 || !l.Promised || l.GoneMS != 2850 || l.MasterDownMS != 3000 || l.SlackMS != 750 {
		t.Errorf("%+v", l)
	}
}

// The fence knows addresses, not interfaces: a closed gate cuts whoever else has one.
func TestAFencedAddressHasOneOwner(t *testing.T) {
	const file = "instances:\n  - {protocol: vrrp3, vrid: 1, interface: eth0, fence: %s, addresses: [192.0.2.9/24]}\n" +
		"  - {protocol: vrrp3, vrid: 2, interface: eth1, fence: %s, addresses: [192.0.2.9/24]}\n"
	for fences, refused := range map[[2]string]bool{{"off", "off"}: false, {"on", "off"}: true, {"off", "on"}: true, {"on", "on"}: true} {
		_, all, err := load(write(t, fmt.Sprintf(file, fences[0], fences[1])))
		if err != nil {
			t.Fatal(err)
		}
		if err := disjoint(all); (err != nil) != refused {
			t.Errorf("fences %v: %v", fences, err)
		}
	}
}

// A short lease of many addresses cannot be renewed in time, whatever the instances that
// have them: 10 of 1000 each lost half of theirs again and again.
func TestAddressesThatAShortLeaseDoesNotBearHaveAFence(t *testing.T) {
	instances := func(count, each int, family, more string) string {
		var b strings.Builder
		b.WriteString("instances:\n")
		for i := range count {
			fmt.Fprintf(&b, "  - vhid: %d\n    interface: eth0\n    passphrase: a\n    %s\n    addresses: [", 1+i, more)
			for n := range each {
				fmt.Fprintf(&b, family, i, n>>8, n&255)
			}
			b.WriteString("]\n")
		}
		return b.String()
	}
	const v4, v6 = "10.%d.%d.%d/32, ", `"2001:db8:%x:%x::%x/128", `
	for name, test := range map[string]struct {
		text   string
		fenced bool
		valid  time.Duration
		says   string
	}{
		"few":                 {instances(10, 100, v4, "advskew: 0"), false, time.Second, "not needed"},
		"many of one":         {instances(1, 4000, v4, "advskew: 0"), true, 10 * time.Second, "on."},
		"many of ten":         {instances(10, 1000, v4, "advskew: 0"), true, 10 * time.Second, "on."},
		"hundreds of IPv6":    {instances(2, 1000, v6, "advskew: 0"), true, 34 * time.Second, "on."},
		"they shall not":      {instances(10, 1000, v4, "fence: off"), false, time.Second, "addresses will be lost"},
		"a lease of the file": {instances(10, 1000, v4, "lease: 1s"), true, time.Second, "on."},
		"with a long lease":   {instances(10, 500, v4, "advbase: 20"), false, 10 * time.Second, "not needed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := planned(t, test.text)
			if p.fenced != test.fenced || p.lease.Valid != test.valid || !strings.Contains(p.fenceText(), test.says) {
				t.Errorf("renewed in %v: fenced %v, lease %+v, %s", p.renewal, p.fenced, p.lease, p.fenceText())
			}
			p.settle(true, false)
			if p.fenced && p.lease.Valid != test.valid {
				t.Errorf("with a fence that others can remove the lease is %v", p.lease.Valid)
			}
		})
	}
}
