package fifo

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

func open(t *testing.T, c Config) hooks.Hook {
	t.Helper()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func pathOf(t *testing.T) string { return filepath.Join(t.TempDir(), "notify") }

// reader returns the lines of a pipe, without waiting for a writer.
func reader(t *testing.T, path string) *bufio.Reader {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(f)
}

func expect(t *testing.T, r *bufio.Reader, want ...string) {
	t.Helper()
	for _, w := range want {
		if got, err := r.ReadString('\n'); err != nil || got != w+"\n" {
			t.Fatalf("got %q, %v; want %q", got, err, w)
		}
	}
}

func run(t *testing.T, h hooks.Hook, ev hooks.Event) {
	t.Helper()
	if err := h.Run(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	path := pathOf(t)
	hookstest.Conformance(t, func() hooks.Hook { return open(t, Config{Path: path}) })
}

func TestLinesWaitForAReaderAndComeInOrder(t *testing.T) {
	path := pathOf(t)
	one, two := open(t, Config{Path: path}), open(t, Config{Path: path, Name: "VI_2", Priority: 50})
	up, down := hookstest.SampleEvent(hooks.AfterUp), hookstest.SampleEvent(hooks.AfterDown)
	stop, fault := down, down
	stop.Reason, stop.To = carp.ReasonStopping, carp.Init
	fault.Reason, fault.To = carp.ReasonLinkDown, carp.Init
	run(t, one, up)
	run(t, two, down)
	run(t, one, fault)
	r := reader(t, path)
	run(t, two, stop)
	expect(t, r, `INSTANCE "9@eth0" MASTER 100`, `INSTANCE "VI_2" BACKUP 50`, `INSTANCE "9@eth0" FAULT 100`, `INSTANCE "VI_2" STOP 50`)
}

func TestReaderThatComesAgainMissesNothing(t *testing.T) {
	path := pathOf(t)
	h := open(t, Config{Path: path})
	run(t, h, hookstest.SampleEvent(hooks.AfterUp))
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, bufio.NewReader(f), `INSTANCE "9@eth0" MASTER 100`)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, h, hookstest.SampleEvent(hooks.AfterDown))
	expect(t, reader(t, path), `INSTANCE "9@eth0" BACKUP 100`)
}

// fill writes until the pipe is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for err == nil {
		_ = f.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = f.WriteString("x\n")
	}
}

func TestFullPipeIsWaitedForNoLongerThanItSays(t *testing.T) {
	path := pathOf(t)
	wait := 100 * time.Millisecond
	h := open(t, Config{Path: path, Wait: wait})
	run(t, h, hookstest.SampleEvent(hooks.AfterUp))
	fill(t, path)
	began := time.Now()
	err := h.Run(t.Context(), hookstest.SampleEvent(hooks.AfterDown))
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "its reader does not read") || took > 5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	wait = time.Minute
	began = time.Now()
	err = open(t, Config{Path: path, Wait: wait}).Run(ctx, hookstest.SampleEvent(hooks.AfterDown))
	if took := time.Since(began); !errors.Is(err, context.Canceled) || took > 5*time.Second {
		t.Errorf("cancelled: %v after %v", err, took)
	}
}

func TestFullPipeTakesTheLineWhenTheReaderReads(t *testing.T) {
	path := pathOf(t)
	wait := time.Minute
	h := open(t, Config{Path: path, Wait: wait})
	run(t, h, hookstest.SampleEvent(hooks.AfterUp))
	fill(t, path)
	done := make(chan error, 1)
	go func() { done <- h.Run(t.Context(), hookstest.SampleEvent(hooks.AfterDown)) }()
	r := reader(t, path)
	expect(t, r, `INSTANCE "9@eth0" MASTER 100`)
	for line := "x\n"; line == "x\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil || line != "x\n" && line != "INSTANCE \"9@eth0\" BACKUP 100\n" {
			t.Fatalf("got %q, %v", line, err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPipeIsMadeForItsReaderAlone(t *testing.T) {
	path := pathOf(t)
	run(t, open(t, Config{Path: path}), hookstest.SampleEvent(hooks.AfterUp))
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeNamedPipe|0o600 {
		t.Errorf("made %v, %v", info.Mode(), err)
	}
}

func TestPipeThatWasReplacedIsOpenedAgain(t *testing.T) {
	path := pathOf(t)
	h := open(t, Config{Path: path})
	run(t, h, hookstest.SampleEvent(hooks.AfterUp))
	for _, again := range []func() error{
		func() error { return os.Remove(path) },
		func() error { return errors.Join(os.Rename(path, path+".old"), unix.Mkfifo(path, 0o600)) },
	} {
		if err := again(); err != nil {
			t.Fatal(err)
		}
		run(t, h, hookstest.SampleEvent(hooks.AfterDown))
		expect(t, reader(t, path), `INSTANCE "9@eth0" BACKUP 100`)
	}
}

func TestWhatIsNoPipeOfOursIsRefused(t *testing.T) {
	for want, put := range map[string]func(path string) error{
		"it is no named pipe": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"no named pipe":       func(path string) error { return os.Symlink("/dev/null", path) },
		"belongs to user id 65534": func(path string) error {
			if os.Geteuid() != 0 {
				return errors.ErrUnsupported
			}
			return errors.Join(unix.Mkfifo(path, 0o600), os.Chown(path, 65534, 65534))
		},
	} {
		path := pathOf(t)
		switch err := put(path); {
		case errors.Is(err, errors.ErrUnsupported), errors.Is(err, unix.EINVAL):
			t.Logf("not tried: %s: there is no other user here", want)
			continue
		case err != nil:
			t.Fatal(err)
		}
		if err := open(t, Config{Path: path}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestConfigurationThatCannotWorkIsRefusedWithAllItsFaults(t *testing.T) {
	wait := 2 * time.Minute
	_, err := New(Config{Path: "notify", Name: "a\"b", Priority: 256, User: "no-such-user-here", Wait: wait})
	for _, want := range []string{"absolute path", "no quotes", "0 to 255", "no such user", "1ms to 1m"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no path is accepted")
	}
}
