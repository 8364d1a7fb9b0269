package rules_test

import (
	"os"
	"slices"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/test/rules"
)

// page is the manual page of the configuration, which also explains the words
// of logs and status.
const page = "../../cmd/carpd/carpd.yaml.5"

func TestManualExplainsEveryKeyReasonAndDrop(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var reasons, drops []string
	for _, r := range carp.Reasons() {
		reasons = append(reasons, r.String())
	}
	for _, d := range carp.Drops() {
		drops = append(drops, d.String())
	}
	for _, words := range []struct {
		what string
		list []string
	}{
		{"configuration key", slices.Concat(config.Keys(), config.Planned())},
		{"reason", reasons},
		{"drop", drops},
	} {
		if len(words.list) == 0 {
			t.Errorf("there is no %s at all", words.what)
		}
		for _, w := range rules.MissingWords(string(text), words.list) {
			t.Errorf("%s: the %s %s is not set apart and explained", page[len("../../"):], words.what, w)
		}
	}
}

func TestManualExplainsEveryReasonToRefuseASnapshot(t *testing.T) {
	text, err := os.ReadFile("../../cmd/carpd/carpd.8")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, r := range replicator.Reasons() {
		words = append(words, string(r))
	}
	for _, w := range rules.MissingWords(string(text), words) {
		t.Errorf("cmd/carpd/carpd.8: the reason %s is not set apart and explained", w)
	}
}
