package link

import (
	"fmt"

	"github.com/carpd/carpd/carp"
)

// Kind tells apart the virtual routers that may have the same id on one
// interface. Versions 2 and 3 of VRRP are of one kind: they would be the same
// virtual router.
type Kind uint8

// The kinds.
const (
	KindCARP  Kind = iota // of both families
	KindVRRP4             // VRRP over IPv4, of either version
	KindVRRP6             // VRRP over IPv6
)

// kinds is how many there are.
const kinds = 3

// KindOf returns the kind of a virtual router. The family of CARP has no meaning.
func KindOf(p carp.Protocol, f carp.Family) Kind {
	switch {
	case !p.VRRP():
		return KindCARP
	case f == carp.IPv6:
		return KindVRRP6
	}
	return KindVRRP4
}

// String returns carp, vrrp4 or vrrp6.
func (k Kind) String() string {
	if k >= kinds {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return [kinds]string{"carp", "vrrp4", "vrrp6"}[k]
}

// label names an id of this kind in messages.
func (k Kind) label(id uint8) string {
	switch k {
	case KindVRRP4:
		return fmt.Sprintf("vrid %d of VRRP over IPv4", id)
	case KindVRRP6:
		return fmt.Sprintf("vrid %d of VRRP over IPv6", id)
	}
	return fmt.Sprintf("vhid %d", id)
}

// word is what operators call the id.
func (k Kind) word() string {
	if k == KindCARP {
		return "vhid"
	}
	return "vrid"
}

// path is the part of a claim's name that CARP, which was there first, lacks.
func (k Kind) path() string {
	if k == KindCARP {
		return ""
	}
	return k.String() + "/"
}
