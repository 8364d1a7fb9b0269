package carp

// Advert holds the fields of a CARP advertisement in wire units. The zero value
// is not valid; NewAdvert fills in the constants.
type Advert struct {
	Version  uint8 // 2
	Type     uint8 // 1; other implementations do not look at it (MessageType)
	VHID     uint8
	AdvSkew  uint8 // 1/256 seconds; 255 only in a bow-out
	AuthLen  uint8 // 7; no receiver looks at it
	Demote   uint8 // OpenBSD's demotion count; 0 from the others
	AdvBase  uint8 // seconds; 255 with AdvSkew 255 in a bow-out
	Checksum uint16
	Counter  uint64
	Digest   [20]byte // HMAC-SHA1
}

// NewAdvert returns an advert of version 2 with everything set but counter,
// digest and checksum.
func NewAdvert(vhid, advbase, advskew uint8) Advert {
	return Advert{Version: 2, Type: 1, VHID: vhid, AdvSkew: advskew, AuthLen: 7, AdvBase: advbase}
}

// BowOut reports whether the sender leaves as master (OpenBSD and NetBSD
// carp_ifdown: advbase 255, advskew 255).
func (a *Advert) BowOut() bool { return a.AdvBase == bowOut && a.AdvSkew == bowOut }

const bowOut = 255

func (a *Advert) timing() timing { return timing{a.AdvBase, a.AdvSkew} }
