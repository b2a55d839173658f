// Package cluster puts a cluster together: an API server, the controllers, and the world around them.
//
// [New] makes the simulated cluster of a topology: in memory, in virtual time, with no dependency. Its parts are those of
// a real cluster. The processes machine-os-builder and machine-config-controller run the same declarations that ship; the
// models of kube, the operator's part, the machines with kubelet and machine-config-daemon, build pods, the machine API
// and the registry stand for what surrounds them. It is ready when all pools are updated and nothing moves any more.
//
// [Assemble] does the same on any [Engine], which is what differs between clusters: package live has the one for real API
// servers, in real time.
//
// Everything that happens goes into the history, from the first object on, with secret values replaced.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	configv1 "github.com/openshift/api/config/v1"
	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/build"
	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/drain"
	"github.com/layersim/layersim/controllers/layering"
	nodecontroller "github.com/layersim/layersim/controllers/node"
	"github.com/layersim/layersim/controllers/render"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/check"
	"github.com/layersim/layersim/sim/fault"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/kube"
	"github.com/layersim/layersim/sim/machine"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/registry"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/world"
)

// bringUp is the time that a new cluster gets to come to rest.
const bringUp = 3 * time.Hour

// The hosts of the world's registry.
const (
	InternalRegistry = layering.InternalRegistryService
	ReleaseRegistry  = "quay.io"
)

// baseRepository is where the release's operating system image lives.
const baseRepository = ReleaseRegistry + "/openshift-release-dev/ocp-v4.0-art-dev"

// Options of a cluster.
type Options struct {
	Seed uint64
	// Header opens the history; Cluster, Seed and Start are set here.
	Header history.Header
	// Begin, where not nil, is told the time at which the history starts, before the first record.
	Begin func(start time.Time)
	// Observe, where not nil, sees each record of the history.
	Observe func(*history.Record)
	// Kube says that the cluster has kube's controllers and scheduler, and all definitions, so that none need to be brought.
	Kube bool
	// Foundation, where not nil, creates what the controllers of another release need before there are pools and nodes, in
	// place of what the bundled ones need.
	Foundation func(admin client.Client, baseImage string) error
	// NoMachineConfigNodes keeps nodes from reporting by MachineConfigNodes.
	NoMachineConfigNodes bool
	// Builds, where not nil, runs build pods for real, in place of the process that simulates them. It is told what they go by.
	Builds func(builder.Options) (Builds, error)
	// Registry, where not nil, runs the registry elsewhere, in place of the one in this process.
	Registry func(RegistryOptions) (Registry, error)
	// Fleet, where not nil, makes machines that are elsewhere, in place of those in this process.
	Fleet func(node.FleetOptions) (Fleet, error)
	// Host, where not nil, is what the cluster itself runs on, for faults.
	Host fault.Host
	// Durations say how long things of the world take; zero means each part's defaults.
	Durations Durations
	// Break, where not nil, changes the declarations of components before they start. Tests break them with it, to see
	// checks fail.
	Break func(*component.Component)
	// Password, where not nil, is told each password that an account gets.
	Password func(string)
}

// Builds is what the configuration of a cluster with real build pods says of them.
type Builds struct {
	// Image is what they run in.
	Image string
	// Proxy is the cluster's, by which they reach registries, and Trust the certificate authorities of these, in PEM form.
	Proxy *configv1.ProxyStatus
	Trust []byte
}

// Registry is the image registry, wherever it runs. *[registry.Registry] is one; what its methods do is written there. One that
// runs elsewhere breaks the cluster when it can't be reached, where a method has no error to say so.
type Registry interface {
	SetAccount(registry.Account)
	RemoveAccount(name string)
	SetQuota(repository string, bytes int64)
	PutImage(ref string, image v1.Image) (digest string, err error)
	Delete(ref string) error
	Transport(caller string) http.RoundTripper
}

// RegistryOptions say what a registry is, and what it asks before it answers and tells when it did.
type RegistryOptions struct {
	registry.Options
	Hook      registry.Hook
	ErrorHook registry.ErrorHook
}

