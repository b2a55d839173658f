package kind

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"
)

const (
	// Version is the release of Kubernetes that the node runs. hack/nodeimage builds the same one.
	Version = "v1.37.2"
	// NodeImage is the image of the node, made by hack/nodeimage.
	NodeImage = "layersim/node:" + Version
	// DefaultName is the name of a cluster with no other, unless the environment has one in NameVariable: so that runs on one
	// machine that know nothing of each other have clusters of their own.
	DefaultName  = "layersim"
	NameVariable = "LAYERSIM_KIND_NAME"
)

var (
	// ErrNoEngine says that Docker is missing or doesn't run.
	ErrNoEngine = errors.New("no Docker engine answers: run hack/nodeimage/docker")
	// ErrNoImage says that the node image is not on this machine.
	ErrNoImage = errors.New("the node image is not built: run hack/nodeimage/build")
	// ErrForeign says that there is a cluster with that name that layersim didn't make.
	ErrForeign = errors.New("the cluster was not made by layersim")
)

func defaultName() string { return cmp.Or(os.Getenv(NameVariable), DefaultName) }

// networkName is the Docker network that kind puts all its clusters into.
const networkName = "kind"

// readyLimit is how long a node may take from kubeadm's success until everything on it runs.
const readyLimit = 3 * time.Minute

// adoptLimit is how long a cluster that was ready once may take to be so again, before it is replaced.
const adoptLimit = time.Minute

// Options of a cluster.
type Options struct {
	// Name of the cluster, by default DefaultName: lower case letters, digits and dashes.
	Name string
	// Image of the node, by default NodeImage.
	Image string
	// Archives are container images to load, see WriteImage.
	Archives []string
	// Logs is a folder, which has nothing else, for the logs of a cluster that could not be created. Without it they are lost
	// with the cluster.
	Logs string
	// Retain keeps a cluster that could not be created, for inspection. The next Up replaces it.
	Retain bool
	// Progress is told each step when it ends, with the time that it took. It is not called concurrently.
	Progress func(step string)

	claims bool // the cluster is for runs, see [claim]
}

// Cluster is a running cluster.
type Cluster struct {
	Name string
	// Node is the name of the node, and of the container that it is.
	Node string
	// Adopted says that the cluster had been there before.
	Adopted bool
	// KubeConfig is a file that reaches the cluster as an administrator.
	KubeConfig string
	// Config does the same, without client-side throttling.
	Config *rest.Config

	dir  string
	node nodes.Node
	runs *claim // nil unless it was asked for
}

// Up creates a cluster and waits until it can run pods: the node and the pods of the system are ready, the images are
// loaded. A cluster of that name that layersim made is adopted if it answers, and replaced if it doesn't. The error is
// ErrForeign if somebody else made it, ErrNoEngine without Docker, and ErrNoImage without a node image. With any error
// nothing is left running, unless Retain asks for it. The context ends the creation; it doesn't end a cluster that was created.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	if o.Name == "" {
		o.Name = defaultName()
	}
	if o.Image == "" {
		o.Image = NodeImage
	}
	c, err := up(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("create cluster %s: %w", o.Name, err)
	}
	return c, nil
}

func up(ctx context.Context, o Options) (*Cluster, error) {
	dir, unlock, err := open(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !o.claims {
		return upIn(ctx, o, dir, false)
	}
	runs, err := claimRuns(dir)
	if err != nil {
		return nil, err
	}
	cutOff := runs.underWay
	c, err := upIn(ctx, o, dir, cutOff)
	if err == nil {
		c.runs, err = runs, runs.end()
	}
	if err == nil {
		return c, nil
	}
	if !cutOff {
		err = errors.Join(err, os.Remove(runs.file.Name())) // it would be all that is left
	}
	return nil, errors.Join(err, runs.release())
}

// upIn does it in a folder that nobody else works in. A cluster on which a run was cut off is not adopted.
func upIn(ctx context.Context, o Options, dir string, cutOff bool) (*Cluster, error) {
	steps := newSteps(o.Progress)
	found, err := own(ctx, o.Name, dir)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		why := ", on which a run was cut off"
		if !cutOff {
			c, err := adopt(ctx, o, dir, found)
			if err == nil {
				steps.done("adopted cluster " + o.Name)
				return c, c.load(ctx, o.Archives, steps)
			}
			if ctx.Err() != nil {
				return nil, err
			}
			why = ", which didn't answer"
		}
		if err := remove(ctx, dir, found); err != nil {
			return nil, err
		}
		steps.done("removed cluster " + o.Name + why)
	}
	c, err := create(ctx, o, dir, steps)
	if err == nil {
		return c, nil
	}
	// The context may have ended; what follows must happen all the same.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	left, listErr := own(after, o.Name, dir)
	if len(left) == 0 {
		return nil, errors.Join(err, listErr)
	}
	if o.Logs != "" {
		if collectErr := collect(o.Name, o.Logs); collectErr == nil {
			steps.done("collected logs into " + o.Logs)
		}
	}
	if o.Retain {
		return nil, fmt.Errorf("%w (kept: docker exec -it %s journalctl)", err, left[0].name)
	}
	return nil, errors.Join(err, remove(after, dir, left))
}

