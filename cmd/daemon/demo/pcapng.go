package demo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The blocks of a pcapng file (draft-ietf-opsawg-pcapng, section 4).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6
	byteOrderMagic = 0x1a2b3c4d

	linkEthernet = 1
	optEnd       = 0
	optIfName    = 2
	optIfTsresol = 9
	optUserAppl  = 4 // shb_userappl
	snapLen      = 262144
)

// errFull is returned by write when the file has reached its limit.
var errFull = errors.New("demo: the capture is full")

// pcapng writes Ethernet frames with times in nanoseconds. It is not safe for
// concurrent use.
type pcapng struct {
	w     io.Writer
	limit int64 // bytes
	size  int64
	buf   []byte
}

// newPcapng writes the headers; frames are written by the index of an interface.
func newPcapng(w io.Writer, limit int64, interfaces []string) (*pcapng, error) {
	p := &pcapng{w: w, limit: limit}
	head := binary.LittleEndian.AppendUint32(nil, byteOrderMagic)
	head = append(head, 1, 0, 0, 0)                              // version 1.0
	head = binary.LittleEndian.AppendUint64(head, ^uint64(0))    // section length unknown
	head = appendOption(head, optUserAppl, []byte("carpd demo")) //
	head = appendOption(head, optEnd, nil)
	if err := p.block(blockSection, head); err != nil {
		return nil, err
	}
	for _, name := range interfaces {
		body := []byte{linkEthernet, 0, 0, 0}
		body = binary.LittleEndian.AppendUint32(body, snapLen)
		body = appendOption(body, optIfName, []byte(name))
		body = appendOption(body, optIfTsresol, []byte{9}) // 10^-9 s
		body = appendOption(body, optEnd, nil)
		if err := p.block(blockInterface, body); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// write writes one frame; errFull says that it does not fit any more.
func (p *pcapng) write(interfaceIndex int, at time.Time, frame []byte) error {
	if p.size+int64(len(frame))+64 > p.limit {
		return errFull
	}
	ns := uint64(at.UnixNano())
	b := binary.LittleEndian.AppendUint32(p.buf[:0], uint32(interfaceIndex))
	b = binary.LittleEndian.AppendUint32(b, uint32(ns>>32))
	b = binary.LittleEndian.AppendUint32(b, uint32(ns))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	p.buf = pad(append(b, frame...))
	return p.block(blockPacket, p.buf)
}

// block writes a block; body is a multiple of four bytes long.
func (p *pcapng) block(kind uint32, body []byte) error {
	length := uint32(len(body) + 12)
	b := make([]byte, 0, length)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, length)
	b = append(b, body...)
	b = binary.LittleEndian.AppendUint32(b, length)
	n, err := p.w.Write(b)
	p.size += int64(n)
	if err != nil {
		return fmt.Errorf("demo: write capture: %w", err)
	}
	return nil
}

func appendOption(b []byte, code uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...))
}

// pad fills up to a multiple of four bytes.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
