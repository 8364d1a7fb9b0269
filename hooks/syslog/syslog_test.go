package syslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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

// datagrams listens and returns what asks for the next message.
func datagrams(t *testing.T, network, address string) (to string, next func() string) {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String(), func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

// streams listens and returns what waits for the next connection and all that came.
func streams(t *testing.T, network, address string, serve func(net.Conn) string) (to string, next func() string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			got <- serve(conn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return l.Addr().String(), func() string {
		t.Helper()
		select {
		case s := <-got:
			return s
		case <-time.After(10 * time.Second):
			t.Fatal("nothing came")
		}
		return ""
	}
}

func readAll(conn net.Conn) string {
	defer conn.Close()
	b, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestConformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 4096); ; {
			if _, err := conn.Read(b); err != nil {
				return
			}
		}
	}()
	defer func() {
		conn.Close()
		<-ended
	}()
	hookstest.Conformance(t, func() hooks.Hook { return open(t, Config{To: path}) })
}

// stamp is the time of a message.
var stamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)`)

func TestServerGetsMessagesOfRFC5424(t *testing.T) {
	host, _ := os.Hostname()
	c := Config{Priority: "local0.notice", Tag: "CARP-PROXYSQL", Message: "$name is ${to}: $$", Structured: "carp@32473"}
	want := "<133>1 TIME " + host + ` CARP-PROXYSQL - after-up [carp@32473 name="9@eth0" vhid="9" interface="eth0" node="node-a" ` +
		`from="BACKUP" to="MASTER" reason="master-timed-out" peer="192.0.2.2" epoch="41"] 9@eth0 is MASTER: $`
	check := func(got string, format func(string) string) {
		t.Helper()
		if at := stamp.FindString(got); at != "" {
			when, err := time.Parse(time.RFC3339Nano, at)
			if err != nil || time.Since(when).Abs() > time.Minute {
				t.Errorf("time %s: %v", at, err)
			}
			plain := strings.Replace(got, at, "TIME", 1)
			if want := format(want); plain != want && !strings.HasSuffix(plain, want) {
				t.Errorf("got  %s\nwant %s", plain, want)
			}
			return
		}
		t.Errorf("no time in %s", got)
	}
	plain := func(s string) string { return s }
	to, next := datagrams(t, "udp", "127.0.0.1:0")
	c.To = "udp://" + to
	if err := open(t, c).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil {
		t.Fatal(err)
	}
	check(next(), plain)
	to, next = streams(t, "tcp", "127.0.0.1:0", readAll)
	c.To = "tcp://" + to
	for framing, format := range map[Framing]func(string) string{Counted: plain, Newline: func(s string) string { return s + "\n" }} {
		c.Framing = framing
		if err := open(t, c).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil {
			t.Fatal(err)
		}
		got := next()
		if length, rest, _ := strings.Cut(got, " "); framing == Counted && length != fmt.Sprint(len(rest)) {
			t.Errorf("counted %s, and it is %d: %s", length, len(rest), got)
		}
		check(got, format)
	}
}

func TestLocalSocketGetsWhatLoggerWrites(t *testing.T) {
	logger, err := exec.LookPath("logger")
	if err != nil {
		t.Fatal("logger(1) is needed, of package bsdutils: run scripts/bootstrap test")
	}
	path := filepath.Join(t.TempDir(), "log")
	_, next := datagrams(t, "unixgram", path)
	second := regexp.MustCompile(`[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d`)
	process := regexp.MustCompile(`\[\d+\]`)
	for _, c := range []Config{
		{Priority: "local0.notice", Tag: "CARP-X"}, {Priority: "local7.err", Tag: "x", PID: true}, {Tag: "x"},
		{Priority: "daemon.warn", Tag: "y"}, {Priority: "authpriv.panic", Tag: "y"}, {Priority: "debug", Tag: "y"},
	} {
		c.To, c.Message = path, "9@eth0 role is MASTER"
		args := []string{"-u", path, "-t", c.Tag}
		if c.Priority != "" {
			args = append(args, "-p", c.Priority)
		}
		if c.PID {
			args = append(args, "-i")
		}
		if out, err := exec.CommandContext(t.Context(), logger, append(args, c.Message)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		theirs := next()
		if err := open(t, c).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil {
			t.Fatal(err)
		}
		ours := next()
		for _, s := range []*string{&ours, &theirs} {
			*s = process.ReplaceAllString(second.ReplaceAllString(*s, "TIME"), "[PID]")
		}
		if ours != theirs || !strings.Contains(ours, "TIME") {
			t.Errorf("%+v:\nours   %s\nlogger %s", c, ours, theirs)
		}
	}
}

func TestStreamSocketIsUsedWhereThereIsOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	_, next := streams(t, "unix", path, readAll)
	if err := open(t, Config{To: path, Framing: Newline}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil {
		t.Fatal(err)
	}
	if got := next(); !strings.HasSuffix(got, " carpd: 9@eth0 is MASTER, was BACKUP: master-timed-out\n") {
		t.Errorf("got %q", got)
	}
}

func TestServerThatDoesNotReadOrCloseIsNoTrouble(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	to, _ := streams(t, "tcp", "127.0.0.1:0", func(conn net.Conn) string {
		<-release
		conn.Close()
		return ""
	})
	if err := open(t, Config{To: "tcp://" + to}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotDeliveredIsAnError(t *testing.T) {
	dir := t.TempDir()
	gone, _ := streams(t, "tcp", "127.0.0.1:0", func(conn net.Conn) string {
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset
		conn.Close()
		return ""
	})
	for to, want := range map[string]string{
		filepath.Join(dir, "none"): "is rsyslog, syslog-ng or systemd-journald running",
		"tcp://" + gone:            "reset",
	} {
		h := open(t, Config{To: to})
		// A reset may come so late that all was read: the server has it then.
		hookFails(t, h, want)
	}
}

func hookFails(t *testing.T, h hooks.Hook, want string) {
	t.Helper()
	var err error
	for range 20 {
		if err = h.Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp)); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A datagram socket whose reader hangs takes some messages and then no more.
func TestReaderThatHangsIsWaitedForNoLongerThanTheDeadline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	datagrams(t, "unixgram", path)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	h := open(t, Config{To: path})
	began := time.Now()
	var err error
	for err == nil {
		err = h.Run(ctx, hookstest.SampleEvent(hooks.AfterUp))
	}
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

func TestMessageStaysOneLineOfPrintableText(t *testing.T) {
	ev := hookstest.SampleEvent(hooks.AfterUp)
	ev.Name = "a\nb\x1b[31m\xff\"]\\"
	ev.Addresses = nil
	for len(ev.Addresses) < 1000 {
		ev.Addresses = append(ev.Addresses, netip.MustParsePrefix("2001:db8::50/64"))
	}
	c := Config{Message: "$name $addresses ä", Structured: "c@1"}
	c.defaults()
	m := c.compose(133, ev, "höst name\n", time.Unix(0, 0), 7)
	got := m.rfc5424()
	if strings.ContainsAny(got, "\n\x1b") || !utf8.ValidString(got) || len(got) > 2048 || len(m.text) > maxMessage {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if m.host != "hstname" || !strings.Contains(m.data, `name="a b [31m \"\]\\"`) {
		t.Errorf("%+v", m)
	}
	if got := cut("äää", 3); got != "ä" {
		t.Errorf("cut within a character: %q", got)
	}
}

func TestConfigurationThatCannotWorkIsRefusedWithAllItsFaults(t *testing.T) {
	_, err := New(Config{To: "http://x", Priority: "kern.notice", Tag: "a b", Message: "$type $subsystem", Format: "json", Framing: "crlf", Structured: "carp"})
	for _, want := range []string{"http is unknown", `"kern.notice"`, `"a b"`, "$type is unknown", "$subsystem is unknown", `"json"`, `"crlf"`, "NAME@NUMBER"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	for _, c := range []Config{
		{To: "log"}, {To: "udp://"}, {To: "udp://h/x"}, {Priority: "notice.local0"}, {Priority: "local0."}, {Priority: "local8.info"},
		{Structured: "c@1"}, {Structured: "c@1", To: "udp://h", Format: Local}, {Structured: `c"@1`, To: "udp://h"},
		{Message: strings.Repeat("x", maxMessage+1)}, {Tag: strings.Repeat("x", maxTag+1)},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for _, c := range []Config{
		{}, {To: "udp://h"}, {To: "udp://[2001:db8::1]:5140"}, {To: "tcp://log.example.org"},
		{Structured: "c@1", Format: RFC5424}, {Structured: "c@1.2", To: "udp://h"},
	} {
		if _, err := New(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPortIsThatOfTheProtocolUnlessGiven(t *testing.T) {
	for to, want := range map[string]string{
		"udp://h": "h:514", "tcp://h": "h:601", "udp://h:5": "h:5", "tcp://[::1]": "[::1]:601", "/dev/log": "/dev/log",
	} {
		if _, got, err := target(to); got != want || err != nil {
			t.Errorf("%s: %s, %v", to, got, err)
		}
	}
}
