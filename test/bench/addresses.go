package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

// AddressPlan is what MeasureAddresses measures.
type AddressPlan struct {
	Speakers []Speaker         // beside the bare batch; each stands alone, at an interval of a second
	Counts   []int             // of addresses, 1 to MaxAddresses; required
	Runs     int               // of each, 1 to MaxRuns
	Progress func(line string) // nil is silent
}

// MaxAddresses is how many addresses can be measured.
const MaxAddresses = 9_999

// bareName stands for the batch without a daemon in a report.
const bareName = "bare batch"

// Taken is one run of one speaker with so many addresses, in milliseconds. A figure
// that is not known is negative.
type Taken struct {
	Speaker string `json:"speaker"`
	Count   int    `json:"addresses"`
	// On is from the first address that is on to the last; of the bare batch all of the
	// call. AdvertToOn is from the first advert as master to the last address that is
	// on, Announced to the last address that was announced for the first time. Off is
	// from SIGTERM to the last address that is off.
	On         float64 `json:"on_ms"`
	AdvertToOn float64 `json:"advert_to_on_ms"`
	Announced  float64 `json:"announced_ms"`
	Off        float64 `json:"off_ms"`
	Error      string  `json:"error,omitempty"`
}

// AddressReport is what came out.
type AddressReport struct {
	Machine  Machine   `json:"machine"`
	Speakers []Named   `json:"speakers"`
	Began    time.Time `json:"began"`
	Runs     []Taken   `json:"runs"`
}

// MeasureAddresses measures how long it takes a speaker to put many addresses on, to
// announce them and to take them off, beside one batch of netlink messages for the same
// addresses: that is what the kernel costs. All take turns in one run, on fresh
// interfaces.
func MeasureAddresses(ctx context.Context, p AddressPlan) (AddressReport, error) {
	r := AddressReport{Machine: machine(), Began: time.Now().Round(time.Second)}
	if p.Runs < 1 || p.Runs > MaxRuns {
		return r, fmt.Errorf("bench: %w: %d runs, want 1 to %d", ErrPlan, p.Runs, MaxRuns)
	}
	for _, n := range p.Counts {
		if n < 1 || n > MaxAddresses {
			return r, fmt.Errorf("bench: %w: %d addresses, want 1 to %d", ErrPlan, n, MaxAddresses)
		}
	}
	if p.Progress == nil {
		p.Progress = func(string) {}
	}
	for _, s := range p.Speakers {
		r.Speakers = append(r.Speakers, Named{s.Name, s.Version})
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + threads))
	err := lab.Run("bench", nil, func(t lab.TB) {
		f := newAddressField(ctx, t)
		for _, n := range p.Counts {
			for range p.Runs {
				runs := []Taken{f.bare(n)}
				for _, s := range p.Speakers {
					runs = append(runs, f.alone(s, n))
				}
				for _, taken := range runs {
					p.Progress(taken.line())
				}
				r.Runs = append(r.Runs, runs...)
				if ctx.Err() != nil {
					return
				}
			}
		}
	})
	return r, errors.Join(ctx.Err(), err)
}

// many returns n addresses in 10.8.0.0/16.
func many(n int) []netip.Prefix {
	all := make([]netip.Prefix, n)
	for i := range all {
		all[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 32)
	}
	return all
}

// addressField is a field whose first node's kernel tells of every address.
type addressField struct {
	field
	mu    sync.Mutex
	on    map[netip.Addr]bool
	first time.Time // address that went on when there was none
	last  time.Time // change
}

func newAddressField(ctx context.Context, t lab.TB) *addressField {
	lan := lab.New(t)
	f := &addressField{field: field{ctx: ctx, t: t}}
	f.hosts[0] = lan.Host("node1", nodeAddr(0).String()+"/16")
	f.ear = listen(t, lan.Host("observer", "10.9.0.201/16"))
	f.reset()
	f.hosts[0].WatchAddrs(f.note)
	return f
}

func (f *addressField) note(c lab.AddrChange) {
	if b := c.Addr.As16(); !c.Addr.Is4() || b[12] != 10 || b[13] != 8 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.on[c.Addr] == c.On {
		return // a renewal
	}
	if len(f.on) == 0 {
		f.first = c.At
	}
	f.last = c.At
	if c.On {
		f.on[c.Addr] = true
	} else {
		delete(f.on, c.Addr)
	}
}

func (f *addressField) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = make(map[netip.Addr]bool)
}

func (f *addressField) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.on)
}

// clear gives the node a new interface.
func (f *addressField) clear() {
	f.hosts[0].KillAll()
	f.hosts[0].DeleteLink()
	f.hosts[0].RecreateLink()
	f.ear.overruns()
	f.reset()
}

