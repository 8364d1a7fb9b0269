package viptest

import (
	"slices"

	"github.com/carpd/carpd/vip"
)

type fakeEar struct {
	index int
	f     func(vip.Claim)
}

// WatchNeighbours implements vip.Kernel. What is claimed is said by Claim.
func (k *FakeKernel) WatchNeighbours(index int, f func(vip.Claim)) (stop func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch l := k.byIndex(index); {
	case l == nil:
		return nil, &vip.OpError{Op: "watch neighbours", Err: vip.ErrNoLink}
	case k.closed:
		return nil, &vip.OpError{Op: "watch neighbours", Link: l.Name, Err: errClosed}
	}
	e := &fakeEar{index, f}
	k.ears = append(k.ears, e)
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.ears = slices.DeleteFunc(k.ears, func(x *fakeEar) bool { return x == e })
	}, nil
}

// Claim tells those who watch the interface of a claim and returns how many they are.
func (k *FakeKernel) Claim(link string, c vip.Claim) int {
	k.mu.Lock()
	var all []func(vip.Claim)
	for _, e := range k.ears {
		if l := k.link(link); l != nil && l.Index == e.index {
			all = append(all, e.f)
		}
	}
	k.mu.Unlock()
	for _, f := range all {
		f(c)
	}
	return len(all)
}
