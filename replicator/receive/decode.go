package receive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/carpd/carpd/replicator"
)

// errBase is the error of a base that cannot be read.
var errBase = errors.New("receive: the base cannot be read")

// receiving puts a snapshot together again.
type receiving struct {
	m    replicator.Manifest
	base io.ReaderAt // nil: none
	have int64       // pages of base
}

// apply reads what sending.write wrote and writes the pages from a byte on. It writes
// no more than the manifest says.
func (r receiving) apply(in io.Reader, out io.Writer, from int64) error {
	buffered := bufio.NewReader(in)
	p, err := r.readPlan(buffered, from)
	if err != nil {
		return err
	}
	dict, err := r.dictionary(p)
	if err != nil {
		return err
	}
	options := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(uint64(r.m.Size) + window)}
	if len(dict) > 0 {
		options = append(options, zstd.WithDecoderDictRaw(1, dict))
	}
	z, err := zstd.NewReader(buffered, options...)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, run := range p {
		source, length := io.Reader(z), run.pages*r.m.PageSize
		if run.base != sent {
			source = readsBase{io.NewSectionReader(r.base, run.base*r.m.PageSize, length)}
		}
		if _, err := io.CopyN(out, source, length); err != nil {
			return noEnd(err)
		}
	}
	// What was not read of the end has the checksum.
	if n, err := io.Copy(io.Discard, io.LimitReader(z, 1)); err != nil || n > 0 {
		return fmt.Errorf("%w: %d bytes too many: %w", replicator.ErrDamaged, n, noEnd(err))
	}
	return nil
}

// noEnd says of an end that came too early that it did.
func noEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r receiving) readPlan(in *bufio.Reader, from int64) (plan, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, noEnd(err)
	}
	if n > maxPlan {
		return nil, fmt.Errorf("%w: %d bytes", errPlan, n)
	}
	small, err := zstd.NewReader(io.LimitReader(in, int64(n)), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(maxPlan))
	if err != nil {
		return nil, err
	}
	defer small.Close()
	text, err := io.ReadAll(io.LimitReader(small, maxPlan+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxPlan {
		return nil, errPlan
	}
	return decodePlan(text, r.m.Pages-from/r.m.PageSize, r.have)
}

func (r receiving) dictionary(p plan) ([]byte, error) {
	if r.base == nil {
		return nil, nil
	}
	var dict []byte
	for _, i := range p.unused(r.have, dictionary/r.m.PageSize) {
		at := len(dict)
		dict = append(dict, make([]byte, r.m.PageSize)...)
		if _, err := r.base.ReadAt(dict[at:], i*r.m.PageSize); err != nil {
			return nil, fmt.Errorf("%w: %w", errBase, err)
		}
	}
	return dict, nil
}

// readsBase marks the errors of base.
type readsBase struct{ r io.Reader }

// Read implements io.Reader.
func (b readsBase) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	switch {
	case err == io.EOF && n > 0:
		err = nil // the next one says it
	case err == io.EOF:
		err = fmt.Errorf("%w: it is shorter than it was", errBase)
	case err != nil:
		err = fmt.Errorf("%w: %w", errBase, err)
	}
	return n, err
}
