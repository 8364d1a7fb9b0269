package peers

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	words "github.com/carpd/carpd/hooks/keepalived"
	"github.com/carpd/carpd/test/lab"
)

// TestLabLinesOfOurFIFOAreThoseOfKeepalived lets keepalived itself write to a
// notify_fifo.
func TestLabLinesOfOurFIFOAreThoseOfKeepalived(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	h := lan.Host("a", "10.9.0.1/16")
	path := filepath.Join(t.TempDir(), "notify")
	lines := linesOf(t, path)
	text := fmt.Sprintf("global_defs {\n  notify_fifo %s\n}\n", path) +
		keepalivedConfig([]VRRP{{VRID: 9, Priority: 77, Addresses: shared4, Interval: tenth}})
	said := func(want ...hooks.Event) {
		t.Helper()
		var all []string
		for _, ev := range want {
			all = append(all, words.Line("vr9-4", ev, 77))
		}
		lab.Eventually(t, 10*time.Second, fmt.Sprintf("keepalived to write %q", all), func() bool {
			got := lines()
			return len(got) >= len(all) && slices.Equal(got[:len(all)], all)
		})
	}
	var backup, master, stop = hooks.Event{To: carp.Backup}, hooks.Event{To: carp.Master}, hooks.Event{To: carp.Init, Reason: carp.ReasonStopping}
	fault := hooks.Event{To: carp.Init, Reason: carp.ReasonLinkDown}
	k := keepalived(t, h, text)
	said(backup, master)
	h.SetLink(false)
	said(backup, master, fault)
	h.SetLink(true)
	said(backup, master, fault, backup, master)
	k.Stop()
	said(backup, master, fault, backup, master, stop)
}

// linesOf makes a named pipe and returns what asks for the lines that came so far.
func linesOf(t *testing.T, path string) func() []string {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for r := bufio.NewReader(f); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, line)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		f.Close()
		<-ended
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}
