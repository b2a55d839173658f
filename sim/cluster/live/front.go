package live

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"

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
	ways agent.Ways // of callers in this process
}

// newFront opens one at an address of this machine.
func newFront(r *registry.Registry, address string) (*front, error) {
	f := &front{}
	certificate, key, err := agent.Certify(r.Hosts()...)
	if err != nil {
		return nil, fmt.Errorf("certify the registry: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("certify the registry: %w", err)
	}
	f.authority = certificate
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("open the registry: %w", err)
	}
	f.address = listener.Addr().String()
	f.ways.Proxy, f.ways.Roots = &url.URL{Scheme: "http", Host: f.address}, x509.NewCertPool()
	f.ways.Roots.AppendCertsFromPEM(certificate)
	f.Front = agent.NewFront(agent.FrontOptions{Registry: r, Certificate: pair})
	f.Proxy(listener)
	return f, nil
}

func (f *front) close() error {
	f.ways.Close()
	return f.Close()
}
