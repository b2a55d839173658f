package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// readyLimit is how long an API server may take to say that it is ready.
const readyLimit = 2 * time.Second

// ready keeps requests from an API server that was away until it says that it is ready. One that has just been started answers
// before it knows all roles, and forbids what they allow. In a cluster a load balancer sends it nothing that long.
type ready struct {
	http.RoundTripper
	url  string // of its readyz
	away atomic.Bool
}

// RoundTrip implements [http.RoundTripper].
func (s *ready) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.away.Load() {
		if err := s.ask(r.Context()); err != nil {
			if r.Body != nil {
				err = errors.Join(err, r.Body.Close())
			}
			return nil, err
		}
		s.away.Store(false)
	}
	res, err := s.RoundTripper.RoundTrip(r)
	if err != nil && r.Context().Err() == nil {
		s.away.Store(true)
	}
	return res, err
}

func (s *ready) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	res, err := s.RoundTripper.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it is not ready yet: readyz says %s", res.Status)
	}
	return nil
}

// WrappedRoundTripper lets idle connections be found, which are closed with the proxy.
func (s *ready) WrappedRoundTripper() http.RoundTripper { return s.RoundTripper }
