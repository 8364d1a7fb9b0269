package receive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
)

func TestPlansAreReadAsTheyWereWritten(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var p plan
		pages, base := int64(random.IntN(300)), int64(1+random.IntN(300))
		for range pages {
			if random.IntN(3) == 0 {
				p = p.add(sent)
			} else {
				p = p.add(random.Int64N(base))
			}
		}
		got, err := decodePlan(p.encode(), pages, base)
		if err != nil || !slices.Equal(got, p) {
			t.Fatalf("%v: %v, %v", p, got, err)
		}
	}
}

func TestPlansThatMakeNoSenseAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		p           plan
		pages, base int64
	}{
		"too few":         {plan{{3, sent}}, 4, 0},
		"too many":        {plan{{5, sent}}, 4, 0},
		"none":            {plan{}, 4, 0},
		"without a base":  {plan{{4, 0}}, 4, 0},
		"behind the base": {plan{{4, 7}}, 4, 10},
		"before the base": {plan{{2, 5}, {2, -3}}, 4, 10},
		"endless":         {plan{{1 << 62, sent}}, 4, 0},
	} {
		if p, err := decodePlan(c.p.encode(), c.pages, c.base); !errors.Is(err, errPlan) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add(plan{{3, sent}, {2, 4}, {1, sent}}.encode(), int64(6), int64(9))
	f.Fuzz(func(t *testing.T, b []byte, pages, base int64) {
		pages, base = pages%1e6, base%1e6
		p, err := decodePlan(b, pages, base)
		if err != nil {
			return
		}
		total := int64(0)
		for _, r := range p {
			total += r.pages
			if r.pages <= 0 || r.base != sent && (r.base < 0 || r.base+r.pages > base) {
				t.Errorf("%v of a base of %d", r, base)
			}
		}
		if total != pages {
			t.Errorf("%d pages, want %d", total, pages)
		}
	})
}

// FuzzApply offers a receiver anything: it writes no more than the manifest says.
func FuzzApply(f *testing.F) {
	store, m, base := twoSnapshots(f, 1)
	var b bytes.Buffer
	p, _, err := sendingOf(f, store, m, &base).plan(f.Context(), ready{})
	if err = errors.Join(err, written(f, sendingOf(f, store, m, &base), &b, p, 0)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = receiving{m: m, base: bytes.NewReader(bytesOf(t, store, base)), have: base.Pages}.apply(bytes.NewReader(in), &out, 0)
		if int64(out.Len()) > m.Size {
			t.Errorf("%d bytes, want %d at most", out.Len(), m.Size)
		}
	})
}

const pageSize = 512

// twoSnapshots makes a snapshot m and one before it that differs in some ways: pages
// changed, moved, removed and added.
func twoSnapshots(t testing.TB, seed uint64) (s *dir.Store, m, base replicator.Manifest) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	page := func() []byte {
		b := make([]byte, pageSize)
		for i := range b {
			b[i] = byte(random.IntN(4)) // it can be compressed
		}
		return b
	}
	var before [][]byte
	for range 1 + random.IntN(60) {
		before = append(before, page())
	}
	after := slices.Clone(before)
	for range random.IntN(8) {
		i := random.IntN(len(after))
		switch random.IntN(4) {
		case 0:
			after[i] = page()
		case 1:
			after = slices.Insert(after, i, page())
		case 2:
			after = append(after[i:], after[:i]...)
		case 3:
			changed := bytes.Clone(after[i])
			changed[random.IntN(pageSize)] ^= 1
			after[i] = changed
		}
	}
	s, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(sequence uint64, pages [][]byte) replicator.Manifest {
		data := bytes.Join(pages, nil)
		sum := sha256.Sum256(data)
		m := replicator.Manifest{Version: replicator.Version{Epoch: 1, Node: 1, Sequence: sequence}, Kind: "sqlite", Size: int64(len(data)),
			SHA256: hex.EncodeToString(sum[:]), PageSize: pageSize, Pages: int64(len(pages))}
		if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return m
	}
	base = put(1, before)
	return s, put(2, after), base
}

func sendingOf(t testing.TB, s replicator.Store, m replicator.Manifest, base *replicator.Manifest) sending {
	t.Helper()
	all := sending{store: s, m: m, base: base}
	if base != nil {
		index, err := indexPages(t.Context(), s, *base)
		if err != nil {
			t.Fatal(err)
		}
		all.index = index
	}
	return all
}

// written writes what goes over the line.
func written(t testing.TB, s sending, w io.Writer, p plan, from int64) error {
	t.Helper()
	dict, err := s.dictionary(t.Context(), p)
	if err != nil {
		return err
	}
	return s.write(t.Context(), w, p, dict, from)
}

func bytesOf(t testing.TB, s replicator.Store, m replicator.Manifest) []byte {
	t.Helper()
	r, err := s.Open(context.Background(), m.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsPutTogetherIsWhatWasTaken(t *testing.T) {
	for seed := range uint64(10) {
		s, m, base := twoSnapshots(t, seed)
		data, old := bytesOf(t, s, m), bytesOf(t, s, base)
		for _, with := range []*replicator.Manifest{nil, &base} {
			for _, have := range []int64{0, pageSize, m.Size} {
				have = min(have, m.Size)
				sum := sha256.Sum256(data[:have])
				send := sendingOf(t, s, m, with)
				p, from, err := send.plan(t.Context(), ready{have, hex.EncodeToString(sum[:])})
				if err != nil || from != have {
					t.Fatalf("seed %d: from %d, want %d, %v", seed, from, have, err)
				}
				var line bytes.Buffer
				if err := written(t, send, &line, p, from); err != nil {
					t.Fatal(err)
				}
				receive := receiving{m: m}
				if with != nil {
					receive.base, receive.have = bytes.NewReader(old), base.Pages
				}
				out := bytes.NewBuffer(bytes.Clone(data[:have]))
				if err := receive.apply(&line, out, from); err != nil || !bytes.Equal(out.Bytes(), data) {
					t.Fatalf("seed %d: base %v, from %d: %v", seed, with != nil, from, err)
				}
			}
		}
		// What is left of something else is of no use.
		if _, from, err := sendingOf(t, s, m, nil).plan(t.Context(), ready{pageSize, hex.EncodeToString(make([]byte, 32))}); err != nil || from != 0 {
			t.Fatal(from, err)
		}
	}
}

func TestWhatIsCutOffIsNeverWhole(t *testing.T) {
	s, m, base := twoSnapshots(t, 7)
	send := sendingOf(t, s, m, &base)
	p, _, err := send.plan(t.Context(), ready{})
	var line bytes.Buffer
	if err = errors.Join(err, written(t, send, &line, p, 0)); err != nil {
		t.Fatal(err)
	}
	old := bytes.NewReader(bytesOf(t, s, base))
	for n := range line.Len() {
		if err := (receiving{m: m, base: old, have: base.Pages}).apply(bytes.NewReader(line.Bytes()[:n]), io.Discard, 0); err == nil {
			t.Fatalf("%d bytes of %d are taken for all", n, line.Len())
		}
	}
	err = receiving{m: m, base: bytes.NewReader(nil), have: base.Pages}.apply(bytes.NewReader(line.Bytes()), io.Discard, 0)
	if !errors.Is(err, errBase) {
		t.Errorf("a base without its pages: %v", err)
	}
}