// NewRegistry makes a registry in this process.
func NewRegistry(o RegistryOptions) (Registry, error) {
	r := registry.New(o.Options)
	r.SetHook(o.Hook)
	r.SetErrorHook(o.ErrorHook)
	return r, nil
}

// Fleet is the machines, wherever they are. *[node.Fleet] is one; what its methods do is written there. One that is elsewhere
// breaks the cluster when it can't be reached, where a method has no error to say so.
type Fleet interface {
	Install(node.HostSpec) error
	Provision(node.HostSpec) error
	Remove(name string)
	PowerOff(name string)
	PowerOn(name string)
	WriteFile(machine, path, content string) error
	RestoreFile(machine, path string) error
	Names() []string
	Has(name string) bool
	Heartbeat(name string) (last time.Time, alive bool)
	// Components are the agents of the machines. Of machines elsewhere they are there to be known by their names.
	Components(node.ComponentOptions) []component.Component
}

// Cluster is a cluster and the world around it.
type Cluster struct {
	Engine   Engine
	Registry Registry
	Fleet    Fleet
	Faults   *fault.Injector
	Recorder *history.Recorder
	// BaseImage is the pull spec of the release's operating system, by digest.
	BaseImage string

	topology scenario.Topology
	builds   Builds
	admin    client.Client
	accounts map[string]registry.Account
	serial   int
	password func(string)
}

// Durations say how long things of the world take, on the scale of the engine's clock.
type Durations struct {
	Node  node.Durations
	Build builder.Durations
	// Provision is how long the cloud takes to make a machine.
	Provision time.Duration
}

// Namespaces are those that every cluster has.
var Namespaces = []string{"default", "kube-system", "openshift-config", layering.Namespace, "openshift-machine-api", "openshift-image-registry"}

// Scheme returns the types that a cluster knows.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, mcfgv1.Install, machinev1beta1.Install,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("make scheme: %w", err)
		}
	}
	return s, nil
}

// Assemble puts a cluster together and brings it up. Whatever the error, the cluster holds the history so far, if there is
// one.
func Assemble(t scenario.Topology, e Engine, o Options) (*Cluster, error) {
	o.Header.Cluster, o.Header.Seed, o.Header.Start = e.Name(), o.Seed, e.Clock().Now()
	o.Header.Timing = e.Timing().Terms
	if o.Begin != nil {
		o.Begin(o.Header.Start)
	}
	c := &Cluster{Engine: e, topology: t, password: o.Password, accounts: map[string]registry.Account{},
		builds: Builds{Image: baseRepository + "@sha256:" + strings.Repeat("0c", 32)}} // no image at all: nothing pulls it
	c.Recorder = &history.Recorder{History: &history.History{Header: o.Header}, Now: e.Elapsed, Revision: e.Revision, Observe: o.Observe}
	repositories := builder.DefaultRepositories()
	c.Faults = &fault.Injector{
		Record: e.Record, Repositories: newRepositories(repositories), PowerOff: c.power(false), PowerOn: c.power(true),
		Later: func(d time.Duration, f func()) { e.After(e.Timing().Of(d), f) }, Host: o.Host,
	}
	if err := e.Open(c); err != nil {
		return c, err
	}
	admin, err := e.Client("admin")
	if err != nil {
		return c, err
	}
	c.admin = admin
	if err := c.makeRegistry(o.Registry); err != nil {
		return c, err
	}
	keychain, err := registry.Keychain(corev1.SecretTypeDockerConfigJson, map[string][]byte{
		corev1.DockerConfigJsonKey: registry.DockerConfigJSON(ReleaseRegistry, c.accounts["installer"])})
	if err != nil {
		return c, fmt.Errorf("installer's credentials: %w", err)
	}
	if o.Fleet == nil {
		o.Fleet = func(fo node.FleetOptions) (Fleet, error) { return node.NewFleet(fo), nil }
	}
	c.Fleet, err = o.Fleet(node.FleetOptions{
		InstallKeychain: keychain,
		Clock:           e.Clock(), Transport: c.transport, Seed: o.Seed,
		Observe: func(n history.Node) { c.observeMachine(n) },
		Wake:    e.Wake, Before: c.Faults.Node,
		Durations: o.Durations.Node, NoMachineConfigNodes: o.NoMachineConfigNodes,
	})
	if err != nil {
		return c, fmt.Errorf("make machines: %w", err)
	}
	if err := c.start(repositories, o); err != nil {
		return c, err
	}
	if o.Foundation == nil {
		o.Foundation = c.foundation
	}
	if err := o.Foundation(c.admin, c.BaseImage); err != nil {
		return c, err
	}
	if err := c.install(); err != nil {
		return c, err
	}
	if err := c.comeUp(); err != nil {
		return c, fmt.Errorf("bring up cluster %s: %w", t.Name, err)
	}
	return c, nil
}

