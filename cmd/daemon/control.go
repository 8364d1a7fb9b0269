package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
)

// Limits of the control socket.
const (
	maxRequest  = 64 << 10 // bytes of a request's body
	maxHeader   = 16 << 10
	maxClients  = 256             // connections at once; more wait until one ends
	maxFollow   = 64              // of them, who follow the events
	clientTime  = 5 * time.Second // for a client to send a request, to take an answer, and between two
	commandTime = 5 * time.Second // for a handover, above its release budget and two intervals
)

// listen opens the control socket; serve answers on it. A socket file that nobody listens on is
// replaced; one that a daemon serves is an error, and so is any other file.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("open the control socket %s: another carpd is running with it: stop that one, or give this one its own `control`", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("open the control socket %s: what is there is not a socket: move it away, or name another `control`", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("open the control socket: %w", err), l.Close())
	}
	return l, nil
}

// serve answers until the server is closed, which closes the socket too.
func (d *Daemon) serve(l net.Listener) *http.Server {
	srv := &http.Server{
		Handler: patient(d.handler()), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: clientTime, IdleTimeout: clientTime,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerOf(c))
		},
	}
	room := make(chan struct{}, maxClients)
	srv.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			<-room
		}
	}
	go srv.Serve(door{l, room})
	return srv
}

// door lets in as many connections as there is room for; the others wait in the
// kernel's queue. The server tells when one is over.
type door struct {
	net.Listener
	room chan struct{}
}

func (d door) Accept() (net.Conn, error) {
	d.room <- struct{}{}
	c, err := d.Listener.Accept()
	if err != nil {
		<-d.room
	}
	return c, err
}

// patient bounds the wait for a request's body, also for the rest of one that
// nobody reads: hasten begins the time, and unhurried ends it.
func patient(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hasten(w)
		h.ServeHTTP(w, r)
	})
}

func hasten(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(clientTime)) // a socket has deadlines
}

func unhurried(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

type peerKey struct{}

// peerOf returns the credentials of the other end, as the kernel has them.
func peerOf(c net.Conn) *syscall.Ucred {
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return nil
	}
	return cred
}

func (d *Daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.status()) })
	mux.HandleFunc("GET /v1/events", d.serveEvents)
	mux.HandleFunc("GET /v1/explain", func(w http.ResponseWriter, r *http.Request) {
		i, err := d.find(r.URL.Query().Get("name"))
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, i.explain())
	})
	command(mux, "/v1/handover", func(ctx context.Context, r api.NameRequest) (any, error) {
		i, err := d.find(r.Name)
		if err != nil {
			return nil, err
		}
		c := i.plan.Load().carp
		ctx, cancel := context.WithTimeout(ctx, commandTime+c.ReleaseBudget+2*c.AdvertInterval())
		defer cancel()
		text, err := d.handover(ctx, i)
		return api.Result{Text: text}, err
	})
	command(mux, "/v1/resume", func(_ context.Context, r api.NameRequest) (any, error) {
		i, err := d.find(r.Name)
		if err != nil {
			return nil, err
		}
		for _, one := range i.movingWith() {
			one.speaker.Demote(carp.OwnerHandover, 0)
		}
		d.book.add(api.Event{Instance: i.name, Kind: "demotion", Reason: carp.OwnerHandover, Text: i.name + ": the demotion by the handover is taken back"})
		return api.Result{Text: i.name + " takes part in the election again"}, nil
	})
	command(mux, "/v1/seal/reset", d.serveSealReset)
	mux.HandleFunc("GET /v1/snapshots", func(w http.ResponseWriter, r *http.Request) {
		one, err := d.replication(r.URL.Query().Get("name"))
		if err != nil {
			refuse(w, err)
			return
		}
		if all, err := one.listSnapshots(r.Context()); err != nil {
			refuse(w, err)
		} else {
			answer(w, all)
		}
	})
	command(mux, "/v1/snapshots/diff", func(ctx context.Context, r api.DiffRequest) (any, error) {
		one, err := d.replication(r.Name)
		if err != nil {
			return nil, err
		}
		return one.diff(ctx, r)
	})
	mux.HandleFunc("GET /v1/cluster", func(w http.ResponseWriter, r *http.Request) {
		c, err := d.clusterOf(r.URL.Query().Get("name"))
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, c.show(r.Context()))
	})
	command(mux, "/v1/cluster/allow", func(ctx context.Context, r api.ClusterRequest) (any, error) { return d.steer(ctx, r, false) })
	command(mux, "/v1/cluster/seed", func(ctx context.Context, r api.ClusterRequest) (any, error) { return d.steer(ctx, r, true) })
	command(mux, "/v1/restore", d.serveRestore)
	command(mux, "/v1/demote", d.serveDemote)
	command(mux, "/v1/state", d.serveState)
	command(mux, "/v1/reload", func(ctx context.Context, r api.ReloadRequest) (any, error) {
		return d.reload(ctx, r.DryRun)
	})
	return mux
}

