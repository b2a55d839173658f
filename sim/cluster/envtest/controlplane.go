package envtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

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
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	// Config reaches kube-apiserver as a cluster administrator, without client-side throttling.
	Config *rest.Config
	// KubeConfig is a file that says the same, for programs. It is removed by Stop.
	KubeConfig string

	dir       string
	logs      string
	outputs   []*os.File
	lock      *os.File
	plane     *envtest.ControlPlane
	processes []*process // beside those of plane
	watchdog  *watchdog
}

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
	c := &ControlPlane{}
	if err := c.start(ctx, programs, o); err != nil {
		err = fmt.Errorf("start control plane: %w%s", err, c.lastWords())
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context, programs string, o Options) error {
	if err := c.prepare(o); err != nil {
		return err
	}
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
		return errors.Join(ctx.Err(), err)
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
	return ctx.Err()
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
