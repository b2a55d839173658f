package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/layersim/layersim/sim/builder"
)

// anchors is where the cluster's certificate authorities are mounted.
const anchors = "/etc/pki/ca-trust/source/anchors"

// patience is how long layersim may not answer.
const patience = 30 * time.Second

// surroundings are a build pod's ways out.
type surroundings struct {
	pod string
	// registries is the way to them, in the pod's name.
	registries http.RoundTripper
	// world is where layersim answers.
	world *url.URL
}

func newSurroundings() (*surroundings, error) {
	host, err := os.Hostname() // the pod's name, cut off where it is longer than 63 characters
	if err != nil {
		return nil, err
	}
	proxy, err := url.Parse(cmp.Or(os.Getenv("HTTPS_PROXY"), os.Getenv("https_proxy")))
	if err != nil || proxy.Host == "" {
		return nil, fmt.Errorf("HTTPS_PROXY is not the address of a proxy")
	}
	token, _ := proxy.User.Password()
	proxy.User = url.UserPassword("build-pod/"+host, token)
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // the image has none
	}
	files, err := filepath.Glob(anchors + "/*")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if content, err := os.ReadFile(name); err == nil { // a folder, or a link to one
			roots.AppendCertsFromPEM(content)
		}
	}
	choose := (&httpproxy.Config{HTTPSProxy: proxy.String(), NoProxy: os.Getenv("NO_PROXY")}).ProxyFunc()
	return &surroundings{
		pod: host,
		registries: &http.Transport{
			Proxy:           func(r *http.Request) (*url.URL, error) { return choose(r.URL) },
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ResponseHeaderTimeout: 30 * time.Second,
		},
		world: &url.URL{Scheme: "http", Host: proxy.Host, User: proxy.User, Path: builder.AnswerPath},
	}, nil
}

// ask asks layersim before a phase. Where it doesn't answer it asks again, for a while.
func (s *surroundings) ask(ctx context.Context, phase string) (a builder.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if a, err = s.once(ctx, phase); err == nil || !sleep(ctx, time.Second) {
			return a, err
		}
	}
}

func (s *surroundings) once(ctx context.Context, phase string) (a builder.Answer, err error) {
	to := *s.world
	to.RawQuery = url.Values{"pod": {s.pod}, "phase": {phase}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), nil)
	if err != nil {
		return a, err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	if response.StatusCode != http.StatusOK {
		return a, fmt.Errorf("layersim answers %s: %s", response.Status, bytes.TrimSpace(body))
	}
	return a, gob.NewDecoder(bytes.NewReader(body)).Decode(&a)
}

// sleep waits and tells whether the time passed.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
