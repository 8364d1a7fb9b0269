package bench_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/lab"
)

func TestAddressesAreMeasuredBesideTheBareBatch(t *testing.T) {
	s, err := bench.Keepalived()
	if err != nil {
		t.Skip(err)
	}
	r, err := bench.MeasureAddresses(t.Context(), bench.AddressPlan{Speakers: []bench.Speaker{s}, Counts: []int{20}, Runs: 1})
	if errors.Is(err, lab.ErrSkipped) {
		t.Skip(err)
	}
	if err != nil || r.Failed() > 0 || len(r.Runs) != 2 {
		t.Fatalf("%v: %+v", err, r.Runs)
	}
	for _, run := range r.Runs {
		if run.On <= 0 || run.Off <= 0 || run.Speaker == "keepalived" && (run.AdvertToOn < run.On || run.Announced <= 0) {
			t.Errorf("%+v", run)
		}
	}
	if table := r.Table(); !strings.Contains(table, "bare batch") || !strings.Contains(table, "advert to the last announced") {
		t.Error(table)
	}
}

func TestAPlanOfAddressesIsChecked(t *testing.T) {
	for _, p := range []bench.AddressPlan{{Counts: []int{1}}, {Counts: []int{0}, Runs: 1}, {Counts: []int{bench.MaxAddresses + 1}, Runs: 1}} {
		if _, err := bench.MeasureAddresses(t.Context(), p); !errors.Is(err, bench.ErrPlan) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
