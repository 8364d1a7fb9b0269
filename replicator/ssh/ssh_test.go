package ssh

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPaceKeepsTheRateAndGivesALittleAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: 1 << 20}
		began := time.Now()
		for range 256 { // 1 MiB in pieces of 4 KiB
			time.Sleep(p.next(time.Now(), 4<<10))
		}
		if took := time.Since(began); took < time.Second-slack-10*time.Millisecond || took > time.Second {
			t.Errorf("1 MiB at 1 MiB a second took %v", took)
		}
		time.Sleep(time.Hour) // silence is not saved up
		began = time.Now()
		for range 256 {
			time.Sleep(p.next(time.Now(), 4<<10))
		}
		if took := time.Since(began); took < time.Second-slack-10*time.Millisecond {
			t.Errorf("after a pause 1 MiB took %v", took)
		}
	})
}

func TestPaceWithoutARateDoesNotWait(t *testing.T) {
	var p pace
	if d := p.next(time.Now(), 1<<30); d != 0 || p.chunk(1<<30) != 1<<30 {
		t.Error(d)
	}
}

func TestAddressesHaveAPort(t *testing.T) {
	for given, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:22", "192.0.2.1:2222": "192.0.2.1:2222", "2001:db8::1": "[2001:db8::1]:22", "[2001:db8::1]": "[2001:db8::1]:22",
		"[2001:db8::1]:2222": "[2001:db8::1]:2222", "standby.example": "standby.example:22", "": "", "a:0": "", "a:70000": "", ":22": "", "a:b:c": "",
	} {
		if got, err := (Config{Address: given}).hostPort(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", given, got, err, want)
		}
	}
}

func TestWhatAPeerSaysIsOneShortLine(t *testing.T) {
	var s tail
	for range 100 {
		_, _ = s.Write([]byte("0123456789\x1b[31m abcdefghij\r\n"))
	}
	if got := s.String(); len(got) > maxSaid || got[len(got)-10:] != "abcdefghij" {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
