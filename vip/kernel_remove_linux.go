package vip

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// leaving holds the devices whose RemoveDevice waits for devices.lock. It is as long
// as there are callers.
type leaving struct {
	mu  sync.Mutex
	all []*removal
}

// removal is one call of RemoveDevice.
type removal struct {
	link Link
	done bool // guarded by devices.mu, as is err
	err  error
}

func (q *leaving) put(r *removal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, r)
}

func (q *leaving) take() []*removal {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.all
	q.all = nil
	return all
}

func (q *leaving) drop(r *removal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = slices.DeleteFunc(q.all, func(x *removal) bool { return x == r })
}

// RemoveDevice removes what others want removed at the same time along with it: each
// deletion makes the kernel wait for all readers, and one for hundreds of devices as
// long as one for one.
func (k *kernel) RemoveDevice(l Link) error {
	r := &removal{link: l}
	k.devices.leaving.put(r)
	unlock, err := k.devices.lock()
	if err != nil {
		k.devices.leaving.drop(r)
		return deviceError("remove", l.Name, err)
	}
	defer unlock()
	if !r.done {
		k.removeAll(k.devices.leaving.take())
	}
	if r.err != nil {
		return deviceError("remove", l.Name, r.err)
	}
	return nil
}

// removeAll removes devices and restores their parents. The caller has devices.lock.
func (k *kernel) removeAll(all []*removal) {
	links, err := k.linkInfos()
	var there []*removal
	before := make(map[int]arpSettings) // of parents, as devices that go say
	for _, r := range all {
		r.done, r.err = true, err
		i := slices.IndexFunc(links, func(l linkInfo) bool { return l.Index == r.link.Index })
		if i >= 0 && links[i].Parent != 0 && links[i].Parent == r.link.Parent {
			there = append(there, r)
			before[r.link.Parent] = links[i].label.before
		}
	}
	if err != nil {
		return
	}
	k.deleteAll(there, links)
	links = slices.DeleteFunc(links, func(l linkInfo) bool {
		return slices.ContainsFunc(there, func(r *removal) bool { return r.err == nil && r.link.Index == l.Index })
	})
	seen := make(map[int]error)
	for _, r := range all {
		restored, done := seen[r.link.Parent]
		if !done {
			known, ok := before[r.link.Parent]
			if restored = k.restore(links, r.link.Parent, known, ok); restored != nil {
				restored = fmt.Errorf("restore arp_ignore and arp_announce of the interface below: %w", restored)
			}
			seen[r.link.Parent] = restored
		}
		if r.err == nil {
			r.err = restored
		}
	}
}

// deleteAll deletes the devices of all: one by itself, several as a group that
// nobody else is in. It leaves the errors there.
func (k *kernel) deleteAll(all []*removal, links []linkInfo) {
	if len(all) == 0 {
		return
	}
	if len(all) == 1 {
		all[0].err = unlessGone(k.ask(deleteMessage(all[0].link.Index)))
		return
	}
	group := uint32(0)
	for group == 0 || slices.ContainsFunc(links, func(l linkInfo) bool { return l.group == group }) {
		group = rand.Uint32()
	}
	var grouped []*removal
	for part := range slices.Chunk(all, k.most) {
		msgs := make([][]byte, len(part))
		for i, r := range part {
			msgs[i] = groupMessage(r.link.Index, group)
		}
		for i, err := range k.askEach(msgs) {
			if part[i].err = unlessGone(err); err == nil {
				grouped = append(grouped, part[i])
			}
		}
	}
	if len(grouped) == 0 {
		return
	}
	err := unlessGone(k.ask(deleteGroupMessage(group)))
	for _, r := range grouped {
		r.err = err
	}
}

func unlessGone(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}

// restore gives a parent back what it was like before, unless it carries another
// device of ours: as a device said that is gone now, or its record, or as this
// process remembers. The caller has devices.lock.
func (k *kernel) restore(links []linkInfo, parent int, before arpSettings, known bool) error {
	if parent == 0 || slices.ContainsFunc(links, func(l linkInfo) bool { return l.Parent == parent }) {
		return nil
	}
	remembered, also := k.devices.before[parent]
	delete(k.devices.before, parent)
	i := slices.IndexFunc(links, func(l linkInfo) bool { return l.Index == parent })
	if i < 0 {
		return nil
	}
	below := links[i]
	switch {
	case known:
	case below.record != "":
		before = below.recorded
	case also:
		before = remembered
	default:
		return nil
	}
	if then := below.arp.restored(before); then != below.arp {
		if err := k.ask(arpMessage(parent, then)); err != nil {
			return err
		}
	}
	// Last: whoever is killed in between leaves a record that asks for nothing more.
	if below.record != "" {
		return unlessGone(k.ask(nameMessage(unix.RTM_DELLINKPROP, parent, below.record)))
	}
	return nil
}

// quieten makes a parent quiet, and first records on it what it was like before.
func (k *kernel) quieten(parent linkInfo, before arpSettings) error {
	if record := recordOf(parent.Index, before); before != parent.arp.quiet() && parent.record != record {
		if parent.record != "" {
			_ = k.ask(nameMessage(unix.RTM_DELLINKPROP, parent.Index, parent.record))
		}
		// Before Linux 5.5 there are no such names: the labels must do.
		_ = k.ask(nameMessage(unix.RTM_NEWLINKPROP, parent.Index, record))
	}
	if parent.Quiet {
		return nil
	}
	return k.ask(arpMessage(parent.Index, parent.arp.quiet()))
}

func arpMessage(index int, to arpSettings) []byte {
	return settingsMessage(index, setting4{confARPIgnore, to.ignore}, setting4{confARPAnnounce, to.announce})
}

// askEach sends messages in one call and returns the error of each.
func (k *kernel) askEach(msgs [][]byte) []error {
	k.batch.Lock()
	defer k.batch.Unlock()
	errs, lost := k.converse(msgs)
	for i := range errs {
		if errs[i] == nil {
			errs[i] = lost // whether it was done is not known
		}
	}
	return errs
}
