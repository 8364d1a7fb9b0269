package guardian

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/vip"
)

// Who hears a bow-out takes over at once: it is said by a node that has let go, and
// before somebody else may have taken over.
func TestBowsOutOnlyWhenTheAddressesAreGoneAndInTime(t *testing.T) {
	refused := vip.NewRemoval(1, []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("2001:db8::9"), 129)}) // by every kernel
	for name, c := range map[string]struct {
		removal vip.Removal
		lapsed  time.Duration // since the permit ended, when it comes to bowing out
		bows    bool
	}{
		"gone, in time":          {bows: true},
		"gone, after the margin": {lapsed: 200 * time.Millisecond},
		"not gone":               {removal: refused},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			w := admit(t, k)
			g := &guardian{page: mapped(t, k), wards: map[int]*ward{}}
			var err error
			if g.remover, err = vip.OpenRemover(); err != nil {
				t.Fatal(err)
			}
			defer g.remover.Close()
			if g.outlet, err = link.OpenOutlet(); err != nil {
				t.Skip(err)
			}
			defer g.outlet.Close()
			g.heed(message{kind: kindWard, slot: w.slot, generation: w.generation, about: About{
				Name: "a", Permit: 2 * time.Second, Margin: 100 * time.Millisecond,
				BowOuts: []link.Parcel{{}}, // which cannot be sent: that it was tried is told
			}})
			g.wards[w.slot].removal = c.removal
			until := link.Now().Add(-c.lapsed)
			if c.lapsed == 0 {
				until = link.Now().Add(time.Minute)
			}
			w.Permit(carp.Permit{Epoch: 1, Until: until})
			slots, sights := g.look()
			d := g.act(until, true, slots, sights) // it was decided in time
			if len(d.names) != 1 {
				t.Fatalf("acted for %v", d.names)
			}
			if bowed := d.failed != nil && strings.Contains(d.failed.Error(), "send a bow-out"); bowed != c.bows {
				t.Errorf("bowed out: %v, want %v (%v)", bowed, c.bows, d.failed)
			}
		})
	}
}
