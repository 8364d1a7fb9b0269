package sqlite_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/sqlite"
)

// sample returns one of ProxySQL's databases.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "proxysql", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEachFieldOfTheHeaderIsJudged(t *testing.T) {
	sound := sample(t, "proxysql.db")
	for name, tc := range map[string]struct {
		at    int
		bytes string
		want  replicator.Reason
	}{
		"as it is":              {0, "S", ""},
		"magic":                 {0, "s", replicator.NotADatabase},
		"end of magic":          {15, "\x01", replicator.NotADatabase},
		"page size of none":     {16, "\x00\x00", replicator.BadHeader},
		"page size too small":   {16, "\x01\x00", replicator.BadHeader},
		"page size no power":    {16, "\x0f\xff", replicator.BadHeader},
		"page size of others":   {16, "\x08\x00", replicator.BadSize},
		"page size of 64 KiB":   {16, "\x00\x01", replicator.BadSize},
		"write version":         {18, "\x03", replicator.FileFormat},
		"read version":          {19, "\x09", replicator.FileFormat},
		"write version 0":       {18, "\x00", replicator.BadHeader},
		"write-ahead log":       {18, "\x02\x02", replicator.WALMode},
		"half write-ahead log":  {19, "\x02", replicator.WALMode},
		"payload fraction":      {21, "\x41", replicator.BadHeader},
		"change counter":        {24, "\xff", replicator.BadHeader},
		"page count of one too": {31, "\x38", replicator.BadSize},
		"schema format":         {47, "\x05", replicator.BadHeader},
		"text encoding":         {59, "\x04", replicator.BadHeader},
	} {
		b := bytes.Clone(sound)
		copy(b[tc.at:], tc.bytes)
		if h, v := sqlite.ParseHeader(b[:sqlite.HeaderSize], int64(len(b))); v.Reason() != tc.want {
			t.Errorf("%s: %v (%+v), want %q", name, v, h, tc.want)
		}
	}
	small := bytes.Clone(sound[:512])
	binary.BigEndian.PutUint16(small[16:], 512)
	binary.BigEndian.PutUint32(small[28:], 1)
	if _, v := sqlite.ParseHeader(small, 512); !v.Sound() {
		t.Errorf("pages of 512 bytes: %v", v)
	}
	small[20] = 33
	if _, v := sqlite.ParseHeader(small, 512); v.Reason() != replicator.BadHeader {
		t.Errorf("479 usable bytes: %v", v)
	}
	for n, want := range map[int]replicator.Reason{0: replicator.Empty, 1: replicator.NotADatabase, 15: replicator.NotADatabase, 16: replicator.BadSize, 99: replicator.BadSize, 100: replicator.BadSize} {
		if _, v := sqlite.ParseHeader(sound[:n], int64(n)); v.Reason() != want {
			t.Errorf("%d bytes: %v, want %q", n, v, want)
		}
	}
}

// FuzzHeader holds what is said of any header: never a panic, and a sound one has
// pages that fill the file.
func FuzzHeader(f *testing.F) {
	dir := filepath.Join("testdata", "proxysql")
	for _, pattern := range []string{"*.db.gz", "*/*.db.gz"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			f.Fatal("no samples", err)
		}
		for _, name := range names {
			b := sample(f, strings.TrimSuffix(name[len(dir)+1:], ".gz"))
			f.Add(b[:min(len(b), sqlite.HeaderSize)], int64(len(b)))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if size < int64(len(b)) {
			size = int64(len(b))
		}
		h, v := sqlite.ParseHeader(b, size)
		for _, fault := range v.Faults {
			if fault.Reason == "" || fault.Text == "" {
				t.Errorf("a fault without a word: %+v", v)
			}
		}
		if !v.Sound() {
			return
		}
		if h.PageSize < 512 || h.PageSize > 65536 || h.PageSize&(h.PageSize-1) != 0 || h.PageSize*h.Pages != size || h.WAL || size == 0 || len(b) < sqlite.HeaderSize {
			t.Errorf("sound, with %d bytes: %+v", size, h)
		}
	})
}
