package exec

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

func TestProgramRunsAsTheConfiguredUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	if m, err := os.ReadFile("/proc/self/uid_map"); err != nil || !slices.Equal(strings.Fields(string(m)), []string{"0", "0", "4294967295"}) {
		t.Skip("there are no other users in this user namespace")
	}
	log, err := hookstest.Run(t, t.Context(), open(t, Config{Command: []string{"/usr/bin/id"}, User: "nobody"}), time.Minute)
	if err != nil || !strings.Contains(log, "(nobody)") || strings.Contains(log, "(root)") {
		t.Errorf("%v\n%s", err, log)
	}
}

func TestConfigurationThatCannotWorkIsRefusedWithAllItsFaults(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want []string
	}{
		{Config{}, []string{"command: required"}},
		{Config{Command: []string{"ls"}}, []string{"no absolute path"}},
		{Config{Command: []string{"/bin/true", "a\x00b"}}, []string{"zero byte"}},
		{Config{Command: []string{"/bin/true"}, Style: "vrrpd"}, []string{"carpd, ucarp or keepalived"}},
		{Config{Command: []string{"bin/true"}, User: "no-such-user-here", XParam: "x", Priority: 300},
			[]string{"no absolute path", "no such user", "xparam", "only style keepalived", "use 0 to 255"}},
	} {
		_, err := New(tc.c)
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %q is missing in: %v", tc.c, want, err)
			}
		}
	}
}

func TestKindIsRegistered(t *testing.T) {
	if !slices.Contains(hooks.Kinds(hooks.Notification), "exec") {
		t.Errorf("kinds: %v", hooks.Kinds(hooks.Notification))
	}
	h, err := hooks.Open("exec", func(v any) error {
		v.(*Config).Command = []string{"/bin/true"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context(), hooks.Event{}); err != nil {
		t.Error(err)
	}
}
