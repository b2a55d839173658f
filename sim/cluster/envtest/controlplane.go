package envtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live"
)

// Controllers are those of kube-controller-manager that on-cluster layering lives with: Jobs, garbage collection,
// deletion of namespaces, service accounts, the taints of nodes, and disruption budgets.
var Controllers = []string{
	"job-controller", "garbage-collector-controller", "namespace-controller", serviceAccounts,
	"node-lifecycle-controller", "disruption-controller",
}

// serviceAccounts makes the object by which a running kube-controller-manager is recognised.
const serviceAccounts = "serviceaccount-controller"

const (
	// startLimit is how long one process may take until it answers. Busy machines were seen to take 35 s.
	startLimit = time.Minute
	// stopLimit is how long a process may take to end before it is killed.
	stopLimit = 10 * time.Second
)

// Options of a control plane.
type Options struct {
	// CRDs are installed before Start returns.
	CRDs []*apiextensionsv1.CustomResourceDefinition
	// Controllers are the controllers of kube-controller-manager to run, see the variable Controllers. With none the
	// process isn't started: then there is no other writer than the clients, and nothing is collected.
	Controllers []string
	// Scheduler starts kube-scheduler.
	Scheduler bool
	// Through, where not nil, gives Kubernetes' controllers and scheduler another way to the API server than directly, as
	// an administrator: a kubeconfig file by the program's name. It is called when the definitions are there.
	Through func(admin *rest.Config, program string) ([]byte, error)
	// Logs is a directory for the output of the processes, one file each. By default it is removed by Stop.
	Logs string
	// Arguments are more flags for kube-apiserver, by name without dashes.
	Arguments map[string][]string

	// port, where not nil, chooses the port of etcd and of kube-apiserver.
	port func(program string) (int, error)
}

// ErrDied says that a program of the control plane ended without Stop.
var ErrDied = errors.New("the control plane died")

// death is an ErrDied that breaks the cluster.
type death string

func (d death) Error() string        { return fmt.Sprintf("%v: %s", ErrDied, string(d)) }
func (d death) Is(target error) bool { return target == ErrDied || target == cluster.ErrBroken }

// ControlPlane is a running control plane.
type ControlPlane struct {
	// Config reaches kube-apiserver as a cluster administrator, without client-side throttling.
	Config *rest.Config
	// KubeConfig is a file that says the same, for programs. It is removed by Stop.
	KubeConfig string

	dir       string
	logs      string
	keepsLogs bool
	outputs   []*os.File
	lock      *os.File
	plane     *envtest.ControlPlane
	processes []*process // beside those of plane
	watchdog  *watchdog
	ends      *os.File      // the pipe endsFile
	heard     chan struct{} // closed when nobody listens to the pipe any more

	died     chan struct{} // closed when death is set
	mu       sync.Mutex    // guards what follows
	stopping bool
	death    error
}

// attempts is how often a control plane is started when somebody else took one of its ports meanwhile.
const attempts = 3

// Start starts a control plane and waits until it is ready. It returns early when the context ends, and then, as with any
// error, nothing is left running. The context doesn't stop a control plane that has started.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	programs, err := Binaries()
	if err != nil {
		return nil, err
	}
	if err := sweep(); err != nil {
		return nil, fmt.Errorf("remove what an earlier control plane left: %w", err)
	}
	for attempt := 1; ; attempt++ {
		c := &ControlPlane{died: make(chan struct{}), keepsLogs: o.Logs != ""}
		err := c.start(ctx, programs, o)
		if err == nil {
			return c, nil
		}
		err = errors.Join(err, c.deafen()) // what has ended is known now
		again := c.says(syscall.EADDRINUSE.Error())
		switch died := c.Err(); {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case died != nil:
			err = died // whatever else went wrong came of it
		default:
			err = fmt.Errorf("%w%s", err, c.lastWords())
		}
		err = errors.Join(fmt.Errorf("start control plane: %w", err), c.Stop())
		if attempt == attempts || ctx.Err() != nil || !again {
			return nil, err
		}
	}
}

