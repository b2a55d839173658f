package live

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layersim/layersim/sim/registry"
)

// front is the way into a registry by the network: an HTTP proxy whose tunnels all end here, in TLS.
type front struct {
	registry *registry.Registry
	outer    *http.Server // takes CONNECT
	inner    *http.Server // speaks TLS within the tunnels
	tunnels  *tunnels
	address  string
	roots    *x509.CertPool
	// authority is the certificate in PEM form that vouches for the registry.
	authority []byte

	mu         sync.Mutex   // guards what follows
	answers    http.Handler // of what is not CONNECT
	transports map[string]*http.Transport
}

type callerKey struct{}

// newFront opens one at an address of this machine.
func newFront(r *registry.Registry, address string) (*front, error) {
	f := &front{registry: r, tunnels: &tunnels{conns: make(chan net.Conn), done: make(chan struct{})}, roots: x509.NewCertPool(),
		transports: map[string]*http.Transport{}}
	certificate, err := f.certify(r.Hosts())
	if err != nil {
		return nil, fmt.Errorf("certify the registry: %w", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("open the registry: %w", err)
	}
	f.address = listener.Addr().String()
	f.inner = &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			caller, _ := request.Context().Value(callerKey{}).(string)
			r.Serve(w, request, caller)
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				if tunnel, ok := t.NetConn().(*tunnel); ok {
					return context.WithValue(ctx, callerKey{}, tunnel.caller)
				}
			}
			return ctx
		},
		ReadHeaderTimeout: time.Minute,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // a fault closes connections, which HTTP/2 shares
	}
	f.outer = &http.Server{Handler: http.HandlerFunc(f.connect), ReadHeaderTimeout: time.Minute}
	go func() { _ = f.outer.Serve(listener) }()             // ends when it is closed
	go func() { _ = f.inner.ServeTLS(f.tunnels, "", "") }() // likewise
	return f, nil
}

// certify makes a certificate for the registry's hosts that vouches for itself.
func (f *front) certify(hosts []string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "layersim registry"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		name, _, err := net.SplitHostPort(host)
		if err != nil {
			name = host
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	f.authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	f.roots.AppendCertsFromPEM(f.authority)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// connect opens a tunnel. An unknown host is answered as by a proxy that can't resolve it.
func (f *front) connect(w http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodConnect {
		f.mu.Lock()
		answers := f.answers
		f.mu.Unlock()
		if answers != nil {
			answers.ServeHTTP(w, request)
			return
		}
		http.Error(w, "this is the way to a registry; it takes CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	if !slices.Contains(f.registry.Hosts(), strings.TrimSuffix(request.Host, ":443")) {
		http.Error(w, "no such host: "+request.Host, http.StatusBadGateway)
		return
	}
	caller := ""
	if header := request.Header.Get("Proxy-Authorization"); header != "" {
		plain := &http.Request{Header: http.Header{"Authorization": {header}}}
		caller, _, _ = plain.BasicAuth()
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "no tunnel", http.StatusInternalServerError)
		return
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return // the client is gone
	}
	if _, err := buffered.WriteString("HTTP/1.1 200 Connection established\r\n\r\n"); err != nil || buffered.Flush() != nil {
		_ = conn.Close() // the client is gone
		return
	}
	f.tunnels.add(&tunnel{Conn: conn, caller: caller})
}

// proxyURL is what a caller has as its HTTPS_PROXY.
func (f *front) proxyURL(caller string) *url.URL {
	return &url.URL{Scheme: "http", Host: f.address, User: url.UserPassword(caller, "-")}
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
	return errors.Join(f.outer.Close(), f.inner.Close())
}

// tunnel is a connection of a known caller.
type tunnel struct {
	net.Conn
	caller string
}

// tunnels is a listener whose connections are added by hand.
type tunnels struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (t *tunnels) add(c net.Conn) {
	select {
	case t.conns <- c:
	case <-t.done:
		_ = c.Close() // the registry is closed
	}
}

func (t *tunnels) Accept() (net.Conn, error) {
	select {
	case c := <-t.conns:
		return c, nil
	case <-t.done:
		return nil, net.ErrClosed
	}
}

func (t *tunnels) Close() error {
	t.once.Do(func() { close(t.done) })
	return nil
}

func (t *tunnels) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