// create makes the cluster in a prepared folder.
func create(ctx context.Context, o Options, dir string, steps *steps) (*Cluster, error) {
	version, err := docker(ctx, "info", "--format={{.CgroupVersion}}")
	if err != nil {
		return nil, err
	}
	if id, err := docker(ctx, "image", "ls", "--quiet", o.Image); err != nil {
		return nil, err
	} else if id == "" {
		return nil, fmt.Errorf("%w (no image %s)", ErrNoImage, o.Image)
	}
	before, _, err := network(ctx, networkName)
	if err != nil {
		return nil, err
	}
	if err := writeNode(dir); err != nil {
		return nil, err
	}

	created := make(chan error, 1)
	go func() {
		created <- provider(steps).Create(o.Name,
			cluster.CreateWithV1Alpha4Config(config(o, dir, version == "1")),
			cluster.CreateWithKubeconfigPath(filepath.Join(dir, "kubeconfig")),
			cluster.CreateWithRetain(true), // it is deleted here, after its logs were collected
			cluster.CreateWithWaitForReady(0),
			cluster.CreateWithDisplayUsage(false), cluster.CreateWithDisplaySalutation(false))
	}()
	select {
	case err = <-created:
	case <-ctx.Done():
		// kind knows no contexts, but it fails when its node is gone.
		end(context.WithoutCancel(ctx), o.Name, dir, created)
		err = ctx.Err()
	}
	if before == "" {
		// Before any return: Down removes what is written here.
		after, _, networkErr := network(context.WithoutCancel(ctx), networkName)
		if networkErr == nil && after != "" {
			networkErr = os.WriteFile(networkFile(dir), []byte(after), 0o644)
		}
		err = errors.Join(err, networkErr)
	}
	if err != nil {
		return nil, err
	}
	c, err := reach(o.Name, dir)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, readyLimit, fmt.Errorf("not ready after %s", readyLimit))
	defer cancel()
	loaded := make(chan error, 1)
	go func() {
		err := c.load(ctx, o.Archives, steps)
		if err != nil {
			cancel() // nothing to wait for
		}
		loaded <- err
	}()
	err = c.ready(waiting, steps)
	if loadErr := <-loaded; loadErr != nil {
		return nil, loadErr
	}
	return c, err
}

// end deletes the containers of a cluster that is being created until its creation has failed.
func end(ctx context.Context, name, dir string, created <-chan error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if found, err := own(ctx, name, dir); err == nil {
			for _, f := range found {
				_, _ = docker(ctx, "rm", "--force", "--volumes", f.id) // tried again
			}
		}
		select {
		case <-created:
			return
		case <-tick.C:
		}
	}
}

// adopt reaches a cluster that is there, if it is as ready as a new one.
func adopt(ctx context.Context, o Options, dir string, found []container) (*Cluster, error) {
	for _, f := range found {
		if !f.running {
			return nil, fmt.Errorf("container %s doesn't run", f.name)
		}
	}
	c, err := reach(o.Name, dir)
	if err != nil {
		return nil, err
	}
	c.Adopted = true
	waiting, cancel := context.WithTimeout(ctx, adoptLimit)
	defer cancel()
	return c, c.ready(waiting, newSteps(nil))
}

// reach makes the handle of a cluster whose kubeconfig is written.
func reach(name, dir string) (*Cluster, error) {
	c := &Cluster{Name: name, KubeConfig: filepath.Join(dir, "kubeconfig"), dir: dir}
	found, err := provider(nil).ListNodes(name)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("there are %d nodes, not one", len(found))
	}
	c.node, c.Node = found[0], found[0].String()
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.KubeConfig); err != nil {
		return nil, err
	}
	c.Config.QPS = -1
	return c, nil
}

// Load loads container images from archives, see WriteImage. They take the place of images with the same names.
func (c *Cluster) Load(ctx context.Context, archives ...string) error {
	return c.load(ctx, archives, newSteps(nil))
}

func (c *Cluster) load(ctx context.Context, archives []string, steps *steps) error {
	for _, archive := range archives {
		start := time.Now()
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := os.Open(archive)
		if err != nil {
			return fmt.Errorf("load image: %w", err)
		}
		err = nodeutils.LoadImageArchive(c.node, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("load image %s: %w", archive, err)
		}
		steps.took("loaded "+filepath.Base(archive), time.Since(start))
	}
	return nil
}

// Exec runs a command on the node and returns what it printed.
func (c *Cluster) Exec(ctx context.Context, command ...string) (string, error) {
	return docker(ctx, append([]string{"exec", c.Node}, command...)...)
}

