package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/cluster/live/agent"
)

// anchors is where the cluster's certificate authorities are mounted.
const anchors = "/etc/pki/ca-trust/source/anchors"

// surroundings are a build pod's ways out.
type surroundings struct {
	pod string
	// registries is the way to them, in the pod's name.
	registries http.RoundTripper
	// world is the way to layersim.
	world *agent.Asker
}

func newSurroundings() (*surroundings, error) {
	host, err := os.Hostname() // the pod's name, cut off where it is longer than 63 characters
	if err != nil {
		return nil, err
	}
	proxy, err := address("HTTPS_PROXY")
	if err != nil {
		return nil, err
	}
	token, _ := proxy.User.Password()
	proxy.User = url.UserPassword("build-pod/"+host, token)
	world, err := address("HTTP_PROXY")
	if err != nil {
		return nil, err
	}
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
		pod:        host,
		registries: agent.Transport(func(r *http.Request) (*url.URL, error) { return choose(r.URL) }, roots),
		world:      agent.At(world),
	}, nil
}

// address is the one of a proxy that the environment has.
func address(variable string) (*url.URL, error) {
	u, err := url.Parse(cmp.Or(os.Getenv(variable), os.Getenv(strings.ToLower(variable))))
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%s is not the address of a proxy", variable)
	}
	return u, nil
}

// ask asks layersim before a phase. Where it doesn't answer it asks again, for a while.
func (s *surroundings) ask(ctx context.Context, phase string) (a builder.Answer, err error) {
	err = s.world.Ask(ctx, builder.QuestionPath, builder.Question{Pod: s.pod, Phase: phase}, &a)
	return a, err
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
