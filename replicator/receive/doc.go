// Package receive ships snapshots to a peer on which carpd is installed: both ends of
// `carpd receive`, which is the forced command of a key. Only pages that differ from a
// snapshot that both have go over the line, compressed; and what is verified and judged
// there before it is published is never seen otherwise.
//
// The two speak in frames over the standard input and output of the command: a byte that
// says what it is, four bytes of length, and so many bytes.
//
//	receiver  hello
//	sender    newest                    what is there?
//	receiver  manifest | nothing
//	sender    ship {manifest, base}     base: a snapshot that both have
//	receiver  ready {have, sha256}      have: bytes that are left of an attempt that was cut off
//	sender    working ... go {from}     0, or have if those bytes are right
//	sender    data ... end              a plan, and the pages that the plan does not find in base
//	receiver  working ... done          each second a sign of life until it is published
//
// Instead of an answer the receiver may say error. It ends then if data may be on the way.
package receive

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/carpd/carpd/replicator"
)

// kind says what a frame is.
type kind byte

const (
	frameHello    kind = 'H'
	frameNewest   kind = 'N'
	frameManifest kind = 'M'
	frameNothing  kind = '0'
	frameShip     kind = 'S'
	frameReady    kind = 'R'
	frameGo       kind = 'G'
	frameData     kind = 'D'
	frameEnd      kind = 'E'
	frameWorking  kind = 'W'
	frameDone     kind = 'K'
	frameError    kind = 'X'
)

const (
	protocol  = 1
	maxFrame  = replicator.MaxManifest + 4<<10 // bytes
	dataFrame = 32 << 10                       // bytes that are sent in one frame: they go out within a wait at ssh.MinBandwidth
	maxText   = 1 << 10                        // bytes of what the other side has to say
)

type hello struct {
	Protocol int `json:"carpd_receive"`
}

type ship struct {
	Manifest json.RawMessage     `json:"manifest"`
	Base     *replicator.Version `json:"base,omitempty"`
}

type ready struct {
	Have   int64  `json:"have"` // bytes, whole pages
	SHA256 string `json:"sha256,omitempty"`
}

type start struct {
	From int64 `json:"from"`
}

// code says what the sender can do about a failure.
type code string

const (
	codeOlder   code = "older"
	codeDamaged code = "damaged"
	codeRefused code = "refused"
	codeBase    code = "base" // the base is not there, or not what it was: send everything
	codeOther   code = "other"
)

type failure struct {
	Code code   `json:"code"`
	Text string `json:"text"`
}

// frame is one message.
type frame struct {
	kind kind
	body []byte
}

// errNoFrame is the error of bytes that are no frame.
var errNoFrame = errors.New("no frame")

func readFrame(r io.Reader) (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return frame{}, fmt.Errorf("%w: it would have %d bytes", errNoFrame, n)
	}
	f := frame{kind(head[0]), make([]byte, n)}
	if _, err := io.ReadFull(r, f.body); err != nil {
		return frame{}, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return f, nil
}

func writeFrame(w io.Writer, k kind, body []byte) error {
	if len(body) > maxFrame {
		return fmt.Errorf("receive: a frame of %d bytes, at most %d", len(body), maxFrame)
	}
	b := binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

func writeJSON(w io.Writer, k kind, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, k, body)
}

// decode reads the body of a frame.
func (f frame) decode(v any) error {
	if err := json.Unmarshal(f.body, v); err != nil {
		return fmt.Errorf("%w: %c: %w", errNoFrame, f.kind, err)
	}
	return nil
}
