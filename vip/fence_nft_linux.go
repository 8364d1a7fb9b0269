package vip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fenceName    = "carpd" // and carpd-2 to carpd-16 for further daemons of a network namespace
	maxFences    = 16
	fenceComment = "carpd: addresses answer only while their tag lives"

	// tableOwned makes a table belong to the socket that made it (Linux 5.12), and
	// tableStays keeps it when that closes (6.9): without the second the fence would be
	// open at the very moment when the daemon is killed.
	tableOwned = 2
	tableStays = 4

	// elementsMax in one message: the kernel takes the first 64 KiB, and says nothing
	// of the rest.
	elementsMax = 1000
	// verifyMax elements are asked for at a time: the answers fit in any buffer.
	verifyMax = 100

	nftTableOwner    = 7 // NFTA_TABLE_OWNER
	nftTableUserData = 6 // NFTA_TABLE_USERDATA
)

// filter is the Fence of nf_tables: a table of ours in each of the families inet and
// arp, both with one name.
type filter struct {
	sock    *filterSocket
	name    string
	guarded bool
	lock    int // a name that says that this process lives, where tables have no owner
	lost    chan struct{}
	watch   *filterWatch // nil if guarded

	mu    sync.Mutex // guards what follows; held across changes of addresses, not of tags
	marks map[uint32]fenced
}

// fenced is what belongs to a mark.
type fenced map[element]bool

// element is one key of one of the maps of addresses.
type element struct {
	set  string
	link string // of a link-local address
	addr netip.Addr
}

// OpenFence makes a fence in the network namespace of the calling thread. The error
// wraps ErrNoFence if the kernel cannot or does not let us. It needs CAP_NET_ADMIN and
// Linux 5.10; from 6.9 on nobody else can remove it.
func OpenFence() (Fence, error) { return openFence(true) }

func openFence(guarded bool) (Fence, error) {
	sock, err := openFilterSocket()
	if err != nil {
		return nil, noFence(err)
	}
	f := &filter{sock: sock, guarded: guarded, lock: -1, lost: make(chan struct{}, 1), marks: map[uint32]fenced{}}
	if err := f.begin(); err != nil {
		f.release()
		return nil, noFence(err)
	}
	if f.guarded {
		return f, nil
	}
	own, err := sock.port()
	if err == nil {
		f.watch, err = watchFilter(f.name, own, f.lost)
	}
	if err != nil {
		return nil, errors.Join(noFence(err), f.Close())
	}
	return f, nil
}

func noFence(err error) error {
	e := &OpError{Op: "make the fence", Err: fmt.Errorf("%w: %w", ErrNoFence, err)}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Hint = capabilityHint
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		e.Hint = "the kernel needs nf_tables, its families inet and arp, and Linux 5.10: see modprobe nf_tables"
	}
	return e
}

// begin makes the tables under the first name that is free.
func (f *filter) begin() error {
	taken, err := f.tables()
	if err != nil {
		return err
	}
	for n := 1; n <= maxFences; n++ {
		f.name = fenceName
		if n > 1 {
			f.name += "-" + strconv.Itoa(n)
		}
		if _, used := taken[f.name]; used {
			continue
		}
		if f.lock, err = lockName(f.name); err != nil {
			continue
		}
		err = f.build()
		if f.guarded && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)) {
			f.guarded = false
			err = f.build()
		}
		if !errors.Is(err, unix.EEXIST) {
			return errors.Join(err, f.remembered(err))
		}
		f.unlock()
	}
	return fmt.Errorf("the names %s to %s-%d are taken: %w", fenceName, fenceName, maxFences, unix.EEXIST)
}

// remembered sees that the kernel keeps what says whose a table is.
func (f *filter) remembered(built error) error {
	if built != nil {
		return nil
	}
	taken, err := f.tables()
	if err == nil && taken[f.name].ours {
		return nil
	}
	return errors.Join(err, f.destroy(f.name), unix.EOPNOTSUPP)
}

