package agent

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/authn"
	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/manager"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/registry"
)

const (
	// NodesFile of the folder Given says what the agent of the machines is to do: NodesOptions, as JSON.
	NodesFile = "nodes"
	// NodesFolder is where that agent keeps the machines, in a folder for each run.
	NodesFolder = "/var/lib/layersim/nodes"

	// NodesOrderPath is where it takes a NodesOrder, NodesRunPath where it runs a NodesCommand and answers NodesOutput.
	NodesOrderPath = "/nodes/order"
	NodesRunPath   = "/nodes/run"
	// NodesNextPath is where it answers when the machines' agents look again by themselves, as [manager.Pauses.Next] does.
	NodesNextPath = "/nodes/next"
	// NodesTellPath is where layersim is told NodesNews, NodesBeforePath where it is asked a NodesPhase and answers NodesFault.
	NodesTellPath   = "/nodes/tell"
	NodesBeforePath = "/nodes/before"
)

// NodesOptions are those of a [node.Fleet].
type NodesOptions struct {
	// Run is the folder of the run.
	Run                  string         `json:"run"`
	Seed                 uint64         `json:"seed"`
	Durations            node.Durations `json:"durations"`
	NoMachineConfigNodes bool           `json:"noMachineConfigNodes,omitempty"`
}

// What is to be done to a machine.
const (
	NodeInstall   = "install"
	NodeProvision = "provision"
	NodeRemove    = "remove"
	NodePowerOff  = "power-off"
	NodePowerOn   = "power-on"
	NodeWrite     = "write"
	NodeRestore   = "restore"
)

// NodesOrder is a change of a machine from outside. Given twice it has the effect of one.
type NodesOrder struct {
	Do   string `json:"do"`
	Name string `json:"name"`
	// Spec and the installer's credentials are for install and provision, Path and Content for files.
	Spec     node.HostSpec `json:"spec"`
	User     string        `json:"user,omitempty"`
	Password string        `json:"password,omitempty"`
	Path     string        `json:"path,omitempty"`
	Content  string        `json:"content,omitempty"`
}

// NodesNews is what happened to a machine, known by the numbers of [node.FleetOptions].Tell, or to a component.
type NodesNews struct {
	Machine   int                `json:"machine,omitempty"`
	Serial    int                `json:"serial,omitempty"`
	Node      *history.Node      `json:"node,omitempty"`
	Component *history.Component `json:"component,omitempty"`
}

// NodesPhase is what a machine is about to do.
type NodesPhase struct {
	Node  string `json:"node"`
	Phase string `json:"phase"`
}

// NodesFault is what goes wrong with it: nothing where Message is "".
type NodesFault struct {
	Message string `json:"message,omitempty"`
	Hangs   bool   `json:"hangs,omitempty"`
}

// Nodes is the agent that plays the machines: all of a run, with their kubelets and machine-config-daemons.
type Nodes struct {
	// Config reaches the API server.
	Config *rest.Config
	// World is the way to layersim.
	World *Asker
	// Proxy is the way to the registry; its user is replaced by the caller. TLS is verified by Roots, by default the system's.
	Proxy *url.URL
	Roots *x509.CertPool
	// Folder has a folder for each run. What other runs left is removed.
	Folder  string
	Options NodesOptions
	// Broken is told that the machines can't be kept. It has to end the process.
	Broken func(error)

	installer  installer
	orders     sync.Mutex // held while an order is carried out: one that is given again waits for the first
	fleet      *node.Fleet
	components []component.Component // the agents of the machines
	wakes      Wakes
	pauses     manager.Pauses
}

// Run plays the machines until the context ends; then it returns at once, in the middle of whatever is being done. Answers
// says that it is ready once the machines are there and the agents on them run.
func (n *Nodes) Run(ctx context.Context, answers *Answers) error {
	unlock, err := lock(ctx, n.Folder)
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.prepare(ctx); err != nil {
		return err
	}
	Answer(answers, NodesOrderPath, n.obey)
	Answer(answers, NodesRunPath, func(_ context.Context, _ string, c NodesCommand) (NodesOutput, error) {
		return c.on(n.fleet), nil
	})
	Answer(answers, NodesNextPath, func(context.Context, string, any) (time.Time, error) { return n.pauses.Next(), nil })
	ended := make(chan error, 1)
	go func() { ended <- n.play(ctx, answers) }()
	select {
	case err := <-ended:
		if ctx.Err() == nil {
			return fmt.Errorf("play the machines: %w", cmp.Or(err, errors.New("it ended")))
		}
	case <-ctx.Done():
	}
	return nil
}