// command serves one POST: decode strictly, check who asks, run, answer.
func command[R any](mux *http.ServeMux, path string, run func(context.Context, R) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		if who, ok := r.Context().Value(peerKey{}).(*syscall.Ucred); !ok || who == nil {
			fail(w, http.StatusForbidden, api.Error{Error: "who asks is unknown: the kernel gave no peer credentials"})
			return
		}
		var req R
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&req); err != nil {
			fail(w, http.StatusBadRequest, api.Error{Error: "bad request: " + err.Error(), Hint: "see the documentation of the control socket"})
			return
		}
		unhurried(w) // or the end of that time would cancel the command
		out, err := run(r.Context(), req)
		hasten(w)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, out)
	})
}

func (d *Daemon) serveDemote(_ context.Context, r api.DemoteRequest) (any, error) {
	if r.Owner == "" {
		r.Owner = "operator"
	}
	if r.Amount < -255 || r.Amount > 255 {
		return nil, refusal{fmt.Sprintf("demotion by %d: use -255 to 255", r.Amount), "240 is as much as ever shows on the wire"}
	}
	target := globalTarget
	switch {
	case r.Name != "" && r.Group != "":
		return nil, refusal{"both a name and a group were given", "give one of them"}
	case r.Group != "":
		if !d.knowsGroup(r.Group) {
			return nil, fmt.Errorf("%w: no instance is in group %q", errNoInstance, r.Group)
		}
		target = groupTarget(r.Group)
	case r.Name != "":
		i, err := d.find(r.Name)
		if err != nil {
			return nil, err
		}
		target = i.name
	}
	if err := d.demote(target, r.Owner, r.Amount); err != nil {
		return nil, refusal{err.Error(), ""}
	}
	return api.Result{Text: fmt.Sprintf("demotion of %s by %s is %d", target, r.Owner, r.Amount)}, nil
}

func (d *Daemon) serveState(_ context.Context, r api.StateRequest) (any, error) {
	i, err := d.find(r.Name)
	if err != nil {
		return nil, err
	}
	to, err := carp.ParseState(r.State)
	if err != nil || to != carp.Backup && to != carp.Master {
		return nil, refusal{fmt.Sprintf("state %q cannot be asked for", r.State), "use backup or master"}
	}
	st, _ := i.speaker.Status()
	switch {
	case st.State == carp.Init && i.waitsFor() != "":
		return nil, refusal{fmt.Sprintf("%s is in INIT", i.name), "it stands for election when " + i.waitsFor() + ": see its alarms and hooks in status"}
	case st.State == carp.Init:
		return nil, refusal{fmt.Sprintf("%s is in INIT", i.name), "its interface is down or missing, or its startup delay is not over"}
	}
	for _, one := range i.movingWith() {
		st, _ := one.speaker.Status()
		if st.State == carp.Backup && to == carp.Master && st.Master.At != 0 && one.plan.Load().carp.Resources > 0 {
			return nil, refusal{
				fmt.Sprintf("the master of %s is %v, and would get no time to let go of its resources", one.name, st.Master.Address),
				"run carpctl handover there",
			}
		}
	}
	for _, one := range i.movingWith() {
		one.speaker.SetState(to)
	}
	return api.Result{Text: fmt.Sprintf("%s: %v asked for", i.name, to)}, nil
}

// serveEvents writes one event a line; with follow it goes on until the client or
// the daemon ends.
func (d *Daemon) serveEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var seq uint64
	if s := q.Get("since"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			fail(w, http.StatusBadRequest, api.Error{Error: fmt.Sprintf("since %q is not a number", s), Hint: "give the seq of an event"})
			return
		}
		seq = n
	}
	follow := q.Get("follow") != "" && q.Get("follow") != "0"
	if follow {
		unhurried(w)
		defer d.followers.Add(-1)
		if d.followers.Add(1) > maxFollow {
			fail(w, http.StatusServiceUnavailable, api.Error{
				Error: fmt.Sprintf("%d clients follow the events already", maxFollow), Hint: "end some of them, or ask without follow"})
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	for {
		events, news := d.book.since(seq)
		_ = out.SetWriteDeadline(time.Now().Add(clientTime)) // who does not read is left
		for _, e := range events {
			if enc.Encode(e) != nil {
				return
			}
			seq = e.Seq
		}
		if !follow || out.Flush() != nil {
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		case <-d.stopping.Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // the client is gone if this fails
}

func refuse(w http.ResponseWriter, err error) {
	body, code := api.Error{Error: err.Error()}, http.StatusInternalServerError
	var r refusal
	switch {
	case errors.As(err, &r):
		body.Hint, code = r.hint, http.StatusConflict
	case errors.Is(err, errNoInstance):
		body.Hint, code = "names are listed by carpctl status", http.StatusNotFound
	}
	fail(w, code, body)
}

func fail(w http.ResponseWriter, code int, body api.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}