// transport is a caller's way to the registry.
func (c *Cluster) transport(caller string) http.RoundTripper {
	return c.Engine.Transport(c.Registry, caller)
}

func (c *Cluster) observeMachine(n history.Node) {
	c.Engine.Record(history.Record{Node: &n})
	if n.Event == "notready" {
		c.Engine.Wake("node-lifecycle", kube.NodeKey(n.Node)) // a heartbeat that fails to come is no event of the API
	}
}

func (c *Cluster) observePod(p history.Pod) {
	c.Engine.Record(history.Record{Pod: &p})
	if p.ExitCode != 0 {
		c.Faults.BuildFailed(p.Name, p.Log)
	}
}

// makeRegistry makes the registry with the release's image and the topology's accounts.
func (c *Cluster) makeRegistry(open func(RegistryOptions) (Registry, error)) (err error) {
	if open == nil {
		open = NewRegistry
	}
	c.Registry, err = open(RegistryOptions{
		Options: registry.Options{
			Hosts:   []string{InternalRegistry, ReleaseRegistry},
			Observe: func(r history.Registry) { c.Engine.Record(history.Record{Registry: &r}) },
		},
		Hook: c.Faults.Answer, ErrorHook: c.Faults.Reach,
	})
	if err != nil {
		return fmt.Errorf("open the registry: %w", err)
	}
	image, err := builder.BaseImage(builder.BaseOptions{})
	if err != nil {
		return fmt.Errorf("make base image: %w", err)
	}
	digest, err := c.Registry.PutImage(baseRepository+":418.94", image)
	if err != nil {
		return fmt.Errorf("put base image: %w", err)
	}
	c.BaseImage = baseRepository + "@" + digest
	c.setAccount(scenario.Account{Name: "installer", Pull: []string{"*"}})
	for _, a := range c.topology.Accounts {
		c.setAccount(a)
	}
	return nil
}

// start starts all processes.
func (c *Cluster) start(repositories *builder.Repositories, o Options) error {
	pods := builder.Options{
		Transport: c.transport, Repositories: repositories, Before: c.Faults.Build, Observe: c.observePod, Durations: o.Durations.Build,
	}
	processes := []struct {
		name       string
		replicas   int
		components []component.Component
	}{
		{"kube", 1, kube.Components(kube.Options{Heartbeat: c.Fleet.Heartbeat})},
		{"machine-config-operator", 1, []component.Component{newOperator()}},
		{"machine-config-controller", c.topology.Controllers, []component.Component{
			render.New(render.Options{}), nodecontroller.New(nodecontroller.Options{}), drain.New(drain.Options{})}},
		{"machine-os-builder", c.topology.Builders, []component.Component{
			build.New(build.Options{Transport: c.transport("machine-os-builder")})}},
		{"node-agents", 1, c.Fleet.Components(node.ComponentOptions{Machines: true})},
		{"build-pods", 1, []component.Component{builder.New(pods)}},
		{"machine-api", 1, []component.Component{machine.New(machine.Options{
			Boot: c.boot, Remove: c.remove, Provision: o.Durations.Provision})}},
	}
	if err := c.installAPI(o.Kube); err != nil {
		return err
	}
	if o.Builds != nil {
		var err error
		if c.builds, err = o.Builds(pods); err != nil {
			return fmt.Errorf("prepare build pods: %w", err)
		}
	}
	for _, p := range processes {
		if p.name == "kube" && o.Kube || p.name == "build-pods" && o.Builds != nil {
			continue
		}
		if o.Break != nil {
			for n := range p.components {
				o.Break(&p.components[n])
			}
		}
		if err := c.Engine.Start(p.name, p.replicas, p.components...); err != nil {
			return err
		}
	}
	return nil
}

