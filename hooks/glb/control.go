package glb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/hooks"
)

const (
	replyTime = time.Second           // of one exchange, whatever becomes of the context
	maxReply  = 64 << 10              // glbd's own buffer has 8 KiB
	looks     = 50 * time.Millisecond // how often draining connections are counted
)

// errDown is in an error if nobody listens at the control port.
var errDown = errors.New("nobody listens there: glbd does not run, or without -c")

// control is a connection to glbd's control port.
type control struct{ conn net.Conn }

func (b *balancer) dial(ctx context.Context) (control, error) {
	ctx, cancel := context.WithTimeout(ctx, replyTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.Control)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = errDown
	}
	if err != nil {
		return control{}, fmt.Errorf("glb: reach %s: %w", b.Control, err)
	}
	return control{conn}, nil
}

func (c control) close() { _ = c.conn.Close() }

// ask sends a command and reads until the reply is whole.
func (c control) ask(command string, whole func(string) bool) (string, error) {
	_ = c.conn.SetDeadline(time.Now().Add(replyTime))
	if _, err := c.conn.Write([]byte(command + "\n")); err != nil {
		return "", fmt.Errorf("glb: %s: %w", command, err)
	}
	var said []byte
	buf := make([]byte, 4<<10)
	for len(said) < maxReply {
		n, err := c.conn.Read(buf)
		said = append(said, buf[:n]...)
		if whole(string(said)) {
			return string(said), nil
		}
		if err != nil {
			return "", fmt.Errorf("glb: %s: after %d bytes of the reply: %w", command, len(said), err)
		}
	}
	return "", fmt.Errorf("glb: %s: the reply is longer than %d bytes", command, maxReply)
}

// info asks for the destinations.
func (c control) info() (table, error) {
	said, err := c.ask("getinfo", func(s string) bool {
		_, last, found := strings.Cut(s, "Destinations:")
		return found && strings.HasSuffix(last, "\n")
	})
	if err != nil {
		return table{}, err
	}
	return parseInfo(said)
}

// stat asks what was carried since somebody asked last.
func (c control) stat() (statistics, error) {
	said, err := c.ask("getstat", func(s string) bool { return strings.HasSuffix(s, "\n") })
	if err != nil {
		return statistics{}, err
	}
	return parseStat(said)
}

// set sends a destination. Its "OK" says that it was understood, and getinfo what came
// of it; so does an Error, which is also what removing an unknown one says.
func (c control) set(d Destination) (said string, err error) {
	said, err = c.ask(d.String(), func(s string) bool { return strings.HasSuffix(s, "\n") })
	return strings.TrimSpace(said), err
}

// markFunc is hooks.Mark or hooks.MarkNoReturn.
type markFunc func(ctx context.Context, step string) error

// apply brings about the wished destinations: weights first, then those that are to have
// no connections are waited for, for DrainTime, then those that are to be away are
// removed. Already so is success.
//
// mark is called before connections are sent elsewhere.
func (b *balancer) apply(ctx context.Context, wished []Destination, mark markFunc) error {
	c, err := b.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.weigh(ctx, wished, mark); err != nil {
		return err
	}
	drained := b.drained(ctx, c, wished)
	if ctx.Err() != nil {
		return drained
	}
	return errors.Join(drained, c.remove(ctx, wished))
}

// weigh sets all weights; what is to be removed is drained as yet.
func (c control) weigh(ctx context.Context, wished []Destination, mark markFunc) error {
	t, err := c.info()
	if err != nil {
		return err
	}
	draining := make([]Destination, 0, len(wished))
	for _, d := range wished {
		if d.removed() {
			if _, there := t.find(d.Addr); !there {
				continue
			}
			d.Weight = 0
		}
		draining = append(draining, d)
	}
	if len(t.wrong(draining)) == 0 {
		return nil
	}
	if err := mark(ctx, "weigh"); err != nil {
		return err
	}
	return c.put(ctx, draining, t.wrong(draining))
}

// remove takes out what is to be away.
func (c control) remove(ctx context.Context, wished []Destination) error {
	t, err := c.info()
	if err != nil {
		return err
	}
	wrong := t.wrong(wished)
	if len(wrong) == 0 {
		return nil
	}
	if err := hooks.Mark(ctx, "remove"); err != nil {
		return err
	}
	return c.put(ctx, wished, wrong)
}

// put sends some destinations, and looks whether all are as wished then.
func (c control) put(ctx context.Context, wished, them []Destination) error {
	said := make(map[Destination]string)
	for _, d := range them {
		if err := ctx.Err(); err != nil {
			return err
		}
		answer, err := c.set(d)
		if err != nil {
			return err
		}
		said[d] = answer
	}
	t, err := c.info()
	if err != nil {
		return err
	}
	if wrong := t.wrong(wished); len(wrong) > 0 {
		return fmt.Errorf("glb: set %v: it says %q and has not done it", wrong[0], said[wrong[0]])
	}
	return nil
}

// drained waits until the destinations that are to have no connections have none.
func (b *balancer) drained(ctx context.Context, c control, wished []Destination) error {
	late := time.NewTimer(b.DrainTime)
	defer late.Stop()
	each := time.NewTicker(looks)
	defer each.Stop()
	for waiting := false; ; {
		t, err := c.info()
		if err != nil {
			return err
		}
		left := t.busy(wished)
		if left == 0 {
			return nil
		}
		if !waiting {
			waiting = true
			if err := hooks.Mark(ctx, "drain"); err != nil {
				return err
			}
		}
		select {
		case <-each.C:
		case <-late.C:
			return b.busy(ctx, wished, left)
		case <-ctx.Done():
			return fmt.Errorf("glb: drain: %w, with %d connections left", ctx.Err(), left)
		}
	}
}

// busy is what follows from connections that do not end. What is removed loses them; what
// is only drained keeps them, and so is not let go of.
func (b *balancer) busy(ctx context.Context, wished []Destination, left int) error {
	for _, d := range wished {
		if d.Weight == 0 {
			return fmt.Errorf("glb: drain: %d connections are left after %v: end them, give them more drain_time, or remove the destination (weight -1), which cuts them", left, b.DrainTime)
		}
	}
	hooks.Logger(ctx).Warn("connections are cut: their destination is removed", "connections", left, "after", b.DrainTime)
	return nil
}
