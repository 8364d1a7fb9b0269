package main_test

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// pathRuns is how often the takeovers are measured; 0 leaves that out, since it
// takes minutes and other load falsifies it.
var pathRuns = flag.Int("path-runs", 0, "measure as many takeovers of each kind with two paths")

// TestTakeoverTimesWithTwoPaths says how long nobody had the address, as the kernels
// of both nodes tell: from when the trouble begins, and from when the old master had
// let go.
//
//	go test ./cmd/carpd -run TakeoverTimesWithTwoPaths -path-runs 20 -v
func TestTakeoverTimesWithTwoPaths(t *testing.T) {
	if *pathRuns == 0 {
		t.Skip("it measures: -path-runs 20")
	}
	for _, kind := range []struct {
		name  string
		begin func(d *double, n *node) (end func())
	}{
		{"client side set down", func(_ *double, n *node) func() { n.SetLink(false); return func() { n.SetLink(true) } }},
		{"carrier of the client side lost", func(_ *double, n *node) func() { n.Unplug(); return n.Plug }},
		{"client side cut, no link down", (*double).cutFront},
	} {
		t.Run(kind.name, func(t *testing.T) {
			d := newDouble(t)
			d.elect()
			var all, gap []time.Duration
			master := d.nodes[0]
			for range *pathRuns {
				<-time.After(1200 * time.Millisecond) // the kernel tells of carriers once a second
				at := time.Now()
				end := kind.begin(d, master)
				next := d.master(master)
				taken := next.addrs.await(t, at, shared4, true, soon)
				all = append(all, taken.At.Sub(at))
				gap = append(gap, taken.At.Sub(master.addrs.await(t, at, shared4, false, soon).At))
				end()
				lab.Eventually(t, takeover, master.Name+" to be whole again", func() bool {
					i := master.instance()
					return i.State == "BACKUP" && i.Track[0].State == "good" && i.Master != nil && i.Demotion == 0 && i.Paths[0].LastHeardMS != nil
				})
				master = next
			}
			d.oneHolder()
			for what, times := range map[string][]time.Duration{"the trouble": all, "the old master let go": gap} {
				slices.Sort(times)
				t.Logf("%d runs, from when %s until another node has the address: p50 %v, p90 %v, max %v", len(times), what,
					times[len(times)/2].Round(time.Millisecond/10), times[len(times)*9/10].Round(time.Millisecond/10), times[len(times)-1].Round(time.Millisecond/10))
			}
			if median := gap[len(gap)/2]; median > 50*time.Millisecond {
				t.Errorf("half of the time nobody had the address for %v and longer after the old master had let go", median)
			}
		})
	}
}