// lock waits until no other agent has the folder: one that is being replaced may live on for a while.
func lock(ctx context.Context, folder string) (unlock func(), err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which can't fail for a file that nothing was written to
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// prepare brings the machines back that an earlier agent of the run had.
func (n *Nodes) prepare(ctx context.Context) error {
	runs, err := os.ReadDir(n.Folder)
	if err != nil {
		return err
	}
	for _, run := range runs {
		if run.IsDir() && run.Name() != n.Options.Run {
			if err := os.RemoveAll(filepath.Join(n.Folder, run.Name())); err != nil {
				return err
			}
		}
	}
	storage := folder{registry.Folder(filepath.Join(n.Folder, n.Options.Run)), n.Broken}
	ways := &Ways{Proxy: n.Proxy, Roots: n.Roots}
	n.fleet = node.NewFleet(node.FleetOptions{
		Clock: clock.RealClock{}, Storage: storage, Transport: ways.To, InstallKeychain: &n.installer,
		Tell: func(machine, serial int, r history.Node) {
			n.insist(ctx, NodesTellPath, NodesNews{Machine: machine, Serial: serial, Node: &r}, nil)
		},
		Before: func(machine, phase string) error {
			var f NodesFault
			n.insist(ctx, NodesBeforePath, NodesPhase{machine, phase}, &f)
			if f == (NodesFault{}) {
				return nil
			}
			return &f
		},
		Wake: func(component, machine string) { n.wakes.Wake(component, machine) }, Seed: n.Options.Seed, Durations: n.Options.Durations,
		NoMachineConfigNodes: n.Options.NoMachineConfigNodes,
	})
	n.components = n.fleet.Components(node.ComponentOptions{Machines: true})
	n.wakes = NewWakes(n.components)
	return n.fleet.Restore()
}

// Error makes a fault what a phase fails with.
func (f *NodesFault) Error() string { return f.Message }

// Is says whether the phase hangs.
func (f *NodesFault) Is(target error) bool { return f.Hangs && target == node.ErrHang }

// insist asks layersim until it answers. Without an answer nothing goes on; when the agent ends it doesn't return.
func (n *Nodes) insist(ctx context.Context, path string, question, answer any) {
	for n.World.Ask(ctx, path, question, answer) != nil {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			select {} // the process is about to end, and no machine may notice
		}
	}
}

// installer is the keychain of whoever installs machines.
type installer struct {
	mu sync.Mutex
	authn.AuthConfig
}

// Resolve implements [authn.Keychain].
func (i *installer) Resolve(authn.Resource) (authn.Authenticator, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return authn.FromConfig(i.AuthConfig), nil
}

// obey carries out an order.
func (n *Nodes) obey(_ context.Context, _ string, o NodesOrder) (struct{}, error) {
	n.orders.Lock()
	defer n.orders.Unlock()
	var err error
	h := n.fleet.Host(o.Name)
	switch {
	case o.Do == NodeInstall && h == nil:
		n.installer.mu.Lock()
		n.installer.Username, n.installer.Password = o.User, o.Password
		n.installer.mu.Unlock()
		err = n.fleet.Install(o.Spec)
		unreachable, slow := (*net.OpError)(nil), net.Error(nil)
		if errors.As(err, &unreachable) || errors.As(err, &slow) && slow.Timeout() {
			err = fmt.Errorf("%w: %w", ErrNotYet, err) // the registry is being started
		}
	case o.Do == NodeProvision && h == nil:
		err = n.fleet.Provision(o.Spec)
	case o.Do == NodeRemove:
		n.fleet.Remove(o.Name)
	case h == nil:
		err = fmt.Errorf("there is no machine %s", o.Name)
	case o.Do == NodePowerOff:
		h.PowerOff()
	case o.Do == NodePowerOn:
		h.PowerOn()
	case o.Do == NodeWrite:
		if content, ok := h.ReadFile(o.Path); !ok || content != o.Content {
			h.WriteFile(o.Path, o.Content)
		}
	case o.Do == NodeRestore:
		h.RestoreFile(o.Path)
	}
	return struct{}{}, err
}

// play runs the agents of the machines.
func (n *Nodes) play(ctx context.Context, answers *Answers) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcfgv1.Install, machinev1beta1.Install} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	mgr, err := ctrlmanager.New(n.Config, ctrlmanager.Options{
		Scheme: scheme, Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Cache:      cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		return err
	}
	failed := func(ctx context.Context, failure *history.Component) {
		n.insist(ctx, NodesTellPath, NodesNews{Component: failure}, nil)
	}
	for _, c := range n.components {
		if err := n.wakes.Add(mgr, n.pauses.Follow(Watched(c, failed))); err != nil {
			return err
		}
	}
	if err := mgr.Add(ctrlmanager.RunnableFunc(func(context.Context) error {
		for _, name := range n.fleet.Names() {
			n.wakes.Wake(node.KubeletName, name)
			n.wakes.Wake(node.DaemonName, name)
		}
		answers.Ready()
		return nil
	})); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// folder keeps machines in files. They outlive the process, but not a power failure.
type folder struct {
	registry.Folder
	broken func(error)
}

// Save implements [node.Storage].
func (f folder) Save(key string, value []byte) {
	var err error
	if value == nil {
		err = f.Remove(key)
	} else {
		err = f.Write(key, value)
	}
	if err != nil {
		f.broken(fmt.Errorf("keep %s: %w", key, err))
	}
}

// Load implements [node.Storage].
func (f folder) Load() (map[string][]byte, error) {
	all := map[string][]byte{}
	err := f.Each(func(key string, content []byte) error {
		all[key] = content
		return nil
	})
	return all, err
}

func readOptions(given string) (o NodesOptions, err error) {
	content, err := os.ReadFile(filepath.Join(given, NodesFile))
	if err == nil {
		err = json.Unmarshal(content, &o)
	}
	if err != nil {
		return o, fmt.Errorf("find the run's nodes: %w", err)
	}
	return o, nil
}

// RunNodes is the agent as a program, in a pod that was given what is in a folder. It returns when the context ends.
func RunNodes(ctx context.Context, given string, config *rest.Config, proxy *url.URL, broken func(error)) error {
	world, err := World(given)
	if err != nil {
		return err
	}
	n := &Nodes{Config: config, World: world, Proxy: proxy, Folder: NodesFolder, Broken: broken}
	if n.Options, err = readOptions(given); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(AdminPort))
	if err != nil {
		return err
	}
	answers := NewAnswers(world.Token)
	go func() {
		if err := answers.Serve(ctx, listener); err != nil {
			broken(err)
		}
	}()
	return n.Run(ctx, answers)
}
