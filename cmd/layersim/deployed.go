//go:build live

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/layersim/layersim/sim/cluster/kind"
	"github.com/layersim/layersim/sim/cluster/live"
)

// deployed are the layering controllers as Deployments of a cluster.
type deployed struct {
	// folder has the programs to make the image of; "" uses the reference.
	folder string
	// reference is an image that is on the cluster's nodes, or the file of an archive with it.
	reference string
}

// controllersTag is the image that is made of programs.
const controllersTag = "layersim.io/controllers:dev"

// load puts the image on the cluster's node.
func (d *deployed) load(ctx context.Context, c *kind.Cluster) (*live.Deployment, error) {
	tag, archive := d.reference, ""
	switch info, err := os.Stat(d.reference); {
	case d.folder != "":
		dir, err := os.MkdirTemp("", "layersim-image-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		files := make(map[string]string)
		for _, name := range programs {
			files["/usr/bin/"+name] = filepath.Join(d.folder, name)
		}
		tag, archive = controllersTag, filepath.Join(dir, "controllers.tar")
		if err := kind.WriteImage(archive, kind.Image{Tag: tag, Files: files}); err != nil {
			return nil, err
		}
	case err == nil && info.Mode().IsRegular():
		archive = d.reference
		manifest, err := tarball.LoadManifest(func() (r io.ReadCloser, err error) { return os.Open(archive) })
		if err != nil {
			return nil, fmt.Errorf("read image %s: %w", archive, err)
		}
		if len(manifest) != 1 || len(manifest[0].RepoTags) == 0 {
			return nil, fmt.Errorf("read image %s: it holds no image with a tag, or several", archive)
		}
		tag = manifest[0].RepoTags[0]
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if archive != "" {
		if err := c.Load(ctx, archive); err != nil {
			return nil, err
		}
	}
	return &live.Deployment{Image: tag, Node: kind.World}, nil
}

// logsOf makes the folder for the logs of a scenario's processes.
func logsOf(root, scenario string) (string, error) {
	dir := filepath.Join(root, strings.ReplaceAll(scenario, "/", "-"))
	return dir, os.MkdirAll(dir, 0o755)
}
