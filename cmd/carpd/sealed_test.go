package main_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// atOnce is more than a move among members takes, and less than half of what waiting
// for the master to be taken for dead would.
const atOnce = masterDown / 2

// member is one node of a sealed group.
type member struct {
	advskew int
	preempt bool
	more    []string // lines of the instance
}

// settings are those of the member with a node id.
func (m member) settings(id int) settings {
	return settings{
		advskew: m.advskew, addresses: []string{"192.0.2.50/24"}, top: []string{fmt.Sprintf("node_id: %d", id)},
		more: append([]string{"replay: sealed", fmt.Sprintf("preempt: %v", m.preempt)}, m.more...),
	}
}

// sealedGroup is a LAN on which every link can be cut by itself, and a client that asks
// for the address each millisecond, and who has it, too.
type sealedGroup struct {
	t       *testing.T
	lan     *lab.LAN
	wire    *lab.Capture
	nodes   []*node
	members []member
	client  *lab.Host
	asking  *lab.Prober
}

// newSealedGroup makes the nodes a, b and so on, node ids 1, 2 and so on. None runs.
func newSealedGroup(t *testing.T, members ...member) *sealedGroup {
	t.Helper()
	g := &sealedGroup{t: t, lan: lab.New(t, lab.Switched(rand.Uint64())), members: members}
	g.wire = g.lan.Capture()
	for i := range members {
		g.nodes = append(g.nodes, newNode(t, g.lan, string(rune('a'+i)), fmt.Sprintf("192.0.2.%d/24", i+1)))
	}
	g.client = g.lan.Host("client", "192.0.2.9/24")
	return g
}

// begin starts a node as master, and others, which follow it, and the client.
func (g *sealedGroup) begin(master int, others ...int) {
	g.t.Helper()
	g.start(master)
	g.nodes[master].promote()
	for _, i := range others {
		g.start(i)
		g.nodes[i].follows(g.nodes[master])
		g.knows(master, i)
	}
	g.asking = g.client.Probe(shared4)
	g.client.AskARP(shared4)
	awaitAnswering(g.t, "the client", g.asking, time.Now())
}

func (g *sealedGroup) start(i int) { g.nodes[i].start(g.members[i].settings(i + 1)) }

// knows waits until a node has heard from another that it is a backup.
func (g *sealedGroup) knows(who, of int) {
	g.t.Helper()
	lab.Eventually(g.t, takeover, fmt.Sprintf("%s to know %s", g.nodes[who].Name, g.nodes[of].Name), func() bool {
		m, known := g.said(who, of)
		return known && m.State == "BACKUP"
	})
}

// said is what a node has heard of another.
func (g *sealedGroup) said(who, of int) (api.Member, bool) {
	all := g.nodes[who].instance().Members
	i := slices.IndexFunc(all, func(m api.Member) bool { return int(m.NodeID) == of+1 })
	if i < 0 {
		return api.Member{}, false
	}
	return all[i], true
}

// oneHolder checks that no two nodes ever had the address at a time, by the kernels'
// notes and by what they have said on the wire.
func (g *sealedGroup) oneHolder() {
	g.t.Helper()
	var all []lab.AddrChange
	for _, n := range g.nodes {
		n.addrs.mu.Lock()
		all = append(all, n.addrs.events...)
		n.addrs.mu.Unlock()
	}
	for _, both := range lab.Overlaps(all, time.Now()) {
		if both.Sure > 0 {
			g.t.Errorf("%v was on %v for at least %v", both.Addr, both.Hosts, both.Sure)
		}
	}
	oneSpeaker(g.t, g.wire, shared4)
}

// answered waits until the client is answered again.
func (g *sealedGroup) answered() {
	g.t.Helper()
	awaitAnswering(g.t, "the client", g.asking, time.Now())
}

// steps are the transitions of a node after an event, each "FROM TO reason".
func steps(n *node, seq uint64) (all []string) {
	for _, e := range n.transitions(seq) {
		all = append(all, e.From+" "+e.To+" "+e.Reason)
	}
	return all
}

