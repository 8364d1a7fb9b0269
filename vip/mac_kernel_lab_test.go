package vip_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
	"golang.org/x/sys/unix"
)

func deviceOn(t testing.TB, k vip.Kernel, n int) vip.Device {
	t.Helper()
	parent, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return vip.Device{Name: fmt.Sprintf("carp%d", n), Parent: parent, MAC: carp.VirtualMAC(uint8(n)), VHID: uint8(n)}
}

func ensured(t testing.TB, k vip.Kernel, n int) vip.Link {
	t.Helper()
	l, err := k.EnsureDevice(deviceOn(t, k, n))
	if err != nil {
		t.Fatalf("EnsureDevice: %v", err)
	}
	return l
}

// What the interface below was like is known to whoever removes the last device,
// whoever made the first, and though one of them was deleted by hand.
func TestLabInterfaceBelowIsAsBeforeWhoeverRemovesTheLastDevice(t *testing.T) {
	h := lab.New(t).Host("a", viptest.Own()...)
	h.Sysctl("ipv4/conf/eth0/arp_announce", "1")
	first, second := openOn(t, h), openOn(t, h)
	remove := func(k vip.Kernel, l vip.Link) {
		t.Helper()
		if err := k.RemoveDevice(l); err != nil {
			t.Errorf("RemoveDevice: %v", err)
		}
	}
	want := func(when, settingsWanted string) {
		t.Helper()
		if got := settings(h); got != settingsWanted {
			t.Errorf("%s: arp_ignore and arp_announce are %s, want %s", when, got, settingsWanted)
		}
	}
	a, b := ensured(t, first, 1), ensured(t, second, 2)
	remove(first, a)
	want("one is left", "1 2")
	remove(second, b)
	want("the maker of the second removed the last", "0 1")

	ensured(t, first, 1)
	h.Run("ip", "link", "del", "carp1")
	again := ensured(t, first, 1)
	remove(first, again)
	want("the first was deleted by hand and made again", "0 1")

	a = ensured(t, first, 1)
	h.Sysctl("ipv4/conf/eth0/arp_ignore", "2")
	remove(first, a)
	want("somebody changed arp_ignore meanwhile", "2 1")
}

// The device is deleted by hand, with its label, and then the process dies.
func TestLabInterfaceBelowIsAsBeforeThoughNobodyIsLeftToRememberIt(t *testing.T) {
	for name, tc := range map[string]struct {
		meanwhile string // arp_ignore is set to this by somebody else
		next      func(t *testing.T, k vip.Kernel)
		want      string
	}{
		"cleanup": {"", func(t *testing.T, k vip.Kernel) {
			removed, err := vip.Cleanup(k, nil, nil)
			if err != nil || fmt.Sprint(removed) != "[the changes of arp_ignore and arp_announce of eth0]" {
				t.Errorf("Cleanup: %v, %v", removed, err)
			}
			if removed, err = vip.Cleanup(k, nil, nil); err != nil || len(removed) != 0 {
				t.Errorf("Cleanup again: %v, %v", removed, err)
			}
		}, "0 1"},
		"cleanup after a change by hand": {"2", func(t *testing.T, k vip.Kernel) {
			if _, err := vip.Cleanup(k, []string{"eth0"}, nil); err != nil {
				t.Errorf("Cleanup: %v", err)
			}
		}, "2 1"},
		"the next start": {"", func(t *testing.T, k vip.Kernel) {
			if err := k.RemoveDevice(ensured(t, k, 1)); err != nil {
				t.Errorf("RemoveDevice: %v", err)
			}
		}, "0 1"},
		"the next start after a change by hand": {"2", func(t *testing.T, k vip.Kernel) {
			if err := k.RemoveDevice(ensured(t, k, 1)); err != nil {
				t.Errorf("RemoveDevice: %v", err)
			}
		}, "2 1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := lab.New(t).Host("a", viptest.Own()...)
			h.Sysctl("ipv4/conf/eth0/arp_announce", "1")
			dead := openOn(t, h)
			ensured(t, dead, 1)
			h.Run("ip", "link", "del", "carp1")
			if err := dead.Close(); err != nil {
				t.Fatal(err)
			}
			if got := settings(h); got != "1 2" {
				t.Fatalf("arp_ignore and arp_announce are %s after the death, want 1 2", got)
			}
			if tc.meanwhile != "" {
				h.Sysctl("ipv4/conf/eth0/arp_ignore", tc.meanwhile)
			}
			tc.next(t, openOn(t, h))
			if got := settings(h); got != tc.want {
				t.Errorf("arp_ignore and arp_announce are %s, want %s", got, tc.want)
			}
			if out := h.Run("ip", "link", "show", "eth0"); strings.Contains(out, "altname") {
				t.Errorf("the record is left: %s", out)
			}
		})
	}
}

