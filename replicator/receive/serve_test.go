package receive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
)

func sound(context.Context, string, replicator.Manifest) replicator.Verdict {
	return replicator.Verdict{}
}

func emptyStore(t testing.TB) *dir.Store {
	t.Helper()
	s, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// frames are what a sender says.
func frames(t testing.TB, all ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	for i := 0; i < len(all); i += 2 {
		var err error
		if body, raw := all[i+1].([]byte); raw {
			err = writeFrame(&b, all[i].(kind), body)
		} else {
			err = writeJSON(&b, all[i].(kind), all[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestAReceiverRefusesWhatMakesNoSense(t *testing.T) {
	_, m, _ := twoSnapshots(t, 1)
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	offer := ship{Manifest: text}
	for name, c := range map[string]struct {
		in   []byte
		want string // of what is said
	}{
		"another kind":         {frames(t, kind('?'), []byte(nil)), "out of order"},
		"data out of order":    {frames(t, frameData, []byte("x")), "out of order"},
		"no json":              {frames(t, frameShip, []byte("{")), "no frame"},
		"no manifest":          {frames(t, frameShip, ship{}), "manifest"},
		"data without go":      {frames(t, frameShip, offer, frameData, []byte("x")), "out of order"},
		"go from anywhere":     {frames(t, frameShip, offer, frameGo, start{7}), "out of order"},
		"go from below zero":   {frames(t, frameShip, offer, frameGo, start{-1}), "out of order"},
		"no data":              {frames(t, frameShip, offer, frameGo, start{}, frameEnd, []byte(nil)), "unexpected EOF"},
		"junk for data":        {frames(t, frameShip, offer, frameGo, start{}, frameData, []byte("\x09junk junk"), frameEnd, []byte(nil)), "magic"},
		"a question within it": {frames(t, frameShip, offer, frameGo, start{}, frameData, []byte{}, frameNewest, []byte(nil)), "among data"},
		"a base that is none":  {frames(t, frameShip, ship{Manifest: text, Base: &replicator.Version{Epoch: 9, Node: 9, Sequence: 9}}), "is not there"},
		"a huge frame":         {[]byte{byte(frameShip), 0xff, 0xff, 0xff, 0xff}, "no frame"},
		"half a frame":         {[]byte{byte(frameShip), 0, 0, 0, 9, 'x'}, "unexpected EOF"},
	} {
		s := emptyStore(t)
		var out bytes.Buffer
		_ = Receiver{Store: s, Verify: sound}.Serve(t.Context(), bytes.NewReader(c.in), &out)
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %q, want %q", name, out.String(), c.want)
		}
		if all, err := s.List(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("%s: %v, %v", name, all, err)
		}
	}
}

func FuzzServe(f *testing.F) {
	_, m, _ := twoSnapshots(f, 1)
	text, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frames(f, frameNewest, []byte(nil), frameShip, ship{Manifest: text}, frameGo, start{}, frameData, []byte("\x03junk"), frameEnd, []byte(nil)))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := emptyStore(t)
		_ = Receiver{Store: s, Verify: sound, MaxSize: 1 << 20}.Serve(t.Context(), bytes.NewReader(in), io.Discard)
		all, err := s.List(t.Context())
		for _, have := range all {
			bytesOf(t, s, have)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func TestAReceiverThatHearsNothingEnds(t *testing.T) {
	s := emptyStore(t)
	synctest.Test(t, func(t *testing.T) {
		in, mouth := io.Pipe()
		began := time.Now()
		err := Receiver{Store: s, Verify: sound, Idle: time.Minute}.Serve(t.Context(), in, io.Discard)
		if took := time.Since(began); !errors.Is(err, ErrIdle) || took != time.Minute {
			t.Errorf("%v after %v", err, took)
		}
		began = time.Now()
		_, ear := io.Pipe() // nobody reads what it says
		err = Receiver{Store: s, Verify: sound, Idle: time.Minute}.Serve(t.Context(), in, ear)
		if took := time.Since(began); !errors.Is(err, ErrIdle) || took != time.Minute {
			t.Errorf("%v after %v", err, took)
		}
		_ = errors.Join(mouth.Close(), ear.Close())
	})
}

// TestASenderThatVanishedKeepsNobodyWaiting has one stop before its data comes: the file
// is free for another long before a receiver without a sender ends.
func TestASenderThatVanishedKeepsNobodyWaiting(t *testing.T) {
	_, m, _ := twoSnapshots(t, 1)
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s := emptyStore(t)
	synctest.Test(t, func(t *testing.T) {
		in, mouth := io.Pipe()
		go func() {
			_, _ = mouth.Write(frames(t, frameShip, ship{Manifest: text}))
			time.Sleep(heldIdle - time.Second)
			_, _ = mouth.Write(frames(t, frameWorking, []byte(nil))) // it is still at it
		}()
		began := time.Now()
		err := Receiver{Store: s, Verify: sound, Idle: time.Hour}.Serve(t.Context(), in, io.Discard)
		if took := time.Since(began); !errors.Is(err, ErrIdle) || took != 2*heldIdle-time.Second {
			t.Errorf("%v after %v", err, took)
		}
		_ = mouth.Close()
	})
}

// TestWhatComesForASnapshotIsBounded sends what a decoder passes over, without an end.
func TestWhatComesForASnapshotIsBounded(t *testing.T) {
	store, m, _ := twoSnapshots(t, 1)
	send := sendingOf(t, store, m, nil)
	p, _, err := send.plan(t.Context(), ready{})
	text, encodeErr := m.Encode()
	var line bytes.Buffer
	if err = errors.Join(err, encodeErr, written(t, send, &line, p, 0)); err != nil {
		t.Fatal(err)
	}
	skipped := append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0x10, 0}, make([]byte, 1<<20)...)
	end := errors.New("it read all that there was")
	in := io.MultiReader(bytes.NewReader(frames(t, frameShip, ship{Manifest: text}, frameGo, start{}, frameData, line.Bytes())),
		&repeated{once: frames(t, frameData, skipped), left: 2 * slackData, end: end})
	s := emptyStore(t)
	var out bytes.Buffer
	if err := (Receiver{Store: s, Verify: sound}).Serve(t.Context(), in, &out); !errors.Is(err, errNoFrame) || errors.Is(err, end) {
		t.Errorf("%v", err)
	}
	if have, err := s.List(t.Context()); err != nil || len(have) > 0 {
		t.Errorf("%v, %v: %q", have, err, out.String())
	}
}

// repeated gives the same again and again, then an error.
type repeated struct {
	once []byte
	at   int
	left int
	end  error
}

// Read implements io.Reader.
func (r *repeated) Read(b []byte) (int, error) {
	if r.left <= 0 {
		return 0, r.end
	}
	n := copy(b, r.once[r.at:])
	r.at, r.left = (r.at+n)%len(r.once), r.left-n
	return n, nil
}
