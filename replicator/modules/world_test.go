package modules_test

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator/modules"
)

// world is a cluster in virtual time: the real Core of each node, with a database in
// memory, a disk for its state, a clock of its own, and lines that lose and delay.
type world struct {
	t      testing.TB
	rand   *rand.Rand
	now    time.Duration
	queue  queue
	order  uint64
	nodes  []*node
	policy modules.Policy
	specs  []modules.Module
	loss   float64               // of messages, for good
	slow   time.Duration         // of each message
	resent float64               // of packets, which TCP sends again
	apart  func(a, b uint8) bool // lines that are cut
	mangle func(from uint8, m modules.Message) modules.Message
	log    []string
	counts map[modules.EventKind]int
}

type node struct {
	id      uint8
	core    *modules.Core
	disk    []byte            // its state
	db      map[string][]byte // canonical content by module
	up      bool
	life    int           // events of an earlier one do not count
	ahead   time.Duration // of its wall clock
	term    uint64        // of its mastership; 0: none
	sent    int64         // bytes, with those of the lines
	packets int64
	found   bool  // its program was started and nothing changed since
	refuses error // of its database to be written
	stamps  map[string]modules.Stamp
}

// lineBytes is what a message costs beyond its own bytes: frame, SSH packet, TCP and IP
// header, and an acknowledgement that travels alone. TestBytesOnTheLine of package mesh
// compares it with the real thing.
const lineBytes = 155

type event struct {
	at    time.Duration
	order uint64
	do    func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].at, q[j].at), cmp.Compare(q[i].order, q[j].order)) < 0
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(e any)   { *q = append(*q, e.(event)) }
func (q *queue) Pop() any {
	e := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return e
}

// proxysql are modules as ProxySQL's, with the tables that must not be emptied.
func proxysql() []modules.Module {
	var all []modules.Module
	for _, n := range []string{"admin_variables", "mysql_firewall", "mysql_query_rules", "mysql_servers", "mysql_users", "mysql_variables", "proxysql_servers", "restapi", "scheduler"} {
		m := modules.Module{Name: n, Diffs: modules.DefaultDiffs}
		if n == "mysql_users" || n == "mysql_servers" {
			m.Guarded = []string{n}
		}
		all = append(all, m)
	}
	return all
}

func newWorld(t testing.TB, n int, seed uint64, specs ...modules.Module) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 7)), specs: specs, apart: func(a, b uint8) bool { return false }, counts: map[modules.EventKind]int{}}
	if len(specs) == 0 {
		w.specs = proxysql()
	}
	for i := range n {
		w.nodes = append(w.nodes, &node{id: uint8(i + 1), db: map[string][]byte{}, stamps: map[string]modules.Stamp{}})
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d; the last of what happened:", seed)
			for _, l := range w.log[max(0, len(w.log)-40):] {
				t.Log(l)
			}
		}
	})
	return w
}

// start boots all nodes within a second.
func (w *world) start() *world {
	for _, n := range w.nodes {
		w.after(time.Duration(w.rand.Int64N(int64(time.Second))), func() { w.boot(n) })
	}
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, event{w.now + d, w.order, do})
}

