package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// Speakers over a bad switch: what is decided on paper in the simulator, on real
// packets.

var shared = netip.MustParsePrefix("10.9.0.50/16")

const (
	groupVHID = 9
	groupPass = "two of a kind"
	takeover  = 10 * time.Second
)

// carpd is a daemon on a host.
type carpd struct {
	*lab.Host
	t      *testing.T
	client *http.Client
}

// startCarpd starts the daemon of a host and waits until it answers.
func startCarpd(t *testing.T, binary string, h *lab.Host, advskew int) *carpd {
	t.Helper()
	dir, err := os.MkdirTemp("", "carpd-lab") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text := fmt.Sprintf("node: %s\nstate_dir: %s\ncontrol: %s\ninstances:\n  - vhid: %d\n    interface: eth0\n"+
		"    passphrase_file: pass\n    advskew: %d\n    preempt: true\n    addresses: [%v]\n",
		h.Name, filepath.Join(dir, "state"), filepath.Join(dir, "sock"), groupVHID, advskew, shared)
	for name, text := range map[string]string{"pass": groupPass + "\n", "carpd.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "sock"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	c := &carpd{h, t, &http.Client{Transport: transport, Timeout: 5 * time.Second}}
	h.Start(exec.Command(binary, "run", "--config", filepath.Join(dir, "carpd.yaml")))
	lab.Eventually(t, takeover, "carpd on "+h.Name, func() bool { return c.instance().State != "" })
	return c
}

// instance is zero while the daemon does not answer.
func (c *carpd) instance() (i api.Instance) {
	resp, err := c.client.Get("http://carpd/v1/status")
	if err != nil {
		return i
	}
	defer resp.Body.Close()
	var s api.Status
	if json.NewDecoder(resp.Body).Decode(&s) == nil && len(s.Instances) == 1 {
		i = s.Instances[0]
	}
	return i
}

// changes counts changes of state so far.
func (c *carpd) changes() (n int) {
	c.t.Helper()
	resp, err := c.client.Get("http://carpd/v1/events")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var e api.Event
		if lines.Decode(&e) != nil {
			return n
		}
		if e.Kind == "transition" && e.From != e.To {
			n++
		}
	}
}

// holders names the hosts that have the shared address.
func holders(hosts ...*lab.Host) string {
	var found []string
	for _, h := range hosts {
		if h.HasAddr(shared.Addr()) {
			found = append(found, h.Name)
		}
	}
	return strings.Join(found, " ")
}

func awaitHolders(t *testing.T, want string, hosts ...*lab.Host) {
	t.Helper()
	lab.Eventually(t, takeover, fmt.Sprintf("holders %q", want), func() bool { return holders(hosts...) == want })
}

// stay watches for d that the holders are these at each look.
func stay(t *testing.T, d time.Duration, want string, hosts ...*lab.Host) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		if got := holders(hosts...); got != want {
			t.Fatalf("holders %q, want %q", got, want)
		}
	}
}

// adverts is what chance is to concern.
var adverts = lab.IPProtocol(112)

func TestSpeakersOverABadSwitch(t *testing.T) {
	lab.New(t) // skips once, not in each part
	binary := filepath.Join(t.TempDir(), "carpd")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/carpd/carpd/cmd/carpd").CombinedOutput(); err != nil {
		t.Fatalf("build carpd: %v\n%s", err, out)
	}
	for name, part := range map[string]func(*testing.T, string){
		"a carpd and a ucarp at 20 % loss have one master": besideUcarp,
		"a one-way cut makes two masters and heals to one": oneWayCut,
		"corrupted adverts are counted and move nothing":   corruption,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			part(t, binary)
		})
	}
}

