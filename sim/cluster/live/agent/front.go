package agent

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

// Front is the way into a registry by the network. There are two: an HTTP proxy whose tunnels all end here, in TLS under the
// names that the registry's hosts have, so that no name has to be resolved and each caller says who it is, by the proxy's
// user; and TLS at once, for those who resolve a name to here.
type Front struct {
	o       FrontOptions
	outer   *http.Server // takes CONNECT
	inner   *http.Server // speaks TLS, within tunnels and without
	tunnels *tunnels
}

// FrontOptions say what is behind a front.
type FrontOptions struct {
	Registry    *registry.Registry
	Certificate tls.Certificate
	// Host is the one that is meant by who comes without a tunnel and by another name: that of a service, an address.
	Host string
	// Caller, where not nil, says who is at an address (with no port) from which somebody comes without a tunnel; "" if that
	// isn't known. It is asked once for a connection.
	Caller func(ctx context.Context, address string) string
}

// peer is who is at the other end of a connection.
type peer struct {
	direct bool
	once   sync.Once
	caller string
}

type peerKey struct{}

// NewFront returns one that is not open yet.
func NewFront(o FrontOptions) *Front {
	f := &Front{o: o, tunnels: &tunnels{conns: make(chan net.Conn), done: make(chan struct{})}}
	f.inner = &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{o.Certificate}, MinVersion: tls.VersionTLS12},
		Handler:   http.HandlerFunc(f.serve),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			p := &peer{direct: true}
			if t, ok := c.(*tls.Conn); ok {
				if tunnel, ok := t.NetConn().(*tunnel); ok {
					p.direct, p.caller = false, tunnel.caller
				}
			}
			return context.WithValue(ctx, peerKey{}, p)
		},
		ReadHeaderTimeout: time.Minute,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // a fault closes connections, which HTTP/2 shares
	}
	f.outer = &http.Server{Handler: http.HandlerFunc(f.connect), ReadHeaderTimeout: time.Minute}
	return f
}

// Proxy lets callers in who take a listener for a proxy.
func (f *Front) Proxy(l net.Listener) {
	go func() { _ = f.outer.Serve(l) }()                    // ends when it is closed
	go func() { _ = f.inner.ServeTLS(f.tunnels, "", "") }() // likewise
}

// Direct lets callers in who speak TLS.
func (f *Front) Direct(l net.Listener) {
	go func() { _ = f.inner.ServeTLS(l, "", "") }() // ends when it is closed
}

// Close ends all connections.
func (f *Front) Close() error { return errors.Join(f.outer.Close(), f.inner.Close()) }

// serve answers a request within TLS.
func (f *Front) serve(w http.ResponseWriter, r *http.Request) {
	p, ok := r.Context().Value(peerKey{}).(*peer)
	if !ok {
		p = &peer{}
	}
	if p.direct {
		p.once.Do(func() {
			if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil && f.o.Caller != nil {
				p.caller = f.o.Caller(r.Context(), host)
			}
		})
		r.Host = f.meant(r)
	}
	f.o.Registry.Serve(w, r, p.caller)
}

// meant is the host that a caller without a tunnel means. containerd says it in a parameter when it comes by another name.
func (f *Front) meant(r *http.Request) string {
	hosts := f.o.Registry.Hosts()
	for _, host := range []string{r.URL.Query().Get("ns"), r.Host} {
		if slices.Contains(hosts, host) {
			return host
		}
	}
	return f.o.Host
}

// connect opens a tunnel. An unknown host is answered as by a proxy that can't resolve it.
func (f *Front) connect(w http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodConnect {
		http.Error(w, "this is the way to a registry; it takes CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	if !slices.Contains(f.o.Registry.Hosts(), strings.TrimSuffix(request.Host, ":443")) {
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

// Transport is the way to registries by a proxy. TLS is verified by roots, by default the system's.
func Transport(proxy func(*http.Request) (*url.URL, error), roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy: proxy, DialContext: dial,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
	}
}

// Ways are the ways of callers through a front's proxy.
type Ways struct {
	// Proxy is its address; the user is replaced by the caller.
	Proxy *url.URL
	// Roots verify TLS, by default the system's.
	Roots *x509.CertPool

	mu         sync.Mutex // guards what follows
	transports map[string]*http.Transport
}

// To is the way of a caller.
func (w *Ways) To(caller string) http.RoundTripper {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.transports[caller]
	if t == nil {
		proxy := *w.Proxy
		proxy.User = url.UserPassword(caller, "-")
		t = Transport(http.ProxyURL(&proxy), w.Roots)
		t.IdleConnTimeout = 10 * time.Second
		if w.transports == nil {
			w.transports = map[string]*http.Transport{}
		}
		w.transports[caller] = t
	}
	return t
}

// Close closes connections that nobody uses.
func (w *Ways) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.transports {
		t.CloseIdleConnections()
	}
}

// Certify makes a certificate for hosts (with or without a port) and addresses that vouches for itself, for a week: both it and
// its key in PEM form.
func Certify(hosts ...string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", err)
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
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("certify: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
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
