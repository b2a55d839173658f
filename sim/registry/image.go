package registry

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PutImage puts an image into the registry under a reference such as "quay.io/os/base:4.18", with no request and no
// journal entry, whatever accounts and quotas say. It returns the digest ("sha256:…").
func (r *Registry) PutImage(ref string, img v1.Image) (string, error) {
	c, err := Load(img)
	if err != nil {
		return "", fmt.Errorf("put image %s: %w", ref, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h, route, err := r.reference(ref)
	if err != nil {
		return "", fmt.Errorf("put image %s: %w", ref, err)
	}
	for _, digest := range slices.Sorted(maps.Keys(c.Blobs)) {
		h.blobs.put(route.repository, digest, c.Blobs[digest])
	}
	digest, err := h.put(route, document{string(c.MediaType), c.Manifest})
	if err != nil {
		return "", fmt.Errorf("put image %s: %w", ref, err)
	}
	if err := r.keep(h, route.repository); err != nil {
		return "", fmt.Errorf("put image %s: %w", ref, err)
	}
	return digest, nil
}

// put takes a manifest in whose blobs are there, with no request and no journal entry.
func (h *host) put(at route, d document) (digest string, err error) {
	needs, err := references(d.Content, d.MediaType)
	if err != nil {
		return "", err
	}
	request := internal(http.MethodPut, at.repository, at.reference)
	request.Header.Set("Content-Type", d.MediaType)
	a := h.serve(request, d.Content)
	if a.status != http.StatusCreated {
		return "", fmt.Errorf("manifest %s: %d %s", at.reference, a.status, strings.TrimSpace(a.body.String()))
	}
	digest = a.header.Get("Docker-Content-Digest")
	h.index(at, digest, needs)
	return digest, nil
}

// Image returns an image as it is now, with no request and no journal entry. It stays readable when it is deleted.
func (r *Registry) Image(ref string) (v1.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, route, err := r.reference(ref)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	a := h.serve(internal(http.MethodGet, route.repository, route.reference), nil)
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("image %s: %w", ref, errNotFound)
	}
	c := &Content{
		Manifest:  a.body.Bytes(),
		MediaType: types.MediaType(a.header.Get("Content-Type")),
		Blobs:     map[string][]byte{},
	}
	for digest, info := range h.repositories[route.repository].manifests[a.header.Get("Docker-Content-Digest")] {
		if info.content {
			c.Blobs[digest] = h.blobs.content[digest]
		}
	}
	img, err := c.Image()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return img, nil
}

var errNotFound = fmt.Errorf("manifest unknown")

// Tags returns the tags of a repository, named host/path, sorted.
func (r *Registry) Tags(repository string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, path, err := r.locate(repository)
	if err != nil || h.repositories[path] == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(h.repositories[path].tags))
}

// Repositories returns the names of all repositories, as host/path, sorted.
func (r *Registry) Repositories() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, host := range slices.Sorted(maps.Keys(r.hosts)) {
		for _, path := range slices.Sorted(maps.Keys(r.hosts[host].held())) {
			names = append(names, host+"/"+path)
		}
	}
	return names
}

// Delete removes a tag, or a digest with its tags, with no request and no journal entry.
func (r *Registry) Delete(ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, route, err := r.reference(ref)
	if err != nil {
		return fmt.Errorf("delete %s: %w", ref, err)
	}
	if a := h.deleteManifest(internal(http.MethodDelete, route.repository, route.reference), route); a.status != http.StatusAccepted {
		return fmt.Errorf("delete %s: %w", ref, errNotFound)
	}
	if err := r.keep(h, route.repository); err != nil {
		return fmt.Errorf("delete %s: %w", ref, err)
	}
	return nil
}

func (r *Registry) reference(ref string) (*host, route, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, route{}, err
	}
	h := r.hosts[parsed.Context().RegistryStr()]
	if h == nil {
		return nil, route{}, fmt.Errorf("no registry %s", parsed.Context().RegistryStr())
	}
	return h, route{manifest, parsed.Context().RepositoryStr(), parsed.Identifier()}, nil
}

// locate finds a repository that is named host/path.
func (r *Registry) locate(repository string) (*host, string, error) {
	host, path, _ := strings.Cut(repository, "/")
	h := r.hosts[canonicalHost(host)]
	if h == nil {
		return nil, "", fmt.Errorf("no registry %s", host)
	}
	return h, path, nil
}

func (r *Registry) key(repository string) string {
	host, path, _ := strings.Cut(repository, "/")
	return canonicalHost(host) + "/" + path
}

// Copy reads an image whole, so that the copy needs no registry any more. The bytes, and so the digest, are the same.
func Copy(img v1.Image) (v1.Image, error) {
	c, err := Load(img)
	if err != nil {
		return nil, fmt.Errorf("copy image: %w", err)
	}
	return c.Image()
}

// Content is the bytes of an image.
type Content struct {
	Manifest  []byte            `json:"manifest"`
	MediaType types.MediaType   `json:"mediaType"`
	Blobs     map[string][]byte `json:"blobs"` // config and layers, by digest
}

// Load reads an image whole.
func Load(img v1.Image) (*Content, error) {
	c := &Content{Blobs: map[string][]byte{}}
	var err error
	if c.Manifest, err = img.RawManifest(); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if c.MediaType, err = img.MediaType(); err != nil {
		return nil, fmt.Errorf("read media type: %w", err)
	}
	config, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("read config digest: %w", err)
	}
	if c.Blobs[config.String()], err = img.RawConfigFile(); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read layers: %w", err)
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return nil, fmt.Errorf("read layer digest: %w", err)
		}
		rc, err := l.Compressed()
		if err != nil {
			return nil, fmt.Errorf("read layer %s: %w", digest, err)
		}
		content, err := io.ReadAll(rc)
		if closeErr := rc.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, fmt.Errorf("read layer %s: %w", digest, err)
		}
		c.Blobs[digest.String()] = content
	}
	return c, nil
}

// Image is the image again.
func (c *Content) Image() (v1.Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(c.Manifest))
	if err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	i := &contents{content: c, layers: map[string]types.MediaType{}}
	var ok bool
	if i.config, ok = c.Blobs[m.Config.Digest.String()]; !ok {
		return nil, fmt.Errorf("config %s: %w", m.Config.Digest, errNotFound)
	}
	for _, l := range m.Layers {
		i.layers[l.Digest.String()] = l.MediaType
	}
	return partial.CompressedToImage(i)
}

// contents are an image made of its bytes.
type contents struct {
	content *Content
	config  []byte
	layers  map[string]types.MediaType
}

func (c *contents) RawConfigFile() ([]byte, error)      { return c.config, nil }
func (c *contents) MediaType() (types.MediaType, error) { return c.content.MediaType, nil }
func (c *contents) RawManifest() ([]byte, error)        { return c.content.Manifest, nil }
func (c *contents) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	content, ok := c.content.Blobs[h.String()]
	if !ok {
		return nil, fmt.Errorf("layer %s: %w", h, errNotFound)
	}
	return layer{h, content, c.layers[h.String()]}, nil
}

type layer struct {
	digest    v1.Hash
	content   []byte
	mediaType types.MediaType
}

func (l layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l layer) Size() (int64, error)                { return int64(len(l.content)), nil }
func (l layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }
func (l layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.content)), nil
}