// collect writes the logs of a cluster's node, its kubelet and containerd among them, and of all pods on it into a folder that
// has nothing else; what was in it is removed.
func collect(name, dir string) error {
	if err := errors.Join(os.RemoveAll(dir), provider(nil).CollectLogs(name, dir)); err != nil {
		return fmt.Errorf("collect logs of cluster %s: %w", name, err)
	}
	return nil
}

// Down removes the cluster with that name: containers with their volumes, the network if it was made for a cluster of ours
// and nothing else is in it, and files. What was removed is told to progress, which may be nil. It is no error if there is
// no such cluster; the error is ErrForeign if layersim didn't make it.
func Down(ctx context.Context, name string, progress func(removed string)) error {
	if name == "" {
		name = defaultName()
	}
	if err := down(ctx, name, newSteps(progress)); err != nil {
		return fmt.Errorf("delete cluster %s: %w", name, err)
	}
	return nil
}

func down(ctx context.Context, name string, steps *steps) error {
	dir, unlock, err := open(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	found, err := own(ctx, name, dir)
	if err != nil {
		return err
	}
	if err := remove(ctx, dir, found); err != nil {
		return err
	}
	for _, f := range found {
		steps.done("removed container " + f.name)
	}
	switch removed, err := removeNetwork(ctx, dir); {
	case err != nil:
		return err
	case removed:
		steps.done("removed network " + networkName)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if len(files) > 0 {
		steps.done("removed " + dir)
	}
	return nil
}

// List returns the names of the clusters that layersim made on this machine, sorted, failed ones included.
func List() ([]string, error) {
	root, err := folder()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// own returns the containers of the cluster. The error is ErrForeign if one of them doesn't mount the cluster's folder.
func own(ctx context.Context, name, dir string) ([]container, error) {
	found, err := containers(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if !slices.ContainsFunc(f.mounts, func(m string) bool { return strings.HasPrefix(m, dir+string(filepath.Separator)) }) {
			return nil, fmt.Errorf("%w (container %s)", ErrForeign, f.name)
		}
	}
	return found, nil
}

// remove deletes containers, their volumes, and the kubeconfig, which no longer reaches anything.
func remove(ctx context.Context, dir string, found []container) error {
	for _, f := range found {
		if _, err := docker(ctx, "rm", "--force", "--volumes", f.id); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, "kubeconfig")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeNetwork removes the network of kind if it was made for one of our clusters and nothing is in it.
func removeNetwork(ctx context.Context, dir string) (bool, error) {
	ours, err := os.ReadFile(networkFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	id, members, err := network(ctx, networkName)
	if err != nil || members > 0 {
		return false, err
	}
	removed := false
	if id != "" && id == string(ours) {
		if _, err := docker(ctx, "network", "rm", id); err != nil {
			return false, err
		}
		removed = true
	}
	return removed, os.Remove(networkFile(dir))
}

// networkFile has the identity of the network that was made for a cluster of ours. All clusters share the network.
func networkFile(dir string) string { return filepath.Join(filepath.Dir(dir), "network") }

// validName is what kind allows, and a folder's name.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$`)

// open makes the folder of the cluster and waits until no other process works on it.
func open(ctx context.Context, name string) (dir string, unlock func(), err error) {
	if !validName.MatchString(name) {
		return "", nil, fmt.Errorf("the name %q is not one of lower case letters, digits and dashes, at most 48", name)
	}
	root, err := folder()
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(root, name)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", nil, err
		}
		lock, err := os.OpenFile(lockFile(dir), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return "", nil, err
		}
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && current(lock) {
			return dir, func() { giveBack(lock, dir) }, os.MkdirAll(dir, 0o755) // again: a Down may have come first
		}
		lock.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("lock %s: %w", lockFile(dir), err)
		}
		select {
		case <-ctx.Done():
			return "", nil, fmt.Errorf("wait for another process that works on the cluster: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// giveBack gives the lock back. With the last file of the cluster the lock goes, too, and the folder of all clusters with
// the last cluster. What is not empty can't be removed, which is all that is relied on here.
func giveBack(lock *os.File, dir string) {
	if err := os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(lock.Name())
		_ = os.Remove(filepath.Dir(dir))
	}
	lock.Close()
}

// lockFile is beside the folder, because Down removes that.
func lockFile(dir string) string { return dir + ".lock" }

// current tells whether a lock is still the one that others would find.
func current(lock *os.File) bool {
	mine, err := lock.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(lock.Name())
	return err == nil && os.SameFile(mine, now)
}

// folder has the folders of all clusters.
func folder() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Abs(filepath.Join(cache, "layersim", "kind"))
}

func provider(steps *steps) *cluster.Provider {
	return cluster.NewProvider(cluster.ProviderWithDocker(), cluster.ProviderWithLogger(logger{steps}))
}
