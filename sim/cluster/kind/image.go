package kind

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is a container image with nothing in it but some files.
type Image struct {
	// Tag is its name, for example layersim/agent:dev. Pods name it as docker.io/layersim/agent:dev or the same without
	// docker.io, and their imagePullPolicy must not be Always.
	Tag string
	// Files are files of this machine by their absolute paths in the image. Permissions are kept, owners are not. One that has
	// several paths is there once, with links.
	Files map[string]string
	// Folders are empty folders that everybody may write to.
	Folders    []string
	Entrypoint []string
	Env        []string
}

// WriteImage writes the image to an archive that Load understands. The same files give the same bytes.
func WriteImage(archive string, i Image) (err error) {
	tag, err := name.NewTag(i.Tag)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	content, err := i.layer()
	if err != nil {
		return fmt.Errorf("write image %s: %w", i.Tag, err)
	}
	// Not compressed: it is read once, by containerd on the same machine.
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return fmt.Errorf("write image %s: %w", i.Tag, err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("write image %s: %w", i.Tag, err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("write image %s: %w", i.Tag, err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = v1.Config{Entrypoint: i.Entrypoint, Env: i.Env}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return fmt.Errorf("write image %s: %w", i.Tag, err)
	}
	// Under another name, so that an interrupted write never looks like an archive.
	part := archive + ".part"
	if err := tarball.WriteToFile(part, tag, image); err != nil {
		return fmt.Errorf("write image %s: %w", i.Tag, err)
	}
	return os.Rename(part, archive)
}

func (i Image) layer() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	folders := make(map[string]int64)
	for _, f := range i.Folders {
		folders[path.Clean(f)] = 0o1777
	}
	for target := range i.Files {
		if !path.IsAbs(target) {
			return nil, fmt.Errorf("%s is not an absolute path", target)
		}
		for d := path.Dir(path.Clean(target)); d != "/"; d = path.Dir(d) {
			folders[d] = max(folders[d], 0o755)
		}
	}
	for _, d := range slices.Sorted(maps.Keys(folders)) {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(d, "/") + "/", Mode: folders[d]}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	there := make(map[string]string)
	for _, target := range slices.Sorted(maps.Keys(i.Files)) {
		source, name := i.Files[target], strings.TrimPrefix(path.Clean(target), "/")
		if first := there[source]; first != "" {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Mode: 0o755}); err != nil {
				return nil, err
			}
			continue
		}
		if err := add(w, name, source); err != nil {
			return nil, err
		}
		there[source] = name
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func add(w *tar.Writer, target, source string) error {
	f, err := os.Open(filepath.Clean(source))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", source)
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: target, Mode: int64(info.Mode().Perm()), Size: info.Size()}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
