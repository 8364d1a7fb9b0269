package replicator

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/carpd/carpd/carp"
)

// Version orders snapshots of one database across nodes and masterships: by epoch,
// then node, then sequence. Never by wall clock. The zero value is older than all
// others, and that of no snapshot.
type Version struct {
	Epoch    carp.Epoch `json:"epoch"`    // of the mastership in which it was taken
	Node     uint8      `json:"node_id"`  // of its source, 1 to 255
	Sequence uint64     `json:"sequence"` // within the epoch and node, from 1 on
}

// maxNumber is more than any epoch or sequence: what reached it could not be followed by
// a greater one.
const maxNumber = 1 << 62

// possible reports whether a snapshot can have this version.
func (v Version) possible() bool {
	return v.Node > 0 && v.Sequence > 0 && v.Sequence < maxNumber && v.Epoch < maxNumber
}

// Compare returns -1, 0 or 1 as v is older than, equal to or newer than o.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, o.Epoch), cmp.Compare(v.Node, o.Node), cmp.Compare(v.Sequence, o.Sequence))
}

// IsZero reports whether this is the version of no snapshot.
func (v Version) IsZero() bool { return v == Version{} }

// String returns the three numbers with leading zeros, so that names sort as versions do:
// 00000000000000000042-001-00000000000000000007.
func (v Version) String() string {
	return fmt.Sprintf("%020d-%03d-%020d", uint64(v.Epoch), v.Node, v.Sequence)
}

// ParseVersion reads what String writes, and nothing else.
func ParseVersion(s string) (Version, error) {
	parts := strings.Split(s, "-")
	if len(parts) == 3 {
		epoch, err1 := strconv.ParseUint(parts[0], 10, 64)
		node, err2 := strconv.ParseUint(parts[1], 10, 8)
		sequence, err3 := strconv.ParseUint(parts[2], 10, 64)
		v := Version{carp.Epoch(epoch), uint8(node), sequence}
		if err1 == nil && err2 == nil && err3 == nil && v.String() == s && v.Epoch < maxNumber && v.Sequence < maxNumber {
			return v, nil
		}
	}
	return Version{}, fmt.Errorf("replicator: read version %q: want EPOCH-NODE-SEQUENCE with leading zeros, numbers below 2^62", s)
}
