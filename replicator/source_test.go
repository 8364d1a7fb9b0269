package replicator_test

import (
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/storetest"
)

func TestFirstIsGreaterThanAllThatAreThere(t *testing.T) {
	for _, tc := range []struct {
		newest replicator.Version
		epoch  carp.Epoch
		node   uint8
		want   replicator.Version
	}{
		{replicator.Version{}, 5, 1, replicator.Version{Epoch: 5, Node: 1, Sequence: 1}},
		{replicator.Version{Epoch: 4, Node: 2, Sequence: 9}, 5, 1, replicator.Version{Epoch: 5, Node: 1, Sequence: 1}},
		{replicator.Version{Epoch: 5, Node: 1, Sequence: 9}, 5, 1, replicator.Version{Epoch: 5, Node: 1, Sequence: 10}},
		{replicator.Version{Epoch: 5, Node: 1, Sequence: 9}, 5, 2, replicator.Version{Epoch: 5, Node: 2, Sequence: 1}},
		{replicator.Version{Epoch: 5, Node: 2, Sequence: 9}, 5, 1, replicator.Version{Epoch: 6, Node: 1, Sequence: 1}},
		{replicator.Version{Epoch: 7, Node: 1, Sequence: 9}, 5, 1, replicator.Version{Epoch: 7, Node: 1, Sequence: 10}},
		{replicator.Version{Epoch: 7, Node: 2, Sequence: 9}, 5, 1, replicator.Version{Epoch: 8, Node: 1, Sequence: 1}},
	} {
		got := replicator.First(tc.newest, tc.epoch, tc.node)
		if got != tc.want || got.Compare(tc.newest) <= 0 {
			t.Errorf("First(%v, %d, %d) = %v, want %v", tc.newest, tc.epoch, tc.node, got, tc.want)
		}
	}
}

func TestAVersionThatNoGreaterOneCouldFollowIsRefused(t *testing.T) {
	m, _ := storetest.Snapshot(storetest.V(5, 1, 1), 512)
	for v, want := range map[replicator.Version]bool{
		{Epoch: 1<<62 - 1, Node: 255, Sequence: 1<<62 - 1}: true,
		{Epoch: 1 << 62, Node: 1, Sequence: 1}:             false,
		{Epoch: 1, Node: 1, Sequence: 1 << 62}:             false,
		{Epoch: 1<<64 - 1, Node: 255, Sequence: 1<<64 - 1}: false,
		{Epoch: 1, Node: 0, Sequence: 1}:                   false,
		{Epoch: 1, Node: 1, Sequence: 0}:                   false,
	} {
		m.Version = v
		if err := m.Validate(); (err == nil) != want {
			t.Errorf("%v: %v", v, err)
		}
		if _, err := replicator.ParseVersion(v.String()); (err == nil) != want && v.Node > 0 && v.Sequence > 0 {
			t.Errorf("%v: %v", v, err)
		}
	}
}