// installAPI creates definitions, where there are none yet, and namespaces.
func (c *Cluster) installAPI(defined bool) error {
	if !defined {
		crds, err := fixtures.CRDs()
		if err != nil {
			return err
		}
		for _, crd := range crds {
			if err := c.create(crd.DeepCopy()); err != nil {
				return err
			}
		}
	}
	for _, name := range Namespaces {
		if err := c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	return nil
}

// Columns returns the printer columns of the kinds that CRDs define, for the judgement of saved histories.
func Columns(gvk schema.GroupVersionKind) []apiextensionsv1.CustomResourceColumnDefinition {
	crds, err := fixtures.CRDs()
	if err != nil {
		return nil
	}
	for _, crd := range crds {
		for _, v := range crd.Spec.Versions {
			if (schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}) == gvk {
				return v.AdditionalPrinterColumns
			}
		}
	}
	return nil
}

// create creates an object. Namespaces, definitions and service accounts may be there already.
func (c *Cluster) create(o client.Object) error {
	err := c.admin.Create(context.Background(), o)
	switch o.(type) {
	case *corev1.Namespace, *apiextensionsv1.CustomResourceDefinition, *corev1.ServiceAccount:
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("create %T %s: %w", o, o.GetName(), err)
	}
	return nil
}

// foundation creates what the bundled controllers need.
func (c *Cluster) foundation(client.Client, string) error {
	objects := []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: layering.BuilderServiceAccount}},
		&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: layering.Namespace, Name: layering.ImagesConfigMap},
			Data:       map[string]string{"images.json": `{"machineConfigOperator":"` + c.builds.Image + `"}`},
		},
		&mcfgv1.ControllerConfig{
			ObjectMeta: metav1.ObjectMeta{
				Name:        layering.ControllerConfigName,
				Annotations: map[string]string{layering.ReleaseImageVersion: "4.18.0", layering.Prefix + "generated-by-version": "layersim"},
			},
			Spec: mcfgv1.ControllerConfigSpec{
				ClusterDNSIP: "172.30.0.10", BaseOSContainerImage: c.BaseImage, OSImageURL: c.BaseImage,
				KubeAPIServerServingCAData: []byte("simulated"), RootCAData: []byte("simulated"),
				ImageRegistryBundleUserData: []mcfgv1.ImageRegistryBundle{}, ImageRegistryBundleData: []mcfgv1.ImageRegistryBundle{},
				Images: map[string]string{"machineConfigOperator": c.builds.Image},
				Proxy:  c.builds.Proxy, AdditionalTrustBundle: c.builds.Trust,
				IPFamilies:   mcfgv1.IPFamiliesIPv4,
				ReleaseImage: "quay.io/openshift-release-dev/ocp-release:4.18.0",
				PullSecret:   &corev1.ObjectReference{Namespace: globalPullSecret.Namespace, Name: globalPullSecret.Name},
				Infra: &configv1.Infrastructure{
					TypeMeta:   metav1.TypeMeta{APIVersion: configv1.GroupVersion.String(), Kind: "Infrastructure"},
					ObjectMeta: metav1.ObjectMeta{Name: "cluster"},
					Spec:       configv1.InfrastructureSpec{},
					Status: configv1.InfrastructureStatus{
						InfrastructureTopology: configv1.HighlyAvailableTopologyMode, ControlPlaneTopology: configv1.HighlyAvailableTopologyMode,
						PlatformStatus: &configv1.PlatformStatus{Type: configv1.NonePlatformType},
					},
				},
			},
		},
	}
	for _, role := range []string{layering.MasterPool, layering.WorkerPool} {
		objects = append(objects, machineConfig(role))
	}
	for _, o := range objects {
		if err := c.create(o); err != nil {
			return err
		}
	}
	return nil
}

