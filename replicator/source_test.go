package replicator_test

import (
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator"
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
