package build

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"golang.org/x/net/http/httpproxy"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
)

// inspect says whether the registry holds an image, asking with the MachineOSConfig's push secret. An error means that
// it didn't tell.
func (p *pass) inspect(ctx context.Context, image string) (bool, error) {
	if p.seen == image {
		return true, nil
	}
	_, err := p.head(ctx, image, p.config.Spec.RenderedImagePushSecret.Name)
	if absent(err) {
		return false, nil
	}
	if err == nil {
		p.seen = image
	}
	return err == nil, err
}

// resolve returns the digest that a build's tag stands for.
func (p *pass) resolve(ctx context.Context, build *mcfgv1.MachineOSBuild) (string, error) {
	return p.head(ctx, string(build.Spec.RenderedImagePushSpec), build.Annotations[layering.RenderedPushSecret])
}

// head asks for an image's digest.
func (r *reconciler) head(ctx context.Context, image, secret string) (string, error) {
	ref, err := name.ParseReference(image, name.StrictValidation)
	if err != nil {
		return "", fmt.Errorf("parse image reference: %w", err)
	}
	options, err := r.remote(ctx, ref, secret)
	if err != nil {
		return "", err
	}
	descriptor, err := remote.Head(ref, options...)
	if err != nil {
		return "", err
	}
	return descriptor.Digest.String(), nil
}

// deleteImage deletes an image by digest.
func (r *reconciler) deleteImage(ctx context.Context, image, secret string) error {
	ref, err := name.NewDigest(image, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("parse image reference: %w", err)
	}
	options, err := r.remote(ctx, ref, secret)
	if err != nil {
		return err
	}
	return remote.Delete(ref, options...)
}

// remote returns the options of a request to a registry: one attempt, because the work queue does the waiting.
func (r *reconciler) remote(ctx context.Context, ref name.Reference, secret string) ([]remote.Option, error) {
	object := &corev1.Secret{}
	if err := r.live.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: secret}, object); err != nil {
		return nil, fmt.Errorf("get secret %s: %w", secret, err)
	}
	content, err := canonical(object)
	if err != nil {
		return nil, err
	}
	var auth authn.Authenticator
	if auth, err = authenticator(content, ref.Context().RegistryStr(), ref.Context().RepositoryStr()); err != nil {
		return nil, fmt.Errorf("secret %s: %w", secret, err)
	}
	rt, err := r.transport(ctx)
	if err != nil {
		return nil, err
	}
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(rt), remote.WithJobs(1),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithRetryPredicate(func(error) bool { return false }),
		remote.WithRetryStatusCodes(),
	}, nil
}

// transport returns the configured transport, or one that trusts and detours as the ControllerConfig says.
func (r *reconciler) transport(ctx context.Context) (http.RoundTripper, error) {
	if r.options.Transport != nil {
		return r.options.Transport, nil
	}
	config := &mcfgv1.ControllerConfig{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: layering.ControllerConfigName}, config); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get controllerconfig: %w", err)
	}
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport, nil
	}
	rt := standard.Clone()
	rt.DisableKeepAlives = true // made anew for each use
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // the ControllerConfig's certificates are still there
	}
	pool.AppendCertsFromPEM(config.Spec.AdditionalTrustBundle)
	rt.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if proxy := config.Spec.Proxy; proxy != nil {
		choose := (&httpproxy.Config{
			HTTPProxy: proxy.HTTPProxy, HTTPSProxy: proxy.HTTPSProxy, NoProxy: proxy.NoProxy,
		}).ProxyFunc()
		rt.Proxy = func(request *http.Request) (*url.URL, error) { return choose(request.URL) }
	}
	return rt, nil
}

// absent says whether a registry answered that it has no such image or repository.
func absent(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// refused says whether a registry understood and won't: no access, or no deletion at all.
func refused(err error) bool {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed:
		return true
	}
	return false
}
