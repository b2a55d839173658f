package manager

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
)

// DefaultMetricsAddress is where a process serves /metrics unless told otherwise, as upstream's do.
const DefaultMetricsAddress = "127.0.0.1:8797"

// stopTimeout is how long a process that was asked to stop waits for running reconciles.
const stopTimeout = 10 * time.Second

// What every process needs: the topology of the cluster for the times of its Lease, and events of its elections.
//
// +kubebuilder:rbac:groups=config.openshift.io,resources=infrastructures,resourceNames=cluster,verbs=get
// +kubebuilder:rbac:groups="",namespace=openshift-machine-config-operator,resources=events,verbs=create;patch

// Program is a process that runs components under leader election. Its command line is
//
//	NAME start [--kubeconfig FILE] [--metrics-listen-address ADDRESS] [--health-probe-listen-address ADDRESS]
//	           [--resourcelock-namespace NAMESPACE] [--leader-elect=false] [-v LEVEL]
//	NAME version
//
// The API server is the one of --kubeconfig, else of the environment variable KUBECONFIG, else the cluster the process
// runs in. (Upstream's machine-os-builder accepts --kubeconfig and ignores it.) SIGTERM and SIGINT stop it: it takes no
// new work, waits up to 10 s for what runs, gives the Lease back and exits 0; a second signal ends it at once with
// status 1. Losing the Lease ends it with status 1.
type Program struct {
	// Name is the command's name and the Lease's: "machine-os-builder".
	Name string
	// Short says in one line what the process does.
	Short string
	// Version is printed by the subcommand version. Default "unknown".
	Version string
	// Flags adds flags to the subcommand start; nil adds none.
	Flags func(*pflag.FlagSet)
	// Commands are further subcommands; they share nothing with start.
	Commands []*cobra.Command
	// Components returns what to run. It is called once, after the flags were parsed.
	Components func() ([]component.Component, error)
	// Setup does what else the manager needs before it starts, such as field indexes; nil does nothing.
	Setup func(context.Context, manager.Manager) error
}

// settings are the values of the flags of start.
type settings struct {
	kubeconfig     string
	metricsAddress string
	probeAddress   string
	lockNamespace  string
	leaderElect    bool
}

// Main runs the command line of the process and returns its exit status.
func (p Program) Main() int {
	ctx, stop := signalContext()
	defer stop()
	if err := p.Command().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		return 1
	}
	return 0
}

// Command returns the command line as a command, for tests and for embedding.
func (p Program) Command() *cobra.Command {
	version := p.Version
	if version == "" {
		version = "unknown"
	}
	root := &cobra.Command{Use: p.Name, Short: p.Short, SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(&cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", p.Name, version)
			return err
		},
	})
	s := &settings{}
	start := &cobra.Command{
		Use: "start", Short: "Run until told to stop", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.start(cmd.Context(), s) },
	}
	flags := start.Flags()
	flags.StringVar(&s.kubeconfig, "kubeconfig", "", "kubeconfig file; default $KUBECONFIG, else the surrounding cluster")
	flags.StringVar(&s.metricsAddress, "metrics-listen-address", DefaultMetricsAddress,
		"address to serve /metrics on; 0 serves none")
	flags.StringVar(&s.probeAddress, "health-probe-listen-address", "0",
		"address to serve /healthz and /readyz on; 0 serves none")
	flags.StringVar(&s.lockNamespace, "resourcelock-namespace", layering.Namespace, "namespace of the Lease")
	flags.BoolVar(&s.leaderElect, "leader-elect", true, "act only while holding the Lease "+p.Name)
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	flags.AddGoFlagSet(klogFlags)
	if p.Flags != nil {
		p.Flags(flags)
	}
	root.AddCommand(start)
	root.AddCommand(p.Commands...)
	return root
}

// start builds the manager, attaches the components and runs until the context ends.
func (p Program) start(ctx context.Context, s *settings) error {
	log.SetLogger(klog.NewKlogr())
	config, err := RESTConfig(s.kubeconfig)
	if err != nil {
		return fmt.Errorf("load kubeconfig: %w", err)
	}
	components, err := p.Components()
	if err != nil {
		return err
	}
	options, err := p.options(ctx, config, s)
	if err != nil {
		return err
	}
	mgr, err := manager.New(config, options)
	if err != nil {
		return fmt.Errorf("create manager: %w", err)
	}
	if err := check(mgr); err != nil {
		return fmt.Errorf("add probes: %w", err)
	}
	if p.Setup != nil {
		if err := p.Setup(ctx, mgr); err != nil {
			return fmt.Errorf("set up manager: %w", err)
		}
	}
	pauses := &Pauses{}
	for _, c := range components {
		if err := Add(mgr, pauses.Follow(c)); err != nil {
			return err
		}
	}
	if err := metrics.Registry.Register(pauses); err != nil {
		return fmt.Errorf("add metrics: %w", err)
	}
	return mgr.Start(ctx)
}

