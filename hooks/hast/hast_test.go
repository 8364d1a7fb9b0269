package hast_test

import (
	"os"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks/hookstest"
)

func TestWhatWasWrittenIsThereAfterEachHandover(t *testing.T) {
	a, b := serving(t)
	must(t, os.WriteFile(a.path("one"), []byte("1"), 0o600))
	must(t, a.demote(carp.ReasonHandover))
	if a.mounted() || !a.is("secondary") {
		t.Fatal("the giver still has it")
	}
	must(t, b.promote())
	if text, err := os.ReadFile(b.path("one")); err != nil || string(text) != "1" {
		t.Fatalf("%q, %v", text, err)
	}
	must(t, os.WriteFile(b.path("two"), []byte("2"), 0o600))
	hookstest.Within(t, "both copies to be equal", b.insync)
	a.becomesWhole()
	must(t, b.demote(carp.ReasonHandover))
	must(t, a.promote())
	if text, err := os.ReadFile(a.path("two")); err != nil || string(text) != "2" {
		t.Fatalf("%q, %v", text, err)
	}
}
