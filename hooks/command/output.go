package command

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"unicode"
)

const (
	maxShown = 64 << 10 // bytes of output that are logged, a run
	maxLines = 1000     // lines of output that are logged, a run
	maxLine  = 4 << 10  // bytes of one line; what follows is a line of its own
	lastKept = 3        // lines that an error shows
	lastLine = 200      // bytes of each of them
)

// output takes what a program writes: it logs the first part line by line,
// counts the rest and remembers the last lines. Safe for concurrent use by its
// two streams.
type output struct {
	log  *slog.Logger
	keep int // bytes of answer

	// Only the writer of standard output uses these, and who waited for its end.
	answer []byte
	cut    bool // there was more

	mu    sync.Mutex
	shown int
	lines int
	rest  int64
	last  map[string][]string // by stream
}

func newOutput(log *slog.Logger, c Command) *output {
	if c.Quiet {
		log = slog.New(slog.DiscardHandler)
	}
	return &output{log: log, keep: c.Keep, last: make(map[string][]string)}
}

// The names of the two outputs.
const (
	stdout = "stdout"
	stderr = "stderr"
)

// stream returns a writer for one of the program's outputs. Its flush takes the
// line that was not ended.
func (o *output) stream(name string) *stream {
	return &stream{out: o, name: name, kept: name == stdout && o.keep > 0}
}

// take keeps the first bytes of what the program answers.
func (o *output) take(p []byte) {
	n := min(len(p), o.keep-len(o.answer))
	o.answer = append(o.answer, p[:n]...)
	o.cut = o.cut || n < len(p)
}

// line takes one whole line, and logs it if it is to be shown.
func (o *output) line(stream string, line []byte, show bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if text := printable(line, lastLine); text != "" {
		last := append(o.last[stream], text)
		o.last[stream] = last[max(0, len(last)-lastKept):]
	}
	if !show {
		return
	}
	if o.rest > 0 || o.shown+len(line) > maxShown || o.lines == maxLines {
		o.rest += int64(len(line)) + 1
		return
	}
	o.shown += len(line) + 1
	o.lines++
	o.log.Info("hook output", "stream", stream, "line", printable(line, maxLine))
}

// tail returns the last lines for an error: of standard error if there are any,
// for that is where programs say what went wrong.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, stream := range []string{stderr, stdout} {
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
		o.log.Warn(fmt.Sprintf("hook wrote more than %d KiB or %d lines: the rest is not shown", maxShown>>10, maxLines), "bytes", o.rest)
	}
}

// stream cuts what is written into lines. One goroutine writes.
type stream struct {
	out     *output
	name    string
	kept    bool // for the caller, not for the log
	partial []byte
}

// Write never fails: a program must not die because it talks too much.
func (s *stream) Write(p []byte) (int, error) {
	if s.kept {
		s.out.take(p)
	}
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
		s.out.line(s.name, s.partial, !s.kept)
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
