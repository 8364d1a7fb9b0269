package vip

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What the tables hold. Table inet has all of it, table arp what concerns IPv4.
const (
	setOurs4 = "ours4" // address -> mark
	setOurs6 = "ours6" // address -> mark
	setLinks = "links" // interface and link-local address -> mark
	setPoint = "marks" // mark -> tag
	setLive  = "live"  // tags, each with the rest of its life
)

// Sizes of what the sets are made of, and the numbers that nft prints types by.
const (
	typeIPv4, typeIPv6, typeMark, typeName = 7, 8, 19, 41
	sizeName                               = unix.IFNAMSIZ
)

// filterSet is one set of a table.
type filterSet struct {
	family  byte
	name    string
	keyType uint32
	keySize uint32
	isMap   bool // to four bytes
	expires bool
}

func filterSets() []filterSet {
	return []filterSet{
		{unix.NFPROTO_INET, setOurs4, typeIPv4, 4, true, false},
		{unix.NFPROTO_INET, setOurs6, typeIPv6, 16, true, false},
		{unix.NFPROTO_INET, setLinks, typeName<<6 | typeIPv6, sizeName + 16, true, false},
		{unix.NFPROTO_INET, setPoint, typeMark, 4, true, false},
		{unix.NFPROTO_INET, setLive, typeMark, 4, false, true},
		{unix.NFPROTO_ARP, setOurs4, typeIPv4, 4, true, false},
		{unix.NFPROTO_ARP, setPoint, typeMark, 4, true, false},
		{unix.NFPROTO_ARP, setLive, typeMark, 4, false, true},
	}
}

func (s filterSet) message(table string, id uint32) filterMessage {
	flags := uint32(0)
	a := attrs{}.text(unix.NFTA_SET_TABLE, table).text(unix.NFTA_SET_NAME, s.name).number(unix.NFTA_SET_ID, id).
		number(unix.NFTA_SET_KEY_TYPE, s.keyType).number(unix.NFTA_SET_KEY_LEN, s.keySize)
	if s.isMap {
		flags |= unix.NFT_SET_MAP
		a = a.number(unix.NFTA_SET_DATA_TYPE, typeMark).number(unix.NFTA_SET_DATA_LEN, 4)
	}
	if s.expires {
		flags |= unix.NFT_SET_TIMEOUT
	}
	a = a.bytes(unix.NFTA_SET_USERDATA, hostOrder(s))
	return filterMessage{unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE | unix.NLM_F_EXCL, s.family, a.number(unix.NFTA_SET_FLAGS, flags)}
}

// hostOrder says to nft, and to nobody else, that marks are printed as they are in this
// machine's memory: attributes of type, length and value.
func hostOrder(s filterSet) (b []byte) {
	const ofKey, ofData, host = 0, 1, 1
	if s.keyType == typeMark {
		b = binary.NativeEndian.AppendUint32(append(b, ofKey, 4), host)
	}
	if s.isMap {
		b = binary.NativeEndian.AppendUint32(append(b, ofData, 4), host)
	}
	return b
}

// filterChain is a chain and its rules.
type filterChain struct {
	family   byte
	name     string
	hook     uint32
	priority int32
	rules    [][]expr.Any
}

const (
	hookPrerouting, hookOutput, hookPostrouting, hookARPOut = 0, 3, 4, 1

	// Before anything else, address translation above all, and after everything.
	priorityFirst, priorityLast = -450, 350

	verdictAccept = 1 // NF_ACCEPT, the policy of our chains
)

// filterChains are the rules. Each reads an address, finds its mark and the tag of
// that, and drops unless the tag lives; an address that is none of ours ends a rule at
// its first lookup.
//
//   - arriving: what is for an address of ours and would be delivered here (fib type
//     local), also where a rule for address translation would send it elsewhere. What
//     only passes through to the master does not count: there the address is not local.
//   - leaving: what this host sends with one as its source, and neighbour
//     advertisements for one.
//   - passing: replies to which address translation has given one as their source.
//   - saying: ARP requests and replies that name one as the sender.
func filterChains() []filterChain {
	toUs := onlyLocal(&expr.Fib{Register: keyAt, FlagDADDR: true, ResultADDRTYPE: true})
	fromUs := onlyLocal(&expr.Fib{Register: keyAt, FlagSADDR: true, ResultADDRTYPE: true})
	const source4, target4, source6, target6 = 12, 16, 8, 24 // in the IP header
	return []filterChain{
		{unix.NFPROTO_INET, "arriving", hookPrerouting, priorityFirst, [][]expr.Any{
			dropRule(isVersion(unix.NFPROTO_IPV4), load(header, target4, 4), unlessLive(setOurs4), toUs),
			dropRule(isVersion(unix.NFPROTO_IPV6), load(header, target6, 16), unlessLive(setOurs6), toUs),
			dropRule(isVersion(unix.NFPROTO_IPV6), loadWithLink(expr.MetaKeyIIFNAME, header, target6), unlessLive(setLinks), toUs),
		}},
		{unix.NFPROTO_INET, "leaving", hookOutput, priorityFirst, [][]expr.Any{
			dropRule(isVersion(unix.NFPROTO_IPV4), load(header, source4, 4), unlessLive(setOurs4)),
			dropRule(isVersion(unix.NFPROTO_IPV6), load(header, source6, 16), unlessLive(setOurs6)),
			dropRule(isVersion(unix.NFPROTO_IPV6), loadWithLink(expr.MetaKeyOIFNAME, header, source6), unlessLive(setLinks)),
			dropRule(isAdvertisement(), load(payload, advertisedAt, 16), unlessLive(setOurs6)),
			dropRule(isAdvertisement(), loadWithLink(expr.MetaKeyOIFNAME, payload, advertisedAt), unlessLive(setLinks)),
		}},
		{unix.NFPROTO_INET, "passing", hookPostrouting, priorityLast, [][]expr.Any{
			dropRule(isVersion(unix.NFPROTO_IPV4), load(header, source4, 4), unlessLive(setOurs4), fromUs),
			dropRule(isVersion(unix.NFPROTO_IPV6), load(header, source6, 16), unlessLive(setOurs6), fromUs),
		}},
		{unix.NFPROTO_ARP, "saying", hookARPOut, priorityFirst, [][]expr.Any{
			dropRule(load(header, 14, 4), unlessLive(setOurs4)), // the sender's address, of Ethernet
		}},
	}
}

