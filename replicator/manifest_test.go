package replicator_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
)

func manifest() replicator.Manifest {
	return replicator.Manifest{Version: replicator.Version{Epoch: 1<<62 - 1, Node: 255, Sequence: 1<<62 - 1}, Source: "a", Kind: "proxysql",
		Time: time.Date(2026, 11, 20, 21, 0, 0, 123456789, time.UTC), Size: 8192, SHA256: strings.Repeat("0f", 32), PageSize: 4096, Pages: 2,
		Rows: map[string]int64{"mysql_users": 7}}
}

func TestAManifestSurvivesItsWriting(t *testing.T) {
	b, err := manifest().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := replicator.DecodeManifest(b); err != nil || !reflect.DeepEqual(got, manifest()) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range len(b) - 1 { // but for the line end
		if m, err := replicator.DecodeManifest(b[:n]); err == nil {
			t.Errorf("cut off after %d bytes it is %+v", n, m)
		}
	}
}

func TestAManifestThatCannotBeIsRefused(t *testing.T) {
	for name, change := range map[string]func(m *replicator.Manifest){
		"no node":        func(m *replicator.Manifest) { m.Version.Node = 0 },
		"no sequence":    func(m *replicator.Manifest) { m.Version.Sequence = 0 },
		"short digest":   func(m *replicator.Manifest) { m.SHA256 = m.SHA256[2:] },
		"digest in caps": func(m *replicator.Manifest) { m.SHA256 = strings.ToUpper(m.SHA256) },
		"no size":        func(m *replicator.Manifest) { m.Size, m.Pages = 0, 0 },
		"negative":       func(m *replicator.Manifest) { m.Size, m.Pages = -8192, -2 },
		"half a page":    func(m *replicator.Manifest) { m.Size += 2048 },
		"no pages":       func(m *replicator.Manifest) { m.PageSize = 0 },
		"huge": func(m *replicator.Manifest) {
			for i := range 1 << 16 {
				m.Rows[strings.Repeat("x", 20)+string(rune(i+0x10000))] = 1
			}
		},
	} {
		m := manifest()
		change(&m)
		if b, err := m.Encode(); err == nil {
			t.Errorf("%s: %d bytes", name, len(b))
		}
	}
}

func TestKeepNeverDropsTheLastSoundOne(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	var all []replicator.Manifest
	for day := 9; day > 0; day-- { // newest first: 9 was taken a day ago, 1 nine days ago
		all = append(all, replicator.Manifest{Version: replicator.Version{Sequence: uint64(day)}, Time: now.AddDate(0, 0, day-10)})
	}
	week := 7 * 24 * time.Hour
	for name, tc := range map[string]struct {
		keep          replicator.Keep
		bad           []uint64
		drop, damaged []uint64
	}{
		"all":                    {keep: replicator.Keep{}},
		"count":                  {keep: replicator.Keep{Count: 7}, drop: []uint64{2, 1}},
		"age":                    {keep: replicator.Keep{Age: week}, drop: []uint64{2, 1}},
		"both, count less":       {keep: replicator.Keep{Count: 2, Age: week}, drop: []uint64{7, 6, 5, 4, 3, 2, 1}},
		"one at least":           {keep: replicator.Keep{Age: time.Second}, drop: []uint64{8, 7, 6, 5, 4, 3, 2, 1}},
		"three at least":         {keep: replicator.Keep{Count: 1, Age: time.Second, Least: 3}, drop: []uint64{6, 5, 4, 3, 2, 1}},
		"newest are damaged":     {keep: replicator.Keep{Count: 1}, bad: []uint64{9, 8}, damaged: []uint64{9, 8}, drop: []uint64{6, 5, 4, 3, 2, 1}},
		"only the oldest sound":  {keep: replicator.Keep{Count: 1, Age: time.Second}, bad: []uint64{9, 8, 7, 6, 5, 4, 3, 2}, damaged: []uint64{9, 8, 7, 6, 5, 4, 3, 2}},
		"none is sound":          {keep: replicator.Keep{Count: 1}, bad: []uint64{9, 8, 7, 6, 5, 4, 3, 2, 1}, damaged: []uint64{9, 8, 7, 6, 5, 4, 3, 2, 1}},
		"damaged below the need": {keep: replicator.Keep{Count: 2}, bad: []uint64{8}, drop: []uint64{7, 6, 5, 4, 3, 2, 1}},
	} {
		drop, damaged := tc.keep.Choose(all, now, func(m replicator.Manifest) bool { return !slices.Contains(tc.bad, m.Version.Sequence) })
		if !slices.Equal(sequences(drop), tc.drop) || !slices.Equal(sequences(damaged), tc.damaged) {
			t.Errorf("%s: drops %v, damaged are %v; want %v and %v", name, sequences(drop), sequences(damaged), tc.drop, tc.damaged)
		}
	}
}

func sequences(all []replicator.Version) (n []uint64) {
	for _, v := range all {
		n = append(n, v.Sequence)
	}
	return n
}

func FuzzManifest(f *testing.F) {
	b, err := manifest().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := replicator.DecodeManifest(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil {
			return // longer than what may be written
		}
		if got, err := replicator.DecodeManifest(again); err != nil || !reflect.DeepEqual(got, m) && !got.Time.Equal(m.Time) {
			t.Errorf("%+v is written and read as %+v, %v", m, got, err)
		}
	})
}