// probeTimeout is how long a readiness probe waits for a cache to be filled.
const probeTimeout = time.Second

// check adds the probes. A process is alive as long as it answers, and ready when whatever it watches so far has arrived:
// one that waits for the Lease watches nothing, and is ready to take over.
func check(mgr manager.Manager) error {
	synced := func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), probeTimeout)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the cache is not filled yet")
		}
		return nil
	}
	return errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("cache", synced))
}

// Scope limits a cache to what a process may read: ConfigMaps, Secrets and Jobs of the operator's namespace only.
func Scope() map[client.Object]cache.ByObject {
	ours := cache.ByObject{Namespaces: map[string]cache.Config{layering.Namespace: {}}}
	return map[client.Object]cache.ByObject{&corev1.Secret{}: ours, &corev1.ConfigMap{}: ours, &batchv1.Job{}: ours}
}

func (p Program) options(ctx context.Context, config *rest.Config, s *settings) (manager.Options, error) {
	scheme, err := NewScheme()
	if err != nil {
		return manager.Options{}, err
	}
	lease, renew, retry := leaseTimes(ctx, config)
	timeout := stopTimeout
	return manager.Options{
		Scheme:                        scheme,
		Cache:                         cache.Options{ByObject: Scope()},
		Metrics:                       metricsserver.Options{BindAddress: s.metricsAddress},
		HealthProbeBindAddress:        s.probeAddress,
		LeaderElection:                s.leaderElect,
		LeaderElectionID:              p.Name,
		LeaderElectionNamespace:       s.lockNamespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease,
		RenewDeadline:                 &renew,
		RetryPeriod:                   &retry,
		GracefulShutdownTimeout:       &timeout,
	}, nil
}

// NewScheme returns a scheme of Kubernetes' own kinds and of machineconfiguration.openshift.io/v1.
func NewScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcfgv1.Install} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	return scheme, nil
}

// RESTConfig loads the kubeconfig file, else $KUBECONFIG, else the surrounding cluster's configuration.
func RESTConfig(path string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules() // reads $KUBECONFIG
	rules.ExplicitPath = path
	if path == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		config, err := rest.InClusterConfig()
		if !errors.Is(err, rest.ErrNotInCluster) {
			return config, err
		}
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
}

// leaseTimes are OpenShift's for leader election: 137 s, 107 s and 26 s, which ride out 60 s without an API server, or
// longer ones where there is a single control plane node. A cluster that can't tell gets the former.
func leaseTimes(ctx context.Context, config *rest.Config) (lease, renew, retry time.Duration) {
	lease, renew, retry = 137*time.Second, 107*time.Second, 26*time.Second
	short := rest.CopyConfig(config)
	short.Timeout = 5 * time.Second
	reader, err := client.New(short, client.Options{})
	if err != nil {
		log.Log.Info("cluster topology is unknown", "error", err.Error())
		return lease, renew, retry
	}
	infrastructure := &unstructured.Unstructured{}
	infrastructure.SetGroupVersionKind(schema.GroupVersionKind{Group: "config.openshift.io", Version: "v1", Kind: "Infrastructure"})
	if err := reader.Get(ctx, client.ObjectKey{Name: "cluster"}, infrastructure); err != nil {
		log.Log.Info("cluster topology is unknown", "error", err.Error())
		return lease, renew, retry
	}
	topology, _, _ := unstructured.NestedString(infrastructure.Object, "status", "controlPlaneTopology")
	if topology == "SingleReplica" {
		return 270 * time.Second, 240 * time.Second, 60 * time.Second
	}
	return lease, renew, retry
}

// signalContext ends with the first SIGTERM or SIGINT; the second one ends the process.
func signalContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
			return
		}
		<-signals
		os.Exit(1)
	}()
	return ctx, cancel
}
