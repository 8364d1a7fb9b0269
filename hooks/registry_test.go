package hooks_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

type demoConfig struct{ Word string }

func init() {
	hooks.Register("registrytest-demo", func(c demoConfig) (hooks.Hook, error) {
		switch c.Word {
		case "":
			return nil, errors.New("word is required")
		case "nil":
			return nil, nil
		}
		return hookFunc(func(context.Context, hooks.Event) error { return errors.New(c.Word) }), nil
	})
}

func decodeWord(w string) func(any) error {
	return func(v any) error { v.(*demoConfig).Word = w; return nil }
}

func TestOpenDecodesIntoTheKindsOwnConfig(t *testing.T) {
	h, err := hooks.Open("registrytest-demo", decodeWord("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context(), hooks.Event{}); err == nil || err.Error() != "hello" {
		t.Errorf("the hook did not get its configuration: %v", err)
	}
	if !slices.Contains(hooks.Kinds(hooks.Notification), "registrytest-demo") {
		t.Errorf("Kinds() = %v", hooks.Kinds(hooks.Notification))
	}
}

func TestOpenPassesOnTheErrorsOfDecoderAndConstructor(t *testing.T) {
	syntax := errors.New("3:7: unknown key")
	if _, err := hooks.Open("registrytest-demo", func(any) error { return syntax }); !errors.Is(err, syntax) {
		t.Errorf("decoder's error became %v", err)
	}
	if _, err := hooks.Open("registrytest-demo", decodeWord("")); err == nil || !strings.Contains(err.Error(), "word is required") {
		t.Errorf("constructor's error became %v", err)
	}
	if _, err := hooks.Open("registrytest-demo", decodeWord("nil")); err == nil {
		t.Error("a constructor that returned nothing was believed")
	}
}

func TestUnknownKindNamesThoseThatAre(t *testing.T) {
	_, err := hooks.Open("registrytest-demp", decodeWord("x"))
	if err == nil || !strings.Contains(err.Error(), `"registrytest-demp"`) || !strings.Contains(err.Error(), "registrytest-demo") {
		t.Errorf("got %v", err)
	}
}

func TestRegisterPanicsOnAnEmptyOrTakenName(t *testing.T) {
	for _, kind := range []string{"", "registrytest-demo"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Register(%q) did not panic", kind)
				}
			}()
			hooks.Register(kind, func(struct{}) (hooks.Hook, error) { return nil, nil })
		}()
	}
}

func TestEventsJSONFormIsStable(t *testing.T) {
	ev := hooks.Event{
		Name: "9@eth0", VHID: 9, Interface: "eth0", Node: "a", Phase: hooks.AfterUp,
		From: carp.Backup, To: carp.Master, Reason: carp.ReasonTimedOut,
		Peer: netip.MustParseAddr("192.0.2.2"), Epoch: 77,
		Time:      time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.50/24"), netip.MustParsePrefix("2001:db8::50/64")},
	}
	for _, tc := range []struct {
		ev   hooks.Event
		want string
	}{
		{ev, `{"schema":1,"name":"9@eth0","vhid":9,"interface":"eth0","node":"a","phase":"after-up","from":"BACKUP","to":"MASTER",` +
			`"reason":"master-timed-out","peer":"192.0.2.2","epoch":77,"time":"2026-01-02T03:04:05.000006Z","addresses":["192.0.2.50/24","2001:db8::50/64"]}`},
		{hooks.Event{}, `{"schema":1,"name":"","vhid":0,"interface":"","node":"","phase":"before-up","from":"INIT","to":"INIT",` +
			`"reason":"none","peer":"","epoch":0,"time":"0001-01-01T00:00:00Z","addresses":[]}`},
	} {
		got, err := json.Marshal(tc.ev)
		if err != nil || string(got) != tc.want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, tc.want)
		}
	}
}

func TestNamesOfPhasesAndPoliciesParseBack(t *testing.T) {
	for p := hooks.BeforeUp; p <= hooks.AfterDown; p++ {
		if got, err := hooks.ParsePhase(p.String()); got != p || err != nil {
			t.Errorf("ParsePhase(%q) = %v, %v", p, got, err)
		}
		if len(p.Policies()) == 0 || !p.Allows(hooks.PhaseDefault) {
			t.Errorf("%v has no default", p)
		}
	}
	for p := hooks.PhaseDefault; p <= hooks.Retreat; p++ {
		if got, err := hooks.ParsePolicy(p.String()); got != p || err != nil {
			t.Errorf("ParsePolicy(%q) = %v, %v", p, got, err)
		}
	}
	if _, err := hooks.ParsePhase("up"); err == nil || !strings.Contains(err.Error(), "before-up") {
		t.Errorf("ParsePhase(up): %v", err)
	}
	if _, err := hooks.ParsePolicy("retry"); err == nil || !strings.Contains(err.Error(), "retreat") {
		t.Errorf("ParsePolicy(retry): %v", err)
	}
}
