package carp

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestThreeSendErrorsDemoteAndTimeHeals(t *testing.T) {
	r := newRig(t).master()
	r.sendErr = true
	r.do(r.e.Demote(r.now, "x", 1)) // sends
	r.do(r.e.Demote(r.now, "x", 2))
	if r.e.demotions[OwnerSendErrors] != 0 {
		t.Error("demoted too early")
	}
	r.do(r.e.Demote(r.now, "x", 3))
	if r.e.demotions[OwnerSendErrors] != 240 {
		t.Error("not demoted")
	}
	r.hear(peerLow, 1, 0) // loses the role: nothing is sent any more
	r.state(Backup)
	for range 31 {
		r.hear(peerLow, 1, 0)
		r.run(time.Second)
	}
	if r.e.demotion != 3 {
		t.Errorf("demotion %d after the heal time", r.e.demotion)
	}
}

func TestThreeSuccessesForgiveSendErrors(t *testing.T) {
	r := newRig(t).master()
	r.sendErr = true
	send := func() {
		r.now = r.now.Add(100 * time.Millisecond)
		r.do(r.e.Renew(r.now))
	}
	for range 3 {
		send()
	}
	r.sendErr = false
	for range 3 {
		send()
	}
	if r.e.demotions[OwnerSendErrors] != 0 || r.e.errors != 0 {
		t.Errorf("still demoted: %v, %d errors", r.e.demotions, r.e.errors)
	}
}

func TestStalledMasterYieldsBeforeAnythingElse(t *testing.T) {
	for name, wake := range map[string]func(*rig) Effects{
		"tick":    func(r *rig) Effects { return r.e.Tick(r.now) },
		"packet":  func(r *rig) Effects { return r.e.Receive(r.now, r.advert(peerLow, 1, 200)) },
		"demote":  func(r *rig) Effects { return r.e.Demote(r.now, "x", 1) },
		"state":   func(r *rig) Effects { return r.e.SetState(r.now, Backup) },
		"link up": func(r *rig) Effects { return r.e.LinkUp(r.now, rigLocal) },
		"resign":  func(r *rig) Effects { return r.e.Resign(r.now, Backup, ReasonHandover) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Leased = true }).master()
			r.now = r.now.Add(2*time.Second + time.Millisecond)
			r.do(wake(r))
			if r.e.state != Backup || r.e.reason != ReasonStalled {
				t.Errorf("state %v (%v)", r.e.state, r.e.reason)
			}
			if r.permit.Epoch != 0 {
				t.Error("a permit lives")
			}
		})
	}
}

func TestMasterWithTheLongestSkewDoesNotStallByItself(t *testing.T) {
	r := newRig(t, skew(240)).master()
	for range 100 {
		r.now = r.deadline().Add(100 * time.Millisecond)
		r.do(r.e.Tick(r.now))
		r.state(Master)
	}
}

func TestFailedTakeoverHoldsBackLongerEachTime(t *testing.T) {
	r := newRig(t).master()
	for _, hold := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		r.do(r.e.Failed(r.now, r.e.epoch))
		r.want("MASTER->BACKUP failed, send 255/255")
		r.run(hold - time.Millisecond)
		r.state(Backup)
		r.run(10 * time.Second)
		r.state(Master)
		r.take()
	}
	r.do(r.e.Failed(r.now, r.e.epoch-1)) // of an epoch that is over
	r.state(Master)
}

// A master that cannot serve any more lets go in order, where there is something to be
// let go of before another one takes it, and is held back as well.
func TestFailedMasterThatLetsGoInOrderIsHeldBackToo(t *testing.T) {
	r := newRig(t).master()
	r.do(r.e.Abandon(r.now, r.e.epoch-1)) // of an epoch that is over
	r.state(Master)
	r.do(r.e.Abandon(r.now, r.e.epoch))
	r.want("MASTER->RELEASING failed")
	r.run(500 * time.Millisecond)
	r.do(r.e.Released(r.now, nil))
	r.want("RELEASING->BACKUP released, send 255/255")
	r.run(9400 * time.Millisecond)
	r.state(Backup)
	r.run(4 * time.Second)
	r.state(Master)
}

func TestGuardIsAskedAndPermitsWait(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Guarded = true })
	r.take()
	r.run(masterDown(r.e.cfg.timing(), timing{}))
	r.want("BACKUP->MASTER master-timed-out, ask, send 1/100")
	r.do(r.e.Granted(r.now, r.e.epoch))
	r.want("permit")
	r.do(r.e.Denied(r.now, r.e.epoch)) // too late
	r.state(Master)
}

func TestDeniedByTheGuardLeavesTheRole(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Guarded = true }).master()
	r.do(r.e.Denied(r.now, r.e.epoch))
	r.want("MASTER->BACKUP denied, send 255/255")
}

func TestStartGateHoldsInitUntilReady(t *testing.T) {
	for name, set := range map[string]func(*rig){
		"link first": func(r *rig) { r.run(time.Minute); r.want(""); r.do(r.e.Ready(r.now)) },
		"ready first": func(r *rig) {
			r.do(r.e.LinkDown(r.now))
			r.do(r.e.Ready(r.now))
			r.want("")
			r.do(r.e.LinkUp(r.now, rigLocal))
		},
		"link came back": func(r *rig) {
			r.do(r.e.LinkDown(r.now))
			r.do(r.e.LinkUp(r.now, rigLocal))
			r.want("")
			r.do(r.e.Ready(r.now))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.StartGate = true })
			r.state(Init)
			set(r)
			r.want("INIT->BACKUP link-up")
			r.do(r.e.Ready(r.now))
			r.want("")
			r.do(r.e.LinkDown(r.now))
			r.do(r.e.LinkUp(r.now, rigLocal))
			r.want("BACKUP->INIT link-down, INIT->BACKUP link-up")
		})
	}
	t.Run("with a startup delay", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.StartGate, c.StartupDelay = true, 5*time.Second })
		r.do(r.e.Ready(r.now))
		r.want("")
		r.run(5 * time.Second)
		r.want("INIT->BACKUP link-up")
	})
}

