package slack

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

func TestConformance(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer s.Close()
	hookstest.Conformance(t, func() hooks.Hook {
		h, err := New(Config{URL: s.URL})
		if err != nil {
			t.Fatal(err)
		}
		return h
	})
}
