package lab

import (
	"testing"
	"time"
)

// bad is a path with all chances in use.
func bad() faults {
	return faults{
		delay: time.Millisecond, jitter: time.Millisecond, lose: 0.2, corrupt: 0.1,
		duplicate: 0.1, duplicateLater: time.Millisecond, reorder: 0.1, reorderLater: time.Millisecond,
	}
}

func TestFateDependsOnSeedLinkAndNumberOnly(t *testing.T) {
	f, key := bad(), pathKey(7, "a", "b")
	var want []fate
	for n := range uint64(1000) {
		want = append(want, f.decide(key, n, 60))
	}
	for n := uint64(999); n > 0; n-- { // the order of asking is nothing to it
		if got := f.decide(pathKey(7, "a", "b"), n, 60); got != want[n] {
			t.Fatalf("frame %d: %+v, then %+v", n, want[n], got)
		}
	}
	for name, other := range map[string]uint64{
		"seed": pathKey(8, "a", "b"), "direction": pathKey(7, "b", "a"), "boundary of names": pathKey(7, "ab", ""),
	} {
		same := 0
		for n := range uint64(1000) {
			if f.decide(other, n, 60).lost == want[n].lost {
				same++
			}
		}
		if same > 780 { // 0.8² + 0.2² = 0.68 by chance
			t.Errorf("another %s: %d of 1000 frames are lost or not as before", name, same)
		}
	}
}

// A change of one setting changes nothing that others do, and more loss loses
// all that less loss does.
func TestFateOfOneSettingLeavesTheOthers(t *testing.T) {
	few, many, key := bad(), bad(), pathKey(1, "a", "b")
	many.lose, many.jitter = 0.5, 0
	lost := 0
	for n := range uint64(1000) {
		a, b := few.decide(key, n, 60), many.decide(key, n, 60)
		if a.corrupt != b.corrupt || a.at != b.at || a.flip != b.flip || a.again != b.again || a.late != b.late {
			t.Fatalf("frame %d: %+v, with more loss %+v", n, a, b)
		}
		if a.lost && !b.lost {
			t.Fatalf("frame %d is lost at 0.2 and not at 0.5", n)
		}
		if b.lost {
			lost++
		}
	}
	if lost < 450 || lost > 550 {
		t.Errorf("%d of 1000 lost, want about 500", lost)
	}
}

func TestFateIsAsLikelyAsItSays(t *testing.T) {
	f, key := bad(), pathKey(3, "a", "b")
	const all = 100_000
	var lost, corrupt, again, late, both int
	var delay time.Duration
	for n := range uint64(all) {
		v := f.decide(key, n, 60)
		for count, on := range map[*int]bool{&lost: v.lost, &corrupt: v.corrupt, &again: v.again, &late: v.late, &both: v.lost && v.corrupt} {
			if on {
				*count++
			}
		}
		delay += v.delay
		if v.delay < time.Millisecond || v.delay > 3*time.Millisecond || v.gap > time.Millisecond ||
			v.corrupt && (v.at < ethernetHeader || v.at >= 60 || v.flip == 0) {
			t.Fatalf("frame %d: %+v", n, v)
		}
	}
	for name, c := range map[string]struct{ got, want int }{
		"lost": {lost, 20_000}, "corrupted": {corrupt, 10_000}, "duplicated": {again, 10_000}, "reordered": {late, 10_000},
		"lost and corrupted": {both, 2000}, "mean delay in ns/1000": {int(delay / all / 100), 15_500},
	} {
		if d := c.got - c.want; d > 500 || d < -500 {
			t.Errorf("%s: %d of %d, want about %d", name, c.got, all, c.want)
		}
	}
}

// Seeds that once failed stay as tests: what a seed means must never change.
func TestFateOfASeedStays(t *testing.T) {
	f, key, got := faults{lose: 0.2}, pathKey(42, "a", "b"), ""
	for n := uint64(1); n <= 40; n++ {
		if f.decide(key, n, 60).lost {
			got += "x"
		} else {
			got += "."
		}
	}
	const want = "..x.......x......x...x.......x...x......"
	if got != want {
		t.Errorf("seed 42 a > b: %s, want %s", got, want)
	}
}

func TestCorruptionChangesEveryChecksum(t *testing.T) {
	f, key := faults{corrupt: 1}, pathKey(5, "a", "b")
	data := make([]byte, 64)
	for i := range data {
		data[i] = byte(i * 37)
	}
	before := checksum(data)
	for n := range uint64(5000) {
		v := f.decide(key, n, len(data))
		data[v.at] ^= v.flip
		if !v.corrupt || checksum(data) == before {
			t.Fatalf("frame %d: %+v leaves the checksum as it was", n, v)
		}
		data[v.at] ^= v.flip
	}
}
