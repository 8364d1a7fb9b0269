package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/carpd/carpd/hooks"
)

const (
	systemBus = "unix:path=/run/dbus/system_bus_socket"
	private   = "unix:path=/run/systemd/private" // for root, where no bus runs
	// cancelTime is how long taking back a job may take.
	cancelTime = time.Second
	// lookEach is how often it is looked whether the connection still stands.
	lookEach = 250 * time.Millisecond
)

// bus is systemd, by D-Bus. Each call has connections of its own, so that a restart of bus
// or systemd is no matter.
type bus struct {
	unit    string
	address string // of the bus; "" is the system's, or systemd itself
}

// link is a connection: one that calls, and the same with what go-systemd adds.
type link struct {
	*dbus.Conn
	calls *godbus.Conn
}

func (b bus) connect(ctx context.Context) (link, error) {
	if b.address != "" {
		return dial(ctx, b.address, true)
	}
	l, err := dial(ctx, systemBus, true)
	if err != nil && os.Geteuid() == 0 && ctx.Err() == nil {
		direct, fault := dial(ctx, private, false)
		if fault == nil {
			return direct, nil
		}
		err = errors.Join(err, fault)
	}
	return l, err
}

// dial connects. On a bus one says hello first.
func dial(ctx context.Context, address string, hello bool) (link, error) {
	var l link
	conn, err := dbus.NewConnection(func() (*godbus.Conn, error) {
		c, err := godbus.Dial(address, godbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		if err = c.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err == nil && hello {
			err = c.Hello()
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if l.calls == nil {
			l.calls = c
		}
		return c, nil
	})
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return l, fmt.Errorf("systemd: connect to %s: %w", address, err)
	}
	l.Conn = conn
	return l, nil
}

// state implements manager.
func (b bus) state(ctx context.Context) (state, error) {
	l, err := b.connect(ctx)
	if err != nil {
		return state{}, err
	}
	defer l.Close()
	return b.look(ctx, l)
}

func (b bus) look(ctx context.Context, l link) (state, error) {
	all, err := l.GetAllPropertiesContext(ctx, b.unit)
	if err != nil {
		return state{}, b.fault(ctx, "ask for", err)
	}
	text := func(name string) string {
		s, _ := all[name].(string)
		return s
	}
	s := state{
		load: text("LoadState"), active: text("ActiveState"), sub: text("SubState"), result: text("Result"), file: text("UnitFileState"),
	}
	if s.active == "" {
		return s, fmt.Errorf("systemd: ask for %s: it has no ActiveState", b.unit)
	}
	return s, nil
}

// do implements manager: it waits for the end of the job.
func (b bus) do(ctx context.Context, a Action) error {
	l, err := b.connect(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := b.look(ctx, l)
	switch {
	case err != nil:
		return err
	case !s.there() && a == Stop && s.stopped():
		return nil // what is not there does not run
	case !s.there():
		return hooks.Refuse(fmt.Errorf("systemd: %s %s: the unit is %s: install or unmask it", a, b.unit, s.load))
	case a == Start && s.active == "failed":
		// Else those that failed too often are not started.
		if err := l.ResetFailedUnitContext(ctx, b.unit); err != nil {
			return b.fault(ctx, "reset", err)
		}
	}
	done := make(chan string, 1)
	job, err := l.queue(ctx, a, b.unit, done)
	if err != nil {
		return b.fault(ctx, string(a), err)
	}
	result, err := b.await(ctx, l, a, job, done)
	if err != nil {
		return err
	}
	return b.after(ctx, l, a, result)
}

// queue asks for a job. One of this unit that waits is replaced.
func (l link) queue(ctx context.Context, a Action, unit string, done chan<- string) (int, error) {
	const mode = "replace"
	switch a {
	case Start:
		return l.StartUnitContext(ctx, unit, mode, done)
	case Stop:
		return l.StopUnitContext(ctx, unit, mode, done)
	case Restart:
		return l.RestartUnitContext(ctx, unit, mode, done)
	case Reload:
		return l.ReloadUnitContext(ctx, unit, mode, done)
	case ReloadOrRestart:
		return l.ReloadOrRestartUnitContext(ctx, unit, mode, done)
	}
	return l.TryRestartUnitContext(ctx, unit, mode, done)
}

// await waits for the result of a job. When ctx ends it is taken back, unless it stops the
// unit: letting go goes on.
func (b bus) await(ctx context.Context, l link, a Action, job int, done <-chan string) (string, error) {
	each := time.NewTicker(lookEach)
	defer each.Stop()
	for {
		select {
		case result := <-done:
			return result, nil
		case <-ctx.Done():
			if a != Stop && job > 0 {
				b.takeBack(context.WithoutCancel(ctx), job)
			}
			return "", fmt.Errorf("systemd: %s %s: its job has not ended: %w", a, b.unit, ctx.Err())
		case <-each.C:
			if !l.Connected() && ctx.Err() == nil {
				return "", hooks.TryAgain(fmt.Errorf("systemd: %s %s: the bus is gone", a, b.unit))
			}
		}
	}
}

// takeBack cancels a job. The connection of the call has ended with its context.
func (b bus) takeBack(ctx context.Context, job int) {
	ctx, cancel := context.WithTimeout(ctx, cancelTime)
	defer cancel()
	l, err := b.connect(ctx)
	if err != nil {
		hooks.Logger(ctx).Warn("systemd: the job is not taken back", "unit", b.unit, "job", job, "err", err)
		return
	}
	defer l.Close()
	manager := l.calls.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	call := manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.CancelJob", 0, uint32(job))
	if call.Err != nil {
		hooks.Logger(ctx).Info("systemd: the job is not taken back", "unit", b.unit, "job", job, "err", call.Err)
	}
}

// after looks again: a job that is done does not say that the unit lives.
func (b bus) after(ctx context.Context, l link, a Action, result string) error {
	s, err := b.look(ctx, l)
	if fault := verdict(b.unit, a, result); fault != nil {
		if err == nil {
			return fmt.Errorf("%w: it is %v", fault, s)
		}
		return fault
	}
	switch {
	case err != nil:
		return err
	case a != Stop && s.active == "failed":
		return fmt.Errorf("systemd: %s %s: the job is done, and the unit is %v: look at journalctl -u %s", a, b.unit, s, b.unit)
	}
	return nil
}

// fault makes an error of a call.
func (b bus) fault(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("systemd: %s %s: %w", what, b.unit, ctx.Err())
	}
	wrapped := fmt.Errorf("systemd: %s %s: %w", what, b.unit, err)
	d, ok := errors.AsType[godbus.Error](err)
	if !ok {
		return wrapped
	}
	switch d.Name {
	case "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitMasked", "org.freedesktop.systemd1.LoadFailed":
		return hooks.Refuse(wrapped)
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
		return fmt.Errorf("%w: the daemon's user may not manage units: run it as root, or allow it by polkit", wrapped)
	}
	return wrapped
}
