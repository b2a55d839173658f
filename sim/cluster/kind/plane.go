package kind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live"
	"github.com/layersim/layersim/sim/cluster/release"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/scenario"
)

// Name is the name of this kind of cluster.
const Name = "kind"

// Capabilities are what these clusters can do that scenarios may ask for by needs.
var Capabilities = append(slices.Clip(live.Capabilities), "host")

// The images that layersim makes of its programs.
const (
	agentTag       = "layersim.io/agent:dev"
	controllersTag = "layersim.io/controllers:dev"
)

// outage is how long the API server may be gone, by a fault: its pod is started anew within seconds, on a busy machine within
// a minute.
const outage = 2 * time.Minute

// agentProgram is what runs in the pods that play the world; see Programs of PlaneOptions.
const agentProgram = "layersim-agent"

// Plane is a cluster on which scenarios are run, one after the other.
type Plane struct {
	cluster    *Cluster
	server     *live.Server
	gateway    string
	logs       string
	keep       bool
	deployment *live.Deployment
}

// PlaneOptions say what is on a cluster for runs.
type PlaneOptions struct {
	// Cluster is the cluster's name, by default DefaultName. One that layersim made is adopted, and kept.
	Cluster string
	// Programs is the folder with the program layersim-agent, which is what runs in the pods that play the world.
	Programs string
	// Deployed are the layering controllers' programs or image, where they run in the cluster: a folder that holds [release.Programs],
	// an archive of an image, or the reference of an image that is on the node. With "" they run elsewhere.
	Deployed string
	// CRDs are layering's kinds; by default the bundled controllers'.
	CRDs []*apiextensionsv1.CustomResourceDefinition
	// Namespaces are there beside those of all clusters.
	Namespaces []string
	// Logs, where not "", is a folder with the logs of runs. In it is a folder called Name with the logs of a cluster that
	// could not be created, and with those that Collect writes.
	Logs string
	// Keep leaves the cluster there after Stop, Retain one that could not be created.
	Keep, Retain bool
	// Progress is told each step when it ends.
	Progress func(step string)
}

// ClusterName is the name of the n-th of several clusters, from 0 on: layersim, layersim-2, layersim-3, or as NameVariable has it.
func ClusterName(n int) string {
	if n == 0 {
		return defaultName()
	}
	return fmt.Sprintf("%s-%d", defaultName(), n+1)
}

// Numbered lists those clusters that layersim made on this machine whose names are ClusterName's.
func Numbered() ([]string, error) {
	names, err := List()
	return slices.DeleteFunc(names, func(name string) bool {
		number, several := strings.CutPrefix(name, defaultName()+"-")
		_, err := strconv.Atoi(number)
		return name != defaultName() && (!several || err != nil)
	}), err
}

