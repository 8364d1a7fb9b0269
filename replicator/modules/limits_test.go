package modules_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/carpd/carpd/replicator/modules"
)

// nulls is the content of one table with so many rows of nothing.
func nulls(rows int) []byte {
	b := append([]byte("cm1\x01"), "\x05users\x01\x01v"...)
	return append(binary.AppendUvarint(b, uint64(rows)), make([]byte, rows)...)
}

func TestASummaryKeepsNoRows(t *testing.T) {
	content := nulls(modules.MaxRows)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := modules.Summarize(content)
	runtime.ReadMemStats(&after)
	if err != nil || len(s.Filled) != 1 || s.Filled[0] != "users" {
		t.Fatalf("%+v, %v", s, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes for a summary of %d", took, len(content))
	}
}

func TestMoreRowsOrValuesThanTheLimitAreRefused(t *testing.T) {
	long := nulls(modules.MaxRows + 1)
	columns := bytes.Repeat([]byte("\x01v"), modules.MaxColumns)
	wide := append(append([]byte("cm1\x01\x05users"), binary.AppendUvarint(nil, modules.MaxColumns)...), columns...)
	const n = modules.MaxValues/modules.MaxColumns + 1
	wide = append(binary.AppendUvarint(wide, n), make([]byte, n*modules.MaxColumns)...)
	for name, b := range map[string][]byte{"rows": long, "values": wide} {
		if _, err := modules.Summarize(b); err == nil {
			t.Errorf("%s: summarized", name)
		}
		if _, err := modules.DecodeContent(b); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if _, err := (modules.Content{{Name: "t", Columns: []string{"v"}, Rows: make([][]any, modules.MaxRows+1)}}).Encode(); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("written: %v", err)
	}
}

// Who does not hold the address does not even look at what is offered.
func TestAnOfferIsReadByTheHolderAlone(t *testing.T) {
	w, _, b := pair(t)
	e := b.core.Hear(b.time(w), 1, modules.Offer{Module: "users", Base: b.module(w, "users").Stamp, Content: []byte("damaged")})
	if a, ok := e.Send[0].Message.(modules.Answer); !ok || !strings.Contains(a.Reason, "does not hold") {
		t.Errorf("%+v", e.Send)
	}
}

func TestAHolderReadsNoOfferThatIsBasedOnAnotherState(t *testing.T) {
	w, a, _ := pair(t)
	e := a.core.Hear(a.time(w), 2, modules.Offer{Module: "users", Base: modules.Stamp{Epoch: 1}, Content: []byte("damaged")})
	if a, ok := e.Send[0].Message.(modules.Answer); !ok || !strings.Contains(a.Reason, "another state") {
		t.Errorf("%+v", e.Send)
	}
}
