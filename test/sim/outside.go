package sim

import (
	"github.com/carpd/carpd/carp"
)

// Inject sends a packet from h's place on the segment, whatever its daemon does:
// a forger, or a recording that is played again. The payload is copied. Nobody
// but the receivers notes it: h has sent nothing.
func (h *Host) Inject(p carp.Packet) {
	if h.seg == nil || !h.listens() {
		return
	}
	payload := h.w.room(len(p.Payload))
	copy(payload, p.Payload)
	p.Payload = payload
	pkt := &packet{Packet: p, src: h, on: h.seg, sent: h.w.now}
	for _, to := range h.seg.hosts {
		if to != h && (p.Dst.IsMulticast() || to.local.IPv4 == p.Dst || to.local.IPv6 == p.Dst) {
			h.seg.launch(h.seg.path(h, to), pkt, to)
		}
	}
}

// Local returns the addresses that h sends from.
func (h *Host) Local() carp.Local { return h.local }

// Reconfigure gives the daemon another configuration, as a reload does: at once,
// or when its loop goes on. What Host sets in a Config is set here too. The error
// is that of Validate.
func (h *Host) Reconfigure(c carp.Config) error {
	c.Rand, c.Leased = h.Config.Rand, h.Config.Leased
	if err := c.Validate(); err != nil {
		return err
	}
	if c.AdvertInterval() != h.Config.AdvertInterval() {
		h.loopChanged() // it is silent by another measure from now on
	}
	h.Config = c
	h.command(func() {
		c := c
		c.MinEpoch = h.saved
		e, err := h.engine.Reconfigure(h.now(), c)
		if err != nil {
			h.w.fault(h, "reload refused: %v", err)
			return
		}
		h.apply(e)
	})
	return nil
}
