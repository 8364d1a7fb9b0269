package main_test

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Each heal is at another phase of the masters' intervals.
var (
	healRuns = flag.Int("heal.runs", 1, "how often each kind of partition is healed; there are 64 kinds")
	healSeed = flag.Uint64("heal.seed", 0, "the phases and lengths of the partitions; 0: other ones each time")
)

// partition is a kind of cut, and who is there.
type partition struct {
	protocol string // carp or vrrp3
	six      bool
	unicast  bool
	nodes    int
	oneWay   bool // only the old master's frames are lost
	oldWins  bool // the better node was master before; else the other one is better
}

func (k partition) String() string {
	word := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	return strings.Join([]string{
		k.protocol, word(k.six, "v6", "v4"), word(k.unicast, "unicast", "multicast"), fmt.Sprintf("%dnodes", k.nodes),
		word(k.oneWay, "one-way", "two-way"), word(k.oldWins, "old-wins", "new-wins"),
	}, "-")
}

func partitions() (all []partition) {
	truth := []bool{false, true}
	for _, protocol := range []string{"carp", "vrrp3"} {
		for _, six := range truth {
			for _, unicast := range truth {
				for _, nodes := range []int{2, 3} {
					for _, oneWay := range truth {
						for _, oldWins := range truth {
							all = append(all, partition{protocol, six, unicast, nodes, oneWay, oldWins})
						}
					}
				}
			}
		}
	}
	return all
}

// healing is what a client saw of one heal, counted from the heal.
type healing struct {
	last   time.Duration // answer of the loser
	first  time.Duration // answer of the winner after which the loser gave none
	outage time.Duration // longest pause between answers
}

func TestNoClientStaysOnTheLoserOfAPartition(t *testing.T) {
	if raceDetector {
		t.Skip("the daemon as it is delivered: here it is about when clients are answered")
	}
	var mu sync.Mutex
	var all []healing
	seed := *healSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-heal.seed %d", seed)
	t.Run("", func(t *testing.T) {
		for _, kind := range partitions() {
			for run := range *healRuns {
				t.Run(fmt.Sprintf("%v/%d", kind, run), func(t *testing.T) {
					t.Parallel()
					h := newHealed(t, kind, seed, run)
					h.cut()
					got := h.heal()
					mu.Lock()
					defer mu.Unlock()
					all = append(all, got)
				})
			}
		}
	})
	t.Log(healSummary(all))
}

// healSummary gives p50 and the greatest.
func healSummary(all []healing) string {
	if len(all) == 0 {
		return "nothing was healed"
	}
	text := fmt.Sprintf("%d heals, p50/max:", len(all))
	for _, column := range []struct {
		name string
		of   func(healing) time.Duration
	}{
		{"last answer of the loser", func(h healing) time.Duration { return h.last }},
		{"first of the winner", func(h healing) time.Duration { return h.first }},
		{"longest pause", func(h healing) time.Duration { return h.outage }},
	} {
		var d []time.Duration
		for _, h := range all {
			d = append(d, column.of(h))
		}
		slices.Sort(d)
		text += fmt.Sprintf(" %s %.1f/%.1f ms;", column.name, d[len(d)/2].Seconds()*1e3, d[len(d)-1].Seconds()*1e3)
	}
	return text
}

// healed is a LAN with a group that is to be parted.
type healed struct {
	t      *testing.T
	kind   partition
	rng    *rand.Rand
	lan    *lab.LAN
	wire   *lab.Capture
	nodes  []*node // the master, the one that takes over, and one that never does
	client *lab.Host
	shared netip.Addr
	asking *lab.Prober
}

// pace is between two adverts.
func (k partition) pace() time.Duration {
	if k.protocol == "carp" {
		return time.Second
	}
	return fast
}

