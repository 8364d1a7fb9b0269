// Package hooks runs what must happen when an address moves: the reactions that
// an operator configured around a change of role, in a fixed order.
//
// # Phases
//
//	before-up    the election is won, the addresses are not up yet: the gate
//	after-up     the addresses are up and announced
//	before-down  a planned handover only: the addresses are still here
//	after-down   the addresses are gone
//
// # The contract
//
// A [Hook] is one configured reaction. The [Runner] owns everything that is the
// same for all of them: order, deadline, cancellation, panics, failure policy,
// status. So a hook is short: it does its work, honours its context and says
// whether it worked.
//
//   - One at a time. Steps of a phase run one after the other, in the order of
//     the configuration when going up and in reverse when going down. A runner
//     never runs two phases at once.
//   - Bounded. Each step has a deadline. A newer transition cancels the context
//     of the running step, and the steps after it are skipped.
//   - Idempotent. A hook may be called again for the same epoch, also after it
//     was cancelled half-way; "already so" is success.
//   - A failure has a policy: go on, go on and raise an alarm, go on and demote
//     this node, or retreat from the role.
//
// Adverts never wait for a hook: the runner is called by a worker beside the
// engine's loop.
//
// # Kinds
//
// A kind of hook is a package that registers a typed constructor in its init:
//
//	func init() { hooks.Register("slack", New) }
//
//	type Config struct {
//		URL string `yaml:"url"`
//	}
//
//	func New(c Config) (hooks.Hook, error) { ... }
//
// The type of New's parameter is the schema of the configuration. The registry
// knows nothing of YAML: the program that links the kinds decodes, strictly and
// in one place. Package hookstest holds the conformance suite of a kind.
package hooks
