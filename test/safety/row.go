package safety

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Row is one way of breaking a master.
type Row struct {
	Name  string // as in --rows
	Title string // for the report
	About string // what is done

	many   bool                  // a thousand addresses are shared, else one
	links  bool                  // on a switch that can cut links one by one; else a bridge of the kernel, which is faster
	attack bool                  // there is an attacker
	alone  bool                  // it loads the machine: no other run is measured meanwhile
	play   func(r *runner) error // breaks and mends; it returns when all was done
}

// Rows are all there are, in the order of the report.
func Rows() []Row {
	return []Row{
		{Name: "kill", Title: "kill -9", About: "all processes of the master's daemon are killed at once; its host lives on", play: playKill},
		{Name: "crash", Title: "crash", About: "only the process that speaks is killed", play: playCrash},
		{Name: "freeze", Title: "freeze 10 s", About: "all processes of the master's daemon are stopped by SIGSTOP for 10 s, then go on", play: playFreeze},
		{Name: "link", Title: "link down, up", About: "the master's interface is set down by hand, and up again after 6 s", play: playLink},
		{Name: "cut", Title: "cut off, heal", About: "the switch drops all that the master sends and gets for 6 s; the carrier stays", play: playCut},
		{Name: "mute", Title: "mute, heal", About: "nobody gets what the master sends for 6 s; it hears all", links: true, play: playMute},
		{Name: "deaf", Title: "deaf, heal", About: "the master gets nothing for 6 s; all hear it", links: true, play: playDeaf},
		{Name: "unheard", Title: "adverts lost, heal", About: "the other nodes, and they only, do not get what the master sends for 6 s", links: true, play: playUnheard},
		{Name: "partition", Title: "partition, heal", About: "the master is parted from the other nodes for 6 s; clients reach both sides", links: true, play: playPartition},
		{Name: "path", Title: "second path cut, healed", About: "the switch drops all that the master sends and gets on the second path for 6 s", play: playPath},
		{Name: "replay", Title: "replay after death", About: "the master's host dies; an attacker replays all its adverts for 8 s", attack: true, play: playReplay},
		{Name: "rewrite", Title: "rewritten adverts", About: "an attacker sends the master's latest advert with better timing, 20 times a second for 5 s", attack: true, play: playRewrite},
		{Name: "trickle", Title: "10 bad packets/s", About: "an attacker sends 10 packets a second that all must refuse for 6 s", attack: true, play: playTrickle},
		{Name: "flood", Title: "100 000 bad packets/s", About: "the same as fast as the kernel takes them, at most 100 000 a second, for 3 s", attack: true, alone: true, play: playFlood},
		{Name: "handover", Title: "handover, 1000 addresses", About: "the master is told to give the role away", many: true, play: playHandover},
		{Name: "stop", Title: "stop, 1000 addresses", About: "the master's daemon gets SIGTERM", many: true, play: playStop},
	}
}

// shared is how many addresses the nodes share.
func (r Row) shared() int {
	if r.many {
		return manyAddresses
	}
	return 1
}

// rowNames are the names of all rows.
func rowNames() (names []string) {
	for _, r := range Rows() {
		names = append(names, r.Name)
	}
	return names
}

// rowOf finds one by its name.
func rowOf(name string) (Row, bool) {
	i := slices.IndexFunc(Rows(), func(r Row) bool { return r.Name == name })
	if i < 0 {
		return Row{}, false
	}
	return Rows()[i], true
}

// How long faults last that are mended, and attacks.
const (
	frozen    = 10 * time.Second
	parted    = 6 * time.Second
	replayed  = 8 * time.Second
	rewriting = 5 * time.Second
	trickling = 6 * time.Second
	flooding  = 3 * time.Second
)

// How dense attacks are.
const (
	rewriteEvery = 50 * time.Millisecond
	trickleRate  = 10     // packets a second
	floodRate    = 100000 // packets a second
)

func playKill(r *runner) error {
	r.harm(0)
	r.site.kill(0)
	return nil
}

func playCrash(r *runner) error {
	r.harm(0)
	return r.site.running[0].Crash()
}

func playFreeze(r *runner) error {
	return r.during(frozen,
		func() { r.site.signal(0, syscall.SIGSTOP) },
		func() { r.site.signal(0, syscall.SIGCONT) })
}

func playLink(r *runner) error {
	return r.during(parted, func() { r.site.hosts[0].SetLink(false) }, func() { r.site.hosts[0].SetLink(true) })
}

func playCut(r *runner) error {
	return r.during(parted, func() { r.site.hosts[0].Isolate(true) }, func() { r.site.hosts[0].Isolate(false) })
}

func playMute(r *runner) error {
	return r.cutLinks(r.site.everybody(), func(master, other *lab.Host) *lab.Link { return r.site.lan.Link(master, other) })
}

func playDeaf(r *runner) error {
	return r.cutLinks(r.site.everybody(), func(master, other *lab.Host) *lab.Link { return r.site.lan.Link(other, master) })
}

func playUnheard(r *runner) error {
	return r.cutLinks(r.site.hosts[1:], func(master, other *lab.Host) *lab.Link { return r.site.lan.Link(master, other) })
}

func playPartition(r *runner) error {
	return r.during(parted, func() { r.site.lan.Split(r.site.hosts[:1], r.site.hosts[1:]) }, r.site.lan.Heal)
}

// cutLinks cuts one way between the master and each of others for a while.
func (r *runner) cutLinks(others []*lab.Host, way func(master, other *lab.Host) *lab.Link) error {
	var links []*lab.Link
	for _, h := range others {
		links = append(links, way(r.site.hosts[0], h))
	}
	return r.during(parted, func() {
		for _, l := range links {
			l.Cut()
		}
	}, r.site.lan.Heal)
}

func playPath(r *runner) error {
	second := r.site.second[0]
	return r.during(parted, func() { second.Isolate(true) }, func() { second.Isolate(false) })
}

func playReplay(r *runner) error {
	r.harm(0)
	r.site.kill(0)
	r.site.hosts[0].Isolate(true)
	return r.site.attacker.replay(r, r.setting.Interval/2, replayed)
}

func playRewrite(r *runner) error { return r.site.attacker.rewrite(r, rewriteEvery, rewriting) }

func playTrickle(r *runner) error {
	_, err := r.site.attacker.flood(r, trickleRate, trickling)
	return err
}

func playFlood(r *runner) error {
	sent, err := r.site.attacker.flood(r, floodRate, flooding)
	r.sent = sent
	return err
}

// handoverLimit bounds what a daemon may take for it.
const handoverLimit = 20 * time.Second

func playHandover(r *runner) error {
	r.harm(0) // it gives the role away
	ctx, cancel := context.WithTimeout(r.ctx, handoverLimit)
	defer cancel()
	if err := r.site.running[0].Handover(ctx); err != nil {
		return fmt.Errorf("safety: %s: %w", r.daemon.Name, err)
	}
	return nil
}

func playStop(r *runner) error {
	r.harm(0)
	r.site.running[0].Stop()
	return nil
}
