// Package layering is the vocabulary that the layering controllers share: the names, labels and annotations of the
// machine-config-operator's API, which pools a node belongs to, and how far a node is with an update.
//
// All names are upstream's, so that the controllers can stand in for upstream's and nodes, scripts and people that
// know one know the other.
package layering

// Namespace is where build pods, their Secrets and ConfigMaps, and leases live.
const Namespace = "openshift-machine-config-operator"

// Prefix is the common prefix of the annotations and labels below.
const Prefix = "machineconfiguration.openshift.io/"

// Annotations of nodes. See the machine-config-daemon's contract.
const (
	CurrentConfig    = Prefix + "currentConfig"
	DesiredConfig    = Prefix + "desiredConfig"
	CurrentImage     = Prefix + "currentImage"
	DesiredImage     = Prefix + "desiredImage"
	State            = Prefix + "state"
	Reason           = Prefix + "reason"
	PostConfigAction = Prefix + "post-config-action"
	DesiredDrain     = Prefix + "desiredDrain"
	LastAppliedDrain = Prefix + "lastAppliedDrain"
	FirstPivotConfig = Prefix + "firstPivotConfig"
	ControlPlaneTopo = Prefix + "controlPlaneTopology"
)

// Values of the annotation [State].
const (
	StateDone           = "Done"
	StateWorking        = "Working"
	StateDegraded       = "Degraded"
	StateUnreconcilable = "Unreconcilable"
)

// Rebooting is the value of the annotation [PostConfigAction] from just before a reboot until the daemon's first sync
// after it.
const Rebooting = "Rebooting"

// The verbs of the drain handshake; the annotation's value is VERB-<config name>.
const (
	DrainVerb    = "drain"
	UncordonVerb = "uncordon"
)

// Annotations of MachineOSConfigs.
const (
	CurrentBuild = Prefix + "current-machine-os-build"
	Rebuild      = Prefix + "rebuild"
)

// Annotations of MachineOSBuilds.
const (
	JobUID             = Prefix + "job-uid"
	RenderedPushSecret = Prefix + "rendered-image-push-secret"
)

// Labels of MachineOSBuilds and of what a build needs.
const (
	TargetPool        = Prefix + "target-machine-config-pool"
	RenderedConfig    = Prefix + "rendered-machine-config"
	OSConfig          = Prefix + "machine-os-config"
	OSBuild           = Prefix + "machine-os-build"
	OnClusterLayering = Prefix + "on-cluster-layering"
	EphemeralBuild    = Prefix + "ephemeral-build-object"
)

// Annotations of MachineConfigs and of the ControllerConfig.
const (
	GeneratedByController = Prefix + "generated-by-controller-version"
	ReleaseImageVersion   = Prefix + "release-image-version"
)

// Labels that tie MachineConfigs and nodes to roles.
const (
	MachineConfigRole = Prefix + "role"
	NodeRolePrefix    = "node-role.kubernetes.io/"
)

// The pools that every cluster has.
const (
	MasterPool = "master"
	WorkerPool = "worker"
)

// UpdateInProgressTaint is put, with effect PreferNoSchedule, on a node that is waiting to be updated.
const UpdateInProgressTaint = "UpdateInProgress"

// Names of fixed objects.
const (
	ControllerConfigName    = "machine-config-controller"
	ImagesConfigMap         = "machine-config-operator-images"
	GlobalPullSecretCopy    = "global-pull-secret-copy"
	BuilderServiceAccount   = "machine-os-builder"
	ImageBuildDegraded      = "ImageBuildDegraded" // condition type of MachineConfigPool
	DefaultBasePullSecret   = GlobalPullSecretCopy
	InternalRegistryService = "image-registry.openshift-image-registry.svc:5000"
)

// Names of what belongs to a MachineOSBuild.
func JobName(build string) string            { return "build-" + build }
func ContainerfileName(build string) string  { return "containerfile-" + build }
func MachineConfigName(build string) string  { return "mc-" + build }
func TrustBundleName(build string) string    { return "additionaltrustbundle-" + build }
func PolicyName(build string) string         { return "etc-policy-" + build }
func RegistriesName(build string) string     { return "etc-registries-" + build }
func BasePullSecretName(build string) string { return "base-" + build }
func PushSecretName(build string) string     { return "final-" + build }
func DigestName(build string) string         { return "digest-" + build }
