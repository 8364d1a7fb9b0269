// Package conform says what a speaker of CARP (Run) or VRRP (RunVRRP) does, row by
// row, by talking to it on the wire: any speaker, ours or a foreign one, on any
// interface that both are on. It knows nothing of the speaker but what it sends.
//
//	report, err := conform.Run(ctx, conform.Config{
//		Interface: "eth0", VHID: 9, Key: key, Addresses: addrs, AdvSkew: 100,
//	})
//	fmt.Print(report.Table())
//
// # What the speaker must be given
//
// The group of Config, advbase 1, the same advskew, and nobody else in the
// group: another member would answer in its place. Of VRRP, the virtual router of
// VRRPConfig. It may be in any state when Run begins. Addresses move back and forth
// dozens of times, and a flood is sent: never point this at a group that serves
// somebody.
//
// # How to read the report
//
// Each Row compares what was seen with a rule, which it names. "as FreeBSD" is
// what FreeBSD's kernel does (NetBSD's too where the rule does not say
// otherwise), "as RFC" what the RFCs of VRRP want, "as ours" what carpd does where
// it chose differently, "differs" neither. To differ is no fault in itself. Some
// rows are such that two speakers which differ there cannot share an address
// safely: those have Must set, and if what was seen is not among what is allowed,
// Contrary too.
//
// A row with an outcome that neither rule foretells is tried twice, and the
// second result counts: so that a moment's standstill of a loaded machine is
// seldom taken for the speaker's doing.
//
// # Limits
//
// Run takes one to three minutes, and never more than MaxDuration. It sends at
// most 2000 packets a second, for three seconds. What it hears is decoded by
// test/decode, and nothing of package carp is used: a fault of our codec would be
// seen. It needs CAP_NET_RAW; without it the error wraps os.ErrPermission.
//
// The adverts of the tester go over IPv4, and over IPv6 as well if the group has
// such addresses; then the rows that need single packets to decide (R-, and some
// of B-) are not tested, since a speaker may weigh the families together.
package conform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// MaxDuration bounds a run.
const MaxDuration = 6 * time.Minute

// Config is the group that the speaker under test is in. All fields but Key,
// Quick and Progress are required.
type Config struct {
	Interface string       // where the speaker is heard
	VHID      uint8        // 1 to 255
	Key       []byte       // the passphrase, at most 20 bytes; none is a key of zeroes
	Addresses []netip.Addr // all shared addresses; at least one of IPv4
	AdvSkew   uint8        // the speaker's, MinAdvSkew to MaxAdvSkew; its advbase is 1

	// Quick watches for shorter times and leaves out what takes long: under a
	// minute for a prompt speaker.
	Quick bool
	// Progress, if not nil, is given each row as it is done, by one goroutine.
	Progress func(Row)
}

// The advskews that can be tested: with less a late answer cannot be told from
// the next advert, with more there is no room for slower ones.
const (
	MinAdvSkew = 64
	MaxAdvSkew = 200
)

// Errors of Run; each is wrapped with particulars.
var (
	ErrConfig = errors.New("conform: bad configuration")
	ErrSilent = errors.New("conform: no advert of the group was heard")
	ErrHash   = errors.New("conform: the group's adverts have another HMAC")
)

func (c *Config) validate() error {
	var faults []error
	fault := func(format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, a...)...))
	}
	if c.Interface == "" {
		fault("no interface")
	}
	if c.VHID == 0 {
		fault("vhid 0: use 1 to 255")
	}
	if len(c.Key) > 20 {
		fault("a key of %d bytes: at most 20 are used by any implementation", len(c.Key))
	}
	if c.AdvSkew < MinAdvSkew || c.AdvSkew > MaxAdvSkew {
		fault("advskew %d: give the speaker one from %d to %d, so that late and early can be told apart", c.AdvSkew, MinAdvSkew, MaxAdvSkew)
	}
	if !slices.ContainsFunc(c.Addresses, func(a netip.Addr) bool { return a.Unmap().Is4() }) {
		fault("no IPv4 address in the group: adverts are sent over IPv4")
	}
	for _, a := range c.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			fault("address %v: not an address that a host can have", a)
		}
	}
	return errors.Join(faults...)
}

// unit is what advskew counts in.
const unit = time.Second / 256

// interval is how far apart the speaker's adverts are by the BSDs' rule.
func (c *Config) interval() time.Duration { return time.Second + time.Duration(c.AdvSkew)*unit }

// down is the speaker's master-down time.
func (c *Config) down() time.Duration { return 3*time.Second + time.Duration(c.AdvSkew)*unit }

func (c *Config) has6() bool {
	return slices.ContainsFunc(c.Addresses, func(a netip.Addr) bool { return a.Unmap().Is6() })
}

// first4 is the address that ARP is asked about.
func (c *Config) first4() netip.Addr {
	i := slices.IndexFunc(c.Addresses, func(a netip.Addr) bool { return a.Unmap().Is4() })
	return c.Addresses[i].Unmap()
}

// Run tests the speaker and returns what it did. It must be called in the
// network namespace of the interface: sockets are opened by the calling
// goroutine. An error says that there is no report; a speaker that conforms to
// nothing is a report without an error. Several calls may run at once, each on
// its own segment.
func Run(ctx context.Context, c Config) (Report, error) {
	if err := c.validate(); err != nil {
		return Report{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, MaxDuration, fmt.Errorf("conform: not done after %v", MaxDuration))
	defer cancel()
	w, err := open(c.Interface)
	if err != nil {
		return Report{}, err
	}
	t := newTester(ctx, c, w)
	defer w.listen(t.log.add)()
	begin := time.Now()
	if err := t.find(); err != nil {
		return Report{}, err
	}
	t.run()
	if ctx.Err() != nil {
		return Report{}, fmt.Errorf("conform: %w", context.Cause(ctx))
	}
	return t.finish(begin), nil
}

// virtualMAC is the MAC of a group (FreeBSD carp_alloc).
func virtualMAC(vhid uint8) net.HardwareAddr { return net.HardwareAddr{0, 0, 0x5e, 0, 1, vhid} }