// install creates what the topology brings.
func (c *Cluster) install() error {
	for _, p := range c.topology.Pools {
		if err := c.create(pool(p)); err != nil {
			return err
		}
	}
	if err := c.WriteSecrets(c.topology.Secrets); err != nil {
		return err
	}
	for _, n := range c.topology.Nodes {
		for i := range max(n.Count, 1) {
			name := n.Name
			if n.Count > 1 {
				name += "-" + strconv.Itoa(i+1)
			}
			if err := c.Fleet.Install(node.HostSpec{Name: name, Roles: n.Roles, Zone: n.Zone, BaseImage: c.BaseImage}); err != nil {
				return err
			}
		}
	}
	for _, s := range c.topology.MachineSets {
		if err := c.create(machineSet(s)); err != nil {
			return err
		}
	}
	for _, w := range c.topology.Workloads {
		for _, o := range workload(w) {
			if err := c.create(o); err != nil {
				return err
			}
		}
	}
	for _, o := range c.topology.Objects {
		if err := c.create(o.DeepCopy()); err != nil {
			return err
		}
	}
	return nil
}

// machineConfig is the configuration that all nodes of a role have.
func machineConfig(role string) *mcfgv1.MachineConfig {
	ignition := fmt.Sprintf(`{"ignition":{"version":"3.5.0"},"storage":{"files":[{"path":"/etc/node-role","mode":420,"contents":{"source":"data:,%s"}}]}}`, role)
	return &mcfgv1.MachineConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "00-" + role, Labels: map[string]string{layering.MachineConfigRole: role}},
		Spec:       mcfgv1.MachineConfigSpec{Config: runtime.RawExtension{Raw: []byte(ignition)}},
	}
}

// pool is a MachineConfigPool. A custom one has the workers' configuration and its own, as the documentation wants it.
func pool(p scenario.Pool) *mcfgv1.MachineConfigPool {
	roles := []string{layering.WorkerPool, p.Name}
	selector := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: layering.MachineConfigRole, Operator: metav1.LabelSelectorOpIn, Values: roles}}}
	if p.Name == layering.WorkerPool || p.Name == layering.MasterPool {
		selector = &metav1.LabelSelector{MatchLabels: map[string]string{layering.MachineConfigRole: p.Name}}
	}
	o := &mcfgv1.MachineConfigPool{
		// The label is upstream's handle on one pool; its template controller selects pools by it.
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Labels: map[string]string{"pools.operator.machineconfiguration.openshift.io/" + p.Name: ""}},
		Spec: mcfgv1.MachineConfigPoolSpec{
			MachineConfigSelector: selector, Paused: p.Paused,
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{layering.NodeRolePrefix + p.Name: ""}},
		},
	}
	if p.MaxUnavailable != "" {
		most := intstr.Parse(p.MaxUnavailable)
		o.Spec.MaxUnavailable = &most
	}
	return o
}

func workload(w scenario.Workload) []client.Object {
	labels := map[string]string{"app": w.Name}
	replicas := int32(w.Replicas)
	objects := []client.Object{&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.Name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					NodeSelector: w.NodeSelector,
					Containers:   []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}},
				},
			},
		},
	}}
	if w.MinAvailable != "" {
		least := intstr.Parse(w.MinAvailable)
		objects = append(objects, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.Name},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: labels}},
		})
	}
	return objects
}

