package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// Keepalived starts keepalived on a host with these virtual routers, which it calls
// vrVRID-FAMILY. It runs in the foreground with files of its own, and without
// syslog: where no syslog runs it would write to the console instead.
//
// Only a clean stop takes the addresses down: killed, keepalived leaves them up.
// Its worker is a child in the same process group, so that Kill ends both; one
// that is killed alone is started again by its parent.
func Keepalived(t lab.TB, h *lab.Host, routers ...VRRP) *Speaker {
	t.Helper()
	return keepalived(t, h, keepalivedConfig(routers))
}

// KeepalivedRealTime is Keepalived with SCHED_RR and locked memory, which it does not
// use by itself: vrrp_rt_priority 10, vrrp_no_swap.
func KeepalivedRealTime(t lab.TB, h *lab.Host, routers ...VRRP) *Speaker {
	t.Helper()
	return keepalived(t, h, "global_defs {\n  vrrp_rt_priority 10\n  vrrp_rlimit_rttime 10000000\n  vrrp_no_swap\n}\n"+keepalivedConfig(routers))
}

func keepalived(t lab.TB, h *lab.Host, text string) *Speaker {
	t.Helper()
	path := program(t, "/usr/sbin/keepalived", "keepalived")
	dir := workDir(t, "keepalived")
	config := filepath.Join(dir, "keepalived.conf")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatalf("peers: write %s: %v", config, err)
	}
	cmd := exec.Command(path, "--dont-fork", "--vrrp", "--log-console", "--no-syslog",
		"--use-file="+config, "--pid="+filepath.Join(dir, "pid"), "--vrrp_pid="+filepath.Join(dir, "worker.pid"))
	s := &Speaker{t: t, host: h, began: time.Now(), main: h.Start(cmd), state: keepalivedState}
	s.procs = []*lab.Proc{s.main}
	return s
}

// keepalivedState reads "(vr9-4) Entering BACKUP STATE (init)".
func keepalivedState(out string, vrid uint8) string {
	prefix := fmt.Sprintf("(vr%d-", vrid)
	for _, family := range []string{"4", "6"} {
		if word := lastWord(out, prefix+family+") Entering ", " STATE"); word != "" {
			return word
		}
	}
	return ""
}

func keepalivedConfig(routers []VRRP) string {
	var b strings.Builder
	for i := range routers {
		routers[i].keepalived(&b)
	}
	return b.String()
}

// keepalived writes one vrrp_instance.
func (v *VRRP) keepalived(b *strings.Builder) {
	family := 4
	if carp.FamilyOf(v.Addresses[0].Addr()) == carp.IPv6 {
		family = 6
	}
	state := "BACKUP"
	if v.priority() == carp.OwnerPriority {
		state = "MASTER" // else it warns, and does the same
	}
	line := func(format string, args ...any) { fmt.Fprintf(b, "  "+format+"\n", args...) }
	fmt.Fprintf(b, "vrrp_instance vr%d-%d {\n", v.VRID, family)
	line("interface eth0")
	line("state %s", state)
	line("version %d", v.version())
	line("virtual_router_id %d", v.VRID)
	line("priority %d", v.priority())
	line("advert_int %s", strconv.FormatFloat(v.interval().Seconds(), 'f', -1, 64))
	if v.NoPreempt {
		line("nopreempt")
	}
	if family == 6 {
		line("native_ipv6")
	}
	if v.VirtualMAC {
		line("use_vmac vrrp%d-%d", family, v.VRID)
	}
	if len(v.Peers) > 0 {
		line("unicast_src_ip %v", v.Source)
		line("unicast_peer {")
		for _, p := range v.Peers {
			line("  %v", p)
		}
		line("}")
	}
	if v.Password != "" {
		kind := "PASS"
		if v.AH {
			kind = "AH"
		}
		line("authentication {\n    auth_type %s\n    auth_pass %q\n  }", kind, v.Password)
	}
	for _, more := range v.Lines {
		line("%s", more)
	}
	line("virtual_ipaddress {")
	for _, a := range v.Addresses {
		line("  %v", a)
	}
	b.WriteString("  }\n}\n")
}
