package node

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Package is an rpm package of an image.
type Package struct {
	Name string `json:"name"`
	EVR  string `json:"evr"`
	Arch string `json:"arch"`
}

// String returns the package's full name as `rpm -qa` prints it, which is without the epoch.
func (p Package) String() string {
	version := p.EVR
	if _, rest, ok := strings.Cut(version, ":"); ok {
		version = rest
	}
	return p.Name + "-" + version + "." + p.Arch
}

// packagesFile is where an image of the simulated world keeps its package list; see package builder.
const packagesFile = "usr/share/rpm/packages.json"

// Labels of images.
const (
	labelVersion = "version"
	labelSize    = "io.layersim.compressed-size"
	labelConfig  = "machineconfig" // only images that were built on a cluster have it
)

// imageInfo is what a machine learns of an image by pulling it. It is shared and never changed.
type imageInfo struct {
	digest   string
	version  string
	created  time.Time
	size     int64
	packages []Package
	labels   map[string]string
	rpms     []string
	layers   []string
}

// imageCache keeps what was read out of images and layers by digest, so that a thousand machines share one copy. It
// saves work, not requests.
type imageCache struct {
	mu     sync.Mutex
	images map[string]*imageInfo
	layers map[string][]Package // nil for a layer without package list
}

func newImageCache() *imageCache {
	return &imageCache{images: map[string]*imageInfo{}, layers: map[string][]Package{}}
}

// pull pulls an image: manifest, config, and the layers that the machine doesn't have.
func (c *imageCache) pull(t http.RoundTripper, keys authn.Keychain, image string, have map[string]bool) (*imageInfo, error) {
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return nil, fmt.Errorf("invalid image reference %q: %w", image, err)
	}
	if keys == nil {
		keys = authn.NewMultiKeychain()
	}
	img, err := remote.Image(ref, remote.WithTransport(t), remote.WithAuthFromKeychain(keys), remote.WithJobs(1),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryStatusCodes(),
		remote.WithRetryPredicate(func(error) bool { return false }))
	if err != nil {
		return nil, pullError("reading manifest "+ref.Identifier()+" in "+ref.Context().Name(), ref, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, pullError("reading manifest "+ref.Identifier()+" in "+ref.Context().Name(), ref, err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, pullError("reading config of "+ref.Context().Name(), ref, err)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, pullError("reading layers of "+ref.Context().Name(), ref, err)
	}
	info := &imageInfo{digest: digest.String(), created: file.Created.UTC(), labels: file.Config.Labels}
	info.version = cmp.Or(info.labels[labelVersion], info.labels["org.opencontainers.image.version"])
	var packages []Package
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return nil, pullError("reading layers of "+ref.Context().Name(), ref, err)
		}
		if size, err := layer.Size(); err == nil {
			info.size += size
		}
		list, err := c.layer(layer, digest.String(), have)
		if err != nil {
			return nil, pullError("reading blob "+digest.String(), ref, err)
		}
		if list != nil {
			packages = list
		}
		info.layers = append(info.layers, digest.String())
	}
	if size, err := strconv.ParseInt(info.labels[labelSize], 10, 64); err == nil && size >= 0 {
		info.size = size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.images[info.digest]; known != nil {
		return known, nil
	}
	info.packages = packages
	c.images[info.digest] = info.complete()
	return info, nil
}

// complete fills in what follows from the rest.
func (i *imageInfo) complete() *imageInfo {
	for _, p := range i.packages {
		i.rpms = append(i.rpms, p.String())
	}
	return i
}

// known returns an image that was pulled.
func (c *imageCache) known(digest string) *imageInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.images[digest]
}

// packages returns the package list in a layer that was pulled.
func (c *imageCache) packages(layer string) []Package {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.layers[layer]
}

// layer fetches a layer that the machine doesn't have, and returns the package list in it.
func (c *imageCache) layer(layer v1.Layer, digest string, have map[string]bool) ([]Package, error) {
	c.mu.Lock()
	list, known := c.layers[digest]
	c.mu.Unlock()
	if known && have[digest] {
		return list, nil
	}
	if media, err := layer.MediaType(); err == nil && !media.IsDistributable() && media != types.DockerForeignLayer {
		return nil, nil
	}
	compressed := layer.Compressed
	if !known {
		compressed = layer.Uncompressed
	}
	r, err := compressed()
	if err != nil {
		return nil, err
	}
	if known {
		_, err = io.Copy(io.Discard, r)
	} else {
		list, err = readPackages(r)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if !known {
		c.mu.Lock()
		c.layers[digest] = list
		c.mu.Unlock()
	}
	return list, nil
}

// readPackages reads the package list out of a layer, to its end, so that its digest is verified.
func readPackages(r io.Reader) ([]Package, error) {
	var list []Package
	for files := tar.NewReader(r); ; {
		header, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimPrefix(path.Clean("/"+header.Name), "/") != packagesFile {
			continue
		}
		list = []Package{}
		if err := json.NewDecoder(files).Decode(&list); err != nil {
			return nil, fmt.Errorf("read /%s: %w", packagesFile, err)
		}
		slices.SortFunc(list, func(a, b Package) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.EVR, b.EVR), cmp.Compare(a.Arch, b.Arch))
		})
	}
	_, err := io.Copy(io.Discard, r)
	return list, err
}

// pullError words an error as the container tools do. Nothing of the credentials is in it.
func pullError(what string, ref name.Reference, err error) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("pinging container registry %s: %w", ref.Context().RegistryStr(), err)
	}
	code := ""
	if len(answer.Errors) > 0 {
		code = answer.Errors[0].Message
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%s: unauthorized: %s", what, cmp.Or(code, "authentication required"))
	case http.StatusForbidden:
		return fmt.Errorf("%s: denied: %s", what, cmp.Or(code, "requested access to the resource is denied"))
	case http.StatusNotFound:
		return fmt.Errorf("%s: %s", what, cmp.Or(strings.ToLower(strings.ReplaceAll(errorCode(answer), "_", " ")),
			"manifest unknown"))
	default:
		return fmt.Errorf("%s: received unexpected HTTP status: %d %s", what, answer.StatusCode,
			http.StatusText(answer.StatusCode))
	}
}

func errorCode(e *transport.Error) string {
	if len(e.Errors) == 0 {
		return ""
	}
	return string(e.Errors[0].Code)
}

// deployment returns a deployment of an image.
func deployment(image string, info *imageInfo) *Deployment {
	d := &Deployment{Image: image, Digest: info.digest, Version: info.version, Timestamp: info.created,
		Packages: info.packages, rpms: info.rpms, Layered: info.labels[labelConfig] != "",
		Transport: "ostree-unverified-image:containers-storage:"}
	if d.Layered {
		d.Transport = "ostree-unverified-registry:"
	}
	return d
}
