package daemon

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// maxEvents is how many events are kept for carpctl events.
const maxEvents = 1000

// book keeps what happened: the last events, and the alarms that stand. It writes
// each to the log as well, so that log, events and status use the same words. It
// is safe for concurrent use, and nothing in it waits.
type book struct {
	log *slog.Logger

	mu     sync.Mutex
	seq    uint64
	events []api.Event // the last maxEvents, oldest first
	alarms []alarm
	news   chan struct{} // closed and replaced at each event
}

type alarm struct {
	instance string
	api.Alarm
}

func newBook(log *slog.Logger) *book { return &book{log: log, news: make(chan struct{})} }

// add records an event, numbered and timed here.
func (b *book) add(e api.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addLocked(e)
}

func (b *book) addLocked(e api.Event) {
	b.seq++
	e.Seq, e.Time = b.seq, time.Now()
	if len(b.events) == maxEvents {
		b.events = slices.Delete(b.events, 0, 1)
	}
	b.events = append(b.events, e)
	close(b.news)
	b.news = make(chan struct{})
	b.write(e)
}

func (b *book) write(e api.Event) {
	level := slog.LevelInfo
	if e.Kind == "alarm" {
		level = slog.LevelWarn
	}
	attrs := make([]slog.Attr, 0, 8)
	for _, a := range []struct{ key, value string }{
		{"instance", e.Instance}, {"kind", e.Kind}, {"from", e.From}, {"to", e.To}, {"reason", e.Reason}, {"peer", e.Peer},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	if e.Epoch != 0 {
		attrs = append(attrs, slog.Uint64("epoch", e.Epoch))
	}
	b.log.LogAttrs(context.Background(), level, e.Text, attrs...)
}

// raise makes an alarm stand, or counts it again. Only the first is an event.
func (b *book) raise(instance, name, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.find(instance, name); a != nil {
		a.Count++
		a.Text = text
		return
	}
	b.alarms = append(b.alarms, alarm{instance, api.Alarm{Name: name, Text: text, Since: time.Now(), Count: 1}})
	b.addLocked(api.Event{Instance: instance, Kind: "alarm", Reason: name, Text: text})
}

// clear ends an alarm, if it stands.
func (b *book) clear(instance, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.find(instance, name)
	if a == nil {
		return
	}
	text := "over: " + a.Text
	b.alarms = slices.DeleteFunc(b.alarms, func(a alarm) bool { return a.instance == instance && a.Name == name })
	b.addLocked(api.Event{Instance: instance, Kind: "alarm-end", Reason: name, Text: text})
}

// set makes an alarm stand or not, and keeps its text fresh: for what is looked at
// again and again, where raise is for what happens.
func (b *book) set(stands bool, instance, name, text string) {
	if !stands {
		b.clear(instance, name)
		return
	}
	b.mu.Lock()
	a := b.find(instance, name)
	if a != nil {
		a.Text = text
	}
	b.mu.Unlock()
	if a == nil {
		b.raise(instance, name, text)
	}
}

// forget ends all alarms of an instance that is gone.
func (b *book) forget(instance string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alarms = slices.DeleteFunc(b.alarms, func(a alarm) bool { return a.instance == instance })
}

func (b *book) find(instance, name string) *alarm {
	for i := range b.alarms {
		if a := &b.alarms[i]; a.instance == instance && a.Name == name {
			return a
		}
	}
	return nil
}

// standing returns the alarms of an instance; "" are those of the node.
func (b *book) standing(instance string) []api.Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []api.Alarm
	for _, a := range b.alarms {
		if a.instance == instance {
			out = append(out, a.Alarm)
		}
	}
	return out
}

// since returns the events after seq, and a channel that is closed at the next.
func (b *book) since(seq uint64) ([]api.Event, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if seq > b.seq {
		seq = 0 // a client of an earlier daemon, whose numbers were higher
	}
	i := slices.IndexFunc(b.events, func(e api.Event) bool { return e.Seq > seq })
	if i < 0 {
		return nil, b.news
	}
	return slices.Clone(b.events[i:]), b.news
}