// Registers of four bytes each. What a lookup reads and what it writes do not overlap.
const (
	register0  = 8              // NFT_REG32_00
	keyAt      = register0      // up to 32 bytes
	keyAfterIf = register0 + 4  // behind the name of an interface
	resultAt   = register0 + 12 // behind both
	savedAt    = register0 + 13
)

const (
	header  = expr.PayloadBaseNetworkHeader
	payload = expr.PayloadBaseTransportHeader

	advertisement = 136 // ICMPv6 type (RFC 4861, 4.4)
	advertisedAt  = 8   // its target
)

func dropRule(parts ...[]expr.Any) []expr.Any {
	return append(slices.Concat(parts...), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

// unlessLive follows a key that is loaded through the maps to its tag.
func unlessLive(addresses string) []expr.Any {
	return slices.Concat(
		[]expr.Any{&expr.Lookup{SourceRegister: keyAt, DestRegister: resultAt, IsDestRegSet: true, SetName: addresses}},
		readable(),
		[]expr.Any{&expr.Lookup{SourceRegister: resultAt, DestRegister: resultAt, IsDestRegSet: true, SetName: setPoint}},
		readable(),
		[]expr.Any{&expr.Lookup{SourceRegister: resultAt, SetName: setLive, Invert: true}},
	)
}

// readable copies a register to itself by way of the packet's mark, which has its own
// value again before anything else happens. The kernel does not need it. But the nft
// program (1.0.6) aborts when it is to list a rule that uses the result of one lookup
// in the next, and with it whatever else the host has; this it can list.
func readable() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: savedAt},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: resultAt, SourceRegister: true},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: resultAt},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: savedAt, SourceRegister: true},
	}
}

func isVersion(protocol byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: keyAt}, equals(protocol)}
}

// isAdvertisement matches neighbour advertisements. (The nft program refuses to write
// such a rule; the kernel takes it.)
func isAdvertisement() []expr.Any {
	return append(isVersion(unix.NFPROTO_IPV6),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: keyAt}, equals(unix.IPPROTO_ICMPV6),
		&expr.Payload{DestRegister: keyAt, Base: payload, Offset: 0, Len: 1}, equals(advertisement))
}

func equals(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: keyAt, Data: data}
}

func load(base expr.PayloadBase, offset, size uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: keyAt, Base: base, Offset: offset, Len: size}}
}

// loadWithLink loads the name of an interface and an IPv6 address.
func loadWithLink(which expr.MetaKey, base expr.PayloadBase, offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: which, Register: keyAt},
		&expr.Payload{DestRegister: keyAfterIf, Base: base, Offset: offset, Len: 16},
	}
}

// onlyLocal matches if an address is one of this host's.
func onlyLocal(fib *expr.Fib) []expr.Any {
	return []expr.Any{fib, equals(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)...)}
}

func (c filterChain) messages(table string) ([]filterMessage, error) {
	hook := attrs{}.number(unix.NFTA_HOOK_HOOKNUM, c.hook).number(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
	msgs := []filterMessage{{unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE | unix.NLM_F_EXCL, c.family,
		attrs{}.text(unix.NFTA_CHAIN_TABLE, table).text(unix.NFTA_CHAIN_NAME, c.name).nest(unix.NFTA_CHAIN_HOOK, hook).
			number(unix.NFTA_CHAIN_POLICY, verdictAccept).text(unix.NFTA_CHAIN_TYPE, "filter")}}
	for _, rule := range c.rules {
		var list attrs
		for _, e := range rule {
			b, err := expr.Marshal(c.family, e)
			if err != nil {
				return nil, fmt.Errorf("encode %T: %w", e, err)
			}
			list = list.nest(unix.NFTA_LIST_ELEM, b)
		}
		msgs = append(msgs, filterMessage{unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_APPEND, c.family,
			attrs{}.text(unix.NFTA_RULE_TABLE, table).text(unix.NFTA_RULE_CHAIN, c.name).nest(unix.NFTA_RULE_EXPRESSIONS, list)})
	}
	return msgs, nil
}