// Died is closed when a program of the control plane has ended without Stop. Then the others are killed.
func (c *ControlPlane) Died() <-chan struct{} { return c.died }

// Err says which program ended without Stop, how, and what it said last. It is an ErrDied, or nil.
func (c *ControlPlane) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.death
}

// within returns a context that ends when the control plane dies as well.
func (c *ControlPlane) within(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	over := make(chan struct{})
	go func() {
		select {
		case <-c.died:
			cancel(c.Err())
		case <-over:
		}
	}()
	return ctx, sync.OnceFunc(func() { close(over); cancel(nil) })
}

func (c *ControlPlane) start(ctx context.Context, programs string, o Options) error {
	if err := c.prepare(o); err != nil {
		return err
	}
	ctx, cancel := c.within(ctx)
	defer cancel()
	if err := c.startAPI(ctx, programs, o); err != nil {
		return err
	}
	reader, err := client.New(c.Config, client.Options{})
	if err != nil {
		return err
	}
	if err := exists(ctx, reader, types.NamespacedName{Name: "default"}, &corev1.Namespace{}); err != nil {
		return err
	}
	if len(o.CRDs) > 0 {
		if err := live.Define(ctx, c.Config, o.CRDs); err != nil {
			return err
		}
	}
	if len(o.Controllers) > 0 {
		kubeconfig, err := c.through(o, controllerManager)
		if err != nil {
			return err
		}
		if err := c.startControllers(programs, kubeconfig, o.Controllers); err != nil {
			return err
		}
	}
	if o.Scheduler {
		kubeconfig, err := c.through(o, scheduler)
		if err != nil {
			return err
		}
		if err := c.run(programs, scheduler, "--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+c.KubeConfig,
			"--authorization-kubeconfig="+c.KubeConfig, "--kube-api-qps=1000", "--kube-api-burst=1000", "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0"); err != nil {
			return err
		}
	}
	if slices.Contains(o.Controllers, serviceAccounts) {
		return exists(ctx, reader, types.NamespacedName{Namespace: "default", Name: "default"}, &corev1.ServiceAccount{})
	}
	return nil
}

// Stop ends all processes and removes the directory of the run. It is safe to call it again.
func (c *ControlPlane) Stop() error {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(c.processes) {
		errs = append(errs, p.end())
	}
	c.processes = nil
	if c.plane != nil {
		if err := c.plane.Stop(); err != nil {
			errs = append(errs, err)
			c.kill()
		}
		c.plane = nil
	}
	errs = append(errs, c.deafen())
	if c.watchdog != nil {
		errs = append(errs, c.watchdog.dismiss())
		c.watchdog = nil
	}
	for _, f := range append(c.outputs, c.lock) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	c.outputs, c.lock = nil, nil
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	c.dir = ""
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop control plane: %w", err)
	}
	return nil
}

