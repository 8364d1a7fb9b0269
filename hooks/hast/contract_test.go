package hast_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

func TestContractOfAResourceWithACrashBeforeEachStep(t *testing.T) {
	a, _ := newPair(t)
	a.trust()
	must(t, a.promote())
	must(t, a.demote(carp.ReasonFailed))
	a.config.Peer, a.config.Force = nil, true // half as many programs to be run
	hookstest.Resources(t, hookstest.World{
		Open: a.open,
		Reset: func(t testing.TB) {
			a.sweep()
			a.hastctl("role", "secondary", "test")
		},
		Check: func(role hooks.Role) error {
			if used := role == hooks.RolePromoted; a.mounted() != used || a.runs() != used || a.is("primary") != used {
				return fmt.Errorf("mounted %v, service %v, primary %v", a.mounted(), a.runs(), a.is("primary"))
			}
			if role == hooks.RolePromoted {
				return os.WriteFile(a.path("data"), []byte(time.Now().String()), 0o600)
			}
			return nil
		},
		Bound: patience,
	})
}
