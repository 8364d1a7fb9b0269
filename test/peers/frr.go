package peers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// FRR starts zebra and vrrpd on a host with these virtual routers, each with a
// macvlan for each family, named frr4-VRID and frr6-VRID, which FRR wants to find
// ready with the addresses on it. It speaks multicast only.
//
// The macvlan of a backup has its addresses too, and is protodown: look at who
// advertises rather than at who has the address. Killed, FRR leaves it as it is.
// Stop ends vrrpd only: an ending zebra would set the devices up again.
//
// FRR runs as the user frr, which needs the real root; elsewhere the test is skipped.
func FRR(t lab.TB, h *lab.Host, routers ...VRRP) *Speaker {
	t.Helper()
	zebra, vrrpd := program(t, "/usr/lib/frr/zebra", "frr"), program(t, "/usr/lib/frr/vrrpd", "frr")
	dir := workDir(t, "frr")
	config := frrConfig(t, routers)
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "zebra.conf"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "vrrpd.conf"), []byte(config), 0o600),
		os.WriteFile(filepath.Join(dir, "devices"), []byte(frrDevices(h, routers)), 0o600),
	); err != nil {
		t.Fatalf("peers: write the files of FRR: %v", err)
	}
	if err := give(dir, "frr"); err != nil {
		// Also where everything must be there: nothing is missing.
		t.Skipf("FRR cannot run as its user here, which needs the real root: %v", err)
	}
	// Else eth0 answers for the addresses of a macvlan that is down.
	for _, key := range []string{"all/arp_ignore", "eth0/arp_ignore", "all/ignore_routes_with_linkdown"} {
		h.Sysctl("ipv4/conf/"+key, "1")
	}
	h.Run("ip", "-batch", filepath.Join(dir, "devices"))
	command := func(path string) *exec.Cmd {
		name := filepath.Base(path)
		return exec.Command(path, "--user", "frr", "--group", "frr", "--config_file", filepath.Join(dir, name+".conf"),
			"--pid_file", filepath.Join(dir, name+".pid"), "--socket", filepath.Join(dir, "zserv"),
			"--vty_socket", dir, "--vty_port", "0", "--log", "stdout", "--log-level", "info")
	}
	z := h.Start(command(zebra))
	// vrrpd that comes first asks again 10 s later.
	lab.Eventually(t, 10*time.Second, "zebra's socket", func() bool {
		_, err := os.Stat(filepath.Join(dir, "zserv"))
		return err == nil
	})
	s := &Speaker{t: t, host: h, began: time.Now(), main: h.Start(command(vrrpd)), state: frrState}
	s.procs = []*lab.Proc{s.main, z}
	return s
}

// give makes a user the owner of a directory and what is in it.
func give(dir, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	err = os.Chown(dir, uid, gid)
	for _, e := range entries {
		err = errors.Join(err, os.Chown(filepath.Join(dir, e.Name()), uid, gid))
	}
	return err
}

// frrStates are FRR's words for what all others write in capitals.
func frrStates(word string) string {
	switch word {
	case "Master", "Backup":
		return strings.ToUpper(word)
	}
	return "INIT"
}

// frrState reads "[VRID 9] [IPv4] Backup -> Master". Where both families are spoken
// it is IPv4's.
func frrState(out string, vrid uint8) string {
	for _, family := range []string{"IPv4", "IPv6"} {
		prefix := fmt.Sprintf("[VRID %d] [%s] ", vrid, family)
		for rest := out; ; {
			at := strings.LastIndex(rest, prefix)
			if at < 0 {
				break
			}
			line, _, whole := strings.Cut(out[at+len(prefix):], "\n")
			if _, to, changed := strings.Cut(line, " -> "); changed && whole {
				return frrStates(strings.TrimSpace(to))
			}
			rest = rest[:at]
		}
	}
	return ""
}

// frrDevice names the macvlan of a family.
func (v *VRRP) frrDevice(f carp.Family) string {
	n := 4
	if f == carp.IPv6 {
		n = 6
	}
	return fmt.Sprintf("frr%d-%d", n, v.VRID)
}

// frrDevices is what `ip -batch` makes the devices of that an earlier FRR has not
// left on the host.
func frrDevices(h *lab.Host, routers []VRRP) string {
	var b strings.Builder
	for i := range routers {
		for _, f := range []carp.Family{carp.IPv4, carp.IPv6} {
			if dev := routers[i].frrDevice(f); len(h.Addrs(dev)) == 0 {
				routers[i].frrMake(&b, dev, f)
			}
		}
	}
	return b.String()
}

func (v *VRRP) frrMake(b *strings.Builder, dev string, f carp.Family) {
	var addrs []netip.Prefix
	for _, a := range v.Addresses {
		if carp.FamilyOf(a.Addr()) == f {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return
	}
	mac := carp.VirtualMACOf(carp.VRRP3, f, v.VRID)
	fmt.Fprintf(b, "link add %s link eth0 type macvlan mode bridge\n", dev)
	// A link-local address made of the MAC would be the same on all nodes.
	fmt.Fprintf(b, "link set %s addrgenmode random\nlink set %s address %v\n", dev, dev, net.HardwareAddr(mac[:]))
	for _, a := range addrs {
		fmt.Fprintf(b, "addr add %v dev %s\n", a, dev)
	}
	fmt.Fprintf(b, "link set %s up\n", dev)
}

func frrConfig(t lab.TB, routers []VRRP) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("interface eth0\n")
	for i := range routers {
		v := &routers[i]
		if len(v.Peers) > 0 || v.Password != "" || v.VirtualMAC || len(v.Lines) > 0 {
			t.Fatalf("peers: FRR knows neither unicast nor authentication, and its MAC is always the virtual one")
		}
		fmt.Fprintf(&b, " vrrp %d version %d\n vrrp %d priority %d\n vrrp %d advertisement-interval %d\n",
			v.VRID, v.version(), v.VRID, v.priority(), v.VRID, v.interval().Milliseconds())
		if v.NoPreempt {
			fmt.Fprintf(&b, " no vrrp %d preempt\n", v.VRID)
		}
		for _, a := range v.Addresses {
			kind := "ip"
			if carp.FamilyOf(a.Addr()) == carp.IPv6 {
				kind = "ipv6"
			}
			fmt.Fprintf(&b, " vrrp %d %s %v\n", v.VRID, kind, a.Addr())
		}
	}
	return b.String()
}
