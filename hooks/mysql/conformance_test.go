package mysql_test

import (
	"fmt"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/test/mariadb"
)

// One pair of servers for all: the second one is the resource, the first its peer.
func TestLabConformance(t *testing.T) {
	s := newSite(t, mariadb.Prepare(t), 2, nil)
	a, b := s.nodes[0], s.nodes[1]
	rows := 0
	hookstest.Resources(t, hookstest.World{
		Open: func() hooks.Resource { return s.open(1, nil) },
		Reset: func(t testing.TB) {
			t.Helper()
			// The peer has the role and new data, then it lets go in order.
			if b.Replication() != nil {
				b.Exec("START SLAVE")
				b.CatchUp(a.Server)
			}
			for _, nd := range s.nodes {
				nd.Exec("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 1", "SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_current_pos")
			}
			if got, want := a.Value("SELECT @@GLOBAL.gtid_binlog_pos"), b.Value("SELECT @@GLOBAL.gtid_binlog_pos"); got != want {
				t.Fatalf("the servers are apart: %s and %s", got, want)
			}
			rows++
			insert(a, rows, 1)
			b.Replicate(a.Server)
		},
		Check: func(role hooks.Role) error {
			writable, source := b.Value("SELECT @@GLOBAL.read_only") == "0", b.Replication() != nil
			if writable != (role == hooks.RolePromoted) || writable && source {
				return fmt.Errorf("writable %v, with a source %v", writable, source)
			}
			if role == hooks.RoleDemoted {
				return nil // it may have rows to get
			}
			if got := b.Value("SELECT COUNT(*) FROM test.t"); got != fmt.Sprint(rows) {
				return fmt.Errorf("it has %s rows, want %d", got, rows)
			}
			return nil
		},
	})
	t.Run("as a hook", func(t *testing.T) {
		must(t, a.promote(t.Context(), carp.ReasonTimedOut))
		must(t, b.follow(t.Context()))
		hookstest.Conformance(t, func() hooks.Hook { return s.open(1, nil) })
	})
}