// Those that are removed at once go as a group; nothing else is in it.
func TestLabDevicesRemovedAtOnceTakeNothingElseAlong(t *testing.T) {
	const count = 60
	h := lab.New(t).Host("a", viptest.Own()...)
	k := openOn(t, h)
	var links []vip.Link
	for i := range count {
		links = append(links, ensured(t, k, i+1))
	}
	h.Run("ip", "link", "add", "other0", "link", "eth0", "type", "macvlan", "mode", "private")
	h.Run("ip", "link", "add", "other1", "type", "veth", "peer", "name", "other2")
	var all sync.WaitGroup
	for _, l := range links[1:] {
		all.Go(func() {
			if err := k.RemoveDevice(l); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	now, err := k.Links()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range now {
		if l.Name != "lo" {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	if got := fmt.Sprint(names); got != "[carp1 eth0 other0 other1 other2]" {
		t.Errorf("%s are left", got)
	}
	if got := settings(h); got != "1 2" {
		t.Errorf("arp_ignore and arp_announce are %s while a device is left, want 1 2", got)
	}
	if err := k.RemoveDevice(links[0]); err != nil {
		t.Error(err)
	}
	if got := settings(h); got != "0 0" {
		t.Errorf("arp_ignore and arp_announce are %s, want 0 0", got)
	}
}

// Two processes make and remove devices on one interface at once.
func TestLabInterfaceBelowIsAsBeforeThoughTwoProcessesUseIt(t *testing.T) {
	h := lab.New(t).Host("a", viptest.Own()...)
	for round := range 10 {
		var both sync.WaitGroup
		for n := range 2 {
			k := openOn(t, h)
			d := deviceOn(t, k, n+1)
			both.Go(func() {
				for range 5 {
					l, err := k.EnsureDevice(d)
					if err == nil {
						err = k.RemoveDevice(l)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		both.Wait()
		if got := settings(h); got != "0 0" {
			t.Fatalf("round %d: arp_ignore and arp_announce are %s, want 0 0", round, got)
		}
	}
}

const withReadOnlySettings = "CARPD_TEST_READ_ONLY_SETTINGS"

// In a container /proc/sys is read-only as a rule.
func TestLabDeviceWhereSettingsAreReadOnly(t *testing.T) {
	if os.Getenv(withReadOnlySettings) == "" {
		lab.New(t) // skips where there are no namespaces
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), withReadOnlySettings+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}}
		out, err := cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "Test") {
			t.Skipf("no user namespace here: %v", err)
		}
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	accept := func(value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_ra", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other0")
	for _, accepts := range []string{"1", "0"} {
		accept(accepts)
		if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		k, err := vip.Open()
		if err != nil {
			t.Fatal(err)
		}
		l, err := k.EnsureDevice(deviceOn(t, k, 9))
		_, missing := k.Link("carp9")
		below, _ := k.Link("eth0")
		switch accepts {
		case "1":
			if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "net.ipv6.conf.default.accept_ra=0") || !errors.Is(missing, vip.ErrNoLink) || below.Quiet {
				t.Errorf("EnsureDevice: %v; then the device: %v, eth0 %+v; want a hint and nothing half made", err, missing, below)
			}
		case "0":
			if err != nil || missing != nil || !below.Quiet {
				t.Errorf("EnsureDevice where nothing is to be written to /proc/sys: %+v, %v, eth0 %+v", l, err, below)
			}
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount("/proc/sys", 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLabDeviceOnAPortOfABridgeSaysWhatToDo(t *testing.T) {
	h := lab.New(t).Host("a", viptest.Own()...)
	h.Run("ip", "link", "add", "br7", "type", "bridge")
	h.Run("ip", "link", "set", "eth0", "master", "br7")
	k := openOn(t, h)
	_, err := k.EnsureDevice(deviceOn(t, k, 9))
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "bridge") {
		t.Errorf("EnsureDevice: %v, want EBUSY and a hint", err)
	}
	if _, err := k.Link("carp9"); !errors.Is(err, vip.ErrNoLink) || settings(h) != "0 0" {
		t.Errorf("afterwards: %v, arp_ignore and arp_announce %s", err, settings(h))
	}
}

// BenchmarkDevices is what 255 virtual routers with virtual MACs cost on one
// interface: until their devices are made, all addresses are taken over at once, they
// are let go, the devices are down, they are removed, and those of a dead daemon are.
func BenchmarkDevices(b *testing.B) {
	const count = 255
	for b.Loop() {
		h := lab.New(b).Host("a", "198.51.1.1/16")
		k := openOn(b, h)
		began := time.Now()
		done := func(name string) {
			b.ReportMetric(float64(time.Since(began).Microseconds())/1000, "ms/"+name)
			began = time.Now()
		}
		asked := 0
		devices := func(like func(vip.Link) bool) int {
			if asked++; asked%20 != 0 {
				return -1 // to list them costs more than to make them
			}
			links, err := k.Links()
			if err != nil {
				b.Fatal(err)
			}
			return len(slices.DeleteFunc(links, func(l vip.Link) bool { return l.Parent == 0 || !like(l) }))
		}
		var sets []*vip.Set
		each := func(f func(i int) error) {
			var all sync.WaitGroup
			for i := range count {
				all.Go(func() {
					if err := f(i); err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
		}
		ctx, cancel := context.WithCancel(b.Context())
		var workers sync.WaitGroup
		for i := range count {
			cfg := virtual(fmt.Sprintf("198.51.100.%d/16", i+1))
			cfg.Interface, cfg.Device, cfg.VirtualMAC, cfg.VHID = "eth0", fmt.Sprintf("carp%d", i+1), carp.VirtualMAC(uint8(i+1)), uint8(i+1)
			set := vip.New(k, cfg)
			sets = append(sets, set)
			workers.Go(func() {
				if err := set.Run(ctx); err != nil {
					b.Error(err)
				}
			})
		}
		lab.Eventually(b, time.Minute, "all devices", func() bool { return devices(func(vip.Link) bool { return true }) == count })
		done("made")
		each(func(i int) error {
			sets[i].Permit(carp.Permit{Epoch: 1, Until: bootTime().Add(time.Minute)})
			return sets[i].Up(b.Context(), 1)
		})
		done("taken-over")
		each(func(i int) error { return sets[i].Down(b.Context()) })
		done("let-go")
		lab.Eventually(b, time.Minute, "all devices to be down", func() bool { return devices(func(l vip.Link) bool { return l.Up }) == 0 })
		done("down")
		cancel()
		workers.Wait()
		done("removed")
		for i := range count {
			ensured(b, k, i+1)
		}
		began = time.Now()
		if removed, err := vip.Cleanup(k, nil, nil); err != nil || len(removed) != count {
			b.Errorf("Cleanup: %d, %v", len(removed), err)
		}
		done("cleaned-up")
	}
}