// NewPlane makes a cluster with layering's kinds and namespaces, or adopts the one that is there, unless a run was cut off on
// it: then that is replaced. The error is ErrInUse if another process runs scenarios on it. With any error no cluster is left
// that wasn't there before, unless the options ask for it.
func NewPlane(ctx context.Context, o PlaneOptions) (*Plane, error) {
	p := &Plane{keep: o.Keep}
	if o.Logs != "" {
		p.logs = filepath.Join(o.Logs, Name)
	}
	if err := p.up(ctx, o); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Plane) up(ctx context.Context, o PlaneOptions) error {
	images, err := os.MkdirTemp("", "layersim-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(images)
	agent, err := agentImage(images, o.Programs)
	if err != nil {
		return err
	}
	archives := []string{agent}
	if o.Deployed != "" {
		tag, archive, err := controllersImage(images, o.Deployed)
		if err != nil {
			return err
		}
		if archive != "" {
			archives = append(archives, archive)
		}
		p.deployment = &live.Deployment{Image: tag, Node: history.World}
	}
	if o.CRDs == nil {
		if o.CRDs, err = fixtures.CRDs(); err != nil {
			return err
		}
	}
	p.cluster, err = Up(ctx, Options{
		Name: o.Cluster, Retain: o.Retain, Archives: archives, Logs: p.logs, Progress: o.Progress, claims: true,
	})
	if err != nil {
		return err
	}
	if p.gateway, err = p.cluster.Gateway(ctx); err != nil {
		return err
	}
	if err := live.Define(ctx, p.cluster.Config, o.CRDs); err != nil {
		return err
	}
	if p.server, err = live.NewServer(p.cluster.Config); err != nil {
		return err
	}
	return p.server.Settle(ctx, slices.Concat(cluster.Namespaces, []string{live.AgentsNamespace}, o.Namespaces))
}

// agentImage writes the image of the world's pods to an archive.
func agentImage(dir, programs string) (archive string, err error) {
	agent := filepath.Join(programs, agentProgram)
	if _, err := os.Stat(agent); err != nil {
		return "", fmt.Errorf("%w: `make live` builds it", err)
	}
	archive = filepath.Join(dir, "agent.tar")
	files := map[string]string{"/bin/bash": agent, "/usr/bin/" + agentProgram: agent}
	for _, name := range []string{"rpm-ostree", "rpm", "cat"} { // of the simulated nodes
		files["/usr/bin/"+name] = agent
	}
	return archive, WriteImage(archive, Image{Tag: agentTag, Files: files})
}

// controllersImage finds the controllers' image, or writes it to an archive.
func controllersImage(dir, deployed string) (tag, archive string, err error) {
	info, err := os.Stat(deployed)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return deployed, "", nil
	case err != nil:
		return "", "", err
	case info.IsDir():
		files := make(map[string]string)
		for _, name := range release.Programs {
			files["/usr/bin/"+name] = filepath.Join(deployed, name)
		}
		archive = filepath.Join(dir, "controllers.tar")
		return controllersTag, archive, WriteImage(archive, Image{Tag: controllersTag, Files: files})
	}
	manifest, err := tarball.LoadManifest(func() (r io.ReadCloser, err error) { return os.Open(deployed) })
	if err != nil {
		return "", "", fmt.Errorf("read image %s: %w", deployed, err)
	}
	if len(manifest) != 1 || len(manifest[0].RepoTags) == 0 {
		return "", "", fmt.Errorf("read image %s: it holds no image with a tag, or several", deployed)
	}
	return manifest[0].RepoTags[0], deployed, nil
}

// Run makes a cluster on it; see [live.Server.Run]. Build pods are real ones, unless another release's foundation is laid.
func (p *Plane) Run(ctx context.Context, t scenario.Topology, lo live.Options, o cluster.Options) (c *cluster.Cluster, done func() error, err error) {
	lo.Name, lo.Deployment = Name, p.deployment
	if lo.Deployment != nil {
		lo.Address = p.gateway
	}
	if lo.Foundation == nil {
		lo.BuildImage, lo.BuildNodes, lo.Address = agentTag, history.World, p.gateway
		lo.Registry = &live.RegistryPod{Image: agentTag, Node: history.World, Trust: p.cluster.Registry}
		lo.Nodes, lo.KeepNodes = &live.Deployment{Image: agentTag, Node: history.World}, p.keep || p.cluster.Adopted
	}
	h := &host{ctx: ctx, cluster: p.cluster}
	lo.Outage, o.Host = outage, h
	if err := p.cluster.runs.begin(); err != nil {
		return nil, func() error { return nil }, err
	}
	c, over, err := p.server.Run(ctx, t, lo, o)
	return c, func() error {
		if err := errors.Join(h.close(), over()); err != nil {
			return err
		}
		return p.cluster.runs.end()
	}, err
}

// Spoilt tells whether something of a run is left on it. Then nothing else may run there; Stop it, and NewPlane replaces the
// cluster.
func (p *Plane) Spoilt() bool { return p.cluster.runs.underWay }

// Collect adds to the folder of logs what no run writes into it: the logs of the node and of all pods, the system's included,
// since the cluster was made. It does nothing without such a folder.
func (p *Plane) Collect() error {
	if p.logs == "" {
		return nil
	}
	return collect(p.cluster.Name, p.logs)
}

// Stop removes the cluster, unless it was there before or is to be kept.
func (p *Plane) Stop() error {
	var errs []error
	if p.server != nil {
		errs = append(errs, p.server.Close())
		p.server = nil
	}
	if p.cluster != nil {
		if !p.keep && !p.cluster.Adopted {
			errs = append(errs, Down(context.Background(), p.cluster.Name, nil))
		}
		errs = append(errs, p.cluster.runs.release())
		p.cluster = nil
	}
	return errors.Join(errs...)
}