// prepare makes the directory of the run.
func (c *ControlPlane) prepare(o Options) (err error) {
	if c.dir, err = os.MkdirTemp("", directory); err != nil {
		return err
	}
	if c.lock, err = locked(c.dir); err != nil {
		return err
	}
	c.logs = o.Logs
	if c.logs == "" {
		c.logs = filepath.Join(c.dir, "logs")
	}
	for _, d := range []string{c.logs, filepath.Join(c.dir, "bin"), filepath.Join(c.dir, "data"), filepath.Join(c.dir, "certificates")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := c.listen(); err != nil {
		return err
	}
	return c.watch()
}

func (c *ControlPlane) startAPI(ctx context.Context, programs string, o Options) error {
	c.plane = &envtest.ControlPlane{
		Etcd: &envtest.Etcd{
			DataDir: filepath.Join(c.dir, "data"), StartTimeout: startLimit, StopTimeout: stopLimit,
		},
		APIServer: &envtest.APIServer{
			CertDir: filepath.Join(c.dir, "certificates"), StartTimeout: startLimit, StopTimeout: stopLimit,
		},
		KubectlPath: filepath.Join(programs, "kubectl"), // never run, but looked for elsewhere when it is empty
	}
	// An election takes a tenth of the time that it takes by default; and the kernel knows a free port for peers, who don't
	// exist.
	c.plane.Etcd.Configure().Set("election-timeout", "100").Set("heartbeat-interval", "10").Set("listen-peer-urls", "http://127.0.0.1:0")
	if o.port != nil {
		ports := map[string]int{}
		for _, program := range []string{etcd, apiServer} {
			var err error
			if ports[program], err = o.port(program); err != nil {
				return err
			}
		}
		c.plane.Etcd.URL = &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", ports[etcd])}
		c.plane.APIServer.SecureServing.Address, c.plane.APIServer.SecureServing.Port = "127.0.0.1", strconv.Itoa(ports[apiServer])
	}
	var err error
	if c.plane.Etcd.Path, err = c.wrap(programs, etcd); err != nil {
		return err
	}
	if c.plane.APIServer.Path, err = c.wrap(programs, apiServer); err != nil {
		return err
	}
	// All admission plugins are those of a real cluster: envtest alone would leave ServiceAccount out.
	arguments := c.plane.APIServer.Configure().Set("disable-admission-plugins", "")
	for _, name := range slices.Sorted(maps.Keys(o.Arguments)) {
		arguments.Set(name, o.Arguments[name]...)
	}
	etcdLog, err := c.output(etcd)
	if err != nil {
		return err
	}
	apiLog, err := c.output(apiServer)
	if err != nil {
		return err
	}
	c.plane.Etcd.Out, c.plane.Etcd.Err = etcdLog, etcdLog
	c.plane.APIServer.Out, c.plane.APIServer.Err = apiLog, apiLog

	// envtest doesn't know contexts: the processes end, and so the waiting for them.
	defer context.AfterFunc(ctx, c.kill)()
	if err := c.plane.Start(); err != nil {
		return err
	}
	admin, err := c.plane.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, &rest.Config{QPS: -1})
	if err != nil {
		return err
	}
	c.Config = admin.Config()
	text, err := admin.KubeConfig()
	if err != nil {
		return err
	}
	c.KubeConfig = filepath.Join(c.dir, "kubeconfig")
	if err := os.WriteFile(c.KubeConfig, text, 0o600); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// through writes the kubeconfig file of a program.
func (c *ControlPlane) through(o Options, program string) (string, error) {
	if o.Through == nil {
		return c.KubeConfig, nil
	}
	text, err := o.Through(c.Config, program)
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.dir, program+".kubeconfig")
	return file, os.WriteFile(file, text, 0o600)
}

// startControllers starts kube-controller-manager. Nodes have no kubelet that reports by wall time, so they may be silent
// for a day; and it serves no port, because nobody asks.
func (c *ControlPlane) startControllers(programs, kubeconfig string, controllers []string) error {
	certificates := c.plane.APIServer.CertDir
	return c.run(programs, controllerManager, "--kubeconfig="+kubeconfig, "--controllers="+strings.Join(controllers, ","),
		"--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0", "--use-service-account-credentials=false",
		"--kube-api-qps=1000", "--kube-api-burst=1000", "--node-monitor-grace-period=24h", "--node-startup-grace-period=24h",
		"--root-ca-file="+filepath.Join(certificates, "apiserver.crt"))
}

// exists waits for an object.
func exists(ctx context.Context, c client.Client, key types.NamespacedName, o client.Object) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, startLimit, true, func(ctx context.Context) (bool, error) {
		last = c.Get(ctx, key, o)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %T %s: %w (%v)", o, key, err, last)
	}
	return nil
}
