package blockdev

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// extent is the piece in which differences are found and counted. HAST's is 2 MiB.
const extent = 64 << 10

// dialPause is the time between two attempts to reach the other node. HAST's is 10 s.
const dialPause = 200 * time.Millisecond

// counters are the metadata of one node on its disk.
type counters struct {
	Local, Remote uint64 // see the hook's split
	Resource      uint64
	PrevRole      string
}

// message is what the nodes send to each other; each is answered by one.
type message struct {
	Kind string // hello, write, alive, busy, synced; ok, primary, split-brain
	Off  int64
	Data []byte
	Meta counters
	Sums []uint64
}

// replica is one node's copy and, while it is primary, the writer of the other one.
type replica struct {
	set  Settings
	file *os.File

	mu      sync.Mutex
	meta    counters
	peer    *wire          // of a primary: the other node, nil if it is not connected
	heard   bool           // of a primary: an attempt to reach the other node has ended
	dirty   map[int64]bool // extents that the other node does not have
	apart   bool           // something was written since the other node went
	split   bool
	syncing bool // of a primary or secondary: the copy of the secondary is being completed
	changed *sync.Cond
}

// wire is a connection with one question at a time.
type wire struct {
	conn net.Conn
	out  *gob.Encoder
	in   *gob.Decoder
	wait time.Duration
}

func newWire(conn net.Conn, wait time.Duration) *wire {
	return &wire{conn, gob.NewEncoder(conn), gob.NewDecoder(conn), wait}
}

func (w *wire) ask(m message) (answer message, err error) {
	if err := w.conn.SetDeadline(time.Now().Add(w.wait)); err != nil {
		return answer, err
	}
	if err := w.out.Encode(m); err != nil {
		return answer, err
	}
	return answer, w.in.Decode(&answer)
}

func openReplica(set Settings) (*replica, error) {
	file, err := os.OpenFile(filepath.Join(set.Dir, "disk"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(set.Size); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r := &replica{set: set, file: file, dirty: make(map[int64]bool)}
	r.changed = sync.NewCond(&r.mu)
	r.meta, err = readMeta(set.Dir)
	return r, err
}

func readMeta(dir string) (m counters, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "meta"))
	if errors.Is(err, os.ErrNotExist) {
		return counters{PrevRole: "init"}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	return m, err
}

func writeMeta(dir string, m counters) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "meta")
	return errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path))
}

// ReadAt implements backing. Nothing is read before it is known whether there is another
// node: HAST begins with the handshake, too.
func (r *replica) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.untilHeard()
	return r.file.ReadAt(p, off)
}

// WriteAt implements backing: it returns when both nodes have it.
func (r *replica) WriteAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.untilHeard()
	if r.peer == nil && !r.apart {
		r.apart = true
		r.meta.Local++
		if err := writeMeta(r.set.Dir, r.meta); err != nil {
			return 0, err
		}
	}
	n, err := r.file.WriteAt(p, off)
	if err != nil {
		return n, err
	}
	first, last := off/extent, (off+int64(len(p))-1)/extent
	if r.peer != nil && !r.held(first, last) {
		if _, err := r.peer.ask(message{Kind: "write", Off: off, Data: p}); err == nil {
			return n, nil
		}
		r.lose()
	}
	for i := first; i <= last; i++ {
		r.dirty[i] = true
	}
	return n, nil
}

func (r *replica) untilHeard() {
	for !r.heard {
		r.changed.Wait()
	}
}

// held reports whether extents wait for their turn in a synchronisation that is held up.
func (r *replica) held(first, last int64) bool {
	for i := first; i <= last; i++ {
		if r.dirty[i] {
			return true
		}
	}
	return false
}

func (r *replica) lose() {
	if r.peer != nil {
		_ = r.peer.conn.Close()
	}
	r.peer, r.apart, r.syncing = nil, false, false
}

func (r *replica) hear() {
	r.heard = true
	r.changed.Broadcast()
}

// sums are the checksums of all extents.
func sums(file *os.File, size int64) ([]uint64, error) {
	table := crc64.MakeTable(crc64.ISO)
	all, buf, zero := make([]uint64, 0, size/extent), make([]byte, extent), make([]byte, extent)
	for off := int64(0); off < size; off += extent {
		if _, err := file.ReadAt(buf, off); err != nil {
			return nil, err
		}
		sum := uint64(0)
		if !bytes.Equal(buf, zero) {
			sum = crc64.Checksum(buf, table)
		}
		all = append(all, sum)
	}
	return all, nil
}

// begin makes the copy one of a primary that has not heard of the other node yet.
func (r *replica) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard, r.apart, r.dirty, r.syncing = false, false, make(map[int64]bool), false
}