// build makes both tables and what is known of marks, closed, in one transaction with
// what is to be done before.
func (f *filter) build(msgs ...filterMessage) error {
	flags := uint32(0)
	if f.guarded {
		flags = tableOwned | tableStays
	}
	for _, family := range fenceFamilies() {
		a := attrs{}.text(unix.NFTA_TABLE_NAME, f.name).number(unix.NFTA_TABLE_FLAGS, flags).bytes(nftTableUserData, comment())
		msgs = append(msgs, filterMessage{unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE | unix.NLM_F_EXCL, family, a})
	}
	for id, s := range filterSets() {
		msgs = append(msgs, s.message(f.name, uint32(id+1)))
	}
	for _, c := range filterChains() {
		more, err := c.messages(f.name)
		if err != nil {
			return err
		}
		msgs = append(msgs, more...)
	}
	for _, mark := range slices.Sorted(maps.Keys(f.marks)) {
		msgs = append(msgs, f.points(unix.NFT_MSG_NEWSETELEM, []Point{{Mark: mark}})...)
		msgs = append(msgs, f.elements(unix.NFT_MSG_NEWSETELEM, mark, slices.Collect(maps.Keys(f.marks[mark])))...)
	}
	return f.sock.commit(msgs...)
}

func fenceFamilies() []byte { return []byte{unix.NFPROTO_INET, unix.NFPROTO_ARP} }

// comment is fenceComment as nft stores one: type 0, length, text.
func comment() []byte {
	return append([]byte{0, byte(len(fenceComment) + 1)}, append([]byte(fenceComment), 0)...)
}

// table is what is known of a table with one of our names.
type table struct {
	ours  bool // made by a carpd
	alive bool // by one that lives
}

