package peers

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// VRRP is one virtual router on eth0, as a foreign speaker is told of it. The zero
// value of an optional field is what the comment says.
type VRRP struct {
	VRID      uint8          // required
	Addresses []netip.Prefix // those in the advert, and how they are put up; at least one. keepalived: of one family
	Version   uint8          // 2 or 3; 0 is 3
	Priority  uint8          // 1 to 255; 0 is 100
	Interval  time.Duration  // between adverts; 0 is a second
	NoPreempt bool           // stays backup to a master of lower priority

	// What only keepalived knows; FRR ends the test if it is set.

	Source     netip.Addr   // where unicast adverts come from; required with Peers
	Peers      []netip.Addr // unicast; none is multicast
	Password   string       // version 2; 8 bytes of it count
	AH         bool         // version 2: authentication header with Password as its key
	VirtualMAC bool         // use_vmac: the addresses and the adverts have a macvlan
	Lines      []string     // more lines of the instance
}

// version returns the version that is spoken.
func (v *VRRP) version() uint8 {
	if v.Version == 0 {
		return 3
	}
	return v.Version
}

func (v *VRRP) priority() uint8 {
	if v.Priority == 0 {
		return carp.DefaultPriority
	}
	return v.Priority
}

func (v *VRRP) interval() time.Duration {
	if v.Interval == 0 {
		return carp.DefaultInterval
	}
	return v.Interval
}

// Speaker is a foreign speaker of VRRP that runs on a host. It is killed when the
// LAN is taken down. Its methods belong on the test's goroutine; State and Output
// are safe for concurrent use.
type Speaker struct {
	t     lab.TB
	host  *lab.Host
	main  *lab.Proc   // the one that speaks
	procs []*lab.Proc // with main, all that have to run
	began time.Time
	state func(out string, vrid uint8) string
}

// stopLimit bounds an orderly stop: keepalived's takes more than a second.
const stopLimit = 10 * time.Second

// Stop ends the speaker in order, by SIGTERM, and returns when it has ended. A
// master says so by an advert of priority 0.
func (s *Speaker) Stop() {
	s.t.Helper()
	s.main.Signal(syscall.SIGTERM)
	if err := s.main.Wait(stopLimit); err != nil {
		s.t.Errorf("peers: %s after SIGTERM: %v", s.host.Name, err)
	}
}

// Kill ends all of the speaker's processes by SIGKILL. What they have put up stays
// up.
func (s *Speaker) Kill() {
	for _, p := range s.procs {
		p.Kill()
	}
}

// Signal sends a signal to the process that was started, and not to its children.
func (s *Speaker) Signal(sig syscall.Signal) { s.main.Signal(sig) }

// Freeze stops all of the speaker's processes by SIGSTOP, and Thaw lets them run
// on.
func (s *Speaker) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Speaker) Thaw() { s.signal(syscall.SIGCONT) }

// signal reaches children too: each process has a group of its own.
func (s *Speaker) signal(sig syscall.Signal) {
	for _, p := range s.procs {
		select {
		case <-p.Done(): // its number may be another's by now
		default:
			_ = syscall.Kill(-p.Pid, sig) // it may have ended just now
		}
	}
}

// Running reports whether the process that speaks has not ended.
func (s *Speaker) Running() bool {
	select {
	case <-s.main.Done():
		return false
	default:
		return true
	}
}

// Output returns what the process that speaks has written so far.
func (s *Speaker) Output() string { return s.main.Output() }

// State returns MASTER, BACKUP, FAULT or INIT as the speaker last wrote of a virtual
// router, and "" before its first word.
func (s *Speaker) State(vrid uint8) string { return s.state(s.main.Output(), vrid) }

// Advertises waits for the first advert of the speaker since it was started, and
// ends the test if there is none within limit.
func (s *Speaker) Advertises(c *lab.Capture, limit time.Duration) Advert {
	s.t.Helper()
	var a Advert
	_, ok := c.WaitFor(limit, func(f lab.Frame) (is bool) {
		if f.Host == s.host.Name && f.Time.After(s.began) {
			a, is = Heard(f)
		}
		return is
	})
	if !ok {
		s.t.Fatalf("peers: no VRRP advert from %s within %v", s.host.Name, limit)
	}
	return a
}

// Advert is an advert of VRRP on the wire.
type Advert struct {
	At     time.Time
	Host   string // whose it is
	Src    netip.Addr
	Dst    netip.Addr
	SrcMAC carp.MAC
	carp.VRRPAdvert
}

// Heard decodes a frame. It is false for what is no advert of VRRP with a right
// checksum: where CARP is spoken too, look at the VRID.
func Heard(f lab.Frame) (a Advert, ok bool) {
	var packet carp.Packet
	if carp.DecodeFrame(f.Data, &packet) != carp.Accepted {
		return a, false
	}
	a = Advert{At: f.Time, Host: f.Host, Src: packet.Src, Dst: packet.Dst, SrcMAC: packet.SrcMAC}
	return a, a.Decode(packet.Payload, packet.Src, packet.Dst) == carp.Accepted
}

// program finds a program that Debian keeps where a user's path does not look, or
// skips the test.
func program(t lab.TB, fixed, pkg string) string {
	t.Helper()
	if _, err := os.Stat(fixed); err == nil {
		return fixed
	}
	if found, err := exec.LookPath(fixed[strings.LastIndexByte(fixed, '/')+1:]); err == nil {
		return found
	}
	skip(t, pkg+" is not installed: scripts/bootstrap test, or apt-get install "+pkg)
	return ""
}

// skip skips the test, or ends it where everything must be there.
func skip(t lab.TB, hint string) {
	t.Helper()
	if os.Getenv("CARPD_LAB") == "required" {
		t.Fatal(hint)
	}
	t.Skip(hint)
}

// workDir makes a directory for a speaker's files. The path of a socket may have
// 107 bytes, and another user must get there: TempDir promises neither.
func workDir(t lab.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "carpd-"+name)
	if err != nil {
		t.Fatalf("peers: make a directory for %s: %v", name, err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// lastWord returns what out says last between before and after, "" if nothing.
func lastWord(out, before, after string) string {
	at := strings.LastIndex(out, before)
	if at < 0 {
		return ""
	}
	word, _, whole := strings.Cut(out[at+len(before):], after)
	if !whole {
		return lastWord(out[:at], before, after) // the rest of the line is on its way
	}
	return word
}