func besideUcarp(t *testing.T, binary string) {
	lan := lab.New(t, lab.Switched(33)) // loses two adverts in a row, three times
	a, b := lan.Host("carpd", "10.9.0.1/16"), lan.Host("ucarp", "10.9.0.2/16")
	lan.Capture()
	lan.All().Only(adverts).Loss(0.2)
	began := time.Now()
	ours := startCarpd(t, binary, a, 0)
	peers.Ucarp(t, b, peers.UcarpOptions{
		VHID: groupVHID, Password: groupPass, Source: netip.MustParseAddr("10.9.0.2"),
		Address: netip.PrefixFrom(shared.Addr(), 32), AdvSkew: 100, Shutdown: true,
	})
	awaitHolders(t, "carpd", a, b)
	lab.Eventually(t, 40*time.Second, "20 s of loss", func() bool { return time.Since(began) > 20*time.Second })
	awaitHolders(t, "carpd", a, b)
	stay(t, time.Second, "carpd", a, b)
	st := lan.Link(a, b).Stats()
	if i := ours.instance(); i.State != "MASTER" || st.Lost < 3 {
		t.Errorf("carpd is %s; the link %+v", i.State, st)
	}
	t.Logf("from carpd to ucarp: %+v; carpd changed its state %d times", st, ours.changes())
}

func oneWayCut(t *testing.T, binary string) {
	lan := lab.New(t, lab.Switched(1))
	a, b := lan.Host("a", "10.9.0.1/16"), lan.Host("b", "10.9.0.2/16")
	lan.Capture()
	one := startCarpd(t, binary, a, 0)
	awaitHolders(t, "a", a, b)
	two := startCarpd(t, binary, b, 100)
	lab.Eventually(t, takeover, "b to follow a", func() bool { return two.instance().Master != nil })
	stay(t, 500*time.Millisecond, "a", a, b)
	lan.Link(a, b).Cut()
	awaitHolders(t, "a b", a, b) // b hears nobody; a hears b and is the better
	stay(t, 1500*time.Millisecond, "a b", a, b)
	if s1, s2 := one.instance().State, two.instance().State; s1 != "MASTER" || s2 != "MASTER" {
		t.Errorf("a is %s and b %s, want two masters", s1, s2)
	}
	lan.Heal()
	awaitHolders(t, "a", a, b)
	stay(t, time.Second, "a", a, b)
	if s := two.instance().State; s != "BACKUP" {
		t.Errorf("b is %s after the cut", s)
	}
}

func corruption(t *testing.T, binary string) {
	lan := lab.New(t, lab.Switched(2))
	a, b := lan.Host("a", "10.9.0.1/16"), lan.Host("b", "10.9.0.2/16")
	lan.Capture()
	one := startCarpd(t, binary, a, 0)
	awaitHolders(t, "a", a, b)
	two := startCarpd(t, binary, b, 100)
	lab.Eventually(t, takeover, "b to follow a", func() bool { return two.instance().Master != nil })
	before, changes := two.instance(), one.changes()+two.changes()
	k := forge(t, lan, a, b)
	var dropped uint64
	lab.Eventually(t, 20*time.Second, "corrupted adverts to be dropped", func() bool {
		dropped = 0
		for _, why := range []string{"checksum", "hash"} {
			dropped += two.instance().Drops[why] - before.Drops[why]
		}
		return dropped >= 20
	})
	stay(t, time.Second, "a", a, b)
	if now := one.changes() + two.changes(); now != changes {
		t.Errorf("%d changes of state", now-changes)
	}
	t.Logf("dropped %v, link %+v", two.instance().Drops, k.Stats())
}

// forge sends an advert of a to b 200 times, on a link that corrupts each.
func forge(t *testing.T, lan *lab.LAN, a, b *lab.Host) *lab.Link {
	t.Helper()
	forger := lan.Host("forger", "10.9.0.3/16")
	lan.Link(forger, a).Cut()
	bad := lan.Link(forger, b).Only(adverts).Corrupt(1)
	advert, ok := lan.Capture().WaitFor(takeover, func(f lab.Frame) bool { return f.Host == a.Name && adverts(f) })
	if !ok {
		t.Fatal("a sends no advert")
	}
	err := forger.DoErr(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		for range 200 {
			if err := unix.Sendto(fd, advert.Data, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bad
}