// bare puts n addresses on by one batch, and takes them off by another.
func (f *addressField) bare(n int) Taken {
	f.clear()
	taken := Taken{Speaker: bareName, Count: n, AdvertToOn: -1, Announced: -1}
	err := f.hosts[0].DoErr(func() error {
		k, err := vip.Open()
		if err != nil {
			return err
		}
		defer k.Close()
		link, err := k.Link("eth0")
		if err != nil {
			return err
		}
		var changes []vip.Change
		for _, p := range many(n) {
			changes = append(changes, vip.Change{Op: vip.Put, Index: link.Index, Link: link.Name, Prefix: p, Valid: vip.Forever, Host: true})
		}
		began := time.Now()
		if err := k.Apply(changes); err != nil {
			return err
		}
		taken.On = ms(time.Since(began))
		for i := range changes {
			changes[i].Op = vip.Remove
		}
		began = time.Now()
		err = k.Apply(changes)
		taken.Off = ms(time.Since(began))
		return err
	})
	if err != nil {
		taken.Error = err.Error()
	}
	return taken
}

// alone runs a speaker that is alone, with n addresses beside the one in its adverts.
func (f *addressField) alone(s Speaker, n int) (taken Taken) {
	f.clear()
	f.ear.record()
	defer f.ear.forget()
	taken = Taken{Speaker: s.Name, Count: n, On: -1, AdvertToOn: -1, Announced: -1, Off: -1}
	fail := func(err error) Taken { taken.Error = err.Error(); return taken }
	m := Member{
		Group: Group{Interval: time.Second, Instances: 1}, Host: f.hosts[0], Address: nodeAddr(0), Priority: priorities[0], Dir: f.t.TempDir(), Excluded: many(n),
	}
	running, err := s.Start(f.ctx, f.t, m)
	if err != nil {
		return fail(err)
	}
	if err := f.await(patience, "all addresses to be on", func() bool { return f.count() == n }); err != nil {
		return fail(err)
	}
	f.mu.Lock()
	first, last := f.first, f.last
	f.mu.Unlock()
	taken.On = ms(last.Sub(first))
	announced := int64(0)
	if err := f.await(patience, "all addresses to be announced", func() bool {
		announced = allAnnounced(f.ear.heard(), n)
		return announced != 0
	}); err != nil {
		return fail(err)
	}
	for _, s := range f.ear.heard() {
		if s.kind == advert {
			taken.AdvertToOn, taken.Announced = ms(time.Duration(last.UnixNano()-s.at)), ms(time.Duration(announced-s.at))
			break
		}
	}
	began := time.Now()
	running.Stop()
	if err := f.await(patience, "all addresses to be off", func() bool { return f.count() == 0 }); err != nil {
		return fail(err)
	}
	f.mu.Lock()
	taken.Off = ms(f.last.Sub(began))
	f.mu.Unlock()
	return taken
}

// allAnnounced returns the stamp at which the last of n addresses was announced for the
// first time; 0 if some were not.
func allAnnounced(sounds []sound, n int) int64 {
	seen := make(map[[4]byte]bool, n)
	for _, s := range sounds {
		if s.kind != announcement || s.from[0] != 10 || s.from[1] != 8 || seen[s.from] {
			continue
		}
		seen[s.from] = true
		if len(seen) == n {
			return s.at
		}
	}
	return 0
}

func (t *Taken) line() string {
	if t.Error != "" {
		return fmt.Sprintf("%d addresses, %s: %s", t.Count, t.Speaker, t.Error)
	}
	return fmt.Sprintf("%d addresses, %s: on in %.1f, advert to on %.1f, announced %.1f, off in %.1f ms", t.Count, t.Speaker, t.On, t.AdvertToOn, t.Announced, t.Off)
}

// Failed counts the runs that gave no figures.
func (r *AddressReport) Failed() (n int) {
	for i := range r.Runs {
		if r.Runs[i].Error != "" {
			n++
		}
	}
	return n
}

// WriteJSON writes all of it, each run too.
func (r *AddressReport) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// Table is the report as text: a row for each count and figure, a column a speaker, each
// minimum / median / maximum.
func (r *AddressReport) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d CPUs, Linux %s, %s\n", r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go)
	names := []string{bareName}
	for _, s := range r.Speakers {
		fmt.Fprintf(&b, "%s: %s\n", s.Name, s.Version)
		names = append(names, s.Name)
	}
	b.WriteString("\nmin / median / max in ms\n")
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "addresses\t\t%s\n", strings.Join(names, "\t"))
	for i := range r.Runs {
		if n := r.Runs[i].Count; i == 0 || r.Runs[i-1].Count != n {
			r.rows(w, n, names)
		}
	}
	_ = w.Flush() // a builder does not fail
	return b.String()
}

func (r *AddressReport) rows(w io.Writer, n int, names []string) {
	for _, row := range []struct {
		what string
		of   func(*Taken) float64
	}{
		{"on", func(t *Taken) float64 { return t.On }},
		{"advert to the last on", func(t *Taken) float64 { return t.AdvertToOn }},
		{"advert to the last announced", func(t *Taken) float64 { return t.Announced }},
		{"off", func(t *Taken) float64 { return t.Off }},
	} {
		fmt.Fprintf(w, "%d\t%s", n, row.what)
		for _, name := range names {
			var all []time.Duration
			for i := range r.Runs {
				if t := &r.Runs[i]; t.Count == n && t.Speaker == name && row.of(t) >= 0 {
					all = append(all, time.Duration(row.of(t)*1e6))
				}
			}
			cell := "-"
			if s := spread(all); s.Count > 0 {
				cell = fmt.Sprintf("%.1f / %.1f / %.1f", s.Min, s.Median, s.Max)
			}
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprintln(w)
	}
}