func TestBetterMemberAsksAndTheHolderLetsGoFirst(t *testing.T) {
	for name, members := range map[string][]member{
		"two nodes":   {{preempt: true}, {advskew: 100}},
		"three nodes": {{preempt: true}, {advskew: 100, preempt: true}, {advskew: 200, preempt: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newSealedGroup(t, members...)
			better, holder, others := g.nodes[0], g.nodes[1], []int{2}[:len(members)-2]
			g.begin(1, others...)
			seq := holder.seq()
			mark := time.Now()
			g.start(0)
			better.await("MASTER")
			holder.follows(better)
			g.answered()
			if got := steps(holder, seq); !slices.Equal(got, []string{"MASTER RELEASING requested", "RELEASING BACKUP released"}) {
				t.Errorf("the holder went %q", got)
			}
			if got := steps(better, 0); !slices.Equal(got, []string{"INIT BACKUP link-up", "BACKUP MASTER bow-out"}) {
				t.Errorf("the better node went %q", got)
			}
			for _, i := range others {
				if got := g.nodes[i].instance(); got.State != "BACKUP" || got.Epoch != 0 {
					t.Errorf("%s is %s, epoch %d", g.nodes[i].Name, got.State, got.Epoch)
				}
			}
			g.oneHolder()
			out, _ := g.asking.Longest(mark)
			t.Logf("longest pause between answers %v", out.Round(time.Millisecond/10))
		})
	}
}

// The best to take over is not the one with the shortest interval, which a mere bow-out
// would make master, but one that is not demoted.
func TestPlannedMoveGoesToTheBestFitMemberAtOnce(t *testing.T) {
	for name, move := range map[string]func(*sealedGroup){
		"handover": func(g *sealedGroup) {
			if out, code := g.nodes[0].ctl("handover"); code != 0 {
				g.t.Fatalf("carpctl handover: code %d: %s", code, out)
			}
		},
		"SIGTERM": func(g *sealedGroup) { g.nodes[0].stop() },
	} {
		for _, demoted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, demoted %v", name, demoted), func(t *testing.T) {
				t.Parallel()
				g := newSealedGroup(t, member{}, member{advskew: 100}, member{advskew: 40})
				g.begin(0, 1, 2)
				heir, other := g.nodes[2], g.nodes[1]
				if demoted {
					heir, other = other, heir
					other.post("/v1/demote", api.DemoteRequest{Owner: "test", Amount: 20}, nil)
					lab.Eventually(t, takeover, "a to hear that c is demoted", func() bool {
						m, _ := g.said(0, 2)
						return m.Fitness == "degraded"
					})
				}
				mark := time.Now()
				move(g)
				off, on := g.nodes[0].addrs.await(t, mark, shared4, false, takeover), heir.addrs.await(t, mark, shared4, true, takeover)
				heir.await("MASTER")
				g.answered()
				if took := on.At.Sub(off.At); took > atOnce {
					t.Errorf("%s has the address %v after a", heir.Name, took)
				}
				if i := other.instance(); i.State != "BACKUP" || i.Epoch != 0 {
					t.Errorf("%s is %s, epoch %d", other.Name, i.State, i.Epoch)
				}
				g.oneHolder()
				out, _ := g.asking.Longest(mark)
				t.Logf("the address moved in %v; longest pause between answers %v", on.At.Sub(off.At).Round(time.Millisecond/10), out.Round(time.Millisecond/10))
			})
		}
	}
}

// The backup hears nothing of the master, which hears it; the client hears both. Two
// would hold the address if the backup just took it.
func TestMasterThatIsNotHeardLetsGoBeforeItIsReplaced(t *testing.T) {
	for name, members := range map[string][]member{
		"two nodes":   {{preempt: true}, {advskew: 100}},
		"three nodes": {{preempt: true}, {advskew: 100}, {advskew: 200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newSealedGroup(t, members...)
			master, deaf, others := g.nodes[0], g.nodes[1], []int{2}[:len(members)-2]
			g.begin(0, append([]int{1}, others...)...)
			for range 2 { // it is no better the second time
				seq, deafSeq, cut := master.seq(), deaf.seq(), time.Now()
				link := g.lan.Link(master.Host, deaf.Host).Cut()
				master.awaitEvent(seq, "transition", "unheard")
				deaf.await("MASTER")
				master.follows(deaf)
				g.answered()
				off, on := master.addrs.await(t, cut, shared4, false, takeover), deaf.addrs.await(t, cut, shared4, true, takeover)
				if on.At.Before(off.After) {
					t.Errorf("b had the address %v before a was without", off.After.Sub(on.At))
				}
				t.Logf("a lets go %v after the cut, b takes over %v after that", off.At.Sub(cut).Round(time.Millisecond), on.At.Sub(off.At).Round(time.Millisecond))
				for range 3 { // nothing moves while it lasts, though a is the better
					master.wire(g, deaf)
				}
				if got := steps(master, seq); len(got) != 2 {
					t.Errorf("a went %q while it was not heard", got)
				}
				if got := steps(deaf, deafSeq); len(got) != 1 {
					t.Errorf("b went %q while it did not hear", got)
				}
				link.Join()
				master.await("MASTER")
				deaf.follows(master)
				g.knows(0, 1)
				g.answered()
				if got := steps(deaf, deafSeq); !slices.Equal(got[1:], []string{"MASTER RELEASING requested", "RELEASING BACKUP released"}) {
					t.Errorf("b went %q", got)
				}
			}
			g.oneHolder()
		})
	}
}

