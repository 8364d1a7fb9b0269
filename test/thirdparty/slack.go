// Package slack posts a line when this node takes or gives up a role.
package slack

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/carpd/carpd/hooks"
)

func init() { hooks.Register("slack", New) }

// Config is what stands under with.
type Config struct {
	URL string `yaml:"url"`
}

// New checks the configuration.
func New(c Config) (hooks.Hook, error) {
	if c.URL == "" {
		return nil, errors.New("url is required")
	}
	return hook{c}, nil
}

type hook struct{ Config }

func (h hook) Run(ctx context.Context, ev hooks.Event) error {
	body := strings.NewReader(`{"text":"` + ev.Name + ` is ` + ev.To.String() + ` on ` + ev.Node + `"}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, body)
	if err != nil {
		return err
	}
	req.Close = true // the next line may be of another day
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return errors.New(resp.Status)
	}
	return nil
}
