package hast

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

const (
	// answerTime is what hastctl may take: by itself it waits for hastd without end.
	answerTime = 10 * time.Second
	maxAnswer  = 64 << 10
	usage      = 64 // exit code
)

// hastctl runs one command of hastctl and returns what it writes.
func (h *resource) hastctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if h.c.Conf != "" {
		args = append([]string{args[0], "-c", h.c.Conf}, args[1:]...)
	}
	out, err := command.Run(ctx, command.Command{Path: h.c.Hastctl, Args: args, Keep: maxAnswer, Quiet: true})
	if err != nil {
		return "", fmt.Errorf("hast: hastctl %s: %w%s", args[0], err, hint(err))
	}
	return string(out), nil
}

// hint says what an exit code of hastctl means: sysexits(3), or for role and list the
// number of the first resource in error.
func hint(err error) string {
	exit, ok := errors.AsType[*command.ExitError](err)
	if !ok {
		return ""
	}
	text := map[int]string{
		1:  "hastd does not know the resource: see hast.conf, and let hastd read it again",
		2:  "the request was not understood",
		65: "the resource is not in hast.conf",
		66: "its local device is missing",
		69: "the request or the answer was lost: is hastd running?",
		70: "hastd has refused: see its log",
		71: "hastd cannot be reached: is it running?",
		74: "the local device cannot be read or written",
		78: "hast.conf is wrong, or this is not root",
	}[exit.Code]
	if text == "" {
		return ""
	}
	return ": " + text
}

// list asks hastd for the state of the resource. Before 2013 status gave what list gives.
func (h *resource) list(ctx context.Context) (Status, error) {
	text, err := h.hastctl(ctx, "list", h.c.Resource)
	if exit, ok := errors.AsType[*command.ExitError](err); ok && exit.Code == usage {
		text, err = h.hastctl(ctx, "status", h.c.Resource)
	}
	if err != nil {
		return Status{}, err
	}
	all, err := ParseStatus(text)
	if err != nil {
		return Status{}, err
	}
	return ofResource(all, h.c.Resource)
}

// other is what the other node says, if it can be asked.
type other struct {
	Status
	dump *Dump
}

// ask asks the other node by the command of the configuration. nil: it did not answer.
func (h *resource) ask(ctx context.Context) *other {
	if len(h.c.Peer) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.c.PeerTimeout)
	defer cancel()
	out, err := command.Run(ctx, command.Command{Path: h.c.Peer[0], Args: h.c.Peer[1:], Keep: maxAnswer, Quiet: true})
	if err != nil {
		hooks.Logger(ctx).Debug("the other node was not asked", "err", err)
		return nil
	}
	o, err := readOther(string(out), h.c.Resource)
	if err != nil {
		hooks.Logger(ctx).Warn("what the other node says cannot be read: it has to be that of hastctl list and hastctl dump", "err", err)
		return nil
	}
	return o
}

// readOther reads a list and, if one follows, a dump.
func readOther(text, name string) (*other, error) {
	list, dump := cutDump(text)
	all, err := ParseStatus(list)
	if err != nil {
		return nil, err
	}
	var o other
	if o.Status, err = ofResource(all, name); err != nil {
		return nil, err
	}
	dumps, err := ParseDumps(dump)
	if err != nil {
		return nil, err
	}
	for _, d := range dumps {
		if d.Name == name {
			o.dump = &d
		}
	}
	return &o, nil
}

// wasSplit reports whether the metadata of both nodes show that both have written alone.
func (h *resource) wasSplit(ctx context.Context, o *other) bool {
	if o == nil || o.dump == nil {
		return false
	}
	text, err := h.hastctl(ctx, "dump", h.c.Resource)
	if err != nil {
		hooks.Logger(ctx).Warn("the metadata of this node cannot be read", "err", err)
		return false
	}
	dumps, err := ParseDumps(text)
	if err != nil {
		hooks.Logger(ctx).Warn("the metadata of this node cannot be read", "err", err)
		return false
	}
	for _, d := range dumps {
		if d.Name == h.c.Resource {
			return split(d, *o.dump)
		}
	}
	return false
}

// cutDump parts a list from the dump that follows it.
func cutDump(text string) (list, dump string) {
	if i := strings.Index("\n"+text, "\nresource:"); i >= 0 {
		return text[:i], text[i:]
	}
	return text, ""
}
