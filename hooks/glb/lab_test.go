package glb_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/glb"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

func TestMain(m *testing.M) { lab.Main(m) }

const patience = 10 * time.Second

const one, two = "192.0.2.11:3306", "192.0.2.12:3306"

// rig is a host with a glbd before two servers, each of which says its name and echoes.
type rig struct {
	t            *testing.T
	host, client *lab.Host
	glbd         *peers.GLBD
}

func newRig(t *testing.T, line ...string) *rig {
	t.Helper()
	lan := lab.New(t)
	r := &rig{t: t, host: lan.Host("glb", "192.0.2.2/24"), client: lan.Host("client", "192.0.2.9/24")}
	for _, at := range []string{one, two} {
		address := netip.MustParseAddrPort(at)
		server := lan.Host("s"+at[8:10], address.Addr().String()+"/24")
		var l net.Listener
		server.Do(func() {
			var err error
			if l, err = net.Listen("tcp4", at); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintln(c, at)
					_, _ = bufio.NewReader(c).WriteTo(c)
				}()
			}
		}()
	}
	r.glbd = peers.StartGLBD(t, r.host, netip.MustParseAddrPort("192.0.2.2:3306"), netip.MustParseAddrPort("192.0.2.2:8011"), line...)
	t.Cleanup(func() {
		if err := r.glbd.Died(); err != nil {
			t.Errorf("glbd died: %v", err)
		}
		for _, c := range r.glbd.Commands() {
			if strings.ContainsAny(c, "\n") {
				t.Errorf("two commands in one read: %q", c)
			}
		}
	})
	return r
}

// connect opens a session through glbd, and returns which server it came to.
func (r *rig) connect() (c net.Conn, server string, err error) {
	r.client.Do(func() { c, err = net.DialTimeout("tcp4", "192.0.2.2:3306", 2*time.Second) })
	if err != nil {
		return nil, "", err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		c.Close()
		return nil, "", err
	}
	return c, strings.TrimSpace(line), nil
}

// local makes calls in the namespace of glbd's host.
type local struct {
	hooks.Resource
	host *lab.Host
}

func (l local) Promote(ctx context.Context, ev hooks.Event) (err error) {
	l.host.Do(func() { err = l.Resource.Promote(ctx, ev) })
	return err
}

func (l local) Demote(ctx context.Context, ev hooks.Event) (err error) {
	l.host.Do(func() { err = l.Resource.Demote(ctx, ev) })
	return err
}

func (l local) Monitor(ctx context.Context) (r hooks.Report, err error) {
	l.host.Do(func() { r, err = l.Resource.Monitor(ctx) })
	return r, err
}

func (r *rig) resource(standby string, drain time.Duration) hooks.Resource {
	r.t.Helper()
	c := glb.Config{Control: "192.0.2.2:8011", Destinations: destinations(r.t, one+":0.5"), DrainTime: drain}
	if standby != "" {
		c.Standby = destinations(r.t, strings.Split(standby, " ")...)
	}
	made, err := glb.NewResource(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return local{made, r.host}
}

func destinations(t *testing.T, texts ...string) (list []glb.Destination) {
	t.Helper()
	for _, text := range texts {
		var d glb.Destination
		if err := d.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
	return list
}

func (r *rig) is(what string, p hooks.Resource, role hooks.Role, health hooks.Health) {
	r.t.Helper()
	report, err := p.Monitor(r.t.Context())
	if err != nil || report.Role != role || report.Health != health {
		r.t.Errorf("%s: %+v, %v; want %v, %v", what, report, err, role, health)
	}
}

func TestLabResourceKeepsTheContract(t *testing.T) {
	r := newRig(t)
	for name, standby := range map[string]string{"drained": "", "removed": one + ":-1", "other server": one + ":-1 " + two} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			hookstest.Resources(t, hookstest.World{
				Open: func() hooks.Resource { return r.resource(standby, time.Second) },
				Reset: func(testing.TB) {
					r.glbd.Stop()
					r.glbd.Start()
					if err := r.resource(standby, time.Second).Demote(t.Context(), hooks.Event{}); err != nil {
						t.Fatal(err)
					}
				},
				Check: func(role hooks.Role) error {
					want := map[hooks.Role]string{hooks.RolePromoted: one}[role]
					if role == hooks.RoleDemoted && strings.HasSuffix(standby, two) {
						want = two
					}
					c, server, _ := r.connect()
					if c != nil {
						c.Close()
					}
					if server != want {
						return fmt.Errorf("a client comes to %q, want %q", server, want)
					}
					return nil
				},
			})
		})
	}
}

// there makes looks in the namespace of glbd's host.
type there struct {
	monitor hooks.Monitor
	host    *lab.Host
}

func (l there) Monitor(ctx context.Context) (r hooks.Report, err error) {
	l.host.Do(func() { r, err = l.monitor.Monitor(ctx) })
	return r, err
}

func TestLabMonitorKeepsTheContract(t *testing.T) {
	r := newRig(t, one)
	hookstest.Monitors(t, func() hooks.Monitor {
		m, err := glb.NewMonitor(glb.Config{Control: "192.0.2.2:8011"})
		if err != nil {
			t.Fatal(err)
		}
		return there{m, r.host}
	})
}

