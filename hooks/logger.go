package hooks

import (
	"context"
	"log/slog"
)

// loggerKey is the context key of the running step's logger.
type loggerKey struct{}

func withLogger(ctx context.Context, log *slog.Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, log)
}

// Logger returns the logger of the step that runs under ctx: its lines carry
// instance, hook, kind and phase. It is never nil; outside of a Runner it is
// silent.
func Logger(ctx context.Context) *slog.Logger {
	if log, ok := ctx.Value(loggerKey{}).(*slog.Logger); ok {
		return log
	}
	return slog.New(slog.DiscardHandler)
}