func machineSet(s scenario.MachineSet) *machinev1beta1.MachineSet {
	replicas := int32(s.Replicas)
	labels := map[string]string{"machine.openshift.io/cluster-api-machineset": s.Name}
	nodeLabels := map[string]string{}
	for _, r := range s.Roles {
		nodeLabels[layering.NodeRolePrefix+r] = ""
	}
	if s.Zone != "" {
		nodeLabels[corev1.LabelTopologyZone] = s.Zone
	}
	return &machinev1beta1.MachineSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "openshift-machine-api", Name: s.Name},
		Spec: machinev1beta1.MachineSetSpec{
			Replicas: &replicas, Selector: metav1.LabelSelector{MatchLabels: labels},
			Template: machinev1beta1.MachineTemplateSpec{
				ObjectMeta: machinev1beta1.ObjectMeta{Labels: labels},
				Spec:       machinev1beta1.MachineSpec{ObjectMeta: machinev1beta1.ObjectMeta{Labels: nodeLabels}},
			},
		},
	}
}

// boot powers a machine of the machine API on.
func (c *Cluster) boot(m *machinev1beta1.Machine) error {
	if c.Fleet.Has(m.Name) {
		return nil
	}
	return c.Fleet.Provision(node.HostSpec{Name: m.Name, Labels: m.Spec.Labels, BaseImage: c.BaseImage})
}

func (c *Cluster) remove(m *machinev1beta1.Machine) error {
	c.Fleet.Remove(m.Name)
	return nil
}

func (c *Cluster) power(on bool) func(string) {
	return func(name string) {
		for _, machine := range c.Fleet.Names() {
			if scenario.Match(name, machine) {
				if on {
					c.Fleet.PowerOn(machine)
				} else {
					c.Fleet.PowerOff(machine)
				}
			}
		}
	}
}

// setAccount makes an account of the registry with a new password.
func (c *Cluster) setAccount(a scenario.Account) {
	c.serial++
	account := registry.Account{Name: a.Name, Password: fmt.Sprintf("%s-%x", a.Name, world.Source(c.Recorder.History.Header.Seed, fmt.Sprint("password ", c.serial)).Uint64()),
		Pull: a.Pull, Push: a.Push}
	if c.password != nil {
		c.password(account.Password)
	}
	c.accounts[a.Name] = account
	c.Registry.SetAccount(account)
}

// Rotate gives an account a new password. What Secrets hold of the old one is worth nothing from now on.
func (c *Cluster) Rotate(name string) error {
	a, ok := c.accounts[name]
	if !ok {
		return fmt.Errorf("rotate %s: there is no such account", name)
	}
	c.setAccount(scenario.Account{Name: a.Name, Pull: a.Pull, Push: a.Push})
	return nil
}

// Revoke takes an account from the registry; Restore brings it back with the same password.
func (c *Cluster) Revoke(name string) error {
	if _, ok := c.accounts[name]; !ok {
		return fmt.Errorf("revoke %s: there is no such account", name)
	}
	c.Registry.RemoveAccount(name)
	return nil
}

// Restore brings a revoked account back.
func (c *Cluster) Restore(name string) error {
	a, ok := c.accounts[name]
	if !ok {
		return fmt.Errorf("restore %s: there is no such account", name)
	}
	c.Registry.SetAccount(a)
	return nil
}

// WriteSecrets writes accounts' present credentials into Secrets.
func (c *Cluster) WriteSecrets(list []scenario.SecretFrom) error {
	for _, s := range list {
		err := c.writeSecret(s)
		for n := 0; n < 5 && (apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err)); n++ {
			err = c.writeSecret(s) // the operator was at it, too
		}
		if err != nil {
			return fmt.Errorf("secret %s/%s: %w", s.Namespace, s.Name, err)
		}
	}
	return nil
}

