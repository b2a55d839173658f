package live

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/registry"
)

// gate is where processes and pods find the registry: an HTTP proxy, and the certificate in PEM form that vouches for what is
// behind it.
type gate struct {
	address   string
	authority []byte
}

// proxyURL is what a caller has as its HTTPS_PROXY.
func (g *gate) proxyURL(caller string) *url.URL {
	return &url.URL{Scheme: "http", Host: g.address, User: url.UserPassword(caller, "-")}
}

// front is the way into the registry of this process.
type front struct {
	gate
	*agent.Front
	roots *x509.CertPool

	mu         sync.Mutex // guards what follows
	transports map[string]*http.Transport
}

// newFront opens one at an address of this machine.
func newFront(r *registry.Registry, address string) (*front, error) {
	f := &front{roots: x509.NewCertPool(), transports: map[string]*http.Transport{}}
	certificate, key, err := agent.Certify(r.Hosts()...)
	if err != nil {
		return nil, fmt.Errorf("certify the registry: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("certify the registry: %w", err)
	}
	f.authority = certificate
	f.roots.AppendCertsFromPEM(certificate)
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("open the registry: %w", err)
	}
	f.address = listener.Addr().String()
	f.Front = agent.NewFront(agent.FrontOptions{Registry: r, Certificate: pair})
	f.Proxy(listener)
	return f, nil
}

// transport is the way of a caller in this process.
func (f *front) transport(caller string) http.RoundTripper {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.transports[caller]
	if t == nil {
		t = &http.Transport{
			Proxy:           http.ProxyURL(f.proxyURL(caller)),
			TLSClientConfig: &tls.Config{RootCAs: f.roots}, IdleConnTimeout: 10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
		}
		f.transports[caller] = t
	}
	return t
}

func (f *front) close() error {
	f.mu.Lock()
	for _, t := range f.transports {
		t.CloseIdleConnections()
	}
	f.mu.Unlock()
	return f.Close()
}
