package builder

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/layersim/layersim/sim/registry"
)

// Labels of the images.
const (
	LabelVersion    = "version"
	LabelSize       = "io.layersim.compressed-size"
	LabelBase       = "baseOSContainerImage"
	LabelConfig     = "machineconfig"
	LabelPool       = "machineconfigpool"
	LabelBootc      = "containers.bootc"
	LabelBootable   = "ostree.bootable"
	LabelKernel     = "ostree.linux"
	PackagesFile    = "/usr/share/rpm/packages.json"
	defaultBaseSize = 1 << 30
	// layerOverhead is what a layer takes that is not packages: the rpm database and what ostree writes.
	layerOverhead = 32 << 20
	// defaultPackageSize stands for packages whose repository gives no size.
	defaultPackageSize = 2 << 20
)

// BaseOptions say what a base OS image is. The zero value is the base image of the product documentation.
type BaseOptions struct {
	// Version is the OS version; default 418.94.202501300706-0.
	Version string
	// Date is when it was made; default 2025-01-30T07:10:58Z.
	Date time.Time
	// Kernel is the version-release of the kernel packages; default 5.14.0-427.50.1.el9_4.
	Kernel string
	// Packages is the package list; nil means [DefaultPackages] of that kernel.
	Packages []Package
	// Size is how many bytes the real image would have, compressed; default 1 GiB.
	Size int64
	// Labels are more labels, or others.
	Labels map[string]string
	// Files are more files, by absolute path.
	Files map[string]string
}

// BaseImage makes a base OS image: a real, small OCI image. The same options give the same bytes.
func BaseImage(o BaseOptions) (v1.Image, error) {
	if o.Version == "" {
		o.Version = "418.94.202501300706-0"
	}
	if o.Date.IsZero() {
		o.Date = time.Date(2025, 1, 30, 7, 10, 58, 0, time.UTC)
	}
	if o.Kernel == "" {
		o.Kernel = "5.14.0-427.50.1.el9_4"
	}
	if o.Packages == nil {
		o.Packages = DefaultPackages(o.Kernel)
	}
	if o.Size == 0 {
		o.Size = defaultBaseSize
	}
	packages, err := marshalPackages(o.Packages)
	if err != nil {
		return nil, fmt.Errorf("make base image %s: %w", o.Version, err)
	}
	files := map[string]file{
		PackagesFile:      {data: packages, mode: 0o644},
		"/etc/os-release": {data: []byte(osRelease(o.Version)), mode: 0o644},
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		files[path.Clean(name)] = file{data: []byte(o.Files[name]), mode: 0o644}
	}
	config := &v1.ConfigFile{
		Architecture: "amd64",
		OS:           "linux",
		Created:      v1.Time{Time: o.Date.UTC()},
		Config: v1.Config{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"},
			Cmd: []string{"/sbin/init"},
			Labels: map[string]string{
				LabelVersion:  o.Version,
				LabelSize:     strconv.FormatInt(o.Size, 10),
				LabelBootc:    "1",
				LabelBootable: "true",
				LabelKernel:   o.Kernel + ".x86_64",
			},
		},
	}
	maps.Copy(config.Config.Labels, o.Labels)
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := assemble(base, config, files, o.Size, "rpm-ostree compose image", o.Date)
	if err != nil {
		return nil, fmt.Errorf("make base image %s: %w", o.Version, err)
	}
	return img, nil
}

func osRelease(version string) string {
	return "NAME=\"Red Hat Enterprise Linux CoreOS\"\nID=\"rhcos\"\nVARIANT_ID=coreos\nOSTREE_VERSION=\"" + version + "\"\n"
}

// assemble puts one layer with the files on an image and replaces its config. An image that is only relabelled gets
// the layer too, as buildah's commit always writes one.
func assemble(base v1.Image, config *v1.ConfigFile, files map[string]file, size int64, by string,
	created time.Time) (v1.Image, error) {
	before, err := base.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	content, err := archive(files)
	if err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	config = config.DeepCopy()
	config.RootFS = *before.RootFS.DeepCopy()
	config.History = slices.Clone(before.History)
	img, err := mutate.ConfigFile(base, config)
	if err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	img, err = mutate.Append(img, mutate.Addendum{
		// Not compressed, so that the digest does not depend on a compressor's version.
		Layer:       static.NewLayer(content, types.OCIUncompressedLayer),
		History:     v1.History{Created: v1.Time{Time: created.UTC()}, CreatedBy: by},
		Annotations: map[string]string{registry.SizeAnnotation: strconv.FormatInt(size, 10)},
	})
	if err != nil {
		return nil, fmt.Errorf("append layer: %w", err)
	}
	return img, nil
}

