package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

const (
	sinkLines = 1024                   // lines that may wait for the sink
	sinkFlush = 200 * time.Millisecond // what a clean end waits for the rest of them
)

// sink writes lines to w from a goroutine of its own. Write never waits: when the
// queue is full, because w is slow or dead, the line is dropped and counted. It is
// safe for concurrent use.
type sink struct {
	w       io.Writer
	lines   chan []byte
	dropped atomic.Uint64
	told    uint64 // of dropped, said already
	quit    chan struct{}
	done    chan struct{}
	stop    sync.Once
}

func newSink(w io.Writer) *sink {
	s := &sink{w: w, lines: make(chan []byte, sinkLines), quit: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *sink) run() {
	defer close(s.done)
	for {
		select {
		case line := <-s.lines:
			s.write(line)
		case <-s.quit:
			for {
				select {
				case line := <-s.lines:
					s.write(line)
				default:
					return
				}
			}
		}
	}
}

// write counts a line that could not be written as dropped: nobody could be told of
// the error but this same sink.
func (s *sink) write(line []byte) {
	if _, err := s.w.Write(line); err != nil {
		s.dropped.Add(1)
		return
	}
	if n := s.dropped.Load(); n > s.told && len(s.lines) == 0 {
		fmt.Fprintf(s.w, "carpd: %d log lines were dropped because the log was not read in time\n", n-s.told)
		s.told = n
	}
}

// Write implements io.Writer; it never blocks and never fails.
func (s *sink) Write(p []byte) (int, error) {
	select {
	case s.lines <- append([]byte(nil), p...):
	default:
		s.dropped.Add(1)
	}
	return len(p), nil
}

// close writes what waits, for a bounded time.
func (s *sink) close() {
	s.stop.Do(func() { close(s.quit) })
	select {
	case <-s.done:
	case <-time.After(sinkFlush):
	}
}

// newLogger returns a logger of the given format (console or json) on s.
func newLogger(s *sink, format string) (*slog.Logger, error) {
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	enc.EncodeDuration = zapcore.StringDurationEncoder
	enc.NameKey, enc.CallerKey, enc.StacktraceKey = "", "", ""
	var encoder zapcore.Encoder
	switch format {
	case "json":
		encoder = zapcore.NewJSONEncoder(enc)
	case "console":
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("2006-01-02T15:04:05.000Z07:00")
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(enc)
	default:
		return nil, fmt.Errorf("unknown log format %q: use console or json", format)
	}
	core := zapcore.NewCore(encoder, zapcore.AddSync(s), zapcore.InfoLevel)
	return slog.New(zapslog.NewHandler(core)), nil
}
