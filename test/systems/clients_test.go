package systems_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/mariadb"
)

// patience is how long a client waits for one statement.
const patience = time.Second

// worker is a client that does one thing after the other, and knows what was answered.
type worker struct {
	t     *testing.T
	name  string
	stop  chan struct{}
	ended sync.WaitGroup

	mu   sync.Mutex
	done []int       // what was acknowledged
	when []time.Time // likewise
	seen []string    // what it was told
}

// doing is given connections and a number, and returns what the server told.
type doing func(ctx context.Context, db *sql.DB, n int) (string, error)

// work starts a client of an address.
func work(t *testing.T, name string, server *mariadb.Server, from *lab.Host, to netip.AddrPort, do doing) *worker {
	return workOn(t, name, server.Client(from, to), do)
}

// workOn starts a client that has these connections, and closes them in the end.
func workOn(t *testing.T, name string, db *sql.DB, do doing) *worker {
	w := &worker{t: t, name: name, stop: make(chan struct{})}
	db.SetMaxIdleConns(1)
	w.ended.Go(func() {
		defer func() { _ = db.Close() }()
		pause := time.NewTicker(2 * time.Millisecond)
		defer pause.Stop()
		for n := 1; ; n++ {
			select {
			case <-w.stop:
				return
			case <-pause.C:
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			told, err := do(ctx, db, n)
			cancel()
			if err == nil {
				w.mu.Lock()
				w.done, w.when, w.seen = append(w.done, n), append(w.when, time.Now()), append(w.seen, told)
				w.mu.Unlock()
			}
		}
	})
	t.Cleanup(w.end)
	return w
}

// write inserts rows, one a transaction.
func write(ctx context.Context, db *sql.DB, n int) (string, error) {
	_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (?)", n)
	return "", err
}

// read reads, and tells which server it was.
func read(ctx context.Context, db *sql.DB, _ int) (who string, err error) {
	return who, db.QueryRowContext(ctx, "SELECT @@server_id FROM t LIMIT 1").Scan(&who)
}

func (w *worker) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.ended.Wait()
}

// count is how much was acknowledged.
func (w *worker) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done)
}

// last is what it was told last.
func (w *worker) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) == 0 {
		return ""
	}
	return w.seen[len(w.seen)-1]
}

// more waits until another n are acknowledged.
func (w *worker) more(n int) {
	w.t.Helper()
	from := w.count()
	lab.Eventually(w.t, 2*soon, fmt.Sprintf("%s go on", w.name), func() bool { return w.count() >= from+n })
}

// outage is the longest time without an answer since then.
func (w *worker) outage(since time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := since
	for _, at := range w.when {
		if at.After(since) {
			longest = max(longest, at.Sub(last))
			last = at
		}
	}
	return longest
}

// missing returns which acknowledged rows a server has not.
func (w *worker) missing(server *mariadb.Server) (lost []int) {
	w.t.Helper()
	db := server.Root()
	defer func() { _ = db.Close() }()
	return w.missingFrom(db)
}

func (w *worker) missingFrom(db *sql.DB) []int {
	w.t.Helper()
	w.mu.Lock()
	all := slices.Clone(w.done) // before the server is asked: the client goes on
	w.mu.Unlock()
	return mariadb.Missing(w.t, db, all)
}