func TestLabDrainWaitsForTheLastSession(t *testing.T) {
	r := newRig(t)
	p := r.resource("", patience)
	if err := p.Promote(t.Context(), hooks.Event{}); err != nil {
		t.Fatal(err)
	}
	c, _, err := r.connect()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Demote(context.WithoutCancel(t.Context()), hooks.Event{}) }()
	lab.Eventually(t, patience, "the destination to be drained", func() bool { return slices.Contains(r.glbd.Commands(), one+":0") })
	if more, server, err := r.connect(); err == nil {
		more.Close()
		t.Errorf("a new session comes to %s while it is drained", server)
	}
	r.is("while it drains", p, hooks.RoleUnknown, hooks.Unfit)
	fmt.Fprintln(c, "still here")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "still here\n" {
		t.Errorf("the old session: %q, %v", line, err)
	}
	select {
	case err := <-done:
		t.Errorf("it does not wait for the session: %v", err)
	default:
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.is("drained", p, hooks.RoleDemoted, hooks.Healthy)
}

func TestLabSessionsThatDoNotEndAreAFaultOrCut(t *testing.T) {
	r := newRig(t)
	for standby, cut := range map[string]bool{one + ":0": false, one + ":-1": true} {
		p := r.resource(standby, 200*time.Millisecond)
		if err := p.Promote(t.Context(), hooks.Event{}); err != nil {
			t.Fatal(err)
		}
		c, _, err := r.connect()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Demote(t.Context(), hooks.Event{}); (err == nil) != cut {
			t.Errorf("%s: %v", standby, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(make([]byte, 1))
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() == cut {
			t.Errorf("%s: the session: %v", standby, err)
		}
		c.Close()
		if err := p.Demote(t.Context(), hooks.Event{}); err != nil {
			t.Errorf("%s: again, without the session: %v", standby, err)
		}
	}
}

// What glbd says is not believed: it may neither close nor count the connections of what
// it has deleted.
func TestLabDestinationIsDrainedBeforeItIsRemoved(t *testing.T) {
	r := newRig(t, one)
	r.glbd.KeepsDeleted = true
	p := r.resource(one+":-1", patience)
	if err := p.Promote(t.Context(), hooks.Event{}); err != nil {
		t.Fatal(err)
	}
	c, _, err := r.connect()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Demote(context.WithoutCancel(t.Context()), hooks.Event{}) }()
	lab.Eventually(t, patience, "the destination to be drained", func() bool { return slices.Contains(r.glbd.Commands(), one+":0") })
	c.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	commands := r.glbd.Commands()
	if slices.Index(commands, one+":0") > slices.Index(commands, one+":-1") {
		t.Errorf("removed before it was drained: %q", commands)
	}
	r.is("removed", p, hooks.RoleDemoted, hooks.Healthy)
}

func TestLabOKIsNotBelieved(t *testing.T) {
	r := newRig(t)
	r.glbd.Ignores = true
	p := r.resource("", time.Second)
	if err := p.Promote(t.Context(), hooks.Event{}); err == nil || !strings.Contains(err.Error(), "has not done it") {
		t.Errorf("nothing was set: %v", err)
	}
}

func TestLabRestartedGLBIsToldAgain(t *testing.T) {
	r := newRig(t, two) // its command line
	p := r.resource(two, time.Second)
	for _, role := range []hooks.Role{hooks.RolePromoted, hooks.RoleDemoted} {
		act := p.Promote
		if role == hooks.RoleDemoted {
			act = p.Demote
		}
		if err := act(t.Context(), hooks.Event{}); err != nil {
			t.Fatal(err)
		}
		health := hooks.Healthy
		r.is("before", p, role, health)
		r.glbd.Stop()
		r.is("glbd does not run", p, hooks.RoleDemoted, hooks.Unfit)
		r.glbd.Start()
		r.is("restarted, and told again", p, role, hooks.Degraded)
		r.is("after", p, role, health)
	}
	// A new process of ours knows nothing of what was told, and only looks.
	r.glbd.Stop()
	r.glbd.Start()
	told := len(r.glbd.Commands())
	r.is("nothing told yet", r.resource(two, time.Second), hooks.RoleUnknown, hooks.Healthy)
	if more := r.glbd.Commands()[told:]; !slices.Equal(more, []string{"getinfo"}) {
		t.Errorf("to look it sent %q", more)
	}
}

func TestLabMonitorSaysWhetherClientsWouldBeServed(t *testing.T) {
	r := newRig(t, one)
	m, err := glb.NewMonitor(glb.Config{Control: "192.0.2.2:8011", Statistics: true})
	if err != nil {
		t.Fatal(err)
	}
	look := func() (report hooks.Report) {
		t.Helper()
		r.host.Do(func() { report, err = m.Monitor(t.Context()) })
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	c, _, err := r.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := look(); got.Health != hooks.Healthy || !strings.Contains(got.Text, "1 of 1 destinations get connections, 1 are open") || !strings.Contains(got.Text, "1 were opened") {
		t.Errorf("%+v", got)
	}
	r.host.Do(func() {
		h, err := glb.New(glb.Config{Control: "192.0.2.2:8011", Destinations: destinations(t, one+":-1"), DrainTime: 100 * time.Millisecond})
		if err == nil {
			err = h.Run(t.Context(), hookstest.SampleEvent(hooks.AfterDown))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if got := look(); got.Health != hooks.Unfit {
		t.Errorf("without destinations: %+v", got)
	}
	r.glbd.Stop()
	if got := look(); got.Health != hooks.Unfit || !strings.Contains(got.Text, "does not run") {
		t.Errorf("without glbd: %+v", got)
	}
}
