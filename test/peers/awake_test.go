package peers_test

import (
	"encoding/binary"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	// What is built below, so that a change of it is not met with a cached result.
	_ "github.com/carpd/carpd/cmd/daemon"
	_ "github.com/carpd/carpd/cmd/daemon/standard"
	"github.com/carpd/carpd/test/lab"
)

// Timers of a second or less mean little where nothing runs for that long.
const (
	stoodStill = 150 * time.Millisecond // what a failed test is not blamed for
	attempts   = 3
)

// awake runs body, and again if it failed while the machine stood still, which no
// speaker can help. A failure on a machine that runs counts at once.
func awake(t *testing.T, body func(lab.TB)) {
	t.Helper()
	for n := 1; ; n++ {
		stop := pulse()
		err := lab.Run(t.Name(), func(line string) { t.Log(line) }, body)
		still := stop()
		switch {
		case err == nil:
			return
		case errors.Is(err, lab.ErrSkipped):
			t.Skip(err)
		case still < stoodStill || n == attempts:
			t.Fatalf("attempt %d, in which a ticker of 10 ms in this process, or the kernel's lock of all interfaces, stood still for up to %v: %v", n, still, err)
		}
		t.Logf("once more, since the machine stood still for %v: %v", still, err)
	}
}

// pulse measures until stop is called how long nothing ran in this process: the
// longest wait for a ticker of 10 ms. Nor does anything run that changes an address
// while another test's namespaces are taken down, which holds a lock of all
// interfaces: the longest wait for that counts as well.
func pulse() (stop func() time.Duration) {
	done, longest := make(chan struct{}), make(chan time.Duration, 2)
	watch := func(every time.Duration, look func()) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		last, gap := time.Now(), time.Duration(0)
		for {
			select {
			case <-tick.C:
				look()
				gap = max(gap, time.Since(last))
				last = time.Now()
			case <-done:
				longest <- max(gap, time.Since(last))
				return
			}
		}
	}
	go watch(10*time.Millisecond, func() {})
	go watch(50*time.Millisecond, takeInterfaceLock)
	return func() time.Duration {
		close(done)
		return max(<-longest, <-longest)
	}
}

// takeInterfaceLock asks the kernel to change an interface that does not exist, for
// which it takes the lock before it looks.
func takeInterfaceLock() {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], unix.RTM_SETLINK)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(m[unix.SizeofNlMsghdr+4:], 1<<30) // the index
	if unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) == nil {
		_, _, _ = unix.Recvfrom(fd, m, 0) // returns with the answer; what it says does not matter
	}
}

// build builds carpd and returns its path.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "carpd")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/carpd/carpd/cmd/carpd").CombinedOutput(); err != nil {
		t.Fatalf("build carpd: %v\n%s", err, out)
	}
	return binary
}