// file is a file of an image. A removed one hides that of a lower layer.
type file struct {
	data    []byte
	mode    int64
	link    string // target of a symbolic link
	removed bool
}

// archive writes a layer: files in order, with no time and no owner that could differ between two builds.
func archive(files map[string]file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "/"), Mode: f.mode, Size: int64(len(f.data)),
			ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatPAX,
		}
		switch {
		case f.removed:
			h.Name, h.Size, h.Mode = path.Join(path.Dir(h.Name), ".wh."+path.Base(h.Name)), 0, 0
		case f.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("file %s: %w", name, err)
		}
		if h.Size > 0 {
			if _, err := w.Write(f.data); err != nil {
				return nil, fmt.Errorf("file %s: %w", name, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// layerFiles calls visit for each file of a layer until it returns false.
func layerFiles(l v1.Layer, visit func(name string, f file) bool) error {
	rc, err := l.Uncompressed()
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer rc.Close()
	for r := tar.NewReader(rc); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		name := path.Join("/", h.Name)
		f := file{mode: h.Mode, link: h.Linkname}
		switch h.Typeflag {
		case tar.TypeReg:
			if f.data, err = io.ReadAll(r); err != nil {
				return fmt.Errorf("read layer: %s: %w", name, err)
			}
			if base, ok := strings.CutPrefix(path.Base(name), ".wh."); ok {
				name, f = path.Join(path.Dir(name), base), file{removed: true}
			}
		case tar.TypeSymlink:
		default:
			continue
		}
		if !visit(name, f) {
			return nil
		}
	}
}

// Packages returns the package list of an image, sorted by name. It reads layers from the top until it finds the
// list, which for the images of this package is in the uppermost one. An image without one gives none.
func Packages(img v1.Image) ([]Package, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read package list: %w", err)
	}
	var list []Package
	found := false
	for _, l := range slices.Backward(layers) {
		var bad error
		err := layerFiles(l, func(name string, f file) bool {
			if name == PackagesFile {
				found = true
				if !f.removed {
					bad = json.Unmarshal(f.data, &list)
				}
			}
			return !found
		})
		if err := errors.Join(err, bad); err != nil {
			return nil, fmt.Errorf("read package list: %w", err)
		}
		if found {
			break
		}
	}
	return list, nil
}

// Labels is what an image says about itself.
type Labels struct {
	// Version is the OS version: "418.94.202502100215-0".
	Version string
	// Created is when it was built.
	Created time.Time
	// Size is how many bytes the real image would have, compressed. 0 when the image does not say.
	Size int64
	// Kernel is the kernel's release: "5.14.0-427.50.1.el9_4.x86_64".
	Kernel string
	// Base, MachineConfig and Pool are set for an image that was built on a cluster: the base image's reference, the
	// rendered MachineConfig, the pool.
	Base, MachineConfig, Pool string
	// Layered says whether the image was built on a cluster.
	Layered bool
	// All are all labels.
	All map[string]string
}

// Inspect reads an image's labels. It needs the manifest and the config only.
func Inspect(img v1.Image) (Labels, error) {
	c, err := img.ConfigFile()
	if err != nil {
		return Labels{}, fmt.Errorf("inspect image: %w", err)
	}
	l := Labels{
		Version:       c.Config.Labels[LabelVersion],
		Created:       c.Created.UTC(),
		Kernel:        c.Config.Labels[LabelKernel],
		Base:          c.Config.Labels[LabelBase],
		MachineConfig: c.Config.Labels[LabelConfig],
		Pool:          c.Config.Labels[LabelPool],
		All:           maps.Clone(c.Config.Labels),
	}
	l.Layered = l.Base != "" || l.MachineConfig != ""
	if s := c.Config.Labels[LabelSize]; s != "" {
		if l.Size, err = strconv.ParseInt(s, 10, 64); err != nil {
			return Labels{}, fmt.Errorf("inspect image: label %s: %w", LabelSize, err)
		}
	}
	return l, nil
}