func (c *Cluster) writeSecret(s scenario.SecretFrom) error {
	ctx := context.Background()
	if s.Host == "" {
		s.Host = InternalRegistry
	}
	account, ok := c.accounts[s.Account]
	if !ok {
		if s.Account != "" {
			return fmt.Errorf("there is no account %s", s.Account)
		}
		account = registry.Account{Name: "nobody", Password: "nothing"}
	}
	secret := &corev1.Secret{}
	err := c.admin.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Name}, secret)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	fresh := err != nil
	if fresh {
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}, Type: corev1.SecretTypeDockerConfigJson}
		if strings.Contains(s.Name, "dockercfg") {
			secret.Type = corev1.SecretTypeDockercfg
		}
	}
	if secret.Type == corev1.SecretTypeDockercfg {
		secret.Data = map[string][]byte{corev1.DockerConfigKey: registry.DockerCfg(s.Host, account)}
	} else {
		secret.Data = map[string][]byte{corev1.DockerConfigJsonKey: registry.DockerConfigJSON(s.Host, account)}
	}
	if fresh {
		return c.admin.Create(ctx, secret)
	}
	return c.admin.Update(ctx, secret)
}

// Rest lets the cluster run until nothing has changed for the time quiet, or nothing can happen any more.
func (c *Cluster) Rest(quiet, within time.Duration) error {
	seen, last := 0, c.Engine.Elapsed()
	limit := last + within
	for {
		outcome, err := c.Engine.Step()
		if err != nil {
			return err
		}
		if outcome == world.DeadEnd {
			return nil
		}
		records := c.Recorder.History.Records
		for ; seen < len(records); seen++ {
			if Moves(&records[seen]) {
				last = records[seen].Time
			}
		}
		switch now := c.Engine.Elapsed(); {
		case now-last >= quiet && !c.Engine.Busy():
			return nil
		case now > limit:
			return fmt.Errorf("not at rest after %s", within)
		}
	}
}

// Moves reports whether a record shows that the cluster is not at rest: an object, a machine or the scenario moved.
// Events and Leases don't count, and neither do errors: a component that fails for ever changes nothing.
func Moves(r *history.Record) bool {
	switch { // a record has no kind before the recorder has it
	case r.Change != nil:
		return r.Change.GVK.Kind != "Event" && r.Change.GVK.Kind != "Lease"
	case r.Node != nil, r.Pod != nil, r.Fault != nil:
		return true
	case r.Step != nil:
		return r.Step.Event == check.Begin || r.Step.Event == check.Did
	}
	return false
}

// comeUp waits until all pools are updated and nothing moves any more.
func (c *Cluster) comeUp() error {
	timing := c.Engine.Timing()
	limit := c.Engine.Elapsed() + timing.Within(bringUp)
	for {
		if err := c.Rest(timing.BringUp, limit-c.Engine.Elapsed()); err != nil {
			return err
		}
		waiting, err := c.outdated()
		// In virtual time nothing will happen after a rest; controllers of other releases may take longer pauses.
		if err != nil || waiting == "" {
			return err
		}
		if timing.Patience == 0 || c.Engine.Elapsed() > limit {
			return errors.New(waiting)
		}
	}
}

// outdated says which pool isn't updated or that machines are missing; empty when all is well.
func (c *Cluster) outdated() (string, error) {
	var pools mcfgv1.MachineConfigPoolList
	if err := c.admin.List(context.Background(), &pools); err != nil {
		return "", err
	}
	for _, p := range pools.Items {
		updated := false
		for _, condition := range p.Status.Conditions {
			updated = updated || condition.Type == mcfgv1.MachineConfigPoolUpdated && condition.Status == corev1.ConditionTrue
		}
		if !updated && !p.Spec.Paused {
			return fmt.Sprintf("pool %s is not updated: %+v", p.Name, p.Status.Conditions), nil
		}
	}
	var nodes corev1.NodeList
	if err := c.admin.List(context.Background(), &nodes, client.HasLabels{layering.NodeRolePrefix + layering.WorkerPool}); err != nil {
		return "", err
	}
	want := 0
	for _, n := range c.topology.Nodes {
		if slices.Contains(n.Roles, layering.WorkerPool) {
			want += max(n.Count, 1)
		}
	}
	for _, s := range c.topology.MachineSets {
		if slices.Contains(s.Roles, layering.WorkerPool) {
			want += s.Replicas
		}
	}
	if len(nodes.Items) < want {
		return fmt.Sprintf("%d of %d workers have joined", len(nodes.Items), want), nil
	}
	return "", nil
}
