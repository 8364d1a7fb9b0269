package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/cmd/daemon/config"
)

// rehearseKey makes the second self rehearse the stage rather than play.
const rehearseKey = "CARPD_DEMO_REHEARSE"

func TestMain(m *testing.M) {
	if _, inside := os.LookupEnv(insideKey); !inside {
		os.Exit(m.Run())
	}
	if os.Getenv(rehearseKey) == "" {
		_ = Run(context.Background(), os.Stdout, Options{}) // exits
	}
	o, _, err := insideOptions()
	if err == nil {
		err = rehearse(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func t0(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestOverlapFindsTwoHoldersAndNothingElse(t *testing.T) {
	type change struct {
		node string
		has  bool
		ms   int
	}
	for _, c := range []struct {
		name    string
		changes []change
		overlap int
	}{
		{"nobody", nil, 0},
		{"one", []change{{"a", true, 0}}, 0},
		{"released first", []change{{"a", true, 0}, {"a", false, 10}, {"b", true, 11}}, 0},
		{"renewals are one spell", []change{{"a", true, 0}, {"a", true, 5}, {"a", false, 10}, {"b", true, 10}}, 0},
		{"taken too early", []change{{"a", true, 0}, {"b", true, 7}, {"a", false, 10}}, 3},
		{"never released", []change{{"a", true, 0}, {"b", true, 60}}, 40},
		{"swallowed", []change{{"a", true, 0}, {"b", true, 7}, {"b", false, 9}, {"a", false, 50}}, 2},
		{"there and back", []change{{"a", true, 0}, {"a", false, 1}, {"b", true, 2}, {"b", false, 3}, {"a", true, 4}}, 0},
	} {
		w := newWorld()
		for _, ch := range c.changes {
			w.hold(ch.node, ch.has, t0(ch.ms))
		}
		if _, _, d := w.overlap(t0(100)); d != time.Duration(c.overlap)*time.Millisecond {
			t.Errorf("%s: overlap %v, want %d ms", c.name, d, c.overlap)
		}
	}
}

func TestLongestGapCountsBothEnds(t *testing.T) {
	for _, c := range []struct {
		answers       []int
		from, to, gap int
	}{
		{nil, 0, 50, 50},
		{[]int{1, 2, 30, 31}, 0, 32, 28},
		{[]int{1, 2}, 0, 32, 30},
		{[]int{20, 21}, 0, 22, 20},
		{[]int{1, 90, 91, 93}, 90, 94, 2},
	} {
		var times []time.Time
		for _, ms := range c.answers {
			times = append(times, t0(ms))
		}
		if got := longestGap(times, t0(c.from), t0(c.to)); got != time.Duration(c.gap)*time.Millisecond {
			t.Errorf("%v in [%d, %d]: %v, want %d ms", c.answers, c.from, c.to, got, c.gap)
		}
	}
}

func TestEchoRequestHasAGoodChecksum(t *testing.T) {
	for _, seq := range []uint16{0, 1, 255, 256, 0x2d5f, 0x2db6, 65535} {
		var sum uint32
		msg := echoRequest(seq)
		for i := 0; i < len(msg); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(msg[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		if sum != 0xffff {
			t.Errorf("seq %d: the sum is %#x, want 0xffff", seq, sum)
		}
	}
}

func TestEchoReplyOfOthersIsNotOurs(t *testing.T) {
	from := netip.MustParseAddr("192.0.2.50")
	good := append(make([]byte, 20), 0, 0, 0, 0, probeID>>8, probeID&0xff, 0, 1)
	good[0] = 0x45
	copy(good[12:], from.AsSlice())
	if !isEchoReply(good, from) {
		t.Fatal("a good reply is refused")
	}
	for name, spoil := range map[string]func(b []byte) []byte{
		"short":          func(b []byte) []byte { return b[:27] },
		"empty":          func(b []byte) []byte { return nil },
		"long header":    func(b []byte) []byte { b[0] = 0x4f; return b },
		"no header":      func(b []byte) []byte { b[0] = 0x40; return b },
		"a request":      func(b []byte) []byte { b[20] = 8; return b },
		"another id":     func(b []byte) []byte { b[25]++; return b },
		"another sender": func(b []byte) []byte { b[15]++; return b },
	} {
		if isEchoReply(spoil(bytes.Clone(good)), from) {
			t.Errorf("%s: taken for ours", name)
		}
	}
}

func TestInnermostPIDIsOurNumber(t *testing.T) {
	for text, want := range map[string]int{
		"Name:\tx\nNSpid:\t4711\t12\nNSpgid:\t1\n": 12,
		"NSpid:\t7\n": 7, "NSpid:\n": 0, "Name:\tx\n": 0, "NSpid:\tx\n": 0,
	} {
		if got := innermostPID(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// addressMessage is a netlink message as the kernel sends it.
func addressMessage(kind uint16, attrs ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg)
	for _, a := range attrs {
		b = append(b, a...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return b
}

func attr(kind uint16, size int, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(size))
	return append(binary.NativeEndian.AppendUint16(b, kind), value...)
}

func TestAddressChangesReadsWhatConcernsUsAndSurvivesTheRest(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.50")
	ours := attr(unix.IFA_LOCAL, 8, addr.AsSlice()...)
	label := attr(unix.IFA_LABEL, 9, 'e', 't', 'h', '0', 0, 0, 0, 0)
	for name, c := range map[string]struct {
		message []byte
		want    []bool
	}{
		"added":            {addressMessage(unix.RTM_NEWADDR, label, ours), []bool{true}},
		"deleted":          {addressMessage(unix.RTM_DELADDR, ours, label), []bool{false}},
		"both":             {append(addressMessage(unix.RTM_NEWADDR, ours), addressMessage(unix.RTM_DELADDR, ours)...), []bool{true, false}},
		"another address":  {addressMessage(unix.RTM_NEWADDR, attr(unix.IFA_LOCAL, 8, 192, 0, 2, 51)), nil},
		"another message":  {addressMessage(unix.RTM_NEWROUTE, ours), nil},
		"attribute of 0":   {addressMessage(unix.RTM_NEWADDR, attr(unix.IFA_LOCAL, 0, 1, 2, 3, 4)), nil},
		"attribute beyond": {addressMessage(unix.RTM_NEWADDR, attr(unix.IFA_LOCAL, 80, 1, 2, 3, 4)), nil},
		"cut":              {addressMessage(unix.RTM_NEWADDR, ours)[:20], nil},
		"empty":            {nil, nil},
	} {
		if got := addressChanges(c.message, addr); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestPcapngIsWrittenByteForByte(t *testing.T) {
	var out bytes.Buffer
	p, err := newPcapng(&out, 1<<20, []string{"a", "client"})
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := p.write(1, time.Unix(1, 5), []byte{0xaa, 0xbb, 0xcc, 0xdd, 0xee}); err != nil {
		t.Fatal(err)
	}
	want := []byte{
		6, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, // packet block, length, interface 1
		0, 0, 0, 0, 5, 0xca, 0x9a, 0x3b, // 1 000 000 005 ns
		5, 0, 0, 0, 5, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0, 0, 0,
		40, 0, 0, 0,
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("packet block\n%x, want\n%x", out.Bytes(), want)
	}
}

func TestPcapngStopsAtItsLimit(t *testing.T) {
	var out bytes.Buffer
	p, err := newPcapng(&out, 1000, []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err = p.write(0, t0(0), make([]byte, 99)); err != nil {
			break
		}
	}
	if !errors.Is(err, errFull) || out.Len() > 1000 || out.Len() < 700 {
		t.Errorf("%v after %d bytes, want errFull just below 1000", err, out.Len())
	}
}

func TestConfigTextIsAccepted(t *testing.T) {
	dir := t.TempDir()
	n, err := newNode(&host{name: "a"}, "carpd", dir, filepath.Join(dir, "run"), 100)
	if err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(n.config())
	if err != nil {
		t.Fatal(err)
	}
	i := f.Instances[0]
	if f.Node != "a" || f.Control != filepath.Join(n.run, "carpd.sock") || i.VHID != vhid || i.Interface != "eth0" || i.AdvSkew != 100 || i.Preempt {
		t.Errorf("read back as %+v", f)
	}
	if len(f.Warnings) != 0 {
		t.Errorf("warnings: %v", f.Warnings)
	}
}

// rehearse runs inside: everything but carpd, with the address moved by hand.
func rehearse(o Options) error {
	s := &stage{options: o, tell: newTeller(os.Stdout), world: newWorld()}
	if err := s.build(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var err error
	if s.prober, err = newProber(s.client, s.shared.Addr()); err != nil {
		return err
	}
	move := func(verb, node string) error { return ip("-n", node, "addr", verb, sharedPrefix, "dev", "eth0") }
	if err := move("add", "a"); err != nil {
		return err
	}
	if err := s.await(ctx, 5*time.Second, "a to hold", nil, func() bool { return s.world.holds("a") }); err != nil {
		return err
	}
	if err := s.awaitClient(ctx); err != nil {
		return err
	}
	// A process that leaves its group and session belongs to the host all the same.
	cmd := exec.Command("sh", "-c", "setsid sleep 1000 & wait")
	if err := s.a.do(cmd.Start); err != nil {
		return err
	}
	if err := s.await(ctx, 5*time.Second, "two processes on a", nil, func() bool { p, _ := s.a.pids(); return len(p) == 2 }); err != nil {
		return err
	}
	if n, err := s.a.killAll(); err != nil || n != 2 {
		return fmt.Errorf("killed %d, %v; want 2", n, err)
	}
	if err := errors.Join(move("add", "b"), move("del", "a")); err != nil {
		return err
	}
	if err := s.await(ctx, 5*time.Second, "b alone to hold", nil, func() bool { return s.world.holds("b") && !s.world.holds("a") }); err != nil {
		return err
	}
	one, other, d := s.world.overlap(time.Now())
	fmt.Printf("overlap of %s and %s: %v\n", one, other, d > 0)
	return s.close()
}

// needNamespaces skips where the demo cannot run; CARPD_LAB=required fails.
func needNamespaces(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), hintNamespaces) && os.Getenv("CARPD_LAB") != "required" {
		t.Skip(err)
	}
}

func TestLabStageIsBuiltAndLeavesNothing(t *testing.T) {
	t.Setenv(rehearseKey, "1")
	before, _ := os.ReadDir("/run/netns")
	var out bytes.Buffer
	pcap := filepath.Join(t.TempDir(), "x.pcapng")
	err := enter(t.Context(), &out, Options{Pcap: pcap})
	needNamespaces(t, err)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"a: has the address", "a: no longer has", "b: has the address", "overlap of a and b: true"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story lacks %q:\n%s", want, out.String())
		}
	}
	if after, _ := os.ReadDir("/run/netns"); len(after) != len(before) {
		t.Errorf("/run/netns had %d entries and has %d", len(before), len(after))
	}
	if _, err := os.Stat(privateDir); !os.IsNotExist(err) {
		t.Errorf("%s is seen outside: %v", privateDir, err)
	}
	if st, err := os.Stat(pcap); err != nil || st.Size() < 1000 {
		t.Errorf("capture: %v, %v", st, err)
	}
}

func TestPathsBelowRunAreRefused(t *testing.T) {
	for _, o := range []Options{{Pcap: "/run/x.pcapng"}, {Binary: "/var/run/carpd"}, {Dir: "/run"}} {
		if err := Run(t.Context(), io.Discard, o); err == nil || !strings.Contains(err.Error(), "a /run of its own") {
			t.Errorf("%+v: %v, want refused", o, err)
		}
	}
}

func TestLabDemoFailsWhenTheDaemonDoes(t *testing.T) {
	var out bytes.Buffer
	err := Run(t.Context(), &out, Options{Binary: "/bin/false", Pcap: filepath.Join(t.TempDir(), "x.pcapng")})
	needNamespaces(t, err)
	if err == nil || !strings.Contains(err.Error(), "carpd on a ended") {
		t.Errorf("%v, want that carpd on a ended\n%s", err, out.String())
	}
}

func TestLabDemoEndsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	// A daemon that runs and does nothing, with a child that ignores SIGTERM.
	idle := filepath.Join(dir, "idle")
	if err := os.WriteFile(idle, []byte("#!/bin/sh\ntrap '' TERM\necho started\nsleep 1000 & wait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := &trigger{on: "the client asks", then: cancel}
	begin := time.Now()
	err := Run(ctx, out, Options{Binary: idle, Pcap: filepath.Join(dir, "x.pcapng"), Dir: dir})
	needNamespaces(t, err)
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("%v, want interrupted", err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
	if log, _ := os.ReadFile(filepath.Join(dir, "a", "carpd.log")); !strings.Contains(string(log), "started") {
		t.Errorf("Dir keeps no log of a: %q", log)
	}
}

// trigger is a writer that calls then when it sees a text.
type trigger struct {
	seen strings.Builder
	on   string
	then func()
}

func (w *trigger) Write(b []byte) (int, error) {
	w.seen.Write(b)
	if strings.Contains(w.seen.String(), w.on) {
		w.then()
	}
	return len(b), nil
}

func TestLabDemoTellsTheWholeStory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "carpd")
	if text, err := exec.Command("go", "build", "-o", binary, "github.com/carpd/carpd/cmd/carpd").CombinedOutput(); err != nil {
		t.Fatalf("build carpd: %v\n%s", err, text)
	}
	var out bytes.Buffer
	err := Run(t.Context(), &out, Options{Binary: binary, Pcap: filepath.Join(dir, "x.pcapng")})
	needNamespaces(t, err)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"1. Election", "2. kill -9", "3. The old master", "4. A planned handover", "5. Both stop", "Everything happened", "tcpdump"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story lacks %q:\n%s", want, out.String())
		}
	}
	t.Log(out.String())
}