func (w *world) run(d time.Duration) {
	end := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// until runs until it holds, at most so long, and returns how long it took.
func (w *world) until(limit time.Duration, what string, ok func() bool) time.Duration {
	begin := w.now
	for !ok() {
		if w.now-begin > limit {
			w.t.Fatalf("not within %v: %s: %s", limit, what, w.spread())
		}
		w.run(10 * time.Millisecond)
	}
	return w.now - begin
}

// spread says which stamps the nodes have of each module.
func (w *world) spread() (s string) {
	for _, m := range w.specs {
		by := map[string][]uint8{}
		for _, n := range w.nodes {
			if n.up {
				ms := n.module(w, m.Name)
				k := fmt.Sprintf("%v %v %s", ms.Stamp, ms.Standing, ms.Reason)
				by[k] = append(by[k], n.id)
			}
		}
		if len(by) > 1 {
			s += fmt.Sprintf("\n%s: %v", m.Name, by)
		}
	}
	return s
}

func (n *node) module(w *world, name string) modules.ModuleStatus {
	for _, m := range n.core.Status(n.time(w)).Modules {
		if m.Name == name {
			return m
		}
	}
	return modules.ModuleStatus{}
}

var epochStart = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

func (n *node) time(w *world) time.Time { return epochStart.Add(w.now + n.ahead) }

// boot starts a node with what is on its disk.
func (w *world) boot(n *node) {
	var saved modules.State
	if n.disk != nil {
		if err := json.Unmarshal(n.disk, &saved); err != nil {
			w.t.Fatal(err)
		}
	} else {
		clear(n.stamps)
	}
	cfg := modules.Config{Self: n.id, Modules: w.specs, Policy: w.policy, Rand: rand.New(rand.NewPCG(w.rand.Uint64(), 1))}
	for _, o := range w.nodes {
		if o != n {
			cfg.Peers = append(cfg.Peers, o.id)
		}
	}
	var err error
	if n.core, err = modules.New(cfg, saved); err != nil {
		w.t.Fatal(err)
	}
	n.up = true
	n.life++
	life := n.life
	var tick, look func()
	tick = func() {
		if n.life == life {
			w.do(n, n.core.Tick(n.time(w)))
			w.after(max(n.core.Next().Sub(n.time(w)), time.Millisecond), tick)
		}
	}
	look = func() {
		if n.life == life {
			for _, m := range w.specs {
				w.look(n, m.Name)
			}
			w.after(250*time.Millisecond, look)
		}
	}
	look()
	tick()
}

// stop kills a node.
func (w *world) stop(n *node) { n.up, n.term = false, 0; n.life++ }

func (w *world) look(n *node, name string) {
	s, err := modules.Summarize(n.content(name))
	s.Found = n.found
	w.do(n, n.core.Looked(n.time(w), name, s, err))
}

func (n *node) content(name string) []byte {
	if n.db[name] == nil {
		n.db[name] = rows(name)
	}
	return n.db[name]
}

// rows makes a content of one table.
func rows(table string, values ...string) []byte {
	t := modules.Table{Name: table, Columns: []string{"v"}}
	for _, v := range values {
		t.Rows = append(t.Rows, []any{v})
	}
	b, err := modules.Content{t}.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

// hold makes a node the holder, under a term of its own mastership.
func (w *world) hold(n *node, term uint64) {
	n.term = term
	w.do(n, n.core.Hold(n.time(w), modulesEpoch(term)))
}

func (w *world) release(n *node) {
	n.term = 0
	w.do(n, n.core.Release(n.time(w)))
}

// change has a client write to a node's database.
func (w *world) change(n *node, module string, values ...string) {
	n.db[module] = rows(module, values...)
}

// seed has an operator make a node's content that of the cluster.
func (w *world) seed(n *node) {
	for _, m := range w.specs {
		e, err := n.core.Seed(n.time(w), m.Name)
		if err != nil {
			w.t.Fatal(err)
		}
		w.do(n, e)
	}
}

// do does what a Core asks for.
func (w *world) do(n *node, e modules.Effects) {
	if e.Save {
		b, err := json.Marshal(n.core.State())
		if err != nil {
			w.t.Fatal(err)
		}
		n.disk = b
		w.checkOrder(n)
	}
	for _, ev := range e.Events {
		w.counts[ev.Kind]++
		w.log = append(w.log, fmt.Sprintf("%10v node %d: %s %s %v lost %v (node %d): %s", w.now, n.id, ev.Kind, ev.Module, ev.Stamp, ev.Lost, ev.Node, ev.Text))
	}
	for _, s := range e.Send {
		w.send(n, s.To, s.Message)
	}
	for _, s := range e.Serve {
		var answer modules.Message = modules.Data{Module: s.Module, Meta: s.Meta, Content: n.content(s.Module)}
		if sum, err := modules.Summarize(n.content(s.Module)); err != nil || sum.Sum != s.Meta.Stamp.Sum {
			answer = modules.Gone{Module: s.Module, Stamp: s.Meta.Stamp, Reason: "changed"}
		}
		w.send(n, s.To, answer)
	}
	for _, s := range e.Offer {
		w.send(n, s.To, modules.Offer{Module: s.Module, Base: s.Meta.Stamp, Content: n.content(s.Module)})
	}
	for _, in := range e.Install {
		life := n.life
		w.after(20*time.Millisecond+time.Duration(w.rand.Int64N(int64(60*time.Millisecond))), func() {
			if n.life != life {
				return
			}
			if n.refuses == nil {
				n.db[in.Module] = slices.Clone(in.Content)
			}
			s, err := modules.Summarize(n.content(in.Module))
			w.do(n, n.core.Installed(n.time(w), in.Module, s, cmp.Or(n.refuses, err)))
		})
	}
}

// checkOrder sees that no stamp goes back.
func (w *world) checkOrder(n *node) {
	for name, s := range n.core.State().Modules {
		if s.Stamp.Compare(n.stamps[name]) < 0 {
			w.t.Errorf("at %v node %d went back in %s: from %v to %v", w.now, n.id, name, n.stamps[name], s.Stamp)
		}
		n.stamps[name] = s.Stamp
	}
}

// send carries a message as bytes, or loses it.
func (w *world) send(from *node, to uint8, m modules.Message) {
	if w.mangle != nil {
		m = w.mangle(from.id, m)
	}
	b := modules.Append(nil, m)
	from.sent += int64(len(b)) + lineBytes
	from.packets++
	dest := w.nodes[to-1]
	latency := w.slow + time.Millisecond + time.Duration(w.rand.Int64N(int64(10*time.Millisecond)))
	for again := 200 * time.Millisecond; w.rand.Float64() < w.resent && again < 10*time.Second; again *= 2 {
		latency += again
	}
	life, mine := dest.life, from.life
	switch {
	case !dest.up, w.apart(from.id, to):
		if w.apart(from.id, to) {
			latency = time.Second // nobody says no
		}
		w.after(latency, func() {
			if from.life == mine {
				w.do(from, from.core.Failed(from.time(w), to))
			}
		})
	case w.rand.Float64() < w.loss:
	default:
		w.after(latency, func() {
			got, err := modules.Decode(b)
			if err != nil {
				w.t.Fatalf("%T: %v", m, err)
			}
			if dest.life == life && !w.apart(from.id, to) {
				w.do(dest, dest.core.Hear(dest.time(w), from.id, got))
			}
		})
	}
}

// equal reports whether all nodes that are up hold the same, with the same stamps.
func (w *world) equal() bool {
	var first modules.State
	var want map[string][]byte
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		have := n.core.State()
		if want == nil {
			first, want = have, n.db
			for _, m := range w.specs {
				if s, err := modules.Summarize(n.content(m.Name)); err != nil || s.Sum != have.Modules[m.Name].Stamp.Sum {
					return false
				}
			}
		}
		for _, m := range w.specs {
			if have.Modules[m.Name].Stamp != first.Modules[m.Name].Stamp || string(n.content(m.Name)) != string(want[m.Name]) {
				return false
			}
		}
	}
	return true
}
