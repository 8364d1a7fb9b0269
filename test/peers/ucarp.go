// Package peers runs foreign speakers of CARP and VRRP on the hosts of a lab, so that
// tests can meet them: what ucarp, keepalived and FRR do is what ours must get along
// with.
//
// A peer that is not installed skips the test; with CARPD_LAB=required the test
// fails instead.
package peers

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/carpd/carpd/test/lab"
)

// UcarpOptions is how ucarp is run. The zero value of an optional field leaves
// ucarp's default.
type UcarpOptions struct {
	VHID     uint8        // required
	Password string       // required
	Source   netip.Addr   // the host's own IPv4 address; required
	Address  netip.Prefix // the shared IPv4 address, and how it is put up; required

	AdvBase   uint8 // seconds; 0 is 1
	AdvSkew   uint8 // 1/256 s
	DeadRatio int   // intervals without an advert before it takes over; 0 is 3
	Preempt   bool  // takes over from a slower master at once
	Shutdown  bool  // takes the address down when it ends
	Neutral   bool  // leaves the address alone when it starts as backup
}

// Ucarp starts ucarp on eth0 of a host. Its scripts add and delete the address,
// and write "vip-up" and "vip-down" to the output.
//
// Only a clean stop with Shutdown takes the address down: killed, ucarp leaves
// it up, and that is how it is.
func Ucarp(t lab.TB, h *lab.Host, o UcarpOptions) *lab.Proc {
	t.Helper()
	path := program(t, "/usr/sbin/ucarp", "ucarp")
	dir := t.TempDir()
	up := script(t, dir, "vip-up", "replace", o.Address)
	down := script(t, dir, "vip-down", "del", o.Address)
	args := []string{
		"--interface=eth0", "--srcip=" + o.Source.String(), "--addr=" + o.Address.Addr().String(),
		"--vhid=" + strconv.Itoa(int(o.VHID)), "--pass=" + o.Password,
		"--advbase=" + strconv.Itoa(max(1, int(o.AdvBase))), "--advskew=" + strconv.Itoa(int(o.AdvSkew)),
		"--upscript=" + up, "--downscript=" + down,
	}
	if o.DeadRatio > 0 {
		args = append(args, "--deadratio="+strconv.Itoa(o.DeadRatio))
	}
	for flag, on := range map[string]bool{"--preempt": o.Preempt, "--shutdown": o.Shutdown, "--neutral": o.Neutral} {
		if on {
			args = append(args, flag)
		}
	}
	return h.Start(exec.Command(path, args...))
}

// script writes a script for ucarp, which runs it without arguments that matter.
func script(t lab.TB, dir, name, verb string, p netip.Prefix) string {
	t.Helper()
	path := filepath.Join(dir, name)
	text := "#!/bin/sh\necho " + name + "\nPATH=$PATH:/usr/sbin:/sbin exec ip addr " + verb + " " + p.String() + " dev eth0\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatalf("peers: write %s: %v", name, err)
	}
	return path
}