// lead is what a primary does until stop is closed: it keeps the other node connected,
// and sends what that lacks.
func (r *replica) lead(stop <-chan struct{}, event func(string)) {
	began := time.Now()
	defer func() {
		r.mu.Lock()
		r.lose()
		r.mu.Unlock()
	}()
	for {
		r.mu.Lock()
		connected := r.peer != nil
		r.mu.Unlock()
		if !connected {
			refused, err := r.connect(event)
			r.mu.Lock()
			// One that says it is primary as well is asked again until the time is over.
			if err != nil && (!refused || time.Since(began) > r.set.Timeout) || err == nil {
				r.hear()
			}
			r.mu.Unlock()
		} else {
			r.tend(event)
		}
		select {
		case <-stop:
			return
		case <-time.After(dialPause):
		}
	}
}

// connect shakes hands with the other node and finds out what it lacks.
func (r *replica) connect(event func(string)) (refused bool, err error) {
	conn, err := net.DialTimeout("tcp", r.set.Remote, r.set.Timeout)
	if err != nil {
		return false, err
	}
	w := newWire(conn, r.set.Timeout)
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, err := w.ask(message{Kind: "hello", Meta: r.meta})
	if err == nil && answer.Kind != "ok" {
		err = fmt.Errorf("the other node says: %s", answer.Kind)
		if r.split = answer.Kind == "split-brain"; r.split {
			event("split-brain")
		}
		refused = answer.Kind == "primary"
	}
	if err != nil {
		return refused, errors.Join(err, conn.Close())
	}
	own, err := sums(r.file, r.set.Size)
	if err != nil || len(own) != len(answer.Sums) {
		return false, errors.Join(err, errors.New("the data sizes differ"), conn.Close())
	}
	for i := range own {
		if own[i] != answer.Sums[i] {
			r.dirty[int64(i)] = true
		}
	}
	r.peer, r.split, r.syncing = w, false, true // until the other node has been told that it has all
	if r.meta.Resource == 0 {
		r.meta.Resource = uint64(time.Now().UnixNano())
	}
	r.meta.Remote = answer.Meta.Local
	event("connect")
	if len(r.dirty) > 0 {
		event("syncstart")
	}
	return false, writeMeta(r.set.Dir, r.meta)
}

// tend sends what the other node lacks, and hears whether it is there.
func (r *replica) tend(event func(string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peer == nil {
		return
	}
	buf := make([]byte, extent)
	for i := range r.dirty {
		if r.set.fault("hold-sync") != "" {
			break
		}
		_, err := r.file.ReadAt(buf, i*extent)
		if err == nil {
			_, err = r.peer.ask(message{Kind: "write", Off: i * extent, Data: buf})
		}
		if err != nil {
			r.lose()
			event("disconnect")
			return
		}
		delete(r.dirty, i)
	}
	kind := "alive"
	switch {
	case len(r.dirty) > 0:
		kind = "busy"
	case r.syncing:
		kind = "synced"
	}
	if _, err := r.peer.ask(message{Kind: kind, Meta: r.meta}); err != nil {
		r.lose()
		event("disconnect")
		return
	}
	if kind == "synced" {
		r.syncing = false
		event("syncdone")
	}
}

// follow is what a secondary does for one connection, after its hello was taken: it
// writes what it is told, until the connection ends or nothing comes for the timeout.
func (r *replica) follow(w *wire, hello message) {
	for m := hello; ; {
		answer := message{Kind: "ok"}
		r.mu.Lock()
		var err error
		switch m.Kind {
		case "hello":
			r.syncing = true
			r.meta.Remote, r.meta.Resource = m.Meta.Local, m.Meta.Resource
			answer.Meta = r.meta
			answer.Sums, err = sums(r.file, r.set.Size)
		case "write":
			_, err = r.file.WriteAt(m.Data, m.Off)
		case "synced":
			r.syncing = false
		}
		if m.Kind == "hello" || m.Kind == "synced" {
			err = errors.Join(err, writeMeta(r.set.Dir, r.meta))
		}
		r.mu.Unlock()
		if err == nil {
			err = w.out.Encode(answer)
		}
		m = message{}
		if err == nil {
			err = w.conn.SetDeadline(time.Now().Add(r.set.Timeout))
		}
		if err == nil {
			err = w.in.Decode(&m)
		}
		if err != nil {
			return
		}
	}
}

// splitFrom reports whether both nodes have written since they last met.
func (r *replica) splitFrom(primary counters) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meta.Local > primary.Remote && primary.Local > r.meta.Remote
}

// bytesDirty is how much the other node lacks.
func (r *replica) bytesDirty() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.dirty)) * extent
}