func newHealed(t *testing.T, kind partition, seed uint64, run int) *healed {
	t.Helper()
	name := fnv.New64a()
	fmt.Fprint(name, kind, run)
	h := &healed{
		t: t, kind: kind, rng: rand.New(rand.NewPCG(seed, name.Sum64())),
		lan: lab.New(t, lab.Switched(seed)), shared: shared4,
	}
	h.wire = h.lan.Capture()
	if kind.six {
		h.shared = shared6
	}
	for i := range kind.nodes {
		h.nodes = append(h.nodes, newNode(t, h.lan, string(rune('a'+i)), fmt.Sprintf("192.0.2.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1)))
	}
	h.client = h.lan.Host("client", "192.0.2.9/24", "2001:db8::9/64")
	for i, n := range h.nodes {
		n.write(h.config(i))
		n.startWith(n.command("run", "--config", n.config()))
		if i == 0 {
			n.promote()
		} else {
			n.follows(h.nodes[0])
		}
	}
	h.asking = h.client.Probe(h.shared)
	awaitAnswering(t, "the client", h.asking, time.Now())
	return h
}

// config is the instance of node i.
func (h *healed) config(i int) string {
	weight := []int{1, 0, 2}[i] // of the three, 0 is the best
	if h.kind.oldWins {
		weight = []int{0, 1, 2}[i]
	}
	address := "192.0.2.50/24"
	if h.kind.six {
		address = "2001:db8::50/64"
	}
	text := "instances:\n  - interface: eth0\n    vhid: 9\n"
	if h.kind.protocol == "carp" {
		h.nodes[i].file("pass", "a secret\n", 0o600)
		text += fmt.Sprintf("    passphrase_file: pass\n    advskew: %d\n", 100*weight)
	} else {
		if h.kind.six {
			address = "fe80::50/64, " + address
		}
		text += fmt.Sprintf("    protocol: vrrp3\n    interval: %v\n    priority: %d\n    preempt: false\n", h.kind.pace(), 200-50*weight)
	}
	text += fmt.Sprintf("    addresses: [%s]\n", strings.ReplaceAll(`"`+address+`"`, ", ", `", "`))
	if h.kind.unicast {
		var peers []string
		for j := range h.nodes {
			switch {
			case j == i:
			case h.kind.six:
				peers = append(peers, fmt.Sprintf(`"2001:db8::%d"`, j+1))
			default:
				peers = append(peers, fmt.Sprintf("192.0.2.%d", j+1))
			}
		}
		text += fmt.Sprintf("    peers: [%s]\n", strings.Join(peers, ", "))
	}
	return text
}

// loser and winner of the heal.
func (h *healed) loser() *node  { return h.nodes[map[bool]int{true: 1, false: 0}[h.kind.oldWins]] }
func (h *healed) winner() *node { return h.nodes[map[bool]int{true: 0, false: 1}[h.kind.oldWins]] }

// cut parts the old master from the others, and returns when another is master too, at
// a random phase. One-way means that from then on the winner hears the loser, which
// does not hear the winner: the other way there is one master at once.
func (h *healed) cut() {
	h.t.Helper()
	lost := h.between()
	if h.kind.oneWay && h.kind.oldWins {
		lost = h.sentBy(h.nodes[0])
	}
	for _, l := range lost {
		l.Cut()
	}
	h.nodes[1].await("MASTER")
	if h.kind.oneWay && !h.kind.oldWins {
		for _, l := range h.sentBy(h.nodes[0]) {
			l.Join()
		}
	}
	h.wait()
}

// between are the links of the old master with the other nodes, in both directions.
func (h *healed) between() (all []*lab.Link) {
	for _, other := range h.nodes[1:] {
		all = append(all, h.lan.Between(h.nodes[0].Host, other.Host))
	}
	return all
}

// sentBy are the links from one node to the others.
func (h *healed) sentBy(n *node) (all []*lab.Link) {
	for _, other := range h.nodes {
		if other != n {
			all = append(all, h.lan.Link(n.Host, other.Host))
		}
	}
	return all
}

// draw makes the client's cache what an announcement of the loser makes of it, and
// returns when the loser answers the client.
func (h *healed) draw() {
	h.t.Helper()
	_, mac, _ := strings.Cut(h.loser().Run("ip", "link", "show", "eth0"), "link/ether ")
	mac, _, _ = strings.Cut(mac, " ")
	mark := h.wire.Len()
	h.client.Run("ip", "neigh", "replace", h.shared.String(), "lladdr", mac, "dev", "eth0", "nud", "reachable")
	if _, ok := h.wire.WaitAfter(mark, soon, func(f lab.Frame) bool { return f.Host == h.loser().Name && isEchoReply(f, h.shared) }); !ok {
		h.t.Fatalf("%s does not answer the client", h.loser().Name)
	}
}

// heal ends the partition and returns what the client saw.
func (h *healed) heal() healing {
	h.t.Helper()
	h.draw()
	at := time.Now()
	for _, l := range h.between() {
		l.Join()
	}
	return h.watch(at)
}

// stuckLimit is how long a client may be without an answer after a heal: it is more
// than what was seen on a busy machine, and a tenth of what its own cache would need.
const stuckLimit = 2 * time.Second

// watch waits until the loser has yielded and the client is served for a while, and
// returns what the client saw since an instant.
func (h *healed) watch(at time.Time) healing {
	h.t.Helper()
	loser, winner := h.loser(), h.winner()
	loser.await("BACKUP")
	yielded := time.Now()
	lab.Eventually(h.t, 2*takeover, "the client to be answered", func() bool {
		return h.asking.Answering(yielded) && time.Since(yielded) > h.kind.pace()
	})
	h.asking.Stop()
	got := healing{}
	got.outage, _ = h.asking.Longest(at)
	for _, f := range h.wire.Packets() {
		switch since := f.Time.Sub(at); {
		case since < 0 || !isEchoReply(f, h.shared):
		case f.Host == loser.Name:
			got.last, got.first = since, 0
		case f.Host == winner.Name && got.first == 0:
			got.first = since
		}
	}
	if got.first == 0 {
		h.t.Errorf("the client was not answered by %s", winner.Name)
	}
	if got.outage > stuckLimit {
		h.t.Errorf("the client was without an answer for %v", got.outage)
	}
	if limit := h.kind.pace() + stuckLimit; got.last > limit {
		h.t.Errorf("%s still answered %v after the heal", loser.Name, got.last)
	}
	winner.await("MASTER")
	return got
}

// isEchoReply reports whether a frame is an ICMP echo reply from an address.
func isEchoReply(f lab.Frame, from netip.Addr) bool {
	const header = 14
	d := f.Data
	if !answersFor(f, from) || claims(f, from) {
		return false
	}
	if from.Is6() {
		return len(d) > header+40 && d[header+6] == 58 && d[header+40] == 129
	}
	return len(d) > header+20 && d[header+9] == 1 && d[header+20] == 0
}

// wait lets the partition last, up to two intervals.
func (h *healed) wait() {
	h.t.Helper()
	until := time.Now().Add(time.Duration(h.rng.Int64N(int64(2 * h.kind.pace()))))
	lab.Eventually(h.t, takeover, "the end of the partition", func() bool { return time.Now().After(until) })
}

// The loser's farewell is what tells the winner to announce again. If that one frame is
// lost, the loser says it again at the winner's next advert.
func TestHealingSurvivesTheLossOfTheFarewell(t *testing.T) {
	if raceDetector {
		t.Skip("the daemon as it is delivered: here it is about when clients are answered")
	}
	var mu sync.Mutex
	var all []healing
	t.Run("", func(t *testing.T) {
		for _, kind := range partitions() {
			if kind.nodes > 2 || kind.oneWay || kind.unicast {
				continue
			}
			t.Run(kind.String(), func(t *testing.T) {
				t.Parallel()
				h := newHealed(t, kind, rand.Uint64(), 0)
				h.cut()
				got := h.healWithoutFarewell()
				mu.Lock()
				defer mu.Unlock()
				all = append(all, got)
			})
		}
	})
	t.Log(healSummary(all))
}

// healWithoutFarewell joins the way on which the loser hears the winner, and the other
// when the loser has said farewell in vain.
func (h *healed) healWithoutFarewell() healing {
	h.t.Helper()
	loser, winner := h.loser(), h.winner()
	h.draw()
	mark, at := h.wire.Len(), time.Now()
	var yielded time.Time
	h.lan.Link(winner.Host, loser.Host).Join()
	lab.Eventually(h.t, takeover, "the loser to yield", func() bool {
		found := loser.addrs.all(at, h.shared)
		if len(found) == 0 || found[len(found)-1].On {
			return false
		}
		yielded = found[len(found)-1].At
		return true
	})
	_, said := h.wire.WaitAfter(mark, soon, func(f lab.Frame) bool {
		_, carp := decodeAdvert(f, loser.Name)
		_, vrrp := decodeVRRP(f, loser.Name)
		return (carp || vrrp) && f.Time.After(yielded.Add(-stampSlack)) && f.Time.After(at)
	})
	if !said {
		h.t.Fatal("the loser said no farewell")
	}
	h.lan.Link(loser.Host, winner.Host).Join()
	return h.watch(at)
}