// tables lists the tables with our names, of both families as one.
func (f *filter) tables() (map[string]table, error) {
	found := map[string]table{}
	for _, family := range fenceFamilies() {
		err := f.sock.dump(unix.NFT_MSG_GETTABLE, family, nil, func(a map[uint16][]byte) {
			name := string(bytes.TrimRight(a[unix.NFTA_TABLE_NAME], "\x00"))
			if base, _, _ := strings.Cut(name, "-"); base != fenceName {
				return
			}
			t := table{ours: bytes.Equal(a[nftTableUserData], comment())}
			if b := a[unix.NFTA_TABLE_FLAGS]; len(b) == 4 && binary.BigEndian.Uint32(b)&tableOwned != 0 {
				t.alive = len(a[nftTableOwner]) == 4
			} else {
				t.alive = nameLocked(name)
			}
			was, seen := found[name]
			found[name] = table{ours: t.ours && (was.ours || !seen), alive: t.alive || was.alive}
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// RemoveStale implements Fence.
func (f *filter) RemoveStale() ([]string, error) {
	return f.removeStale(func(string) error { return nil })
}

// removeStale calls before for each fence that a dead daemon left, and removes it if
// that gives no error.
func (f *filter) removeStale(before func(name string) error) ([]string, error) {
	found, err := f.tables()
	if f.name == "" && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
		return nil, nil // no rights, or no nf_tables: nothing of ours either
	}
	var removed []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if t := found[name]; !t.ours || t.alive || name == f.name {
			continue
		}
		e := before(name)
		if e == nil {
			e = f.destroy(name)
		}
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		removed = append(removed, name)
	}
	if err != nil {
		err = &OpError{Op: "remove the fence of a dead daemon", Err: err, Hint: "see nft list tables"}
	}
	return removed, err
}

// destroy removes the tables of a name. One that had an owner is claimed first: until
// then it is nobody's, and nobody may change it.
func (f *filter) destroy(name string) error {
	var err error
	for _, family := range fenceFamilies() {
		named := attrs{}.text(unix.NFTA_TABLE_NAME, name)
		claim := filterMessage{unix.NFT_MSG_NEWTABLE, 0, family, named.number(unix.NFTA_TABLE_FLAGS, tableOwned|tableStays)}
		remove := filterMessage{unix.NFT_MSG_DELTABLE, 0, family, named}
		e := f.sock.commit(remove)
		if errors.Is(e, unix.EPERM) {
			if e = f.sock.commit(claim); e == nil {
				e = f.sock.commit(remove)
			}
		}
		if !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Protect implements Fence.
func (f *filter) Protect(mark uint32, links []string, addrs []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	was, known := f.marks[mark]
	is := make(fenced)
	for _, a := range addrs {
		for _, e := range elementsOf(a, links) {
			is[e] = true
		}
	}
	for other, has := range f.marks {
		for e := range is {
			if other != mark && has[e] {
				return &OpError{Op: "fence", Addr: host(e.addr), Err: ErrFenced}
			}
		}
	}
	if !known {
		if err := f.commit(f.points(unix.NFT_MSG_NEWSETELEM, []Point{{Mark: mark}})...); err != nil {
			return err
		}
		was = fenced{}
	}
	added, removed := missing(is, was), missing(was, is)
	err := f.commit(append(f.elements(unix.NFT_MSG_NEWSETELEM, mark, added), f.elements(unix.NFT_MSG_DELSETELEM, mark, removed)...)...)
	if err == nil {
		err = f.verify(mark, added)
	}
	if err != nil {
		if !known {
			_ = f.forget(mark, is)
		}
		return err
	}
	f.marks[mark] = is
	return nil
}

func missing(a, b fenced) (out []element) {
	for e := range a {
		if !b[e] {
			out = append(out, e)
		}
	}
	return out
}

func elementsOf(a netip.Addr, links []string) []element {
	switch {
	case a.Is4():
		return []element{{set: setOurs4, addr: a}}
	case !a.IsLinkLocalUnicast():
		return []element{{set: setOurs6, addr: a}}
	}
	out := make([]element, len(links))
	for i, l := range links {
		out[i] = element{set: setLinks, link: l, addr: a}
	}
	return out
}

func (e element) key() []byte {
	if e.set != setLinks {
		return e.addr.AsSlice()
	}
	key := make([]byte, sizeName, sizeName+16)
	copy(key, e.link)
	return append(key, e.addr.AsSlice()...)
}

// verify asks for each key that was added: the kernel may have taken a part only.
func (f *filter) verify(mark uint32, added []element) error {
	for part := range slices.Chunk(added, verifyMax) {
		for _, m := range f.elements(unix.NFT_MSG_GETSETELEM, mark, part) {
			err := f.sock.get(m)
			if errors.Is(err, unix.ENOENT) {
				return &OpError{Op: "fence", Err: fmt.Errorf("some of %d addresses were not taken by the kernel", len(added))}
			}
			if err != nil {
				return f.lostIf(err)
			}
		}
	}
	return nil
}

// Forget implements Fence.
func (f *filter) Forget(mark uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	has, known := f.marks[mark]
	if !known {
		return nil
	}
	delete(f.marks, mark)
	return f.forget(mark, has)
}

func (f *filter) forget(mark uint32, has fenced) error {
	msgs := f.elements(unix.NFT_MSG_DELSETELEM, mark, slices.Collect(maps.Keys(has)))
	return f.commit(append(msgs, f.points(unix.NFT_MSG_DELSETELEM, []Point{{Mark: mark}})...)...)
}

// elements builds the messages that add or delete keys of a mark.
func (f *filter) elements(kind uint16, mark uint32, all []element) (msgs []filterMessage) {
	for _, s := range filterSets() {
		var list []attrs
		for _, e := range all {
			if e.set == s.name && s.keyType != typeMark {
				a := attrs{}.nest(unix.NFTA_SET_ELEM_KEY, attrs{}.bytes(unix.NFTA_DATA_VALUE, e.key()))
				if kind == unix.NFT_MSG_NEWSETELEM {
					a = a.nest(unix.NFTA_SET_ELEM_DATA, attrs{}.bytes(unix.NFTA_DATA_VALUE, native(mark)))
				}
				list = append(list, a)
			}
		}
		msgs = append(msgs, f.lists(kind, s.family, s.name, list)...)
	}
	return msgs
}

// points builds the messages that set marks, or delete them.
func (f *filter) points(kind uint16, points []Point) (msgs []filterMessage) {
	list := make([]attrs, len(points))
	for i, p := range points {
		list[i] = attrs{}.nest(unix.NFTA_SET_ELEM_KEY, attrs{}.bytes(unix.NFTA_DATA_VALUE, native(p.Mark)))
		if kind == unix.NFT_MSG_NEWSETELEM {
			list[i] = list[i].nest(unix.NFTA_SET_ELEM_DATA, attrs{}.bytes(unix.NFTA_DATA_VALUE, native(p.Tag)))
		}
	}
	for _, family := range fenceFamilies() {
		msgs = append(msgs, f.lists(kind, family, setPoint, list)...)
	}
	return msgs
}

// lists packs elements into messages that the kernel takes whole.
func (f *filter) lists(kind uint16, family byte, set string, elements []attrs) (msgs []filterMessage) {
	flags := uint16(0)
	if kind == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	for part := range slices.Chunk(elements, elementsMax) {
		var list attrs
		for _, e := range part {
			list = list.nest(unix.NFTA_LIST_ELEM, e)
		}
		msgs = append(msgs, filterMessage{kind, flags, family, attrs{}.text(unix.NFTA_SET_ELEM_LIST_TABLE, f.name).
			text(unix.NFTA_SET_ELEM_LIST_SET, set).nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list)})
	}
	return msgs
}

// native is a mark or tag as it is in a register.
func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// Stage implements Fence.
func (f *filter) Stage(stages []Stage) error {
	list := make([]attrs, len(stages))
	for i, s := range stages {
		list[i] = attrs{}.nest(unix.NFTA_SET_ELEM_KEY, attrs{}.bytes(unix.NFTA_DATA_VALUE, native(s.Tag))).
			long(unix.NFTA_SET_ELEM_TIMEOUT, uint64(max(s.Life/time.Millisecond, 1)))
	}
	var msgs []filterMessage
	for _, family := range fenceFamilies() {
		msgs = append(msgs, f.lists(unix.NFT_MSG_NEWSETELEM, family, setLive, list)...)
	}
	return f.commit(msgs...)
}

// Set implements Fence: the marks are deleted and added, which is one step to packets.
func (f *filter) Set(points []Point) error {
	return f.commit(append(f.points(unix.NFT_MSG_DELSETELEM, points), f.points(unix.NFT_MSG_NEWSETELEM, points)...)...)
}

func (f *filter) commit(msgs ...filterMessage) error {
	if len(msgs) == 0 {
		return nil
	}
	return f.lostIf(f.sock.commit(msgs...))
}

// lostIf says what it means that something of ours is not there.
func (f *filter) lostIf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return &OpError{Op: "change the fence", Err: fmt.Errorf("%w: %w", ErrFenceLost, err), Hint: "see who does it by nft monitor"}
	}
	return &OpError{Op: "change the fence", Err: err}
}

// Restore implements Fence.
func (f *filter) Restore() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	// What is left goes in the same transaction. To remove what is not there is an
	// error, so it is made first.
	var msgs []filterMessage
	for _, family := range fenceFamilies() {
		named := attrs{}.text(unix.NFTA_TABLE_NAME, f.name)
		msgs = append(msgs, filterMessage{unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, family, named},
			filterMessage{unix.NFT_MSG_DELTABLE, 0, family, named})
	}
	if f.watch != nil { // an earlier one
		select {
		case <-f.watch.seen:
		default:
		}
	}
	if err := f.build(msgs...); err != nil {
		return &OpError{Op: "restore the fence", Err: err}
	}
	if f.watch != nil {
		f.watch.caughtUp() // or a notice of before would come as one of later
	}
	return nil
}

// Lost implements Fence.
func (f *filter) Lost() <-chan struct{} { return f.lost }

// Guarded implements Fence.
func (f *filter) Guarded() bool { return f.guarded }

// Close implements Fence.
func (f *filter) Close() error {
	if f.watch != nil {
		f.watch.close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sock.closed() {
		return nil
	}
	err := f.destroy(f.name)
	f.release()
	if err != nil {
		return &OpError{Op: "remove the fence", Err: err}
	}
	return nil
}

func (f *filter) release() {
	f.sock.close()
	f.unlock()
}

func (f *filter) unlock() {
	if f.lock >= 0 {
		unix.Close(f.lock)
		f.lock = -1
	}
}
