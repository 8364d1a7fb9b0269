package receive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/carpd/carpd/replicator"
)

const (
	window     = 8 << 20 // bytes that compression looks back
	dictionary = 4 << 20 // bytes of base that it begins with
)

// pageKey is by what equal pages are found. Two that are not equal and have one key
// would be seen by the receiver, who compares the digest of the whole.
type pageKey [16]byte

// eachPage calls f with each page of a snapshot. Its error is replicator.ErrDamaged if the
// bytes are not those of the manifest.
func eachPage(ctx context.Context, s replicator.Store, m replicator.Manifest, f func(i int64, page []byte) error) error {
	r, err := s.Open(ctx, m.Version)
	if err != nil {
		return err
	}
	defer r.Close()
	buffered := bufio.NewReaderSize(r, 1<<20)
	page := make([]byte, m.PageSize)
	for i := range m.Pages {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if _, err := io.ReadFull(buffered, page); err != nil {
			return err
		}
		if err := f(i, page); err != nil {
			return err
		}
	}
	switch _, err := buffered.ReadByte(); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("%w: more than %d bytes", replicator.ErrDamaged, m.Size)
	default:
		return err
	}
}

// indexPages finds the pages of base, numbered from 1 on.
func indexPages(ctx context.Context, s replicator.Store, base replicator.Manifest) (map[pageKey]int64, error) {
	index := make(map[pageKey]int64, base.Pages)
	err := eachPage(ctx, s, base, func(i int64, page []byte) error {
		sum := sha256.Sum256(page)
		if k := pageKey(sum[:]); index[k] == 0 {
			index[k] = i + 1
		}
		return nil
	})
	return index, err
}

// sending is a snapshot on its way.
type sending struct {
	store replicator.Store
	m     replicator.Manifest
	base  *replicator.Manifest // nil: none
	index map[pageKey]int64    // of the pages of base, from 1 on
}

// plan looks where each page comes from, and whether the receiver has the beginning
// already. That is all of the snapshot's bytes: one that is damaged is found here.
func (s sending) plan(ctx context.Context, have ready) (p plan, from int64, err error) {
	if have.Have < 0 || have.Have > s.m.Size || have.Have%s.m.PageSize != 0 {
		have.Have = 0
	}
	head, same := sha256.New(), false
	var rest plan // behind what the receiver has
	err = eachPage(ctx, s.store, s.m, func(i int64, page []byte) error {
		sum := sha256.Sum256(page)
		source := s.index[pageKey(sum[:])] - 1 // what is not found is sent
		p = p.add(source)
		if i*s.m.PageSize < have.Have {
			head.Write(page)
			same = (i+1)*s.m.PageSize == have.Have && hex.EncodeToString(head.Sum(nil)) == have.SHA256
			return nil
		}
		rest = rest.add(source)
		return nil
	})
	if same {
		return rest, have.Have, err
	}
	return p, 0, err
}

// write writes the plan and the pages that are sent: the length of the plan, the plan,
// the pages, both compressed.
func (s sending) write(ctx context.Context, w io.Writer, p plan, dict []byte, from int64) error {
	small, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	packed := small.EncodeAll(p.encode(), nil)
	if _, err := w.Write(append(binary.AppendUvarint(nil, uint64(len(packed))), packed...)); err != nil {
		return err
	}
	options := []zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(lookBack(int64(len(dict)) + p.sent()*s.m.PageSize))}
	if len(dict) > 0 {
		options = append(options, zstd.WithEncoderDictRaw(1, dict))
	}
	z, err := zstd.NewWriter(w, options...)
	if err != nil {
		return err
	}
	at, left := 0, int64(0) // the run that the next page belongs to, and what is left of it
	err = eachPage(ctx, s.store, s.m, func(i int64, page []byte) error {
		if i*s.m.PageSize < from {
			return nil
		}
		if left == 0 {
			left = p[at].pages
			at++
		}
		left--
		if p[at-1].base != sent {
			return nil
		}
		_, err := z.Write(page)
		return err
	})
	if err != nil {
		return err // without an end the receiver takes nothing
	}
	return z.Close()
}

// lookBack returns the window for so many bytes: a power of two.
func lookBack(n int64) int {
	w := zstd.MinWindowSize
	for w < window && int64(w) < n {
		w *= 2
	}
	return w
}

// dictionary returns the pages of base that are not used otherwise.
func (s sending) dictionary(ctx context.Context, p plan) ([]byte, error) {
	if s.base == nil {
		return nil, nil
	}
	want := p.unused(s.base.Pages, dictionary/s.base.PageSize)
	var dict []byte
	err := eachPage(ctx, s.store, *s.base, func(i int64, page []byte) error {
		if len(want) > 0 && want[0] == i {
			dict, want = append(dict, page...), want[1:]
		}
		return nil
	})
	return dict, err
}
