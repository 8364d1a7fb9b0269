package carp_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/vip"
)

// mover takes the addresses on and off. The set that it embeds gets the permits
// from the speaker's loop.
type mover struct{ *vip.Set }

func (m mover) Handle(ctx context.Context, t carp.Transition) error {
	log.Print(t)
	if t.To == carp.Master {
		return m.Up(ctx, t.Epoch)
	}
	return m.Down(ctx)
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// A whole node: it elects, and the address moves with the role. It needs
// CAP_NET_RAW and CAP_NET_ADMIN, and ends with SIGTERM: address off, bow-out.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	shared := netip.MustParsePrefix("192.0.2.10/24")
	config := carp.Config{
		VHID: 42, AdvBase: 1, AdvSkew: 100, Passphrase: []byte("mekmitasdigoat"),
		Addresses: []netip.Addr{shared.Addr()}, Leased: true,
	}
	iface := must(link.Open("eth0", link.Options{}))
	defer iface.Close()
	port := must(iface.Attach(link.PortConfig{VHID: 42, IPv4: true, Avoid: config.Addresses}))
	kernel := must(vip.Open())
	defer kernel.Close()
	set := vip.New(kernel, vip.Config{
		Interface: "eth0", VHID: 42, Addresses: []netip.Prefix{shared},
		Lease: vip.PlanLease(carp.FastestDown(1, 100), time.Second),
	})
	go set.Run(ctx) // renews the lease, restores what is lost
	log.Print(must(carp.NewSpeaker(config, port, mover{set})).Run(ctx))
}

// The engine alone, in a loop of one's own. It reads no clock and sends nothing:
// here the loop jumps from deadline to deadline.
func ExampleEngine() {
	e := must(carp.NewEngine(carp.Config{
		VHID: 42, AdvBase: 1, AdvSkew: 100, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")},
	}))
	now := carp.Instant(time.Second)
	effects := e.LinkUp(now, carp.Local{IPv4: netip.MustParseAddr("192.0.2.1")})
	for {
		if effects.Change != nil {
			fmt.Printf("%v %v\n", time.Duration(now), effects.Change)
		}
		for _, f := range effects.Send {
			fmt.Printf("%v %d bytes to %v\n", time.Duration(now), len(f.Payload), f.Dst)
		}
		if len(effects.Send) > 0 {
			effects = e.Sent(now)
			fmt.Printf("%v master until %v\n", time.Duration(now), time.Duration(effects.Permit.Until))
			return
		}
		now = effects.Deadline
		effects = e.Tick(now)
	}
	// Output:
	// 1s INIT -> BACKUP (the interface is up)
	// 4.390625s BACKUP -> MASTER (no advert from the master for the master-down time)
	// 4.390625s 36 bytes to 224.0.0.18
	// 4.390625s master until 7.290625s
}