// wire waits for one more advert of a master.
func (n *node) wire(g *sealedGroup, master *node) {
	g.t.Helper()
	mark := time.Now()
	lab.Eventually(g.t, takeover, "an advert of "+master.Name, func() bool { return len(adverts(g.wire, master.Name, 9, mark)) > 0 })
}

func TestStatusShowsMembersAndWhoseSettingsDiffer(t *testing.T) {
	t.Parallel()
	g := newSealedGroup(t, member{}, member{advskew: 100}, member{advskew: 200, more: []string{"window: 40s"}})
	g.begin(0, 1, 2)
	g.nodes[1].post("/v1/demote", api.DemoteRequest{Owner: "test", Amount: 20}, nil)
	lab.Eventually(t, takeover, "a to hear that b is demoted", func() bool {
		m, _ := g.said(0, 1)
		return m.Fitness == "degraded" && m.AdvSkew == 120
	})
	b, _ := g.said(0, 1)
	c, _ := g.said(0, 2)
	if b.State != "BACKUP" || b.Address != "192.0.2.2" || b.Differs || b.Gone {
		t.Errorf("b is %+v", b)
	}
	if c.State != "BACKUP" || c.Address != "192.0.2.3" || c.Fitness != "fit" || c.AdvBase != 1 || c.AdvSkew != 200 || !c.Differs {
		t.Errorf("c is %+v", c)
	}
	if text := g.nodes[0].alarm("members-differ"); !strings.Contains(text, "node 3") || strings.Contains(text, "node 2") {
		t.Errorf("the alarm of a: %q", text)
	}
	lab.Eventually(t, takeover, "c to know a", func() bool {
		m, known := g.said(2, 0)
		return known && m.State == "MASTER" && m.Epoch == g.nodes[0].instance().Epoch
	})
	lab.Eventually(t, takeover, "c to name both", func() bool {
		text := g.nodes[2].alarm("members-differ")
		return strings.Contains(text, "node 1 at ") && strings.Contains(text, "node 2 at ")
	})
	g.members[2].more = nil
	g.nodes[2].configure(g.members[2].settings(3))
	if out, code := g.nodes[2].ctl("reload"); code != 0 {
		t.Fatalf("carpctl reload: code %d: %s", code, out)
	}
	lab.Eventually(t, takeover, "the end of the alarm", func() bool { return g.nodes[0].alarm("members-differ") == "" })
	g.nodes[2].proc.Signal(syscall.SIGTERM)
	lab.Eventually(t, takeover, "c to be gone", func() bool {
		m, _ := g.said(0, 2)
		return m.Gone
	})
}

// A carpd with `replay: window` among sealed members follows the master and takes no
// companion message for anything.
func TestMemberWithAWindowIgnoresWhatSealedMembersTellEachOther(t *testing.T) {
	t.Parallel()
	g := newSealedGroup(t, member{preempt: true}, member{advskew: 100}, member{advskew: 200})
	g.begin(1)
	other := g.nodes[2]
	windowed := g.members[2].settings(3)
	windowed.more = []string{"replay: window"}
	other.start(windowed)
	other.follows(g.nodes[1])
	g.start(0) // it asks b for the role, and gets it
	g.nodes[0].await("MASTER")
	g.nodes[1].follows(g.nodes[0])
	lab.Eventually(t, takeover, "c to follow a", func() bool {
		i := other.instance()
		return i.Master != nil && i.Master.Address == "192.0.2.1"
	})
	i := other.instance()
	if i.Drops["type"] == 0 || len(i.Members) > 0 {
		t.Errorf("c has dropped %v and knows %+v", i.Drops, i.Members)
	}
	for reason, n := range i.Drops {
		if reason != "type" && n > 0 {
			t.Errorf("c has dropped %d packets: %s", n, reason)
		}
	}
	if got := steps(other, 0); len(got) != 1 {
		t.Errorf("c went %q", got)
	}
	g.oneHolder()
}
