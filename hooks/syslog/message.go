package syslog

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/carpd/carpd/hooks"
)

// DefaultMessage is what is said unless the configuration says.
const DefaultMessage = "$name is $to, was $from: $reason"

const (
	maxTag     = 48   // APP-NAME of RFC 5424
	maxHost    = 255  // HOSTNAME
	maxID      = 32   // SD-NAME
	maxMessage = 1024 // bytes of the text; with the rest below the 2048 that receivers should take
)

// facilities are those that logger(1) has, by their number; no user's program is kern.
var facilities = map[string]int{
	"user": 1, "mail": 2, "daemon": 3, "auth": 4, "security": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8,
	"cron": 9, "authpriv": 10, "ftp": 11,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// levels are those that logger(1) has, by their number.
var levels = map[string]int{
	"emerg": 0, "panic": 0, "alert": 1, "crit": 2, "err": 3, "error": 3, "warning": 4, "warn": 4, "notice": 5, "info": 6, "debug": 7,
}

// parsePriority returns the number of facility.level, or of a level of facility user.
func parsePriority(s string) (int, error) {
	facility, level, both := strings.Cut(s, ".")
	if !both {
		facility, level = "user", s
	}
	f, known := facilities[facility]
	l, too := levels[level]
	if !known || !too {
		return 0, fmt.Errorf("priority %q: use facility.level as logger(1) has them, such as local0.notice", s)
	}
	return f<<3 | l, nil
}

// words are what stands for $name and its like in a message.
func words(ev hooks.Event) map[string]string {
	addresses := make([]string, 0, len(ev.Addresses))
	for _, a := range ev.Addresses {
		addresses = append(addresses, a.String())
	}
	peer := ""
	if ev.Peer != (netip.Addr{}) {
		peer = ev.Peer.String()
	}
	return map[string]string{
		"name": ev.Name, "vhid": strconv.Itoa(int(ev.VHID)), "interface": ev.Interface, "node": ev.Node,
		"phase": ev.Phase.String(), "from": ev.From.String(), "to": ev.To.String(), "reason": ev.Reason.String(),
		"peer": peer, "epoch": strconv.FormatUint(uint64(ev.Epoch), 10), "addresses": strings.Join(addresses, " "),
		"$": "$",
	}
}

// checkMessage refuses what words does not know.
func checkMessage(text string) error {
	known := words(hooks.Event{})
	var faults []error
	os.Expand(text, func(word string) string {
		if _, ok := known[word]; !ok {
			names := make([]string, 0, len(known))
			for n := range known {
				names = append(names, "$"+n)
			}
			slices.Sort(names)
			faults = append(faults, fmt.Errorf("message: $%s is unknown: use %s", word, strings.Join(names, ", ")))
		}
		return ""
	})
	return errors.Join(faults...)
}

// message is one message, whatever its form. Its parts are valid for both.
type message struct {
	priority int
	time     time.Time
	host     string
	tag      string
	pid      int // 0: none
	id       string
	data     string // STRUCTURED-DATA, "-" if there is none
	text     string
}

// compose makes the message for an event.
func (c Config) compose(priority int, ev hooks.Event, host string, now time.Time, pid int) message {
	known := words(ev)
	m := message{
		priority: priority, time: now, host: cut(ascii(host), maxHost), tag: c.Tag, id: ev.Phase.String(), data: "-",
		text: cut(strings.Map(visible, os.Expand(c.Message, func(word string) string { return known[word] })), maxMessage),
	}
	if c.PID {
		m.pid = pid
	}
	if c.Structured != "" {
		m.data = structured(c.Structured, known)
	}
	return m
}

// structured is one SD-ELEMENT of RFC 5424, 6.3.
func structured(id string, known map[string]string) string {
	var b strings.Builder
	b.WriteString("[" + id)
	for _, name := range []string{"name", "vhid", "interface", "node", "from", "to", "reason", "peer", "epoch"} {
		value := strings.Map(visible, known[name])
		b.WriteString(" " + name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(value) + `"`)
	}
	b.WriteString("]")
	return b.String()
}

// rfc5424 is the message as RFC 5424, 6 has it.
func (m message) rfc5424() string {
	pid := "-"
	if m.pid != 0 {
		pid = strconv.Itoa(m.pid)
	}
	const stamp = "2006-01-02T15:04:05.000000Z07:00"
	return fmt.Sprintf("<%d>1 %s %s %s %s %s %s %s", m.priority, m.time.Format(stamp), orNil(m.host), m.tag, pid, m.id, m.data, m.text)
}

// local is the message as the C library and logger(1) write it to /dev/log: without a
// host, the time as RFC 3164 has it.
func (m message) local() string {
	pid := ""
	if m.pid != 0 {
		pid = fmt.Sprintf("[%d]", m.pid)
	}
	return fmt.Sprintf("<%d>%s %s%s: %s", m.priority, m.time.Local().Format(time.Stamp), m.tag, pid, m.text)
}

func orNil(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ascii drops what RFC 5424 does not allow in the parts of a header.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 33 || r > 126 {
			return -1
		}
		return r
	}, s)
}

// visible keeps a message one line, and harmless on a terminal.
func visible(r rune) rune {
	if r == utf8.RuneError || !unicode.IsPrint(r) {
		return ' '
	}
	return r
}

// cut shortens to at most n bytes, and not within a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
