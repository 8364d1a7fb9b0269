package vip_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

func TestBatchFitsInTheBuffers(t *testing.T) {
	for _, tc := range []struct{ receive, send, want int }{
		{8 << 20, 8 << 20, 32},
		{16384, 8 << 20, 16},
		{8 << 20, 2560, 20},
		{0, 0, 1},
	} {
		if got := vip.BatchLimit(tc.receive, tc.send); got != tc.want {
			t.Errorf("buffers of %d and %d bytes: %d messages, want %d", tc.receive, tc.send, got, tc.want)
		}
	}
}

// subnet returns changes of a thousand addresses of one IPv4 subnet: without
// promote_secondaries the first to go takes the others along, and the kernel
// answers each of the others' removals with an error.
func subnet(op vip.ChangeOp, l vip.Link) (out []vip.Change) {
	for i := range 1000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 16)
		out = append(out, vip.Change{Op: op, Index: l.Index, Link: l.Name, Prefix: p, Valid: vip.Forever})
	}
	return out
}

// wantMarked applies the changes without an error and counts what is marked then.
func wantMarked(t *testing.T, k vip.Kernel, l vip.Link, want int, changes []vip.Change) {
	t.Helper()
	if err := k.Apply(changes); err != nil {
		t.Errorf("Apply: %v", err)
	}
	addrs, err := k.Addrs(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(slices.DeleteFunc(addrs, func(a vip.Addr) bool { return a.Mark != vip.Mark })); n != want {
		t.Errorf("%d addresses are on, want %d", n, want)
	}
}

func TestLabLostAnswersAreMadeUpForByAList(t *testing.T) {
	h := lab.New(t).Host("a", "192.0.2.1/24")
	h.Sysctl("ipv4/conf/all/promote_secondaries", "0")
	h.Sysctl("ipv4/conf/eth0/promote_secondaries", "0")
	k := openOn(t, h)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := vip.Crowd(k); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantMarked(t, k, l, 1000, subnet(vip.Put, l))
		wantMarked(t, k, l, 0, subnet(vip.Remove, l))
	}
	// What did not work is told all the same.
	changes := subnet(vip.Put, l)
	for i := 100; i < 200; i++ {
		changes[i].Index = 987654
	}
	err = k.Apply(changes)
	op, ok := errors.AsType[*vip.OpError](err)
	if !ok || op.Addr != changes[100].Prefix || op.More != 99 {
		t.Errorf("Apply: %v, want an OpError of %v and 99 more", err, changes[100].Prefix)
	}
	wantMarked(t, k, l, 0, subnet(vip.Remove, l))
}

const inUserNamespace = "CARPD_TEST_USER_NAMESPACE"

// In a user namespace no buffer may be made larger than net.core.rmem_max.
func TestLabThousandAddressesInAUserNamespace(t *testing.T) {
	if os.Getenv(inUserNamespace) == "" {
		lab.New(t) // skips where there are no namespaces
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), inUserNamespace+"=1")
		root := []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, UidMappings: root, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}}
		out, err := cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "Test") {
			t.Skipf("no user namespace here: %v", err)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, name := range []string{"all", "lo"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/promote_secondaries", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	k, err := vip.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	l, err := k.Link("lo")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantMarked(t, k, l, 1000, subnet(vip.Put, l))
		wantMarked(t, k, l, 0, subnet(vip.Remove, l))
	}
}

func TestLabConversationsAreSharedAndEachGetsItsOwnAnswers(t *testing.T) {
	k := openOn(t, lab.New(t).Host("a", "192.0.2.1/24"))
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	const callers = 64
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		wg.Go(func() {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 32)
			changes := []vip.Change{{Op: vip.Put, Index: l.Index, Link: l.Name, Prefix: p, Valid: time.Minute}}
			if i%3 == 0 { // no such interface: the second of two fails
				changes = append(changes, vip.Change{Op: vip.Put, Index: 9999, Link: "none", Prefix: p, Valid: time.Minute})
			}
			errs[i] = k.Apply(changes)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if (i%3 == 0) != errors.Is(err, vip.ErrNoLink) {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	wantMarked(t, k, l, callers, nil)
}