func TestStartupDelayHoldsInit(t *testing.T) {
	r := newRig(t, func(c *Config) { c.StartupDelay = 5 * time.Second })
	r.want("")
	r.run(4 * time.Second)
	r.do(r.e.LinkDown(r.now))
	r.do(r.e.LinkUp(r.now, rigLocal)) // a flap does not begin it anew
	r.run(time.Second)
	r.want("INIT->BACKUP link-up")
	r.do(r.e.LinkDown(r.now))
	r.do(r.e.LinkUp(r.now, rigLocal))
	r.want("BACKUP->INIT link-down, INIT->BACKUP link-up")
}

func TestRollKeepsBothDigestsInUse(t *testing.T) {
	r := newRig(t).master()
	old := r.e.secret
	changed := rigConfig(func(c *Config) { c.Passphrase = []byte("new") })
	e, err := r.e.Reconfigure(r.now, changed)
	if err != nil {
		t.Fatal(err)
	}
	r.do(e)
	r.want("send 1/100, send 1/100, permit")
	r.run(time.Minute)
	r.take()
	a := NewAdvert(9, 1, 0)
	a.Counter, a.Digest = 77, old.send.Sum(77)
	r.do(r.e.Receive(r.now, Packet{Src: peerLow, Dst: Group(IPv4), TTL: 255, Broadcast: true, Payload: a.Append(nil)}))
	r.want("MASTER->BACKUP better-master")
	for range 600 {
		r.hear(peerLow, 1, 0) // under the new one
		r.run(time.Second)
	}
	r.take()
	a.Counter, a.Digest = 78, old.send.Sum(78)
	r.do(r.e.Receive(r.now, Packet{Src: peerLow, Dst: Group(IPv4), TTL: 255, Broadcast: true, Payload: a.Append(nil)}))
	r.want("drop hash")
}

func TestTooManyChangesWithinARollAreRefusedWhole(t *testing.T) {
	r := newRig(t)
	for n := range MaxRolling {
		if _, err := r.e.Reconfigure(r.now, rigConfig(func(c *Config) { c.Passphrase = []byte{byte(n)} })); err != nil {
			t.Fatal(err)
		}
	}
	before := r.e.secret.send.Sum(0)
	bad := rigConfig(func(c *Config) { c.Passphrase = []byte("x") })
	if r.e.CheckReconfigure(r.now, bad) == nil {
		t.Error("no refusal")
	}
	if _, err := r.e.Reconfigure(r.now, bad); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
	if r.e.secret.send.Sum(0) != before {
		t.Error("half applied")
	}
	if _, err := r.e.Reconfigure(r.now, rigConfig()); err != nil { // back to the first: none more is needed
		t.Error(err)
	}
}

func TestReconfigureOfTimingIsSaidAtOnceAndKeepsTheState(t *testing.T) {
	r := newRig(t).master()
	e, err := r.e.Reconfigure(r.now, rigConfig(skew(7)))
	if err != nil {
		t.Fatal(err)
	}
	r.do(e)
	r.want("send 1/7, permit")
	if _, err := r.e.Reconfigure(r.now, rigConfig(func(c *Config) { c.VHID = 8 })); !errors.Is(err, ErrConfig) {
		t.Errorf("another vhid: %v", err)
	}
}

func TestUnicastHearsItsPeersOnly(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Peers = []netip.Addr{peerLow, peerHigh} })
	r.take()
	p := r.advert(peerLow, 1, 0)
	p.Dst, p.Broadcast, p.TTL = rigLocal.IPv4, false, 12
	r.do(r.e.Receive(r.now, p))
	r.want("")
	p = r.advert(netip.MustParseAddr("192.0.2.77"), 1, 0)
	p.Dst, p.Broadcast = rigLocal.IPv4, false
	r.do(r.e.Receive(r.now, p))
	r.want("drop peer")
	r.hear(peerLow, 1, 0) // to the group
	r.want("drop destination")
	r.run(time.Minute)
	r.state(Master)
	if got := r.e.Tick(r.now.Add(time.Second * 2)); len(got.Send) != 2 && r.e.state == Master {
		t.Errorf("%d frames for two peers", len(got.Send))
	}
}

func TestBSDYieldsInSilence(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Compat = CompatBSD }).master()
	r.hear(peerHigh, 1, 100)
	r.want("MASTER->BACKUP tie-lost")
	r.do(r.e.Released(r.now, nil))
	r.want("")
}

// Two backups that time out at one instant have both been elected when they hear of each
// other. What only one may have is taken after that.
func TestFirstPermitOfAHolderOfResourcesWaitsForWhoWasElectedTogether(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Resources = 1 })
	r.take()
	r.run(masterDown(r.e.cfg.timing(), timing{}))
	r.want("BACKUP->MASTER master-timed-out, send 1/100")
	r.run(r.e.cfg.grace() - time.Millisecond)
	r.want("")
	r.hear(peerLow, 1, 50)
	r.want("MASTER->BACKUP better-master")
	r.run(masterDown(r.e.cfg.timing(), timing{1, 50}))
	r.take()
	r.run(r.e.cfg.grace())
	r.state(Master)
	r.want("permit")
}
