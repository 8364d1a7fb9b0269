package modules_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/carpd/carpd/replicator/modules"
)

// every is one message of each kind.
func every() []modules.Message {
	s := modules.Stamp{Epoch: 1795132802300, Term: 3, Node: 2, Version: 7, Sum: modules.Sum{1, 2, 3}}
	return []modules.Message{
		modules.Poll{Digest: modules.Digest{1, 2}},
		modules.Same{},
		modules.Report{Why: modules.Pushed, Claim: modules.Claim{Term: 9, Node: 4}, Entries: []modules.Entry{{Module: "users", Stamp: s, Holds: modules.Sum{4}, Rows: true}, {Module: "rules"}}},
		modules.Get{Module: "users", Stamp: s, Have: modules.Sum{5}},
		modules.Data{Module: "users", Meta: modules.Meta{Stamp: s, History: []modules.Mark{{Epoch: 5, Node: 1}}, Allowed: []string{"t"}}, Content: rows("users", "anna")},
		modules.Gone{Module: "users", Stamp: s, Reason: "why"},
		modules.Offer{Module: "users", Base: s, Content: rows("users", "bert")},
		modules.Answer{Module: "users", Base: s, Taken: true, Reason: "none"},
	}
}

func TestMessagesAreReadAsTheyWereWritten(t *testing.T) {
	for _, m := range every() {
		b := modules.Append(nil, m)
		got, err := modules.Decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%#v is read as %#v, %v", m, got, err)
		}
		for i := range b {
			if _, err := modules.Decode(b[:i]); err == nil {
				t.Errorf("%T: the first %d of %d bytes are read", m, i, len(b))
			}
		}
		if _, err := modules.Decode(append(b, 0)); err == nil {
			t.Errorf("%T: a byte too many is read", m)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range every() {
		f.Add(modules.Append(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := modules.Decode(b)
		if err != nil {
			return
		}
		again, err := modules.Decode(modules.Append(nil, m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%#v is read as %#v, %v", m, again, err)
		}
	})
}

func FuzzContent(f *testing.F) {
	f.Add(rows("users", "anna", "bert"))
	f.Add([]byte("cm1\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := modules.DecodeContent(b)
		if err != nil {
			return
		}
		once, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := modules.DecodeContent(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := back.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("the canonical form is not stable: %v", err)
		}
	})
}
