package conform_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carpd/carpd/test/conform"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

var update = flag.Bool("update", false, "write the reports to docs/conformance")

// TestMain lets all tests run at once: they wait most of the time. -parallel
// still has the last word.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err) // cannot happen: the flag is package testing's
	}
	lab.Main(m)
}

// reports is where -update writes to.
const reports = "../../docs/conformance"

const (
	vhid    = 9
	advskew = 100
	key     = "conformance"
)

var vip = netip.MustParsePrefix("10.77.0.50/24")

// segment is a LAN with a host for the speaker and one for the tester.
type segment struct {
	lan             *lab.LAN
	speaker, tester *lab.Host
}

func newSegment(t *testing.T) *segment {
	t.Helper()
	s := &segment{lan: lab.New(t)}
	s.speaker = s.lan.Host("speaker", "10.77.0.10/24")
	s.tester = s.lan.Host("tester", "10.77.0.20/24")
	return s
}

func (s *segment) config() conform.Config {
	return conform.Config{Interface: "eth0", VHID: vhid, Key: []byte(key), Addresses: []netip.Addr{vip.Addr()}, AdvSkew: advskew}
}

// run tests the speaker from the tester's host.
func (s *segment) run(ctx context.Context, c conform.Config) (r conform.Report, err error) {
	err = s.tester.DoErr(func() error {
		r, err = conform.Run(ctx, c)
		return err
	})
	return r, err
}

// carpd starts our daemon with further lines in its instance.
func (s *segment) carpd(t *testing.T, addresses []string, lines ...string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "carpd-conform") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text := fmt.Sprintf("node: speaker\nstate_dir: %s\ncontrol: %s\ninstances:\n  - vhid: %d\n    interface: eth0\n"+
		"    passphrase_file: pass\n    advskew: %d\n    addresses: [\"%s\"]\n",
		filepath.Join(dir, "state"), filepath.Join(dir, "sock"), vhid, advskew, strings.Join(addresses, `", "`))
	for _, line := range lines {
		text += "    " + line + "\n"
	}
	runCarpd(t, s.speaker, dir, text, key)
}

// runCarpd builds our daemon and starts it with a configuration; the secret is
// in the file pass.
func runCarpd(t *testing.T, h *lab.Host, dir, text, secret string) *lab.Proc {
	t.Helper()
	binary := filepath.Join(dir, "carpd")
	if _, err := os.Stat(binary); err != nil {
		if out, err := exec.Command("go", "build", "-o", binary, "github.com/carpd/carpd/cmd/carpd").CombinedOutput(); err != nil {
			t.Fatalf("build carpd: %v\n%s", err, out)
		}
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "pass"), []byte(secret+"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "carpd.yaml"), []byte(text), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	return h.Start(exec.Command(binary, "run", "--config", filepath.Join(dir, "carpd.yaml")))
}

func (s *segment) ucarp(t *testing.T) {
	t.Helper()
	peers.Ucarp(t, s.speaker, peers.UcarpOptions{
		VHID: vhid, Password: key, Source: netip.MustParseAddr("10.77.0.10"), Address: vip, AdvSkew: advskew, Shutdown: true,
	})
}

// onlyLate is the row that a loaded machine may change: too late would be contrary
// to a must all the same.
var onlyLate = []string{"B-SILENCE"}

// TestSpeakers tests ours and ucarp, each on a segment of its own, all at once.
// No speaker may do what is contrary to a must, and ours must do as this package
// says that ours does.
func TestSpeakers(t *testing.T) {
	t.Parallel()
	lab.New(t) // skips once, not in each part
	for _, tc := range []struct {
		name, how string
		report    bool // kept in docs/conformance
		start     func(*testing.T, *segment)
		allowed   []conform.Verdict
		differs   []string // rows that may differ
	}{
		{
			"carpd", "carpd with its defaults: lease, no preempt", true,
			func(t *testing.T, s *segment) { s.carpd(t, []string{vip.String()}) },
			[]conform.Verdict{conform.AsFreeBSD, conform.AsOurs, conform.NotTested}, onlyLate,
		},
		{
			"carpd-compat-bsd", "carpd with `compat: bsd`", true,
			func(t *testing.T, s *segment) { s.carpd(t, []string{vip.String()}, "compat: bsd") },
			[]conform.Verdict{conform.AsFreeBSD, conform.AsOurs, conform.NotTested}, onlyLate,
		},
		{
			"ucarp", "Debian's ucarp 1.5.2+git20192404.1a9aaf7-1, without --preempt", true,
			func(t *testing.T, s *segment) { s.ucarp(t) },
			[]conform.Verdict{conform.AsFreeBSD, conform.AsOurs, conform.Differs, conform.NotTested}, nil,
		},
		{
			"carpd-dual-stack", "carpd with an address of each family", false,
			func(t *testing.T, s *segment) { s.carpd(t, []string{vip.String(), "2001:db8:77::50/64"}) },
			[]conform.Verdict{conform.AsFreeBSD, conform.AsOurs, conform.NotTested}, onlyLate,
		},
		{
			"carpd-preempt", "carpd with preempt and its own MAC as source", false,
			func(t *testing.T, s *segment) {
				s.carpd(t, []string{vip.String()}, "preempt: true", "source_mac: interface")
			},
			[]conform.Verdict{conform.AsFreeBSD, conform.AsOurs, conform.NotTested}, []string{"A-SRCMAC", "B-SLOWER", "B-SILENCE"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() && tc.name != "carpd" {
				t.Skip("takes two minutes; -short tests our daemon only")
			}
			t.Parallel()
			s := newSegment(t)
			s.lan.Capture()
			tc.start(t, s)
			c := s.config()
			if tc.name == "carpd-dual-stack" {
				c.Addresses = append(c.Addresses, netip.MustParseAddr("2001:db8:77::50"))
			}
			c.Quick = !*update
			r, err := s.run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s", r.Table())
			if ids := r.Contrary(); len(ids) > 0 {
				t.Errorf("contrary to a must: %v", ids)
			}
			for _, row := range r.Rows {
				if !slices.Contains(tc.allowed, row.Verdict) && !slices.Contains(tc.differs, row.ID) {
					t.Errorf("%s %s: %s (%s)", row.ID, row.Verdict, row.Seen, row.Rule)
				}
			}
			if *update && tc.report && !t.Failed() {
				keep(t, tc.name, tc.how, r)
			}
		})
	}
}

// keep writes a report with the command that makes it.
func keep(t *testing.T, name, how string, r conform.Report) {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	text := fmt.Sprintf("Conformance of %s.\nMade by: go test ./test/conform -run %s -update -timeout 20m (as root; %s)\n"+
		"from network namespaces on one machine; times are of that machine, on that day.\n\n%s", how, test,
		map[bool]string{true: "about two minutes", false: "about eight minutes"}[r.Protocol == "carp"], r.Table())
	if err := os.WriteFile(filepath.Join(reports, name+".txt"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
