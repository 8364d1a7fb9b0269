package exec

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"unicode"
)

const (
	maxKept  = 64 << 10 // bytes of output that are logged, a run
	maxLines = 1000     // lines of output that are logged, a run
	maxLine  = 4 << 10  // bytes of one line; what follows is a line of its own
	lastKept = 3        // lines that an error shows
	lastLine = 200      // bytes of each of them
)

// output takes what a program writes: it logs the first part line by line,
// counts the rest and remembers the last lines. Safe for concurrent use by its
// two streams.
type output struct {
	log *slog.Logger

	mu    sync.Mutex
	kept  int
	lines int
	rest  int64
	last  map[string][]string // by stream
}

func newOutput(log *slog.Logger) *output {
	return &output{log: log, last: make(map[string][]string)}
}

// stream returns a writer for one of the program's outputs. Its flush takes the
// line that was not ended.
func (o *output) stream(name string) *stream { return &stream{out: o, name: name} }

// line takes one whole line.
func (o *output) line(stream string, line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if text := printable(line, lastLine); text != "" {
		last := append(o.last[stream], text)
		o.last[stream] = last[max(0, len(last)-lastKept):]
	}
	if o.rest > 0 || o.kept+len(line) > maxKept || o.lines == maxLines {
		o.rest += int64(len(line)) + 1
		return
	}
	o.kept += len(line) + 1
	o.lines++
	o.log.Info("hook output", "stream", stream, "line", printable(line, maxLine))
}

// tail returns the last lines for an error: of standard error if there are any,
// for that is where programs say what went wrong.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, stream := range []string{"stderr", "stdout"} {
		if last := o.last[stream]; len(last) > 0 {
			return "last output: " + strings.Join(last, " | ")
		}
	}
	return "no output"
}

// close says how much was not logged.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rest > 0 {
		o.log.Warn(fmt.Sprintf("hook wrote more than %d KiB or %d lines: the rest is not shown", maxKept>>10, maxLines), "bytes", o.rest)
	}
}

// stream cuts what is written into lines. One goroutine writes.
type stream struct {
	out     *output
	name    string
	partial []byte
}

// Write never fails: a program must not die because it talks too much.
func (s *stream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n, ended := bytes.IndexByte(rest, '\n'), true
		if n < 0 {
			n, ended = len(rest), false
		}
		if room := maxLine - len(s.partial); n > room {
			n, ended = room, true
			s.partial = append(s.partial, rest[:n]...)
			rest = rest[n:]
		} else {
			s.partial = append(s.partial, rest[:n]...)
			rest = rest[min(n+1, len(rest)):]
		}
		if ended {
			s.flush()
		}
	}
	return len(p), nil
}

func (s *stream) flush() {
	if len(s.partial) > 0 {
		s.out.line(s.name, s.partial)
		s.partial = s.partial[:0]
	}
}

// printable returns line without what could confuse a terminal, cut to n bytes.
func printable(line []byte, n int) string {
	s := strings.TrimRight(string(line[:min(len(line), n)]), "\r ")
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
