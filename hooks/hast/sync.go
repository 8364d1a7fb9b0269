package hast

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// record is what this node knows of its copy. A secondary cannot read that off its own
// hastd: it is put together from what both nodes say, each time they are looked at, and
// kept in a file across restarts of the daemon. It does not count after a restart of the
// machine: nobody knows what the other node did meanwhile.
type record struct {
	Boot   string    `json:"boot"`
	Whole  bool      `json:"whole"` // this copy had all that was written, when the nodes last heard of each other
	Why    string    `json:"why"`   // why Whole is what it is
	Seen   time.Time `json:"seen"`
	Worker int       `json:"worker"` // the secondary's worker at that time: a new one is a new connection
	Lost   time.Time `json:"lost"`   // since when the other node's hastd is not connected; zero: it is
	Wanted time.Time `json:"wanted"` // when this node first was to be promoted after that; zero: not yet
}

// restarted drops what a record of another boot said.
func (r record) restarted(boot string) record {
	if r.Boot == boot {
		return r
	}
	return record{Boot: boot, Why: "since this machine was started nobody has said that its copy is whole"}
}

// next is the record after a look at this node and, where it answered, the other one.
func (r record) next(now time.Time, mine Status, peer *other, bothWrote bool) record {
	before := r.Seen
	r.Seen = now
	switch {
	case bothWrote:
		r.Whole, r.Why = false, "split brain: both nodes have written while they were apart"
		return r
	case mine.Role == Primary:
		r.Whole, r.Why, r.Worker, r.Lost, r.Wanted = true, "this node is primary", 0, time.Time{}, time.Time{}
		return r
	}
	r = r.connection(before, now, mine)
	if peer == nil || peer.Role != Primary {
		return r
	}
	switch {
	case mine.Role != Secondary || mine.Worker == 0 || peer.Status.Status != complete:
		r.Whole, r.Why = false, "the other node is primary and not connected: it writes alone"
	case peer.Counted && peer.Dirty == 0:
		r.Whole, r.Why, r.Wanted = true, "the other node, primary and connected, had nothing dirty", time.Time{}
	case !r.Whole:
		r.Why = fmt.Sprintf("the other node still has to send %d bytes", peer.Dirty)
	}
	return r
}

// connection notes whether the other node's hastd is connected. What was whole stays whole
// within one connection; a new one may begin with what was missed.
func (r record) connection(before, now time.Time, mine Status) record {
	if mine.Worker == 0 {
		if r.Lost.IsZero() {
			r.Lost = now
			if !before.IsZero() {
				r.Lost = before
			}
		}
		return r
	}
	if mine.Worker != r.Worker {
		r.Whole, r.Why = false, "the nodes have connected anew, and the other one has not said yet that nothing is dirty"
	}
	r.Worker, r.Lost, r.Wanted = mine.Worker, time.Time{}, time.Time{}
	return r
}

// wanted notes that the other node is taken for dead.
func (r record) wanted(now time.Time) record {
	if r.Wanted.IsZero() {
		r.Wanted = now
	}
	return r
}

// fit returns why this copy must not be used, nil if it may. alone is how long the other
// node may have been master without a connection: what it wrote then is not here.
func (r record) fit(alone time.Duration) error {
	if !r.Whole {
		return errors.New(r.Why)
	}
	if apart := r.Wanted.Sub(r.Lost); !r.Lost.IsZero() && !r.Wanted.IsZero() && apart > alone {
		return fmt.Errorf("the connection was lost %v before the other node fell silent: what it wrote since is not here", apart.Round(time.Second))
	}
	return nil
}

// bootID names this boot of the machine.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// load reads the record. None, or one that cannot be read, is one that knows nothing.
func (h *resource) load() (record, error) {
	boot, err := bootID()
	if err != nil {
		return record{}, fmt.Errorf("hast: name this boot: %w", err)
	}
	var r record
	text, err := os.ReadFile(h.c.State)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		r = record{}
	}
	return r.restarted(boot), nil
}

// save keeps the record. It need not survive a crash of the machine.
func (h *resource) save(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(h.c.State), filepath.Base(h.c.State)+".new-*")
	if err != nil {
		return fmt.Errorf("hast: keep the record: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), h.c.State)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("hast: keep the record: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// trusted reports whether an operator has said that this copy is the right one.
func (h *resource) trusted() bool {
	_, err := os.Stat(h.trustFile())
	return h.c.Force || err == nil
}

func (h *resource) trustFile() string { return h.c.State + ".trust" }
