package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// How long an answer may take. A handover waits for the other node and for
// hooks, which have deadlines of their own in the daemon.
const (
	dialTime   = 5 * time.Second
	answerTime = 10 * time.Second
	actionTime = 10 * time.Minute
)

// answerMax bounds an answer: the status of 4096 instances of many addresses.
const answerMax = 256 << 20

// client talks HTTP over the control socket.
type client struct {
	socket string
	http   *http.Client
}

func newClient(socket string) *client {
	d := net.Dialer{Timeout: dialTime}
	return &client{socket, &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableKeepAlives: true,
	}}}
}

// get asks, and returns the answer as the daemon wrote it.
func (c *client) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.whole(c.open(ctx, http.MethodGet, path, nil))
}

// post sends a command.
func (c *client) post(ctx context.Context, path string, request any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, actionTime)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	return c.whole(c.open(ctx, http.MethodPost, path, body))
}

func (c *client) whole(body io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, answerMax))
	if err != nil {
		return nil, c.unreachable(err)
	}
	return data, nil
}

// open sends a request and returns the body of a good answer, which the caller
// closes. Anything else is a failure.
func (c *client) open(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://carpd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, refused(resp)
}

// refused turns an answer that is not good into a failure.
func refused(resp *http.Response) error {
	var e api.Error
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || json.Unmarshal(data, &e) != nil || e.Error == "" {
		return failure{exitNo, "the daemon answered " + resp.Status, "is it a carpd of the same version that listens there?"}
	}
	return failure{exitNo, e.Error, e.Hint}
}

// unreachable says why there is no answer and what to look at.
func (c *client) unreachable(err error) error {
	what, hint := err.Error(), "is carpd running? systemctl status carpd"
	switch {
	case errors.Is(err, context.Canceled):
		what, hint = "interrupted", ""
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		what, hint = "the daemon does not answer", "is it stopped or overloaded? systemctl status carpd"
	case errors.Is(err, syscall.ENOENT):
		what = "there is no such socket"
		hint += "; if `control` in its configuration names another socket, give --socket"
	case errors.Is(err, syscall.ECONNREFUSED):
		what, hint = "nobody listens", "carpd has ended: systemctl start carpd"
	case errors.Is(err, fs.ErrPermission):
		what, hint = "permission denied", "run it as root"+c.group()
	case errors.Is(err, syscall.EINVAL):
		what, hint = "not a path that a socket can have", "a socket's path has at most 107 bytes"
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		what = "the daemon broke off"
	default:
		what = strings.TrimPrefix(what, fmt.Sprintf("dial unix %s: ", c.socket))
	}
	return failure{exitUnreachable, fmt.Sprintf("cannot reach carpd at %s: %s", c.socket, what), hint}
}

// group names the group that may use the socket, for a hint.
func (c *client) group() string {
	info, err := os.Stat(c.socket)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return ""
	}
	name := fmt.Sprint(st.Gid)
	if g, err := user.LookupGroupId(name); err == nil {
		name = g.Name
	}
	return ", or as a member of the group " + name
}
