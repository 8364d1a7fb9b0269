package example

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/test/decode"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// TestMain lets the test binary be our hook too: carpd runs it as EXAMPLE.test
// hook FILE.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hook" {
		phase, err := hooks.ParsePhase(os.Getenv("CARP_PHASE"))
		if err == nil {
			err = Role{File: os.Args[2]}.Run(context.Background(), hooks.Event{Phase: phase})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main(m)
}

const config = `
node: %[1]s
control: %[2]s/sock
state_dir: %[2]s/state
instances:
  - vhid: 9
    interface: eth0
    passphrase: secret
    advskew: %[3]d
    addresses: [192.0.2.100/24]
hooks:
  - {kind: exec, on: after-up, with: {command: [%[4]s, hook, %[2]s/role]}}
  - {kind: exec, on: after-down, with: {command: [%[4]s, hook, %[2]s/role]}}
`

// carpd runs the daemon with our hook on a host; what it keeps is beside the file of
// the role.
func carpd(t *testing.T, h *lab.Host, advskew int, role Role) *lab.Proc {
	t.Helper()
	daemon, err := exec.LookPath("carpd")
	if err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(role.File)
	file := filepath.Join(dir, "carpd.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, h.Name, dir, advskew, self), 0o600); err != nil {
		t.Fatal(err)
	}
	return h.Start(exec.Command(daemon, "run", "--config", file))
}

// The real daemon, the real kernel, and a network that loses a frame in twenty.
func TestLabLeaderFollowsTheCable(t *testing.T) {
	t.Parallel()
	lan := lab.New(t, lab.Switched(1))
	a, b := lan.Host("a", "192.0.2.1/24"), lan.Host("b", "192.0.2.2/24")
	client := lan.Host("client", "192.0.2.3/24")
	wire, asking := lan.Capture(), client.Probe(shared)
	lan.Between(a, b).Loss(0.05).Delay(time.Millisecond, time.Millisecond)
	first, second := Role{File: t.TempDir() + "/role"}, Role{File: t.TempDir() + "/role"}
	carpd(t, a, 0, first)
	lab.Eventually(t, 10*time.Second, "a to lead", first.Leads)
	carpd(t, b, 100, second)

	mark := asking.Mark()
	a.Unplug()
	lab.Eventually(t, 10*time.Second, "a to give up", func() bool { return !first.Leads() })
	lab.Eventually(t, 10*time.Second, "b to lead", second.Leads)
	lab.Eventually(t, time.Second, "b to answer the client", func() bool { return asking.Answering(mark) })
	if outage, _ := asking.Longest(mark); outage > 6*time.Second {
		t.Errorf("the client had no answer for %v", outage)
	}
	a.Plug()
	lan.Heal()
	for _, f := range wire.Packets() {
		packet := decode.Packet(f.Data, decode.CARPv2)
		advert, ok := packet.Layer(decode.LayerTypeCARP).(*decode.CARP)
		if ok && advert.Digest != advert.Sign([]byte("secret"), []netip.Addr{shared}) {
			t.Errorf("%s sent an advert that is not signed for the group", f.Host)
		}
	}
}

// A daemon that is killed runs no hook: the file says leader until the next one
// starts. Its partner is ucarp.
func TestLabNextDaemonCorrectsTheRoleOfAKilledOne(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	a, b := lan.Host("a", "192.0.2.1/24"), lan.Host("b", "192.0.2.2/24")
	role := Role{File: t.TempDir() + "/role"}
	daemon := carpd(t, a, 0, role)
	lab.Eventually(t, 10*time.Second, "a to lead", role.Leads)
	peers.Ucarp(t, b, peers.UcarpOptions{
		VHID: 9, Password: "secret", AdvSkew: 100,
		Source: netip.MustParseAddr("192.0.2.2"), Address: netip.PrefixFrom(shared, 24),
	})
	daemon.Kill() // no goodbye: the kernel lets go of the address, and ucarp takes it
	lab.Eventually(t, 10*time.Second, "ucarp to have the address", func() bool { return b.HasAddr(shared) })
	if a.HasAddr(shared) || !role.Leads() {
		t.Errorf("a has the address: %v, leads: %v", a.HasAddr(shared), role.Leads())
	}
	carpd(t, a, 0, role)
	lab.Eventually(t, 10*time.Second, "a to stand by", func() bool { return !role.Leads() })
}
